"""``sk-asd score``."""

import functools

import numpy as np
import pandas as pd
import pytest

from sk_asd.datasets import load_clips
from sk_asd.metrics import anomaly_score
from sk_asd.persistence._models import load_model
from sk_asd.utils import _system


@pytest.fixture(scope="module")
def table(scores):
    return pd.read_csv(scores, dtype={"section": str})


def test_columns_and_values(folder, model, table):
    assert table.columns.tolist() == [
        *("path", "machine", "section", "domain", "label", "score", "threshold", "decision")
    ]
    clips = load_clips(folder)
    clips = clips[clips["split"] == "test"]
    assert [str(folder / path) for path in table["path"]] == clips["path"].tolist()
    for column in ("machine", "section", "domain", "label"):
        assert table[column].tolist() == clips[column].tolist()
    pipeline, _ = load_model(model)
    np.testing.assert_array_equal(table["score"], pipeline.score_samples(clips))
    np.testing.assert_array_equal(table["decision"], pipeline.predict(clips))
    np.testing.assert_array_equal(table["decision"] == 1, table["score"] >= table["threshold"])


def test_planted_anomalies_are_found(table):
    normal, anomaly = (table["score"][table["label"] == label] for label in ("normal", "anomaly"))
    assert anomaly.max() < normal.min()
    assert (table["decision"][table["label"] == "anomaly"] == -1).all()


def test_result_line_and_chunks(run, folder, model, scores, tmp_path, monkeypatch):
    monkeypatch.setattr(_system, "chunks", functools.partial(_system.chunks, size=7))
    status, out, _ = run("score", model, folder, "--out", tmp_path / "scores.csv")
    assert status == 0
    anomalies = int((pd.read_csv(scores)["decision"] == -1).sum())
    assert out == f"24 clips scored, {anomalies} called anomalous: {tmp_path / 'scores.csv'}\n"
    # How many clips are in memory at a time must not show.
    a, b = pd.read_csv(scores), pd.read_csv(tmp_path / "scores.csv")
    np.testing.assert_allclose(a.pop("score"), b.pop("score"), rtol=1e-9)
    np.testing.assert_allclose(a.pop("threshold"), b.pop("threshold"), rtol=1e-9)
    pd.testing.assert_frame_equal(a, b)


@pytest.mark.parametrize(("split", "count"), [("train", 20), ("all", 44)])
def test_splits_and_machines(run, folder, model, tmp_path, split, count):
    out_file = tmp_path / "scores.csv"
    status, out, _ = run("score", model, folder, "--out", out_file, "--split", split, "--quiet")
    assert status == 0
    assert out.startswith(f"{count} clips scored")
    run("score", model, folder, "--out", out_file, "--split", split, "--machine", "valve")
    table = pd.read_csv(out_file)
    assert set(table["machine"]) == {"valve"}
    assert len(table) == count // 2


def test_official_files(run, folder, model, tmp_path):
    official = tmp_path / "official" / "team"
    argv = ["score", model, folder, "--out", tmp_path / "scores.csv", "--dcase", official]
    assert run(*argv)[0] == 0
    assert sorted(p.name for p in official.iterdir()) == [
        "anomaly_score_fan_section_00_test.csv",
        "anomaly_score_valve_section_00_test.csv",
        "decision_result_fan_section_00_test.csv",
        "decision_result_valve_section_00_test.csv",
    ]
    table = pd.read_csv(tmp_path / "scores.csv")
    table = table[table["machine"] == "fan"]
    expected = {path.split("/")[-1]: row for path, row in zip(table["path"], table.index)}
    lines = (official / "anomaly_score_fan_section_00_test.csv").read_bytes().decode().split("\n")
    assert lines.pop() == ""
    names = [line.split(",")[0] for line in lines]
    assert names == sorted(expected)
    values = [float(line.split(",")[1]) for line in lines]
    assert values == [-table["score"][expected[name]] for name in names]
    # The same as the estimator says, by the one function that turns the sign.
    clips = load_clips(folder)
    clips = clips[(clips["split"] == "test") & (clips["machine"] == "fan")].sort_values("path")
    pipeline, _ = load_model(model)
    np.testing.assert_allclose(sorted(values), sorted(anomaly_score(pipeline, clips)), rtol=1e-12)
    decisions = (official / "decision_result_fan_section_00_test.csv").read_text().splitlines()
    found = {line.split(",")[0]: line.split(",")[1] for line in decisions}
    assert set(found.values()) == {"0", "1"}
    assert all(found[n] == "1" for n in found if "anomaly" in n)


def test_cache_and_workers(run, folder, model, scores, tmp_path):
    argv = ["--out", tmp_path / "s.csv", "--cache-dir", tmp_path / "cache", "--n-jobs", 2]
    assert run("score", model, folder, *argv, "--quiet")[0] == 0
    assert list((tmp_path / "cache").iterdir())
    assert (tmp_path / "s.csv").read_text() == scores.read_text()


def test_device_needs_a_network(run, folder, model, tmp_path):
    argv = ["--out", tmp_path / "s.csv", "--device", "cpu", "--quiet"]
    status, _, err = run("score", model, folder, *argv)
    assert status == 2
    assert "--device cpu: the model has no network" in err


def test_official_files_need_test_clips(run, folder, model, tmp_path):
    argv = ["--out", tmp_path / "s.csv", "--dcase", tmp_path / "x", "--split", "all"]
    status, _, err = run("score", model, folder, *argv)
    assert status == 2
    assert "--dcase" in err
    assert "--split all" in err


def test_unseen_machine_is_one_line(run, folder, tmp_path):
    small = tmp_path / "fan.skasd"
    run("train", folder, "--system", "pooling", "--out", small, "--machine", "fan", "--quiet")
    out_file = tmp_path / "scores.csv"
    status, out, err = run("score", small, folder, "--out", out_file, "--quiet")
    assert (status, out) == (2, "")
    assert err.startswith("sk-asd: error: ")
    assert "machine='valve', section='00' was not seen in training" in err
    assert err.count("\n") == 1
    assert not out_file.exists()
    status, _, err = run("score", small, folder, "--out", out_file, "--machine", "fan", "--quiet")
    assert (status, err) == (0, "")


def test_missing_things(run, folder, model, tmp_path):
    out_file = tmp_path / "s.csv"
    status, _, err = run("score", tmp_path / "no.skasd", folder, "--out", out_file, "--quiet")
    assert status == 2
    assert "no.skasd" in err
    status, _, err = run("score", model, tmp_path / "no", "--out", out_file, "--quiet")
    assert status == 2
    assert "No such folder" in err
    status, _, err = run("score", model, folder, "--out", tmp_path / "no" / "s.csv", "--quiet")
    assert status == 2
    assert "no does not exist" in err
    assert not list(tmp_path.iterdir())
