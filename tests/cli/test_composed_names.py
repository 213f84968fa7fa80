"""Names with marks, composed (NFC) as typed and decomposed (NFD) as macOS writes them."""

import json
import unicodedata

import numpy as np
import pandas as pd
import pytest

from sk_asd.datasets import load_clips
from sk_asd.datasets._audio import write_audio
from sk_asd.decisions import adapt
from sk_asd.ensemble import GroupedDetector
from sk_asd.metrics import read_submission, write_submission

SR = 2000
NFC, NFD = (unicodedata.normalize(form, "Lüfter") for form in ("NFC", "NFD"))
FEATURES = ["--sr", SR, "--n-fft", 256, "--hop-length", 128, "--n-mels", 12]


def make_tree(root, machine):
    rng = np.random.default_rng(0)
    time = np.arange(SR) / SR
    for split, label in (("train", "normal"), ("test", "normal"), ("test", "anomaly")):
        for i in range(6):
            y = 0.05 * rng.normal(size=SR) + 0.1 * (label == "anomaly") * np.sin(3000 * time)
            name = f"Gerät {i}.wav"
            name = unicodedata.normalize("NFD", name) if machine == NFD else name
            write_audio(root / machine / split / label / name, y, SR)
    return root


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    root = tmp_path_factory.mktemp("trees")
    return {name: make_tree(root / str(k), name) for k, name in enumerate((NFC, NFD))}


@pytest.mark.parametrize(("trained", "scored"), [(NFC, NFD), (NFD, NFC)])
def test_from_training_to_evaluation(run, trees, tmp_path, trained, scored):
    model, table = tmp_path / "model.skasd", tmp_path / "scores.csv"
    argv = ("--system", "pooling", "--out", model, *FEATURES, "--quiet")
    assert run("train", trees[trained], "--machine", scored, *argv)[0] == 0
    assert run("score", model, trees[scored], "--out", table, "--quiet")[0] == 0
    argv = ("--rules", "2020", "--machine", NFD, "--quiet")
    status, out, err = run("evaluate", table, trees[trained], *argv)
    assert (status, err) == (0, "")
    assert out.splitlines()[-1].split()[-1] == "100.00"

    watched = trees[scored] / scored
    argv = ("--model", model, "--once", "--settle", "0", "--machine", scored, "--quiet")
    status, out, _ = run("watch", watched, *argv)
    lines = [json.loads(line) for line in out.splitlines()]
    assert {line["machine"] for line in lines} == {NFC}
    assert sum(line["type"] == "score" for line in lines) == 18
    status, again, _ = run("watch", watched, *argv[:-3], "--quiet")  # by the folder's name
    assert (status, again) == (0, out)


def test_the_path_stays_as_the_disk_has_it(trees):
    clips = load_clips(trees[NFD])
    assert set(clips["machine"]) == {NFC}
    assert all(NFD in path for path in clips["path"])
    assert np.fromfile(clips["path"][0], dtype=np.uint8).size > 0


def test_two_folders_that_differ_in_nothing_else(run, tmp_path):
    """One machine, and every recording keeps its own score."""
    make_tree(make_tree(tmp_path / "both", NFC), NFD)
    clips = load_clips(tmp_path / "both")
    assert set(clips["machine"]) == {NFC}
    model, table = tmp_path / "model.skasd", tmp_path / "scores.csv"
    argv = ("--system", "pooling", "--out", model, *FEATURES, "--quiet")
    assert run("train", tmp_path / "both", *argv)[0] == 0
    assert run("score", model, tmp_path / "both", "--out", table, "--quiet")[0] == 0
    status, out, err = run("evaluate", table, tmp_path / "both", "--rules", "2020", "--quiet")
    assert (status, err) == (0, "")
    assert out.splitlines()[-1].split()[-1] == "100.00"


@pytest.mark.parametrize("listed", [False, True])
def test_ground_truth(tmp_path, listed):
    for i in range(2):
        path = tmp_path / "data" / NFD / "test" / f"section_00_{i:04d}.wav"
        write_audio(path, np.zeros(8), SR)
    rows = "section_00_0000.wav,{0}\nsection_00_0001.wav,{1}\n"
    truth = tmp_path / f"ground_truth_{NFC}_section_00_test.csv"
    text = rows.format(0, 1)
    if listed:
        truth = tmp_path / "eval_data_list.csv"
        names = (f"section_00_source_test_{label}_0000.wav" for label in ("normal", "anomaly"))
        text = f"{NFC}\n" + rows.format(*names)
    truth.write_text(text, encoding="utf-8")
    clips = load_clips(tmp_path / "data", ground_truth=truth)
    assert clips["label"].tolist() == ["normal", "anomaly"]


@pytest.mark.parametrize(("written", "read"), [(NFC, NFD), (NFD, NFC)])
def test_submissions(tmp_path, written, read):
    def clips(machine):
        names = [unicodedata.normalize("NFD", f"é{i}.wav") for i in range(2)]
        names = names if machine == NFD else [unicodedata.normalize("NFC", n) for n in names]
        return pd.DataFrame({"path": names, "machine": machine, "section": "00"})

    for file in write_submission(clips(written), [0.5, 0.25], [1, -1], tmp_path):
        file.rename(file.with_name(unicodedata.normalize("NFD", file.name)))
    found = read_submission(tmp_path, clips(read))
    assert found.to_dict("list") == {"score": [0.5, 0.25], "decision": [1, -1]}


def test_groups():
    def clips(machine):
        return pd.DataFrame({"x": np.arange(6.0), "machine": machine, "section": "00"})

    detector = GroupedDetector(by=["machine", "section"]).fit(clips(NFD))
    expected = detector.score_samples(clips(NFD))
    np.testing.assert_array_equal(detector.score_samples(clips(NFC)), expected)
    other = unicodedata.normalize("NFD", "Säge")
    learnt = adapt(detector, clips(other), new=[(other, "00")])
    assert len(learnt.score_samples(clips(unicodedata.normalize("NFC", other)))) == 6
