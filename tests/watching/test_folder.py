"""Recordings of a folder as the streams of their machines, and what is remembered of them."""

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sk_asd.datasets._audio import write_audio
from sk_asd.detectors import MahalanobisDetector
from sk_asd.ensemble import GroupedDetector
from sk_asd.features import LogMel, TimePooling
from sk_asd.watching import FolderWatcher, StreamingScorer, StreamingScorers
from sk_asd.watching._folder_memory import _FORGET, Memory

from .conftest import SR, hum


@pytest.fixture(scope="module")
def two():
    """System of two fans; the second is louder."""
    rng = np.random.default_rng(0)
    rows = [(name, k * hum(1.0, rng)) for k, name in enumerate("ab", 1) for _ in range(60)]
    clips = pd.DataFrame(rows, columns=["machine", "audio"]).assign(sr=SR, section="00")
    return make_pipeline(
        LogMel(sr=SR, n_fft=256, hop_length=128, n_mels=12, n_jobs=1),
        TimePooling(("mean", "std")),
        GroupedDetector(MahalanobisDetector(contamination=0.02), by=["machine", "section"]),
    ).fit(clips)


@pytest.fixture
def folder(tmp_path):
    """Two recordings of three seconds; the machine is faulty from the last one of the first on."""
    rng = np.random.default_rng(1)
    sound = np.concatenate([hum(2, rng), hum(2, rng, fault=True), hum(2, rng)])
    for i, part in enumerate(np.split(sound, 2)):
        write_audio(tmp_path / "in" / f"{i}.wav", part, SR, subtype="FLOAT")
    return tmp_path / "in"


def look(scorers, folder, **options):
    events = []
    with FolderWatcher(scorers, folder, settle=0, **options) as watcher:
        assert watcher.look(events.append) == 0
        assert watcher.look(events.append) == 0  # nothing is new
    return events


def test_recordings_are_one_stream(pipeline, folder):
    """Events are those of a scorer that is fed both, with times from the start of each."""
    options = {"k_of_n": (2, 3), "hysteresis": 0.0}
    scorer = StreamingScorer(pipeline, 1.0, sr=SR, **options)
    expected = []
    for i in range(2):
        sound, _ = sf.read(folder / f"{i}.wav", dtype="float32")
        found = scorer.feed(sound) + scorer.finish()
        expected += [(e.type, e.start - 3 * i, e.end - 3 * i, e.score, f"{i}.wav") for e in found]
    events = look(StreamingScorers(pipeline, **options), folder)
    assert [(e.type, e.start, e.end, e.score, e.path) for e in events] == expected
    (alarm,) = (e for e in events if e.type == "alarm")
    assert (alarm.start, alarm.end, alarm.path) == (-1, 1, "1.wav")
    assert (alarm.machine, alarm.section, alarm.message) == (None, None, None)


@pytest.mark.parametrize(("version", "alarms"), [("1", 1), ("2", 0)])
def test_state_knows_the_last_windows_of_the_same_version(pipeline, folder, version, alarms):
    second = (folder / "1.wav").read_bytes()
    (folder / "1.wav").unlink()
    state = folder.parent / "state"
    first = look(StreamingScorers(pipeline, k_of_n=(2, 3)), folder, state=state, version="1")
    assert {e.type for e in first} == {"score"}
    (folder / "1.wav").write_bytes(second)
    again = StreamingScorers(pipeline, k_of_n=(2, 3))
    events = look(again, folder, state=state, version=version)
    assert {e.path for e in events} == {"1.wav"}
    assert [e.type for e in events].count("alarm") == alarms


@pytest.mark.parametrize("where", ["check", "event"])
def test_what_is_interrupted_is_scored_again(pipeline, folder, where):
    state, calls = folder.parent / "state", []

    def check():
        calls.append(None)
        if where == "check" and len(calls) == 4:  # in the second recording
            raise KeyboardInterrupt

    def on_event(event):
        if where == "event" and event.path == "1.wav":
            raise OSError("No space left")

    scorers = StreamingScorers(pipeline)
    raised = pytest.raises(KeyboardInterrupt if where == "check" else OSError)
    with FolderWatcher(scorers, folder, settle=0, state=state) as watcher, raised:
        watcher.look(on_event, check)
    events = look(StreamingScorers(pipeline), folder, state=state)
    assert [(e.type, e.path) for e in events] == [("score", "1.wav")] * 3


