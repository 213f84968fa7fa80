"""Forged files run nothing, touch nothing, take little, and are refused in one readable line."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
MEGABYTES = 300  # by which loading may grow the process, with threads and libraries


def names():
    """Names of all forgeries."""
    spec = importlib.util.spec_from_file_location("attacked", HERE / "attacked.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return list(module.all_forgeries())


NAMES = names()


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What every forgery did, one after the other in one process."""
    folder = tmp_path_factory.mktemp("forged")
    command = [sys.executable, str(HERE / "attacked.py"), str(folder), *NAMES]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    lost = NAMES[len(rows) :]
    assert not lost, f"{lost[0]} ended the process ({done.returncode}): {done.stderr[-500:]}"
    return {name: rest for name, *rest in rows}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_forgery(name, outcomes):
    said, grown, done = outcomes[name]
    assert not done, said
    assert grown < MEGABYTES, said
    assert len(said) < 2000
