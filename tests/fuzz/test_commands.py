"""Spoilt files among good ones: every command names them, none is stopped for long."""

import json
import subprocess
import sys
from pathlib import Path

N_FILES = 108


def test_spoilt_files_are_named_by_every_command(rng):
    commands = Path(__file__).with_name("commands.py")
    argv = [sys.executable, commands, str(rng.integers(2**32)), str(N_FILES)]
    done = subprocess.run(argv, stdout=subprocess.PIPE, timeout=600)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    # After a crash or a hang the next file is to blame.
    assert (done.returncode, len(lines)) == (0, N_FILES)
    assert [line for line in lines if line[3]] == []
    # No header costs a gigabyte; the first files also load the libraries.
    grown = [n_bytes for _, _, costs, _ in lines for _, n_bytes in costs.values()]
    assert max(grown) < 2**30
