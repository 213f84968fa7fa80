"""Streams: the same events however they are cut, the scores of offline scoring, and no more."""

import pickle

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline

from sk_asd.decisions import set_threshold
from sk_asd.detectors import MahalanobisDetector
from sk_asd.ensemble import GroupedDetector, ScoreEnsemble
from sk_asd.features import LogMel, TimePooling
from sk_asd.watching import DriftMonitor, StreamEvent, StreamingScorer
from sk_asd.watching._limits import limits_of

from .conftest import SR, hum

CONDITIONS = ("gap", "silence", "clipping", "dead")


def of_type(events, *types):
    return [event for event in events if event.type in types]


def spans(events, *types):
    """Type, start and end of conditions that are over, and of alarms."""
    return [(e.type, e.start, e.end) for e in of_type(events, *types) if e.end is not None]


def offline(pipeline, sound, starts, seconds=1.0):
    n = round(seconds * SR)
    waves = [sound[s : s + n] for s in (round(start * SR) for start in starts)]
    tables = [pd.DataFrame({"audio": [wave], "sr": SR}) for wave in waves]
    return np.array([pipeline.score_samples(table)[0] for table in tables]), pd.concat(tables)


def test_scores_are_those_of_offline_scoring(pipeline):
    sound = hum(10.25, np.random.default_rng(1))
    scorer = StreamingScorer(pipeline, 1.0, 0.3, sr=SR)
    events = [e for part in np.array_split(sound, 37) for e in scorer.feed(part)]
    events += scorer.finish()
    assert {e.type for e in events} == {"score"}
    starts = 0.3 * np.arange(31)
    np.testing.assert_allclose([e.start for e in events], starts)
    np.testing.assert_allclose([e.end for e in events], starts + 1)
    alone, table = offline(pipeline, sound, starts)
    scores = [e.score for e in events]
    np.testing.assert_array_equal(scores, alone)
    np.testing.assert_allclose(scores, pipeline.score_samples(table), rtol=1e-9)
    assert {e.threshold for e in events} == {pipeline[-1].offset_}


@pytest.mark.slow
def test_ten_minutes_with_planted_faults(pipeline):
    """Alarms where faults are planted, conditions where the line is cut, and nothing else."""
    rng = np.random.default_rng(2)
    sound = hum(600, rng)
    for start, stop in ((100, 130), (400, 420)):
        sound[start * SR : stop * SR] = hum(stop - start, rng, fault=True)
    sound[200 * SR : 220 * SR] = 0.25  # a stuck converter
    sound[250 * SR : 252 * SR] = np.nan
    sound[300 * SR : 310 * SR] = 1e-6 * rng.normal(size=10 * SR)
    sound[350 * SR : 351 * SR] = np.clip(50 * sound[350 * SR : 351 * SR], -1, 1)
    scorer = StreamingScorer(pipeline, 1.0, k_of_n=(3, 5), hysteresis=0.1, sr=SR)
    events, sizes = [], []
    for part in np.array_split(sound, 60):
        events += scorer.feed(part)
        sizes.append(len(pickle.dumps(scorer)))
    assert spans(events, *CONDITIONS) == [
        ("dead", 200, 220),
        ("gap", 250, 252),
        ("silence", 300, 310),
        ("clipping", 350, 351),
    ]
    alarms = of_type(events, "alarm", "clear")
    assert [e.type for e in alarms] == ["alarm", "clear"] * 2
    for (alarm, clear), (start, stop) in zip(
        zip(alarms[::2], alarms[1::2]), ((100, 130), (400, 420))
    ):
        assert start - 4 <= alarm.start <= start
        assert start + 3 <= alarm.end + 2 <= start + 5
        assert stop < clear.end <= stop + 8
        assert clear.start == alarm.start
    scored = {e.start for e in of_type(events, "score")}
    # A block on either side of a condition is not trusted.
    lost = [*range(199, 221), *range(249, 253), *range(299, 311), *range(349, 352)]
    assert set(map(float, range(599))) - scored == set(map(float, lost))
    assert max(sizes[6:]) <= 1.05 * max(sizes[:6])


