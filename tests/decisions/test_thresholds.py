"""Thresholds after the fit: the same as a refit, in place, with the promised rate."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import beta, binom
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM

from sk_asd.decisions import false_alarms_per_day, predict_pvalue, set_threshold
from sk_asd.detectors import AutoEncoderDetector, KNNDetector, MahalanobisDetector
from sk_asd.ensemble import GroupedDetector, ScoreEnsemble

X = np.random.default_rng(0).normal(size=(200, 2))


def table(n, seed):
    section = np.where(np.arange(n) % 4, "00", "01")
    values = np.random.default_rng(seed).normal(size=(n, 2))
    return pd.DataFrame(values, columns=["a", "b"]).assign(section=section)


@pytest.mark.parametrize("method", ["quantile", "gamma"])
def test_same_as_refit(method):
    detector = MahalanobisDetector().fit(X)
    assert set_threshold(detector, contamination=0.03, method=method) is detector
    refit = MahalanobisDetector(contamination=0.03, threshold=method).fit(X)
    assert detector.offset_ == refit.offset_
    assert detector.get_params() == MahalanobisDetector().get_params()


def test_groups_as_in_a_refit():
    clips = table(200, 1)
    detector = GroupedDetector(MahalanobisDetector(), unseen="pool").fit(clips)
    refit = GroupedDetector(MahalanobisDetector(contamination=0.03), unseen="pool").fit(clips)
    set_threshold(detector, contamination=0.03)
    assert detector.offsets_ == refit.offsets_
    new = table(40, 2)
    new.loc[::3, "section"] = "07"
    np.testing.assert_array_equal(detector.decision_function(new), refit.decision_function(new))


def test_unseen_groups_get_a_threshold_on_the_scores_of_their_own_detector():
    """The detector of all groups is another one, and its scores have another scale."""
    clips, other = table(200, 1), table(300, 8)
    for data in (clips, other):
        data.loc[data["section"] == "01", ["a", "b"]] *= 10
    detector = GroupedDetector(MahalanobisDetector(), unseen="pool").fit(clips)
    set_threshold(detector, contamination=0.05, calibration=other)
    new = other.assign(section="07")
    assert np.mean(detector.predict(new) == -1) == pytest.approx(0.05)
    assert np.mean(detector.predict(other) == -1) == pytest.approx(0.05, abs=0.01)


def test_nothing_is_changed_where_something_is_missing():
    detector = GroupedDetector(IsolationForest(n_estimators=2), unseen="pool").fit(table(60, 1))
    before = dict(detector.offsets_)
    with pytest.raises(ValueError, match="IsolationForest keeps no scores"):
        set_threshold(detector, contamination=0.3)
    assert detector.offsets_ == before


def test_groups_without_calibration_keep_their_threshold():
    clips = table(100, 3)
    detector = GroupedDetector(MahalanobisDetector()).fit(clips)
    before = dict(detector.offsets_)
    other = table(100, 4)
    set_threshold(detector, contamination=0.3, calibration=other[other["section"] == "00"])
    assert detector.offsets_["01"] == before["01"]
    assert detector.offsets_["00"] > before["00"]


def test_conformal_threshold_decides_as_the_p_value():
    detector = set_threshold(MahalanobisDetector().fit(X), contamination=0.07, method="conformal")
    new = np.random.default_rng(1).normal(size=(500, 2))
    flagged = detector.predict(new) == -1
    np.testing.assert_array_equal(flagged, predict_pvalue(detector, new) <= 0.07)
    assert flagged.any()


def test_false_alarms_are_as_many_as_asked_for():
    rng = np.random.default_rng(2)
    n_false, repetitions, per_day = 0, 300, 100
    for _ in range(repetitions):
        detector = MahalanobisDetector().fit(rng.normal(size=(199, 2)))
        set_threshold(detector, false_alarms_per_day=1, clips_per_day=per_day)
        n_false += int(np.sum(detector.predict(rng.normal(size=(per_day, 2))) == -1))
    # The clips of a day share a threshold: their number is beta-binomial, of variance about 1.5.
    assert abs(n_false - repetitions) < 4 * np.sqrt(1.5 * repetitions)


def test_given_thresholds():
    clips = table(100, 3).assign(machine="fan")
    detector = GroupedDetector(MahalanobisDetector(), by=["machine", "section"]).fit(clips)
    kept = detector.offsets_["fan", "00"]
    set_threshold(detector, threshold={("fan", "01"): -7.0})
    assert detector.offsets_ == {("fan", "00"): kept, ("fan", "01"): -7.0}
    set_threshold(detector, threshold=-1.5)
    assert set(detector.offsets_.values()) == {-1.5}
    with pytest.raises(ValueError, match=r"groups \['03'\], expected some of"):
        set_threshold(detector, threshold={"03": 0.0})


def test_every_kind_of_detector_follows():
    pyod = pytest.importorskip("pyod.models.knn")
    outside = pyod.KNN()
    autoencoder = AutoEncoderDetector(max_epochs=1, random_state=0)
    for detector in (
        make_pipeline(StandardScaler(), KNNDetector(metric="euclidean")),
        ScoreEnsemble([("knn", KNNDetector()), ("spread", MahalanobisDetector())], by=None),
        LocalOutlierFactor(n_neighbors=5, novelty=True),
        outside,
        autoencoder,
    ):
        shape = (40, 8, 8) if detector is autoencoder else (200, 2)
        rng = np.random.default_rng(4)
        data, new = rng.normal(size=(2, *shape))
        detector.fit(data)
        abnormal = 1 if detector is outside else -1
        for share in (0.02, 0.5):
            set_threshold(detector, contamination=share)
            (row,) = false_alarms_per_day(detector, 100).itertuples()
            assert row.n_flagged == pytest.approx(share * len(data), abs=1)
            assert abs(np.mean(detector.predict(new) == abnormal) - share) < 0.25


def test_detectors_without_training_scores():
    forest = IsolationForest(random_state=0).fit(X)
    with pytest.raises(ValueError, match="calibration="):
        set_threshold(forest, contamination=0.1)
    other = np.random.default_rng(5).normal(size=(99, 2))
    set_threshold(forest, contamination=0.1, method="conformal", calibration=other)
    assert np.sum(forest.predict(other) == -1) == 9
    assert false_alarms_per_day(forest, 10, calibration=other)["per_day"].item() == 1.0


def test_refusals():
    detector = MahalanobisDetector().fit(X)
    with pytest.raises(ValueError, match="found 0 of them"):
        set_threshold(detector)
    with pytest.raises(ValueError, match="found 2 of them"):
        set_threshold(detector, contamination=0.1, threshold=0.0)
    with pytest.raises(ValueError, match="clips_per_day goes with"):
        set_threshold(detector, false_alarms_per_day=1)
    with pytest.raises(ValueError, match="more than half"):
        set_threshold(detector, false_alarms_per_day=6, clips_per_day=10)
    with pytest.raises(ValueError, match="200 training scores.*at least 999.*gamma"):
        set_threshold(detector, false_alarms_per_day=1, clips_per_day=1000)
    with pytest.raises(ValueError, match="'threshold' parameter of set_threshold"):
        set_threshold(detector, threshold=np.nan)
    with pytest.raises(ValueError, match="one threshold for all clips"):
        set_threshold(detector, threshold={"00": -1.0})
    grouped = GroupedDetector(MahalanobisDetector()).fit(table(40, 1))
    for value in (np.inf, "-1"):
        with pytest.raises(ValueError, match="of the group '00' is .*, no finite number"):
            set_threshold(grouped, threshold={"00": value})
    with pytest.raises(TypeError, match="OneClassSVM decides without its offset_"):
        set_threshold(OneClassSVM().fit(X), threshold=0.0)


def test_interval_is_that_of_the_beta_distribution():
    detector = set_threshold(MahalanobisDetector().fit(X), contamination=0.05)
    (row,) = false_alarms_per_day(detector, 1000, confidence=0.9).itertuples()
    assert (row.n_clips, row.n_flagged) == (200, 10)
    assert row.per_day == pytest.approx(1000 * 11 / 201)
    assert row.low == pytest.approx(1000 * beta.ppf(0.05, 10, 191))
    assert row.high == pytest.approx(1000 * beta.ppf(0.95, 11, 190))


def test_one_row_a_group():
    clips = table(100, 6).assign(machine="fan")
    detector = GroupedDetector(MahalanobisDetector(), by=["machine", "section"]).fit(clips)
    found = false_alarms_per_day(detector, 24)
    assert found[["machine", "section", "n_clips"]].values.tolist() == [
        ["fan", "01", 25],
        ["fan", "00", 75],
    ]
    assert found["threshold"].tolist() == list(detector.offsets_.values())
    assert (found["low"] < found["per_day"]).all()
    assert (found["per_day"] < found["high"]).all()


def test_interval_covers():
    """The expected number of false alarms lies inside as often as it should."""
    rng = np.random.default_rng(7)
    inside = 0
    for _ in range(100):
        detector = MahalanobisDetector(shrinkage=0.0).fit(rng.normal(size=(150, 1)))
        (row,) = false_alarms_per_day(detector, 1.0, confidence=0.9).itertuples()
        rate = np.mean(detector.predict(rng.normal(size=(2000, 1))) == -1)
        inside += row.low <= rate <= row.high
    assert inside >= binom.ppf(0.001, 100, 0.9)
