"""``sk-asd evaluate``."""

import re
import shutil
import sys

import numpy as np
import pandas as pd
import pytest

from sk_asd.datasets import load_clips
from sk_asd.metrics import dcase_scores


def test_perfect_scores_give_100_percent(run, folder, scores):
    status, out, err = run("evaluate", scores, folder, "--quiet")
    assert (status, err) == (0, "")
    decisions, official = ([line.split() for line in t.splitlines()] for t in out.split("\n\n"))
    assert official[0] == ["machine", "section", "AUC", "source", "AUC", "target", "pAUC", "hmean"]
    assert official[1] == ["fan", "00", "100.00", "100.00", "100.00", "100.00"]
    assert official[-1][-1] == "100.00"
    assert decisions[0][2:] == ["precision", "source", "recall", "source", "F1", "source"] + (
        ["precision", "target", "recall", "target", "F1", "target"]
    )
    assert [row[:2] for row in decisions] == [row[:2] for row in official]


def test_table_is_the_official_one(run, folder, scores, tmp_path):
    # Any order of rows will do, and more columns than needed.
    rng = np.random.default_rng(0)
    table = pd.read_csv(scores, dtype=str).sample(frac=1, random_state=0)
    table["score"] = rng.normal(size=len(table))
    table["note"] = "x"
    table.to_csv(tmp_path / "mine.csv", index=False)
    out_file = tmp_path / "table.csv"
    status, out, _ = run("evaluate", tmp_path / "mine.csv", folder, "--out", out_file)
    assert status == 0
    clips = load_clips(folder)
    clips = clips[clips["split"] == "test"]
    by_path = dict(zip(table["path"], table["score"]))
    values = [by_path[p.removeprefix(f"{folder}/")] for p in clips["path"]]
    limits = dict(zip(table["path"], table["threshold"].astype(float)))
    limits = [limits[p.removeprefix(f"{folder}/")] for p in clips["path"]]
    expected = dcase_scores(clips, values, np.where(np.array(values) >= limits, 1, -1))
    assert "f1_target" in expected
    written = pd.read_csv(out_file, dtype={"section": str})
    numbers = expected.select_dtypes(float)
    np.testing.assert_allclose(written[numbers.columns], numbers)
    decisions, official = (text.splitlines() for text in out.split("\n\n"))
    assert official[-1].split()[-1] == f"{100 * numbers['hmean'].iloc[-1]:.2f}"
    assert decisions[1].split()[-1] == f"{100 * numbers['f1_target'].iloc[0]:.2f}"


def test_training_rows_do_not_count(run, folder, model, scores, tmp_path):
    run("score", model, folder, "--out", tmp_path / "all.csv", "--split", "all", "--quiet")
    assert run("evaluate", tmp_path / "all.csv", folder) == run("evaluate", scores, folder)


def test_one_machine(run, folder, scores):
    status, out, err = run("evaluate", scores, folder, "--machine", "fan", "--quiet")
    assert (status, err) == (0, "")
    for text in out.split("\n\n"):
        assert [line.split()[0] for line in text.splitlines()] == ["machine", "fan", "fan", "total"]
    status, _, err = run("evaluate", scores, folder, "--machine", "pump", "--quiet")
    assert status == 2
    assert "--machine pump" in err


def test_report(run, folder, scores, tmp_path):
    report = tmp_path / "report.html"
    status, _, err = run("evaluate", scores, folder, "--report", report)
    assert status == 0
    assert str(report) in err
    text = report.read_text(encoding="utf-8")
    assert "At the threshold" in text
    assert text.count("data:image/svg+xml") == 4


def test_report_without_thresholds(run, folder, scores, tmp_path):
    table = pd.read_csv(scores)[["path", "score"]]
    table.to_csv(tmp_path / "plain.csv", index=False)
    report = tmp_path / "report.html"
    status, out, _ = run("evaluate", tmp_path / "plain.csv", folder, "--report", report)
    assert status == 0
    assert "precision" not in out
    text = report.read_text(encoding="utf-8")
    assert "At the threshold" not in text
    assert "F1 source" not in text


