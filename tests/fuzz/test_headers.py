"""A thousand sound files whose headers were tampered with."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

N_MUTATIONS = 1000  # of each format
N_SAMPLES = 1600
KINDS = {
    "wav": [("PCM_16", 1), ("PCM_24", 2), ("FLOAT", 1), ("ULAW", 1), ("IMA_ADPCM", 1)],
    "flac": [("PCM_16", 1), ("PCM_24", 2), ("PCM_16", 8)],
}
TELLING = [bytes(n) for n in (1, 2, 4)]
TELLING += [b"\xff" * n for n in (1, 2, 4, 8)]
TELLING += [b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80", b"\x01\x00", b"\x01\x00\x00\x00"]
TELLING += [b"data", b"fmt ", b"RIFF", b"RIFX", b"LIST", b"fLaC", b"OggS"]


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """Bytes of sound files by format."""
    folder, rng = tmp_path_factory.mktemp("originals"), np.random.default_rng(0)
    found = {}
    for suffix, kinds in KINDS.items():
        for subtype, n_channels in kinds:
            path = folder / f"{subtype}_{n_channels}.{suffix}"
            sf.write(path, 0.1 * rng.normal(size=(N_SAMPLES, n_channels)), 16000, subtype)
            found.setdefault(suffix, []).append(path.read_bytes())
    return found


def mutated(original, rng):
    """A file with up to four changes, most of them in the header."""
    content = bytearray(original)
    for _ in range(rng.integers(1, 5)):
        length = len(content) if rng.random() < 0.1 else min(len(content), 64)
        place = int(rng.integers(length)) if length else 0
        value = TELLING[rng.integers(len(TELLING))]
        change = rng.integers(7)
        if change == 0:
            content[place : place + 1] = bytes([rng.integers(256)])
        elif change == 1 and content:
            content[place] ^= 1 << int(rng.integers(8))
        elif change == 2:
            content[place : place + len(value)] = value
        elif change == 3:
            content[place:place] = value
        elif change == 4:
            del content[place : place + int(rng.integers(1, 9))]
        elif change == 5:
            content[place:place] = content[: int(rng.integers(1, 64))]
        elif rng.random() < 0.3:
            del content[place:]
        else:
            content[place : place + 4] = rng.bytes(4)
    return bytes(content)


@pytest.mark.parametrize("suffix", KINDS)
def test_mutated_headers(suffix, originals, rng, tmp_path):
    contents = {}  # no two alike, and none as it was
    while len(contents) < N_MUTATIONS:
        original = originals[suffix][len(contents) % len(originals[suffix])]
        if (content := mutated(original, rng)) != original:
            contents[content] = None
    for i, content in enumerate(contents):
        (tmp_path / f"m{i:04d}.{suffix}").write_bytes(content)
    examine = Path(__file__).with_name("examine.py")
    lines = []
    with open(tmp_path / "found.txt", "w+") as file:
        process = subprocess.Popen([sys.executable, examine, tmp_path], stdout=file)
        try:
            status = process.wait(timeout=600)
        except subprocess.TimeoutExpired:
            status = "too slow"
        finally:
            process.kill()
            process.wait()
        file.seek(0)
        lines = [json.loads(line) for line in file]
    # After a crash or a hang the next file is to blame.
    assert (status, len(lines)) == (0, N_MUTATIONS)
    assert [line for line in lines if line[2]] == []
    # Not all are beyond reading, and not all are harmless.
    n_readable = sum(readable for _, readable, _ in lines)
    assert 0.02 * N_MUTATIONS < n_readable < 0.9 * N_MUTATIONS
