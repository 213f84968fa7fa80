"""``sk-asd watch``: a folder and standard input, restarts, signals and half-written files."""

import argparse
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
from sklearn.pipeline import make_pipeline

import sk_asd
from sk_asd.cli import _watch
from sk_asd.datasets._audio import write_audio
from sk_asd.detectors import MahalanobisDetector
from sk_asd.ensemble import GroupedDetector
from sk_asd.features import LogMel, TimePooling
from sk_asd.persistence._models import load_model, save_model
from sk_asd.watching import StreamEvent, StreamingScorer

SR = 2000
MACHINES = {"fan": 100, "pump": 260}
QUICK = ("--once", "--settle", "0", "--poll", "0.05", "--quiet")


def hum(seconds, seed, *, machine="fan", fault=False):
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * SR)) / SR
    y = 0.1 * np.sin(2 * np.pi * MACHINES[machine] * t) + 0.02 * rng.normal(size=len(t))
    return y + 0.05 * np.sin(2 * np.pi * 700 * t) if fault else y


def grouped(names):
    rows = [(name, hum(1, seed, machine=name)) for name in names for seed in range(40)]
    clips = pd.DataFrame(rows, columns=["machine", "audio"]).assign(sr=SR, section="00")
    feature = LogMel(sr=SR, n_fft=256, hop_length=128, n_mels=12, n_jobs=1)
    detector = MahalanobisDetector(contamination=0.02, threshold="gamma")
    detector = GroupedDetector(detector, by=["machine", "section"])
    return make_pipeline(feature, TimePooling(("mean", "std")), detector).fit(clips)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "two.skasd"
    save_model(path, grouped(MACHINES), options={}, sections={name: ["00"] for name in MACHINES})
    return path