def _stream():
    """Twelve seconds with everything that can happen."""
    rng = np.random.default_rng(3)
    sound = np.concatenate([hum(3, rng), hum(4, rng, fault=True), hum(9, rng)])
    sound[round(9.17 * SR) : round(9.61 * SR)] = np.nan
    sound[round(10.03 * SR) : round(10.5 * SR)] = 0
    sound[round(11.2 * SR) : round(11.3 * SR)] = 1.0
    sound[round(11.25 * SR) : round(11.9 * SR) : 3] = -1.0
    sound[round(12.5 * SR) : round(12.9 * SR)] *= 1e-5
    return sound


STREAM = _stream()


def make_scorer(pipeline, **params):
    params = {"hop": 0.37, "k_of_n": (2, 3), "sr": SR, **params}
    drift = DriftMonitor(pipeline[-1].training_scores_, n_recent=5, significance=0.2)
    return StreamingScorer(pipeline, 1.0, drift=drift, **params)


@pytest.fixture(scope="module")
def expected(pipeline):
    scorer = make_scorer(pipeline)
    events = scorer.feed(STREAM) + scorer.finish()
    assert {e.type for e in events} == {"score", "alarm", "clear", "drift", *CONDITIONS}
    return events


@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.too_slow])
@given(
    cuts=st.lists(st.integers(0, len(STREAM)), max_size=30),
    pickled=st.integers(0, 30),
)
def test_any_chunking_gives_the_same_events(pipeline, expected, cuts, pickled):
    scorer, events = make_scorer(pipeline), []
    for i, part in enumerate(np.split(STREAM, sorted(cuts))):
        if i == pickled:
            scorer = pickle.loads(pickle.dumps(scorer))
        events += scorer.feed(part)
    assert events + scorer.finish() == expected


@settings(deadline=None, max_examples=20)
@given(
    before=st.integers(0, 3 * SR),
    missing=st.integers(0, 9 * SR),
    hop=st.sampled_from([0.25, 1.0, 1.7]),
)
def test_a_gap_is_missing_samples(pipeline, before, missing, hop):
    """And costs no time: it is not fed sample by sample."""
    events = []
    for skip in (False, True):
        scorer = make_scorer(pipeline, hop=hop, resolution=0.07)
        found = scorer.feed(STREAM[:before])
        if skip:
            found += scorer.gap(missing / SR)
        else:
            found += scorer.feed(np.full(missing, np.nan))
        found += scorer.feed(STREAM[: 2 * SR]) + scorer.finish()
        events.append((found, scorer.get_state()))
    assert events[0] == events[1]


def test_long_gap(pipeline):
    scorer = make_scorer(pipeline, hop=1.0)
    events = scorer.feed(STREAM[: 7 * SR])
    assert scorer.in_alarm
    events = scorer.gap(365 * 24 * 3600.0) + scorer.feed(hum(2.2, np.random.default_rng(0)))
    assert scorer.in_alarm  # one normal window is not enough
    assert spans(events, "gap", "clear") == [("gap", 7.0, 31536007.0)]
    # The first window begins beside the gap and is lost.
    assert [e.start for e in of_type(events, "score")] == [31536008.0]
    (clear,) = of_type(scorer.feed(hum(2, np.random.default_rng(1))), "clear")
    assert clear.end == 31536010.0


def test_integers_are_fractions_of_full_scale(pipeline):
    sound = hum(3, np.random.default_rng(4))
    int16 = np.round(sound * 32768).astype(np.int16)
    found = [
        StreamingScorer(pipeline, 1.0, sr=SR).feed(chunk)
        for chunk in (int16, int16.astype(np.int32) * 65536, int16 / 32768)
    ]
    assert len(found[0]) == 2
    assert found[0] == found[1] == found[2]


