"""Temporary files of commands that were killed."""

import os
import subprocess
import sys

import pytest

from sk_asd.utils._files import remove_left_over, replacing, temporary_name

DEAD = """
import os, signal, sys
os.replace = lambda *names: os.kill(os.getpid(), signal.SIGKILL)
from sk_asd.cli import main
main(sys.argv[1:])
"""


@pytest.mark.parametrize(
    "command", ["score", *(pytest.param(c, marks=pytest.mark.slow) for c in ("train", "export"))]
)
def test_the_next_command_for_the_same_output_removes_them(run, folder, model, tmp_path, command):
    argv = {
        "train": ["train", folder, "--system", "pooling", "--out", tmp_path / "out.skasd"],
        "score": ["score", model, folder, "--out", tmp_path / "out.csv"],
        "export": ["export", model, "--machine", "fan", "--clips", folder, "--out"],
    }[command]
    if command == "export":
        pytest.importorskip("onnx")
        argv.append(tmp_path / "out.onnx")
    subprocess.run([sys.executable, "-c", DEAD, *map(str, argv)], check=False)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".tmp_")
    status, _, err = run(*argv, "--quiet")
    assert (status, err) == (0, "")
    assert [path.name for path in tmp_path.iterdir()] == [argv[-1].name]


def test_only_those_that_are_surely_nobodys(tmp_path):
    """Of this file, of a process of this machine, and that process is gone."""
    path = tmp_path / "out.csv"
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()

    def left_by(process, target):
        name = temporary_name(target)
        name = name.with_name(name.name.replace(f"_{os.getpid()}_", f"_{process}_"))
        name.touch()
        return name

    dead, living = left_by(child.pid, path), left_by(os.getppid(), path)
    other = left_by(child.pid, tmp_path / "other.csv")
    place = dead.name.split("_")[1]
    elsewhere = dead.with_name(dead.name.replace(place, "01234567"))
    elsewhere.touch()
    strange = dead.with_name(dead.name.replace(f"_{child.pid}_", "_x_"))
    strange.touch()
    with replacing(path) as mine:
        mine.touch()
        remove_left_over(path)
        assert set(tmp_path.iterdir()) == {living, other, elsewhere, strange, mine}
    assert set(tmp_path.iterdir()) == {living, other, elsewhere, strange, path}
