"""``sk-asd watch``: one bad recording, a missing option, a damaged state, SIGKILL."""

import contextlib
import itertools
import json
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pytest

from sk_asd.cli import _watch, main
from sk_asd.datasets._audio import write_audio
from sk_asd.watching import _folder

SR = 2000
FEATURES = ["--sr", SR, "--n-fft", 256, "--hop-length", 128, "--n-mels", 12]
QUICK = ("--once", "--settle", "0", "--poll", "0.05", "--give-up", "0", "--quiet")


def hum(seed, seconds=1):
    rng = np.random.default_rng(seed)
    time = np.arange(seconds * SR) / SR
    return 0.1 * np.sin(2 * np.pi * 100 * time) + 0.02 * rng.normal(size=len(time))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Model of two machines."""
    root = tmp_path_factory.mktemp("model")
    for machine, i in itertools.product(("fan", "pump"), range(20)):
        write_audio(root / "data" / machine / "train" / f"{i}.wav", hum(i), SR)
    argv = ["train", root / "data", "--system", "pooling", *FEATURES, "--out", root / "m.skasd"]
    assert main([*map(str, argv), "--quiet"]) == 0
    return root / "m.skasd"


@pytest.fixture
def incoming(tmp_path):
    for i in range(4):
        write_audio(tmp_path / "incoming" / f"{i}.wav", hum(i), SR)
    return tmp_path / "incoming"


@pytest.fixture
def watch(run, model, tmp_path):
    """Return a function that watches, with a state, and returns types and paths."""

    def watch(folder, *argv):
        argv = (folder, "--model", model, "--state", tmp_path / "watch.state", *argv, *QUICK)
        status, out, err = run("watch", *argv)
        assert (status, err) == (0, "")
        watch.lines = [json.loads(line) for line in out.splitlines()]
        return [(line["type"], line["path"]) for line in watch.lines]

    return watch


SCORED = [("score", f"{i}.wav") for i in range(4)]
FAILED = [("error", f"{i}.wav") for i in range(4)]


def test_the_option_that_is_asked_for_scores_every_recording(watch, incoming):
    """The README's own line, and the correction that its errors ask for."""
    for _ in range(2):  # said at every start
        assert watch(incoming) == FAILED
        assert all("give --machine, one of fan, pump" in line["message"] for line in watch.lines)
    assert watch(incoming, "--machine", "pump") == SCORED
    assert watch(incoming, "--machine", "pump") == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (("--channel", "1"), "there is no channel 1"),
        (("--window", "5"), "expected at least a window of 5 s"),
        (("--section", "07"), "--section 07: the model knows 00"),
        (("--machine", "car"), "--machine car: the model knows fan, pump"),
        (("--hop", "0.00001"), "hop"),
    ],
)
def test_other_options(watch, incoming, wrong, message):
    fan = () if "--machine" in wrong else ("--machine", "fan")
    assert watch(incoming, *fan, *wrong) == FAILED
    assert all(message in line["message"] for line in watch.lines)
    assert watch(incoming, "--machine", "fan") == SCORED


@pytest.mark.parametrize("error", [RuntimeError("odd"), MemoryError(), KeyError("k"), OSError(5)])
def test_whatever_happens_the_next_recording_is_scored(watch, incoming, monkeypatch, error):
    with monkeypatch.context() as patch:
        info = _folder.audio_info

        def fail(path):
            if path.name == "1.wav":
                raise error
            return info(path)

        patch.setattr(_folder, "audio_info", fail)
        found = watch(incoming, "--machine", "fan")
    assert sorted(found) == sorted([FAILED[1], *SCORED[:1], *SCORED[2:]])
    (line,) = (line for line in watch.lines if line["type"] == "error")
    assert "1.wav" in line["message"]
    assert watch(incoming, "--machine", "fan") == [SCORED[1]]  # it may be mended now


def test_a_disk_that_comes_back(model, incoming, monkeypatch, capsys):
    """Named once, and tried at every look."""
    info, calls = _folder.audio_info, []

    def fail(path):
        calls.append(path.name)
        if path.name == "1.wav" and calls.count("1.wav") < 5:
            raise OSError(5, "Input/output error")
        return info(path)

    class Done(BaseException):
        pass

    def emit(emit=_watch.emit, **known):
        emit(**known)
        if known["path"] == "1.wav" and known["type"] != "error":
            raise Done

    monkeypatch.setattr(_folder, "audio_info", fail)
    monkeypatch.setattr(_watch, "emit", emit)
    argv = (incoming, "--model", model, "--machine", "fan", *QUICK[1:])
    with pytest.raises(Done):
        main(["watch", *map(str, argv)])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    of_it = [line["type"] for line in lines if line["path"] == "1.wav"]
    assert of_it == ["error", "score"]


def test_a_broken_recording_is_named_once_and_again_when_it_changes(watch, incoming):
    path = incoming / "1.wav"
    whole = path.read_bytes()
    path.write_bytes(whole[:1000])
    assert sorted(watch(incoming, "--machine", "fan")) == sorted(
        [FAILED[1], *SCORED[:1], *SCORED[2:]]
    )
    assert watch(incoming, "--machine", "fan") == []
    path.write_bytes(whole)
    assert watch(incoming, "--machine", "fan") == [SCORED[1]]