def test_given_times(pipeline):
    sound = hum(8, np.random.default_rng(5))
    scorer = StreamingScorer(pipeline, 1.0, sr=SR)
    events = scorer.feed(sound[: 3 * SR], time=1e9)
    # The clock of the sound card is 20 ms ahead, which is no gap; then two seconds are missing.
    events += scorer.feed(sound[3 * SR : 4 * SR], time=1e9 + 2.98)
    events += scorer.feed(sound[4 * SR :], time=1e9 + 6)
    gap = of_type(events, "gap")[-1]
    assert (gap.start, gap.end) == pytest.approx((1e9 + 4, 1e9 + 6), abs=0.11)
    starts = [e.start - 1e9 for e in of_type(events, "score")]
    np.testing.assert_allclose(starts, [0, 1, 2, 7, 8], atol=0.05)
    with pytest.raises(ValueError, match=r"1\.000 s behind the end of the chunk before"):
        scorer.feed(sound[:10], time=1e9 + 9)
    with pytest.raises(ValueError, match="time=nan of a chunk must be finite"):
        scorer.feed(sound[:10], time=np.nan)


def test_stretches_do_not_join(pipeline):
    sound = hum(2.5, np.random.default_rng(6))
    scorer = StreamingScorer(pipeline, 1.0, sr=SR)
    events = []
    for _ in range(3):
        events += scorer.feed(sound) + scorer.finish()
    assert [e.start for e in events] == [0, 1, 2.5, 3.5, 5, 6]
    scores = np.array([e.score for e in events]).reshape(3, 2)
    np.testing.assert_array_equal(scores, np.tile(scores[0], (3, 1)))


def test_a_state_goes_on_in_another_process(pipeline):
    fault = hum(2, np.random.default_rng(7), fault=True)
    first = StreamingScorer(pipeline, 1.0, k_of_n=(3, 4), sr=SR)
    assert of_type(first.feed(fault) + first.finish(), "alarm") == []
    second = StreamingScorer(pipeline, 1.0, k_of_n=(3, 4), sr=SR)
    second.set_state(first.get_state())
    (alarm,) = of_type(second.feed(fault) + second.finish(), "alarm")
    assert (alarm.start, alarm.end) == (0.0, 3.0)


def test_drift_begins_where_its_first_window_does(pipeline):
    """Also where the state has been handed on meanwhile."""
    sound = hum(5, np.random.default_rng(12))
    monitor = DriftMonitor(pipeline[-1].training_scores_ - 1e3, n_recent=8)
    params = {"k_of_n": (5, 5), "sr": SR, "drift": monitor}
    first = StreamingScorer(pipeline, 1.0, **params)
    assert of_type(first.feed(sound) + first.finish(), "drift") == []
    second = StreamingScorer(pipeline, 1.0, **params)
    second.set_state(first.get_state())
    (event,) = of_type(second.feed(sound), "drift")
    assert (event.start, event.end) == (0.0, 8.0)


def test_hysteresis(pipeline):
    """Scores between the threshold and the hysteresis raise nothing and clear nothing."""
    rng = np.random.default_rng(8)
    sound = np.concatenate([hum(4, rng, fault=True), hum(16, rng)])
    found = {}
    for hysteresis in (0.0, 1e6):
        scorer = StreamingScorer(pipeline, 1.0, k_of_n=(2, 3), hysteresis=hysteresis, sr=SR)
        found[hysteresis] = [e.type for e in scorer.feed(sound) if e.type != "score"]
    assert found == {0.0: ["alarm", "clear"], 1e6: ["alarm"]}


def test_limits_can_be_switched_off(pipeline):
    rng = np.random.default_rng(9)
    sound = hum(3, rng)
    sound[SR : 2 * SR] *= 1e-5
    sound[2 * SR : 2 * SR + 50] = 1.0
    scorer = StreamingScorer(pipeline, 1.0, sr=SR, silence=None, clipping=None)
    events = scorer.feed(sound) + scorer.finish()
    assert [e.type for e in of_type(events, "score", *CONDITIONS)] == ["score"] * 3


def in_unit(unit):
    """A system that learnt the sound of the machine in some unit."""
    rng = np.random.default_rng(0)
    clips = pd.DataFrame({"audio": [unit * hum(1.0, rng) for _ in range(40)], "sr": SR})
    front = LogMel(sr=SR, n_fft=256, hop_length=128, n_mels=12, amin=1e-30, n_jobs=1)
    return make_pipeline(front, TimePooling(), MahalanobisDetector(contamination=0.02)).fit(clips)


