"""``sk-asd check``."""

import shutil

import numpy as np
import pytest

from sk_asd.datasets._audio import write_audio


def test_clean_folder(run, folder):
    status, out, err = run("check", folder, "--n-jobs", 2)
    assert status == 0
    # 44 clips of one second.
    assert out == "44 clips, 2 machines, 2 sections, 0.01 hours: no findings\n"
    assert "reading 44 files" in err


def test_quiet_says_only_the_result(run, folder):
    status, out, err = run("check", folder, "--quiet")
    assert (status, err) == (0, "")
    assert out.count("\n") == 1


@pytest.fixture
def spoilt(folder, tmp_path):
    """Copy of the folder with three bad recordings."""
    root = tmp_path / "dev_data"
    shutil.copytree(folder, root)
    train = root / "fan" / "train"
    first, second, third = sorted(train.iterdir())[:3]
    first.write_bytes(b"no sound")
    write_audio(second, np.zeros(16000), 16000)
    write_audio(third, 0.1 * np.random.default_rng(0).normal(size=8000), 8000)
    return root


def test_findings(run, spoilt):
    status, out, _ = run("check", spoilt, "--quiet")
    assert status == 1
    lines = out.splitlines()
    assert lines[0].split() == ["path", "problem", "detail"]
    found = {tuple(line.split()[:2]) for line in lines[1:-2]}
    name = "fan/train/section_00_source_train_normal_000{}_vel_{}.wav"
    assert (name.format(0, 0), "unreadable") in found
    assert (name.format(1, 1), "silent") in found
    assert (name.format(2, 0), "sample_rate") in found
    assert lines[-1].startswith("44 clips, 2 machines, 2 sections, 0.01 hours: ")
    assert lines[-1].endswith(f"{len(found)} findings")


def test_expected_rate(run, folder):
    status, out, _ = run("check", folder, "--sr", 48000, "--quiet")
    assert status == 1
    assert out.endswith("44 findings\n")


def test_unknown_name_is_a_finding(run, folder, tmp_path):
    root = tmp_path / "dev_data"
    shutil.copytree(folder, root)
    write_audio(root / "fan" / "odd.wav", 0.1 * np.random.default_rng(1).normal(size=16000), 16000)
    status, out, err = run("check", root, "--quiet")
    assert status == 1
    assert out.splitlines()[1].split()[:2] == ["fan/odd.wav", "unknown_name"]
    assert out.endswith("1 finding\n")
    assert err == ""


@pytest.mark.parametrize(("name", "match"), [("nowhere", "No such folder"), ("", "No recordings")])
def test_no_recordings(run, tmp_path, name, match):
    status, out, err = run("check", tmp_path / name)
    assert (status, out) == (2, "")
    assert match in err
    assert "Traceback" not in err