def test_folders_tell_machines(two, tmp_path):
    rng = np.random.default_rng(2)
    for name in ("a", "b", "c"):
        write_audio(tmp_path / name / "0.wav", hum(1, rng), SR, subtype="FLOAT")
    sections = {"a": ["00"], "b": ["00"]}
    events = look(StreamingScorers(two, sections=sections, threshold=0.0), tmp_path)
    told = {e.path: (e.type, e.machine, e.section) for e in events}
    assert told["a/0.wav"] == ("score", "a", "00")
    assert told["b/0.wav"] == ("score", "b", "00")
    (error,) = (e for e in events if e.type == "error")
    assert error.message == "c/0.wav: no machine is known; give machine, one of a, b."
    assert (error.path, error.start, error.score) == ("c/0.wav", None, None)
    # The louder machine is abnormal where the other one is not.
    scores = {e.machine: e.score for e in events if e.type == "score"}
    assert scores["a"] > scores["b"]


def test_wrong_channel_and_parameters(pipeline, folder):
    scorers = StreamingScorers(pipeline)
    messages = [e.message for e in look(scorers, folder, channel=1)]
    assert messages == [f"{i}.wav has 1 channel(s); there is no channel 1." for i in range(2)]
    for name in ("channel", "settle", "give_up"):
        with pytest.raises(ValueError, match=f"'{name}' parameter of FolderWatcher"):
            FolderWatcher(scorers, folder, **{name: -1})
    with pytest.raises(ValueError, match="'scorers' parameter of FolderWatcher"):
        FolderWatcher(pipeline, folder)
    other = folder.parent / "other"
    other.write_text("no database, but long enough to be looked at" * 100)
    with pytest.raises(ValueError, match=f"^state={other} is no state of a watched folder"):
        FolderWatcher(scorers, folder, state=other)


def test_names_of_the_system_and_of_the_world(two):
    sections = {"a": ["00", "01"], "b": ["00"]}
    scorers = StreamingScorers(two, sections=sections)
    assert scorers.place("a", "1") == ("a", "01")  # as csv files have them
    assert scorers.place("b") == ("b", "00")
    for said, message in (
        ((), "no machine is known; give machine, one of a, b."),
        (("c",), "machine c is not known; give machine, one of a, b."),
        (("a",), "no section is known; give section, one of 00, 01."),
    ):
        with pytest.raises(ValueError, match=message):
            scorers.place(*said)
    assert StreamingScorers(two, sections=sections, machine="b").place("a") == ("b", "00")
    with pytest.raises(ValueError, match="machine=c: the model knows a, b."):
        StreamingScorers(two, sections=sections, machine="c").place("a")
    assert StreamingScorers(two, machine="x").place("a", "00") == ("x", None)


def test_a_scorer_for_each_machine(two):
    scorers = StreamingScorers(two, n_recent=10, threshold=-1e9)
    assert (scorers.window, scorers.sr) == (1.0, SR)
    assert scorers["a", "00"] is scorers["a", "00"]
    a, b = (scorers[name, "00"] for name in "ab")
    assert a is not b
    # Each is compared with the training scores of its own machine, which is as loud for one.
    rng = np.random.default_rng(3)
    sound = 2 * hum(10, rng)
    drift = [
        [(e.start, e.end) for e in scorer.feed(sound) + scorer.finish() if e.type == "drift"]
        for scorer in (a, b)
    ]
    assert drift == [[(0, 10)], []]


def test_what_the_system_does_not_say(pipeline):
    bare = make_pipeline(FunctionTransformer(), MahalanobisDetector()).fit(np.eye(3))
    with pytest.raises(ValueError, match="does not say its sample rate: give sr"):
        StreamingScorers(bare)
    with pytest.raises(ValueError, match="does not say the length of its clips: give window"):
        StreamingScorers(bare, sr=SR)
    scorers = StreamingScorers(bare, 0.5, sr=SR)
    assert (scorers.window, scorers.sr) == (0.5, SR)


def test_memory_forgets_what_has_been_away_for_long(tmp_path):
    memory = Memory(tmp_path / "state", "1")
    for name in ("a.wav", "b.wav", "odd\udcff.wav"):
        memory.put(name, (1, 2))
    memory.forget({"b.wav"}, 0.0)
    memory.forget({"a.wav", "b.wav"}, 10.0)  # it is back
    memory.forget({"b.wav"}, 20.0)
    memory.forget({"b.wav"}, _FORGET + 15.0)
    assert memory.done.keys() == {"a.wav", "b.wav"}
    with pytest.raises(OSError, match="state: database is locked"):
        Memory(tmp_path / "state", "1")
    memory.close()
    again = Memory(tmp_path / "state", "1")
    assert again.done == {"a.wav": (1, 2), "b.wav": (1, 2)}
    again.close()
