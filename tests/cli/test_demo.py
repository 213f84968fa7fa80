"""``sk-asd demo``, in miniature."""

import sys

import pandas as pd
import pytest

from sk_asd.cli import _demo

SOUNDS = {"sections": 1, "n_train": 10, "n_test": 4, "duration": 0.6}
SC = {"n_fft": 256, "n_frames": 8, "epochs": 1, "device": "cpu"}


@pytest.fixture
def small(monkeypatch):
    """Make the demo small."""
    monkeypatch.setattr(_demo, "_SOUNDS", SOUNDS)
    monkeypatch.setattr(_demo, "_SYSTEMS", {"pooling": {}, "sc": SC})


def test_whole_demo(run, small, tmp_path):
    out_dir = tmp_path / "demo"
    status, out, err = run("demo", "--out", out_dir, "--machines", "fan", "valve", "--seed", 1)
    assert status == 0, err
    assert "28 clips, 2 machines, 2 sections: no findings" in out
    assert "pooling, protocol B, dev_data: official metrics in percent" in out
    assert "sc, protocol B, dev_data: official metrics in percent" in out
    assert out.endswith(f"Report: {out_dir / 'report.html'}\n")
    for stage in ("making sounds", "checking", "pooling: training", "sc: training", "scoring"):
        assert stage in err
    assert {p.name for p in out_dir.iterdir()} == {"data", "demo.json", "report.html", "run"}
    assert (out_dir / "report.html").read_text().count("data:image/svg+xml") >= 2 * 2 * 2

    # What it leaves is what the other commands read.
    again = tmp_path / "again.csv"
    model = out_dir / "run" / "models" / "pooling" / "all.skasd"
    assert run("score", model, out_dir / "data", "--out", again, "--quiet")[0] == 0
    scores = pd.read_csv(out_dir / "run" / "scores.csv").query("system == 'pooling'")
    columns = ["path", "score", "threshold", "decision"]
    found = pd.read_csv(again)[columns]
    pd.testing.assert_frame_equal(scores[columns].reset_index(drop=True), found)
    status, tables, _ = run("evaluate", again, out_dir / "data", "--quiet")
    assert status == 0
    _, official = tables.split("\n\n")
    assert official in out


def test_again_into_the_same_folder_without_report(run, small, tmp_path, monkeypatch):
    monkeypatch.setattr(_demo, "_SYSTEMS", {"pooling": {}})
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    argv = ["demo", "--out", tmp_path / "demo", "--quiet", "--machines"]
    status, out, err = run(*argv, "fan")
    assert (status, err) == (0, "")
    assert 'pip install "sk_asd[report]"' in out
    status, again, _ = run(*argv, "fan")
    assert (status, again) == (0, out)
    run(*argv, "slider")
    recordings = (tmp_path / "demo" / "data").glob("**/*.wav")
    assert {path.parent.parent.name for path in recordings} == {"slider"}


def test_a_folder_of_others_is_left_alone(run, tmp_path):
    (tmp_path / "precious.txt").write_text("x")
    status, out, err = run("demo", "--out", tmp_path)
    assert (status, out) == (2, "")
    assert "is not empty" in err
    assert [p.name for p in tmp_path.iterdir()] == ["precious.txt"]


def test_out_that_is_a_file(run, tmp_path):
    path = tmp_path / "file"
    path.write_text("x")
    status, _, err = run("demo", "--out", path)
    assert status == 2
    assert "Traceback" not in err


def test_unknown_machine(run, tmp_path):
    status, _, err = run("demo", "--out", tmp_path / "d", "--machines", "toaster")
    assert status == 2
    assert "toaster" in err