def change_a_row(path):
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE done SET path = ? WHERE path = ?", (b"9.wav", b"1.wav"))


def change_a_stream(path):
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE streams SET state = replace(state, '1', '2')")


def drop_a_table(path):
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("DROP TABLE streams")


def flip(path):
    content = bytearray(path.read_bytes())
    place = content.index(b"2.wav")
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("channels", [1, 2])
def test_a_header_that_lies_is_named_at_once(run, model, incoming, channels):
    """Not after --give-up, and the others are scored."""
    write_audio(incoming / "lie.flac", np.zeros((800, channels)), SR)
    content = bytearray((incoming / "lie.flac").read_bytes())
    content[21] |= 0x0F  # of the number of samples, which has 36 bits
    (incoming / "lie.flac").write_bytes(content)
    argv = (incoming, "--model", model, "--machine", "fan", "--once", "--settle", "0", "--quiet")
    status, out, err = run("watch", *argv)
    assert (status, err) == (0, "")
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["path"] for line in lines if line["type"] == "score"] == [p for _, p in SCORED]
    (line,) = (line for line in lines if line["type"] == "error")
    assert "lie.flac is damaged: its header promises 64424510240 samples" in line["message"]


DAMAGES = {
    "empty": (lambda path: path.write_bytes(b""), "is damaged: it is empty"),
    "start": (lambda path: path.write_bytes(path.read_bytes()[:60]), "no state|damaged"),
    "half": (lambda path: path.write_bytes(path.read_bytes()[: 2 * 4096]), "is damaged|disk I/O"),
    "zeros": (lambda path: path.write_bytes(bytes(path.stat().st_size)), "is no state of"),
    "other": (lambda path: path.write_text("{}\n" * 4000), "is no state of"),
    "page": (
        lambda path: path.write_bytes(path.read_bytes()[:4096] + bytes(4096) * 4),
        "is damaged: ",
    ),
    "bit": (flip, "is damaged: "),
    "row": (change_a_row, "the entry of b'9.wav' has been changed"),
    "stream": (change_a_stream, "the entry of .*fan.* has been changed"),
    "table": (drop_a_table, "streams"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_state_is_refused_and_left_as_it_is(run, watch, model, incoming, tmp_path, kind):
    """Else recordings would be scored twice, and nobody would know."""
    assert watch(incoming, "--machine", "fan") == SCORED
    state = tmp_path / "watch.state"
    shutil.copy(state, tmp_path / "copy")
    damage, message = DAMAGES[kind]
    damage(state)
    before = state.read_bytes()
    argv = (incoming, "--model", model, "--machine", "fan", "--state", state, *QUICK)
    status, out, err = run("watch", *argv)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert f"--state {state}" in err
    assert re.search(message, err), err
    assert state.read_bytes() == before
    shutil.copy(tmp_path / "copy", state)
    assert watch(incoming, "--machine", "fan") == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["copy", "incoming", "watch.state"]


@pytest.mark.slow
def test_what_a_killed_start_has_left_is_removed(watch, model, incoming, tmp_path):
    code = """
import os, signal, sys
from sk_asd.cli import main
os.link = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
main(sys.argv[1:])
"""
    state = tmp_path / "watch.state"
    argv = ["watch", incoming, "--model", model, "--state", state]
    subprocess.run([sys.executable, "-c", code, *map(str, argv)], check=False)
    assert not state.exists()
    assert list(tmp_path.glob(".tmp_*"))
    assert watch(incoming, "--machine", "fan") == SCORED
    assert not list(tmp_path.glob(".tmp_*"))


def scored(lines):
    return [line["path"] for line in map(json.loads, lines) if line["type"] == "score"]


@pytest.mark.slow
def test_killed_at_random_moments(model, tmp_path):
    """No recording is lost; at most one a kill is scored twice."""
    n_recordings, n_kills = 1000, 25
    rng = random.Random(0)
    for i in range(n_recordings):
        write_audio(tmp_path / "in" / f"{i:04d}.wav", hum(i), SR)
    argv = ["watch", tmp_path / "in", "--model", model, "--machine", "fan", "--settle", "0"]
    argv += ["--state", tmp_path / "watch.state", "--quiet"]
    command = [sys.executable, "-m", "sk_asd", *map(str, argv)]
    lines = []
    for left in range(n_kills, 0, -1):
        # A watcher that has scored all says no more: never wait for more lines than must come.
        n_lines = rng.randrange(1 + (n_recordings - len(set(scored(lines)))) // left)
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            lines += [process.stdout.readline() for _ in range(n_lines)]
            time.sleep(rng.uniform(0, 0.02))
            process.kill()
            lines += process.stdout.readlines()
    done = subprocess.run([*command, "--once"], capture_output=True, text=True, check=True)
    lines += done.stdout.splitlines()
    paths = scored(lines)
    assert not [line for line in lines if '"error"' in line]
    assert set(paths) == {f"{i:04d}.wav" for i in range(n_recordings)}
    print(f"{n_recordings} recordings, {n_kills} kills: {len(paths) - n_recordings} scored twice")
    assert len(paths) - n_recordings <= n_kills
    again = subprocess.run([*command, "--once"], capture_output=True, text=True, check=True)
    assert again.stdout == ""