@pytest.mark.parametrize("unit", [1e-6, 3e-4, 1.0, 5.0, 100.0, 1e6])
def test_physical_units(unit):
    """Everything is judged by what the system was trained on."""
    rng = np.random.default_rng(1)
    sound = unit * hum(40, rng)
    sound[10 * SR : 14 * SR] *= 3  # a fault, far louder than training
    sound[20 * SR : 22 * SR] = 1e-5 * unit * rng.normal(size=2 * SR)  # a cable that hums no more
    sound[25 * SR : 26 * SR] = 0.0
    top = max(1.0, 0.3 * unit) if unit >= 1 else None
    if top is not None:
        sound[30 * SR : 32 * SR] = np.clip(300 * sound[30 * SR : 32 * SR], -top, top)
    sound[35 * SR] = 1e20
    scorer = StreamingScorer(in_unit(unit), 1.0, k_of_n=(3, 5), sr=SR)
    events = scorer.feed(sound) + scorer.finish()
    expected = [("silence", 20, 22), ("dead", 25, 26), ("gap", 35, 35.1)]
    if top is not None:
        expected.insert(2, ("clipping", 30, 32))
    assert spans(events, *CONDITIONS) == expected
    assert len(of_type(events, "alarm")) == 1
    scored = {e.start for e in of_type(events, "score")}
    assert {10.0, 11.0, 12.0, 13.0} <= scored


def test_beyond_one_is_no_clipping():
    """Training stays below 1 g, a fault does not."""
    rng = np.random.default_rng(2)
    scorer = StreamingScorer(in_unit(3.0), 1.0, sr=SR)
    assert scorer.pipeline[0].peak_ < 1
    sound = 30.0 * hum(3, rng)
    assert [e.type for e in scorer.feed(sound)] == ["score"] * 2
    # At full scale it is, and where it stays.
    for top in (1.0, 2.5):
        scorer.finish()
        events = scorer.feed(np.clip(sound, -top, top))
        assert [e.type for e in of_type(events, *CONDITIONS)] == ["clipping"]


def test_given_limits_go_before_those_of_training():
    rng = np.random.default_rng(3)
    system = in_unit(100.0)
    sound = 100.0 * hum(3, rng)
    for limits, expected in (
        ({}, {"score"}),
        ({"clipping": 5.0}, {"clipping"}),
        ({"silence": 30.0}, {"silence"}),
        ({"silence": 30.0, "clipping": 5.0}, {"clipping"}),
        ({"silence": None, "clipping": None}, {"score"}),
    ):
        scorer = StreamingScorer(system, 1.0, sr=SR, **limits)
        events = scorer.feed(sound) + scorer.finish()
        assert {e.type for e in events} == expected


def test_limits_of_an_ensemble(pipeline):
    """The loudest and the quietest of all front ends count, wherever they are."""
    loud, faint = in_unit(100.0), in_unit(1e-4)
    system = ScoreEnsemble([("a", FrozenEstimator(loud)), ("b", FrozenEstimator(faint))], by=[])
    system.estimators_ = [loud, faint]
    limits = limits_of(system, "auto", "auto")
    assert limits == (0.1 * faint[0].quiet_, loud[0].peak_, 0.0)
    assert limits_of(pipeline, "auto", "auto") == (1e-4, 0.999, 1.0)
    # Nothing is known of detectors without front end.
    assert limits_of(pipeline[-1], "auto", "auto") == (1e-4, 0.999, 1.0)
    assert limits_of(loud, -20.0, None) == (0.1, None, np.inf)


