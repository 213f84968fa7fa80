"""A process of its own that takes spoilt sound files through the commands, one after the other.

``python commands.py SEED COUNT [FOLDER]``: ``check``, ``train``, ``score`` and ``watch`` of a
folder with good recordings and a spoilt one. Prints a line of JSON for every spoilt file, with the
seconds and the bytes that each command took and what went wrong, and at last a summary on standard
error. FOLDER keeps the files at fault.
"""

import contextlib
import io
import json
import resource
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

import numpy as np
import soundfile as sf
from test_headers import mutated

from sk_asd.cli import main

SR = 16000
KINDS = [
    ("wav", "PCM_16", 1),
    ("wav", "FLOAT", 1),
    ("wav", "DOUBLE", 2),
    ("wav", "IMA_ADPCM", 1),
    ("flac", "PCM_16", 1),
    ("flac", "PCM_24", 2),
    ("ogg", "VORBIS", 1),
    ("ogg", "OPUS", 2),
    ("mp3", "MPEG_LAYER_III", 1),
]
SMALL = ["--n-fft", 512, "--hop-length", 256, "--n-mels", 16, "--quiet"]
SAMPLES = [np.nan, np.inf, -np.inf, 1e38, -1e38, 1e20, 1e11, 1e300]
NUMBERS = [0, 1, 2, 3, 7, 1000, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1]


def sound(rng, n_channels=1):
    return 0.1 * rng.normal(size=(SR, n_channels))


def original(kind, rng, path):
    suffix, subtype, n_channels = kind
    sf.write(path.with_suffix(f".{suffix}"), sound(rng, n_channels), SR, subtype)
    return path.with_suffix(f".{suffix}").read_bytes()


def truncated(content, rng):
    return content[: int(rng.integers(len(content)))]


def wrong_samples(kind, rng, path):
    """A wav with some that are no numbers, or too large."""
    y = sound(rng, kind[2])
    y[rng.integers(SR, size=rng.integers(1, 9))] = rng.choice(SAMPLES)
    with np.errstate(over="ignore"):
        sf.write(path.with_suffix(".wav"), y, SR, str(rng.choice(["FLOAT", "DOUBLE"])))
    return path.with_suffix(".wav").read_bytes()


def lying(suffix, content, rng):
    """A file whose header says another rate, number of channels or length."""
    content, number = bytearray(content), int(rng.choice(NUMBERS))
    if suffix == "wav":
        place, size = [(22, 2), (24, 4), (28, 4), (32, 2), (34, 2), (4, 4), (40, 4)][
            rng.integers(7)
        ]
        at = content.find(b"data") + 4 if place == 40 else place
        content[at : at + size] = struct.pack("<I", number)[:size]
    elif suffix == "flac":
        fields = int.from_bytes(content[18:26], "big")  # rate 20, channels 3, bits 5, samples 36
        shift, width = [(44, 20), (41, 3), (36, 5), (0, 36)][rng.integers(4)]
        value = int(rng.integers(2**width))
        fields = fields & ~((2**width - 1) << shift) | value << shift
        content[18:26] = fields.to_bytes(8, "big")
    elif suffix == "ogg":
        at = content.rfind(b"OggS") if rng.random() < 0.7 else 0
        if rng.random() < 0.7:
            content[at + 6 : at + 14] = struct.pack("<Q", number << int(rng.integers(33)))
        else:  # the rate, in the header of Vorbis and of Opus
            content[40:44] = struct.pack("<I", number)
            at = 0
        with_checksum(content, at)
    else:
        at = max(content.find(b"Xing"), content.find(b"Info"))
        if at >= 0:
            content[at + 8 : at + 12] = struct.pack(">I", number)
        else:
            content[2] = int(rng.integers(256))
    return bytes(content)