def test_report_needs_its_extra_but_the_table_does_not(run, folder, scores, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    status, out, err = run("evaluate", scores, folder, "--report", tmp_path / "report.html")
    assert (status, out) == (2, "")
    assert 'pip install "sk_asd[report]"' in err
    status, out, _ = run("evaluate", scores, folder)
    assert status == 0
    assert "100.00" in out


def edit(scores, path, change):
    table = change(pd.read_csv(scores, dtype=str))
    table.to_csv(path, index=False)
    return path


NAME = r"fan/test/section_00_source_test_anomaly_0000_vel_0\.wav"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(index=0), f"has no score for {NAME}"),
        (lambda t: pd.concat([t, t[:1]]), f"several rows for {NAME}"),
        (lambda t: t.assign(path="x" + t["path"]), r"not in .*: xfan/.*\.\.\. \(24 in all\)"),
        (lambda t: t.drop(columns="score"), "lacks the column score; it has"),
        (lambda t: t.drop(columns=["path", "score"]), "lacks the column path and score"),
        (
            lambda t: t.assign(score=["", *t["score"][1:]]),
            f"score of {NAME} is no finite .*: ''",
        ),
        (lambda t: t.assign(score=["high", *t["score"][1:]]), "no finite number: 'high'"),
        (lambda t: t.assign(threshold="-inf"), "the threshold of .* no finite number: '-inf'"),
    ],
)
def test_scores_that_do_not_fit(run, folder, scores, tmp_path, change, message):
    path = edit(scores, tmp_path / "scores.csv", change)
    status, out, err = run("evaluate", path, folder, "--quiet")
    assert (status, out) == (2, "")
    assert err.startswith("sk-asd: error: ")
    assert re.search(message, err), err


@pytest.mark.parametrize("content", [b"", b"\x80binary", b"path\nfan.wav\n"])
def test_files_that_are_no_csv(run, folder, tmp_path, content):
    path = tmp_path / "scores.csv"
    path.write_bytes(content)
    status, _, err = run("evaluate", path, folder, "--quiet")
    assert status == 2
    assert "scores.csv is no csv file of scores" in err


def test_missing_csv(run, folder, tmp_path):
    status, _, err = run("evaluate", tmp_path / "no.csv", folder, "--quiet")
    assert status == 2
    assert "no.csv" in err


@pytest.fixture
def blind(folder, tmp_path):
    """Evaluation data: one machine, whose test clips tell neither label nor domain."""
    root = tmp_path / "eval_data" / "fan"
    shutil.copytree(folder / "fan" / "train", root / "train")
    (root / "test").mkdir()
    truth = []
    for i, path in enumerate(sorted((folder / "fan" / "test").iterdir())):
        name = f"section_00_{i:04d}.wav"
        shutil.copy(path, root / "test" / name)
        truth.append((name, int("anomaly" in path.name), int("target" in path.name)))
    for column, kind in ((1, "data"), (2, "domain")):
        folder = tmp_path / "truth" / f"ground_truth_{kind}"
        folder.mkdir(parents=True)
        rows = [f"{row[0]},{row[column]}\n" for row in truth]
        (folder / "ground_truth_fan_section_00_test.csv").write_text("".join(rows))
    return root.parent


def test_evaluation_set_with_ground_truth(run, model, blind, tmp_path):
    scores = tmp_path / "scores.csv"
    status, _, err = run("score", model, blind, "--out", scores, "--quiet")
    assert (status, err) == (0, "")
    assert pd.read_csv(scores)["label"].isna().all()
    status, _, err = run("evaluate", scores, blind, "--quiet")
    assert status == 2
    assert "label is unknown for" in err
    assert "--ground-truth" in err
    status, out, err = run(
        "evaluate", scores, blind, "--ground-truth", tmp_path / "truth", "--quiet"
    )
    assert (status, err) == (0, "")
    assert "100.00" in out


def test_clips_without_label_are_left_out(run, folder, scores, tmp_path):
    root = tmp_path / "d"
    shutil.copytree(folder, root)
    name = "valve/test/section_00_0000.wav"
    shutil.copy(next((folder / "valve" / "test").iterdir()), root / name)
    table = pd.read_csv(scores, dtype=str)
    table = pd.concat([table, pd.DataFrame({"path": [name], "score": ["-1e9"], "threshold": "0"})])
    table.to_csv(tmp_path / "scores.csv", index=False)
    status, out, err = run("evaluate", tmp_path / "scores.csv", root, "--quiet")
    assert status == 0
    assert err == f"sk-asd: warning: The label is unknown for {name}: left out.\n"
    assert out.splitlines()[-1].split()[-1] == "100.00"


def test_folder_without_test_clips(run, folder, scores, tmp_path):
    shutil.copytree(folder / "fan" / "train", tmp_path / "d" / "fan" / "train")
    path = tmp_path / "scores.csv"
    pd.DataFrame({"path": [], "score": []}).to_csv(path, index=False)
    status, _, err = run("evaluate", path, tmp_path / "d", "--quiet")
    assert status == 2
    assert "No test clips" in err