def test_section_of_the_machine():
    """Each is scored by its own detector, with its own threshold."""
    rng = np.random.default_rng(10)
    waves = [0.1 * (i + 1) * hum(1, rng) for i in (0, 9) for _ in range(20)]
    clips = pd.DataFrame({"audio": waves, "sr": SR, "machine": "fan"})
    clips["section"] = np.repeat(["00", "01"], 20)
    grouped = make_pipeline(
        LogMel(sr=SR, n_fft=256, n_mels=8),
        TimePooling(),
        GroupedDetector(MahalanobisDetector(), by=["machine", "section"]),
    ).fit(clips)
    set_threshold(grouped, threshold={("fan", "00"): -3.0, ("fan", "01"): -4.0})
    sound = hum(1.2, rng)
    for section, threshold in (("00", -3.0), ("01", -4.0)):
        scorer = StreamingScorer(grouped, 1.0, sr=SR, machine="fan", section=section)
        (event,) = scorer.feed(sound)
        clip = pd.DataFrame({"audio": [sound[:SR]], "sr": SR, "machine": "fan", "section": section})
        assert event == StreamEvent(
            "score", 0.0, 1.0, float(grouped.score_samples(clip)[0]), threshold
        )
    with pytest.raises(ValueError, match="section='02' was not seen in training"):
        StreamingScorer(grouped, 1.0, sr=SR, machine="fan", section="02").feed(sound)


class NoNumber(MahalanobisDetector):
    """Gives what is neither normal nor abnormal."""

    def _score(self, X):
        return np.full(len(X), np.nan)


def test_a_score_that_is_no_number_is_no_normal_window():
    rng = np.random.default_rng(13)
    clips = pd.DataFrame({"audio": [hum(1, rng) for _ in range(20)], "sr": SR})
    steps = LogMel(sr=SR, n_fft=256, n_mels=8), TimePooling(), NoNumber()
    scorer = StreamingScorer(make_pipeline(*steps).fit(clips), 1.0, sr=SR)
    with pytest.raises(ValueError, match="NaN as the score"):
        scorer.feed(hum(2, rng))


def test_drift_is_told(pipeline):
    rng = np.random.default_rng(11)
    monitor = DriftMonitor(pipeline[-1].training_scores_, n_recent=20, patience=2)
    scorer = StreamingScorer(pipeline, 1.0, sr=SR, threshold=-1e9, drift=monitor)
    assert of_type(scorer.feed(hum(41, rng)), "drift") == []
    events = of_type(scorer.feed(1.05 * hum(60, rng) + 0.005 * rng.normal(size=60 * SR)), "drift")
    assert [e.due for e in events[:2]] == [False, True]
    assert (events[1].start, events[1].end) == (60.0, 80.0)


def test_refusals(pipeline):
    with pytest.raises(NotFittedError):
        StreamingScorer(make_pipeline(LogMel(), MahalanobisDetector()), 1.0)
    for params, match in (
        ({"window": 1e-6}, "window=1e-06 s is less than a sample"),
        ({"window": 1.0, "hop": -1}, "'hop'"),
        ({"window": 1.0, "k_of_n": (4, 3)}, "1 <= k <= n"),
        ({"window": 1.0, "k_of_n": (0, 3)}, "1 <= k <= n"),
        ({"window": 1.0, "k_of_n": (1.5, 3)}, "two integers"),
        ({"window": 1.0, "k_of_n": ("a", 3)}, "two integers"),
        ({"window": 1.0, "threshold": np.nan}, "'threshold'"),
        ({"window": 1.0, "silence": np.nan}, "'silence'"),
        ({"window": 1.0, "silence": "none"}, "'silence'"),
        ({"window": 1.0, "clipping": 0.0}, "'clipping'"),
    ):
        with pytest.raises(ValueError, match=match):
            StreamingScorer(pipeline, **params)
    scorer = StreamingScorer(pipeline, 1.0, sr=SR)
    with pytest.raises(ValueError, match=r"The chunk: .* found shape \(2, 3\)"):
        scorer.feed(np.zeros((2, 3)))
    with pytest.raises(TypeError, match="The chunk: .* found uint16"):
        scorer.feed(np.zeros(3, dtype=np.uint16))
    with pytest.raises(ValueError, match="at least 0 and finite"):
        scorer.gap(-1)
    assert scorer.feed([]) == []
    assert scorer.position == 0