@pytest.fixture(scope="module")
def fan(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "fan.skasd"
    save_model(path, grouped(["fan"]), options={}, sections={"fan": ["00"]})
    return path


@pytest.fixture
def watch(capsys):
    """Return a function that runs the command and returns its lines."""

    def run(*argv):
        parser = argparse.ArgumentParser()
        _watch.add_parser(parser.add_subparsers())
        args = parser.parse_args(["watch", *map(str, argv)])
        assert args.run(args) == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return run


def of_type(lines, *types):
    return [line for line in lines if line["type"] in types]


def record(path, seconds=3, seed=0, **kind):
    write_audio(path, hum(seconds, seed, **kind), SR, subtype="FLOAT")
    return path


def test_recordings_of_two_machines(watch, model, tmp_path):
    for i in range(3):
        record(tmp_path / "fan" / f"{i}.wav", seed=i, fault=i > 0)
        record(tmp_path / "pump" / f"section_00_{i:04d}.wav", seed=i, machine="pump")
    record(tmp_path / "pump" / ".hidden.wav", machine="pump")
    lines = watch(tmp_path, "--model", model, "--k-of-n", 3, 4, *QUICK)
    scores = of_type(lines, "score")
    assert len(scores) == 18
    system, _ = load_model(model)
    for line in scores:
        y, sr = sf.read(tmp_path / line["path"], dtype="float32")
        start, end = round(line["start"] * SR), round(line["end"] * SR)
        clip = pd.DataFrame({"audio": [y[start:end]], "sr": sr})
        clip = clip.assign(machine=line["machine"], section=line["section"])
        assert line["machine"] == Path(line["path"]).parts[0]
        assert line["score"] == system.score_samples(clip)[0]
        assert line["threshold"] == system[-1].offsets_[line["machine"], "00"]
    alarms = of_type(lines, "alarm", "clear")
    assert [(a["type"], a["machine"], a["path"]) for a in alarms] == [
        ("alarm", "fan", os.path.join("fan", "1.wav"))
    ]
    assert (alarms[0]["start"], alarms[0]["end"]) == (0, 3)


def test_alarm_over_several_recordings_and_a_restart(watch, fan, tmp_path):
    """One window a recording; the second start knows what the first has heard."""
    folder, state = tmp_path / "in", tmp_path / "state"
    argv = (folder, "--model", fan, "--k-of-n", 3, 4, "--state", state, "--drift", 4, *QUICK)
    for i in range(2):
        record(folder / f"{i}.wav", 1, i, fault=True)
    first = watch(*argv)
    assert [line["type"] for line in first] == ["score"] * 2
    for i in range(2, 4):
        record(folder / f"{i}.wav", 1, i, fault=True)
    second = watch(*argv)
    assert [line["path"] for line in of_type(second, "score")] == ["2.wav", "3.wav"]
    (alarm,) = of_type(second, "alarm")
    assert (alarm["path"], alarm["start"], alarm["end"]) == ("2.wav", -2, 1)
    assert watch(*argv) == []
    record(folder / "3.wav", 1, 9)  # written anew
    assert [(line["type"], line["path"]) for line in watch(*argv)] == [("score", "3.wav")]
    # Another model: what has been done stays done, but its scores do not count.
    other = tmp_path / "other.skasd"
    save_model(other, grouped(["fan"]), options={"other": 1}, sections={"fan": ["00"]})
    record(folder / "4.wav", 1, 4, fault=True)
    lines = watch(folder, "--model", other, "--k-of-n", 1, 1, "--state", state, *QUICK)
    assert [line["type"] for line in lines] == ["score", "alarm"]


def test_drift(watch, fan, tmp_path):
    for i in range(4):
        y = 1.1 * hum(10, i)
        write_audio(tmp_path / f"{i}.wav", y, SR)
    lines = watch(tmp_path, "--model", fan, "--threshold=-1e9", "--drift", 20, *QUICK)
    drift = of_type(lines, "drift")
    assert [(line["path"], line["due"]) for line in drift] == [("1.wav", False), ("3.wav", True)]
    assert all(line["p_value"] < 0.01 for line in drift)


def test_half_written_recording_is_waited_for(watch, fan, tmp_path):
    whole = record(tmp_path / "whole.wav").read_bytes()
    path = tmp_path / "in" / "late.wav"
    path.parent.mkdir()
    path.write_bytes(whole[: len(whole) // 2])

    def finish():
        time.sleep(0.5)
        path.write_bytes(whole)

    writer = threading.Thread(target=finish)
    writer.start()
    lines = watch(path.parent, "--model", fan, *QUICK)
    writer.join()
    assert [line["type"] for line in lines] == ["score"] * 3


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_a_recording_that_never_becomes_whole_is_named_once(watch, fan, tmp_path, suffix):
    folder, state = tmp_path / "in", tmp_path / "state"
    folder.mkdir()
    write_audio(tmp_path / f"whole{suffix}", hum(3, 0), SR)
    whole = (tmp_path / f"whole{suffix}").read_bytes()
    argv = (folder, "--model", fan, "--state", state, "--give-up", "0.1", *QUICK)
    for size in (0, 20, len(whole) // 2, len(whole) - 1):
        (folder / f"{size}{suffix}").write_bytes(whole[:size])
    lines = watch(*argv)
    assert {line["type"] for line in lines} == {"error"}
    assert sorted(line["path"] for line in lines) == sorted(p.name for p in folder.iterdir())
    assert all(line["path"] in line["message"] for line in lines)
    assert watch(*argv) == []
    (folder / f"20{suffix}").write_bytes(whole)
    lines = watch(*argv)
    assert [(line["type"], line["path"]) for line in lines] == [("score", f"20{suffix}")] * 3


def test_recording_without_samples(watch, fan, tmp_path):
    sf.write(tmp_path / "empty.wav", np.empty(0), SR)
    (line,) = watch(tmp_path, "--model", fan, "--give-up", "0", *QUICK)
    assert line["message"] == "The sound file empty.wav holds no samples."


def test_a_header_that_lies_is_named_at_once(watch, fan, tmp_path):
    """It does not become whole; the others are scored."""
    record(tmp_path / "a.wav")
    sf.write(tmp_path / "bad.mp3", hum(3, 0), 8000)
    content = bytearray((tmp_path / "bad.mp3").read_bytes())
    at = max(content.find(b"Xing"), content.find(b"Info"))
    content[at + 8 : at + 12] = b"\xff" * 4
    (tmp_path / "bad.mp3").write_bytes(content)
    record(tmp_path / "c.wav")
    lines = watch(tmp_path, "--model", fan, "--give-up", "1000", *QUICK)
    assert [line["path"] for line in of_type(lines, "score")] == ["a.wav"] * 3 + ["c.wav"] * 3
    (line,) = of_type(lines, "error")
    assert line["path"] == "bad.mp3"
    assert "its header promises" in line["message"]


def test_limits_of_silence_and_clipping(watch, fan, tmp_path):
    write_audio(tmp_path / "a.wav", 20 * hum(3, 0), SR, subtype="FLOAT")  # beyond full scale
    for options, expected in (
        ((), "score"),
        (("--clipping", "1.5"), "clipping"),
        (("--silence", "20"), "silence"),
        (("--silence", "none", "--clipping", "none"), "score"),
    ):
        lines = watch(tmp_path, "--model", fan, *options, *QUICK)
        assert {line["type"] for line in of_type(lines, "score", "clipping", "silence")} == {
            expected
        }
    for options in (("--clipping", "0"), ("--clipping", "loud"), ("--silence", "nan")):
        with pytest.raises(SystemExit):
            watch(tmp_path, "--model", fan, *options, *QUICK)


def test_recordings_that_do_not_fit(watch, model, tmp_path):
    write_audio(tmp_path / "fan" / "rate.wav", hum(3, 0), 4000)
    record(tmp_path / "fan" / "short.wav", 0.5)
    record(tmp_path / "other" / "machine.wav")
    record(tmp_path / "fan" / "fine.wav")
    lines = watch(tmp_path, "--model", model, *QUICK)
    messages = {Path(line["path"]).stem: line["message"] for line in of_type(lines, "error")}
    assert messages.keys() == {"rate", "short", "machine"}
    assert "4000 Hz, expected 2000 Hz" in messages["rate"]
    assert "0.5 s, expected at least a window of 1 s" in messages["short"]
    assert "no machine is known; give --machine, one of fan, pump" in messages["machine"]
    assert len(of_type(lines, "score")) == 3


def test_names_of_another_section_are_not_taken_for_the_only_one(watch, fan, tmp_path):
    record(tmp_path / "section_07_0000.wav")
    (line,) = watch(tmp_path, "--model", fan, *QUICK)
    assert "section 07 is not known; give --section, one of 00" in line["message"]
    (tmp_path / "section_07_0000.wav").rename(tmp_path / "section_07_0001.wav")
    lines = watch(tmp_path, "--model", fan, "--section", "00", *QUICK)
    assert [line["type"] for line in lines] == ["score"] * 3


@pytest.mark.parametrize("labels", [("--machine", "fan", "--section", "00"), ()])
def test_model_that_does_not_note_what_it_knows(watch, fan, tmp_path, labels):
    """As sk_asd.save writes it."""
    system, _ = load_model(fan)
    path = tmp_path / "fan.skasd"
    sk_asd.save(system, path)
    record(tmp_path / "in" / "a.wav")
    lines = watch(tmp_path / "in", "--model", path, *labels, *QUICK)
    if labels:
        found = [(line["type"], line["machine"], line["section"]) for line in lines]
        assert found == [("score", "fan", "00")] * 3
    else:
        assert "'machine' has no value" in lines[0]["message"]


def test_links_in_a_circle(watch, fan, tmp_path):
    """Each recording once; a link to another folder is followed."""
    inside, outside = tmp_path / "in", tmp_path / "out"
    record(inside / "a" / "1.wav")
    record(outside / "2.wav")
    os.symlink(outside, inside / "b")
    os.symlink(inside, outside / "back")
    os.symlink("..", inside / "a" / "round")
    lines = watch(inside, "--model", fan, *QUICK)
    paths = [line["path"] for line in of_type(lines, "score")]
    # From a/round the way goes on to b, but not back.
    expected = ["a/1.wav", "b/2.wav"]
    assert sorted(set(paths)) == [os.path.join(*path.split("/")) for path in expected]
    assert len(paths) == 6


def test_lines_that_cannot_be_written_are_written_at_the_next_start(
    watch, fan, tmp_path, monkeypatch
):
    folder, state = tmp_path / "in", tmp_path / "state"
    record(folder / "a.wav")
    argv = (folder, "--model", fan, "--state", state, *QUICK)

    def full(**known):
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(_watch, "emit", full)
        with pytest.raises(OSError, match="No space left"):
            watch(*argv)
    assert [line["type"] for line in watch(*argv)] == ["score"] * 3


def test_infinite_scores_are_json(capsys):
    _watch.emit(**asdict(StreamEvent("score", 0.0, 1.0, -np.inf, -1.0)))

    def refuse(name):
        raise ValueError(name)

    line = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert line["score"] == -sys.float_info.max


def test_conditions_and_silence_of_the_line(watch, fan, tmp_path):
    y = hum(6, 0)
    y[2 * SR : 3 * SR] = 0
    write_audio(tmp_path / "a.wav", np.column_stack([np.zeros_like(y), y]), SR)
    lines = watch(tmp_path, "--model", fan, "--channel", 1, *QUICK)
    found = [(line["type"], line["start"], line["end"]) for line in lines]
    assert found == [
        ("score", 0, 1),
        ("dead", 2, None),
        ("dead", 2, 3),
        ("score", 4, 5),
        ("score", 5, 6),
    ]


class Pipe:
    """Standard input from a pipe, with a writer in another thread."""

    def __init__(self, monkeypatch, write):
        read_end, self._write_end = os.pipe()
        self._file = os.fdopen(read_end, "rb")
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(self._file))
        self._thread = threading.Thread(target=self._run, args=(write,))
        self._thread.start()

    def _run(self, write):
        with os.fdopen(self._write_end, "wb") as stream:
            write(stream)

    def join(self):
        self._thread.join()


def pcm(y):
    return np.round(32767 * y).astype("<i2")


def test_standard_input(watch, model, tmp_path, monkeypatch):
    sound = np.concatenate([hum(4, 0), hum(4, 1, fault=True), hum(6, 2)])
    left = pcm(sound)
    data = np.column_stack([left[::-1], left]).tobytes()

    def write(stream):
        for part in (data[:1], data[1:10_003], data[10_003:], b"x"):
            stream.write(part)
            stream.flush()

    pipe = Pipe(monkeypatch, write)
    argv = ("--machine", "fan", "--channels", 2, "--channel", 1, "--k-of-n", 4, 5, "--hop", 0.5)
    lines = watch("-", "--model", model, *argv, "--quiet")
    pipe.join()
    assert lines.pop() == {
        "type": "error",
        "machine": "fan",
        "section": "00",
        "message": "the last 1 bytes are no whole frame of 4 bytes",
    }
    system, _ = load_model(model)
    labels = {"machine": "fan", "section": "00"}
    scorer = StreamingScorer(system, 1.0, 0.5, k_of_n=(4, 5), sr=SR, **labels)
    events = scorer.feed(left) + scorer.finish()
    assert [(e.type, e.start, e.end, e.score) for e in events] == [
        (line["type"], line["start"], line["end"], line.get("score")) for line in lines
    ]
    assert [line["type"] for line in of_type(lines, "alarm", "clear")] == ["alarm", "clear"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_while_standard_input_is_silent(watch, fan, monkeypatch, number):
    before = signal.getsignal(number)

    def write(stream):
        stream.write(pcm(hum(2.5, 0)).tobytes())
        stream.flush()
        time.sleep(0.5)
        os.kill(os.getpid(), number)
        time.sleep(0.5)

    pipe = Pipe(monkeypatch, write)
    lines = watch("-", "--model", fan, "--quiet")
    pipe.join()
    assert [line["end"] for line in lines] == [1, 2]
    assert signal.getsignal(number) is before


@pytest.mark.slow
def test_a_process_that_is_stopped_and_started_again(fan, tmp_path):
    """Recordings that arrive while it runs; SIGTERM in the middle; nothing lost, nothing twice."""
    folder, state = tmp_path / "in", tmp_path / "state"
    for i in range(3):
        record(folder / f"{i}.wav", seed=i)
    code = (
        "import argparse, sys; from sk_asd.cli import _watch; p = argparse.ArgumentParser();"
        "_watch.add_parser(p.add_subparsers()); a = p.parse_args(sys.argv[1:]); sys.exit(a.run(a))"
    )
    argv = ["watch", folder, "--model", fan, "--state", state, "--poll", "0.05", "--settle", "0"]
    command = [sys.executable, "-c", code, *map(str, argv), "--quiet"]
    lines = []
    for start in range(2):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            lines.append(process.stdout.readline())
            if start == 0:
                for i in range(3, 9):
                    record(folder / f"{i}.wav", seed=i)
                process.send_signal(signal.SIGTERM)
            else:
                while len(lines) < 27:
                    lines.append(process.stdout.readline())
                process.send_signal(signal.SIGTERM)
            lines += process.stdout.readlines()
        assert process.returncode == 0
        assert all(line.endswith("}\n") for line in lines)
    found = [(line["path"], line["start"]) for line in map(json.loads, lines)]
    assert found == [(f"{i}.wav", second) for i in range(9) for second in range(3)]


def test_wrong_options(watch, model, fan, tmp_path):
    def refuses(error, match, *argv):
        with pytest.raises(error, match=match):
            watch(*argv, "--quiet")

    refuses(FileNotFoundError, "No such folder", tmp_path / "none", "--model", model)
    refuses(NotADirectoryError, "found a file", fan, "--model", model)
    stdin = ("-", "--model", model)
    refuses(ValueError, "--state is for a folder", *stdin, "--state", "x")
    refuses(ValueError, "there are --channels 1", *stdin, "--channel", 1)
    refuses(ValueError, "--machine car: the model knows fan, pump", *stdin, "--machine", "car")
    refuses(ValueError, "no machine is known", *stdin)
    refuses(ValueError, "expected K of at most N", *stdin, "--k-of-n", 3, 2)
    refuses(SystemExit, "2", *stdin, "--drift", 1)
    refuses(SystemExit, "2", *stdin, "--channel", -1)
    refuses(SystemExit, "2", *stdin, "--threshold", "nan")
    folder = (tmp_path, "--model", fan, "--state")
    refuses(FileNotFoundError, "does not exist", *folder, tmp_path / "a" / "b")
    other = tmp_path / "other"
    other.write_text("no database, but long enough to be looked at" * 100)
    refuses(ValueError, "is no state of", *folder, other)
    with sqlite3.connect(tmp_path / "sql") as database:
        database.execute("CREATE TABLE done (something TEXT)")
    database.close()
    refuses(ValueError, "sql is no state of this version", *folder, tmp_path / "sql")