def with_checksum(content, at):
    """Correct the checksum of a page of Ogg."""
    n = 27 + content[at + 26]
    page = content[at : at + n + sum(content[at + 27 : at + n])]
    page[22:26] = bytes(4)
    value = 0
    for byte in page:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1 ^ (0x104C11DB7 if value >> 31 else 0)) & 0xFFFFFFFF
    content[at + 22 : at + 26] = struct.pack("<I", value)


def spoilt(i, rng, folder):
    """Name and content of a spoilt file, and how it was spoilt."""
    kind = KINDS[i % len(KINDS)]
    way = ["bytes", "lie", "truncated", "lie", "bytes", "samples"][i // len(KINDS) % 6]
    path = folder / "original"
    if way == "samples":
        return "wav", wrong_samples(kind, rng, path), way
    content = original(kind, rng, path)
    if way == "bytes":
        return kind[0], mutated(content, rng), way
    if way == "lie":
        return kind[0], lying(kind[0], content, rng), way
    return kind[0], truncated(content, rng), way


def called(*argv):
    """Exit status and output of a command; a traceback where it does not end as it should."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main([str(arg) for arg in argv])
        except SystemExit as error:
            status = error.code
        except BaseException:
            return None, traceback.format_exc()
    return status, out.getvalue() + err.getvalue()


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def examine(folder, name, model):
    """Costs and faults of all commands."""
    costs, faults, found = {}, [], {}
    commands = {
        "check": ["check", folder],
        "train": ["train", folder, "--system", "pooling", "--out", model.with_name("t.skasd")],
        "score": ["score", model, folder, "--split", "all", "--out", model.with_name("s.csv")],
        "watch": ["watch", folder, "--model", model, "--machine", "good", "--once", "--settle", 0],
    }
    commands["train"] += SMALL
    commands["watch"] += ["--give-up", 0]
    for command, argv in commands.items():
        start, before = time.monotonic(), peak()
        status, text = called(*argv)
        costs[command] = round(time.monotonic() - start, 2), peak() - before
        found[command] = name in text
        if status is None or "Traceback" in text:
            faults.append(f"{command}: {text}")
        elif command == "watch" and (status != 0 or not found[command]):
            faults.append(f"watch: exit {status}, not named: {text[-500:]}")
        elif command != "watch" and status != 0 and not found[command]:
            faults.append(f"{command}: exit {status}, not named: {text[-500:]}")
        elif command == "train" and status != 0 and not found["check"]:
            faults.append(f"check does not name what train refuses: {text[-500:]}")
    return costs, faults


def run(seed, count, keep=None):
    rng = np.random.default_rng(seed)
    ways, slowest, largest, n_faults = Counter(), 0.0, 0, 0
    with tempfile.TemporaryDirectory() as scratch:
        good = Path(scratch, "good")
        good.mkdir()
        for i in range(6):
            sf.write(good / f"g{i}.wav", sound(rng), SR)
        model = Path(scratch, "model.skasd")
        status, text = called("train", good, "--system", "pooling", "--out", model, *SMALL)
        assert status == 0, text
        for i in range(count):
            suffix, content, way = spoilt(i, rng, Path(scratch))
            bad = good / f"spoilt{i:04d}.{suffix}"
            bad.write_bytes(content)
            costs, faults = examine(good, bad.name, model)
            if keep is not None and faults:
                Path(keep, bad.name).write_bytes(content)
            bad.unlink()
            print(json.dumps([bad.name, way, costs, faults]), flush=True)
            ways[f"{suffix} {way}"] += 1
            slowest = max(slowest, *(seconds for seconds, _ in costs.values()))
            largest = max(largest, *(grown for _, grown in costs.values()))
            n_faults += bool(faults)
    print(f"{count} files: {dict(ways)}", file=sys.stderr)
    print(
        f"{n_faults} with faults; slowest command {slowest:.1f} s, most memory of one "
        f"{largest / 2**20:.0f} MB",
        file=sys.stderr,
    )


if __name__ == "__main__":
    run(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
