"""What a score may be: a number or −inf in all parts of the package, NaN and +inf in none."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from pyod.models.base import BaseDetector as PyODBase
from scipy.stats import ks_2samp
from sklearn.base import BaseEstimator, OutlierMixin, clone
from sklearn.ensemble import IsolationForest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sk_asd.datasets import make_machine_sounds
from sk_asd.decisions import adapt, false_alarms_per_day, predict_pvalue, set_threshold
from sk_asd.detectors import (
    CosineDetector,
    GaussianMixtureDetector,
    KNNDetector,
    LOFDetector,
    MahalanobisDetector,
)
from sk_asd.domains import DomainClassifier, DomainNormalizedDetector
from sk_asd.ensemble import GroupedDetector, ScoreEnsemble, ScoreEnsembleCV
from sk_asd.features import LogMel, TimePooling
from sk_asd.metrics import anomaly_score, dcase_score, dcase_scores
from sk_asd.utils._checked_scores import checked_scores
from sk_asd.utils._normal_threshold import normal_threshold
from sk_asd.watching import DriftMonitor, StreamingScorer

NAN = "Foreign gives NaN as the score of {} of {} clips, the first at position {}"


class Foreign(OutlierMixin, BaseEstimator):
    """Gives clips whose first feature is above 50 a score of its own."""

    def __init__(self, odd=np.nan):
        self.odd = odd

    def fit(self, X, y=None):
        self.training_scores_, self.offset_ = self.score_samples(X), -3.0
        return self

    def score_samples(self, X):
        X = np.asarray(X, dtype=float)
        return np.where(X[:, 0] > 50, self.odd, -np.abs(X).sum(axis=1))

    def decision_function(self, X):
        return self.score_samples(X) - self.offset_

    def predict(self, X):
        return np.where(self.decision_function(X) >= 0, 1, -1)


class ForeignPyOD(PyODBase):
    """PyOD's interface: high = abnormal."""

    def __init__(self, odd=np.nan, contamination=0.1):
        super().__init__(contamination=contamination)
        self.odd = odd

    def fit(self, X, y=None):
        self.decision_scores_ = self.decision_function(X)
        self.threshold_ = float(np.quantile(self.decision_scores_, 0.9))
        return self

    def decision_function(self, X):
        X = np.asarray(X, dtype=float)
        return np.where(X[:, 0] > 50, self.odd, np.abs(X).sum(axis=1))


def tophat():
    return KernelDensity(kernel="tophat", bandwidth=3.0)


@pytest.fixture
def X():
    return np.random.default_rng(0).normal(size=(60, 3))


@pytest.fixture
def odd(X):
    odd = X[:5].copy()
    odd[2] = 100
    return odd


def labelled(values, **labels):
    n = len(values)
    labels = {"section": ["00", "01"] * n, "domain": ["source", "source", "target"] * n, **labels}
    coords = {name: ("clip", np.array(v[:n], dtype=object)) for name, v in labels.items()}
    return xr.DataArray(values, dims=("clip", "bin"), coords=coords)


# The rule.


def test_rule():
    given = [1, -2.5, -np.inf]
    np.testing.assert_array_equal(checked_scores(given, "x gives"), given)
    for bad, word in ((np.nan, "NaN"), (np.inf, r"\+inf")):
        message = f"Foreign gives {word} as the score of 1 of 3 clips, the first at position 1"
        with pytest.raises(ValueError, match=message):
            checked_scores([0, bad, -np.inf], Foreign())


@pytest.mark.parametrize("method", ["quantile", "gamma"])
@pytest.mark.parametrize("n", [0, 1, 3, 30, 59])
def test_thresholds_are_finite_and_below_them_are_all_that_are_as_abnormal_as_can_be(X, n, method):
    scores = X[:, 0].copy()
    scores[:n] = -np.inf
    threshold = normal_threshold(scores, 0.1, method)
    assert np.isfinite(threshold)
    assert (scores[:n] < threshold).all()
    if n == 0:
        assert threshold == normal_threshold(X[:, 0], 0.1, method)
    if n == 3 and method == "quantile":
        assert threshold == pytest.approx(np.quantile(scores, 0.1))
    if n == 30 and method == "quantile":
        assert threshold == scores[30:].min()
    with pytest.raises(ValueError, match="All 60 scores of normal clips are -inf"):
        normal_threshold(np.full(60, -np.inf), 0.1, method)


# NaN and +inf.


@pytest.mark.parametrize(
    "detector", [Foreign(), ForeignPyOD(), Foreign(np.inf), ForeignPyOD(-np.inf)]
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_nan_of_a_foreign_detector(X, odd, detector, wrapped):
    if wrapped:
        detector = make_pipeline(StandardScaler(with_mean=False, with_std=False), detector)
    fitted = clone(detector).fit(X)
    message = r"Foreign\w* gives (NaN|\+inf) as the score of 1 of 5 clips, the first at position 2"
    calls = [
        lambda: predict_pvalue(fitted, odd),
        lambda: predict_pvalue(fitted, X, calibration=odd),
        lambda: set_threshold(fitted, contamination=0.1, calibration=odd),
        lambda: set_threshold(fitted, contamination=0.4, calibration=odd, method="conformal"),
        lambda: set_threshold(fitted, contamination=0.4, calibration=odd, method="gamma"),
        lambda: false_alarms_per_day(fitted, 100, calibration=odd),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=message):
            call()
    if hasattr(fitted, "score_samples"):
        with pytest.raises(ValueError, match=message):
            anomaly_score(fitted if not wrapped else fitted[-1], odd)
    for whole in (
        ScoreEnsemble([("odd", detector), ("knn", KNNDetector())], by=None),
        GroupedDetector(detector),
        GroupedDetector(detector, over="domain"),
        DomainNormalizedDetector(detector, DomainClassifier(LogisticRegression())),
    ):
        at_test = clone(whole).fit(labelled(X))
        for name in ("score_samples", "predict", "decision_function"):
            with pytest.raises(ValueError, match=r"Foreign\w* gives (NaN|\+inf) as the score of 1"):
                getattr(at_test, name)(labelled(odd))
        with pytest.raises(ValueError, match=r"Foreign\w* gives (NaN|\+inf) as the score of 1"):
            clone(whole).fit(labelled(np.concatenate([X, odd])))


def test_one_group_alone(X, odd):
    grouped = GroupedDetector(Foreign()).fit(labelled(X))
    with pytest.raises(ValueError, match="section='00': " + NAN.format(1, 3, 1)):
        grouped.score_samples(labelled(odd))
    grouped.score_samples(labelled(odd)[[0, 1, 3]])
    bad = X.copy()
    bad[[1, 7]] = 100
    with pytest.raises(ValueError, match="section='01': " + NAN.format(2, 30, 0)):
        GroupedDetector(Foreign()).fit(labelled(bad))


def test_kept_training_scores(X):
    detector = Foreign().fit(np.concatenate([X, [[100, 0, 0]]]))
    for call in (
        lambda: predict_pvalue(detector, X),
        lambda: set_threshold(detector, contamination=0.1),
        lambda: false_alarms_per_day(detector, 100),
    ):
        with pytest.raises(ValueError, match=NAN.format(1, 61, 60)):
            call()
    assert detector.offset_ == -3.0


def test_adapting(X, odd):
    model = ScoreEnsemble([("odd", Foreign())], by=None).fit(X)
    with pytest.raises(ValueError, match=NAN.format(1, 5, 2)):
        adapt(model, odd, scores_only=True)


def test_search_of_weights(X, odd):
    values = np.concatenate([X, odd])
    table = labelled(values, machine=["fan"] * 65, label=["normal"] * 50 + ["anomaly"] * 15)
    search = ScoreEnsembleCV([("a", Foreign()), ("b", KNNDetector())], cv=KFold(2), step=0.5)
    with pytest.raises(ValueError, match="Member 'a': Foreign gives NaN"):
        search.fit(table)


@pytest.mark.parametrize(
    "detector",
    [
        KNNDetector(metric="euclidean"),
        KNNDetector(metric="euclidean", density_neighbors=2),
        LOFDetector(),
        CosineDetector(),
        MahalanobisDetector(),
        GaussianMixtureDetector(2, random_state=0),
    ],
)
def test_features_whose_squares_overflow(X, odd, detector):
    detector.fit(X)
    for size in (1e10, 1e100, 1e140):
        assert np.isfinite(detector.score_samples(size * odd)).all()
    odd[2, 1] = -1e160
    with pytest.raises(ValueError, match=r"position 2 has a feature of magnitude 1e\+160"):
        detector.predict(odd)
    with pytest.raises(ValueError, match=r"position 2 has a feature of magnitude 1e\+160"):
        detector.fit(odd)


def test_streams_and_drift():
    table = make_machine_sounds(("fan",), n_train=8, n_test=2, duration=1.0, random_state=0)
    train = table[table["split"] == "train"].drop(columns=["machine", "section"])

    class Nothing(Foreign):
        def score_samples(self, X):
            return np.full(len(X), np.nan)

    pipeline = make_pipeline(LogMel(n_mels=16), TimePooling(), Nothing())
    scorer = StreamingScorer(pipeline.fit(train), 1.0, sr=16000, threshold=0.0)
    with pytest.raises(ValueError, match="Nothing gives NaN as the score of 1 of 1 clips"):
        scorer.feed(np.concatenate(train["audio"].tolist()))
    for bad, word in ((np.nan, "NaN"), (np.inf, r"\+inf")):
        with pytest.raises(ValueError, match=f"DriftMonitor was given {word} as the score of 1 of"):
            DriftMonitor([0.0, bad, 1.0])
        with pytest.raises(ValueError, match=f"DriftMonitor was given {word} as the score of 1 of"):
            DriftMonitor([0.0, 1.0]).update([bad])


# −inf is as abnormal as can be.


@pytest.mark.parametrize(
    "detector",
    [Foreign(-np.inf), ForeignPyOD(np.inf), tophat(), make_pipeline(StandardScaler(), tophat())],
    ids=["own", "pyod", "density", "pipeline"],
)
def test_lowest_everywhere(X, odd, detector):
    table = labelled(odd)
    others = [0, 1, 3, 4]
    for whole in (
        ScoreEnsemble([("odd", detector), ("knn", KNNDetector())], by=None),
        ScoreEnsemble([("odd", detector), ("forest", IsolationForest(random_state=0))]),
        GroupedDetector(detector),
        GroupedDetector(detector, over="domain"),
        DomainNormalizedDetector(detector, DomainClassifier(LogisticRegression(), min_auc=0.0)),
        DomainNormalizedDetector(detector, statistics="transductive"),
    ):
        with_default = isinstance(whole, DomainNormalizedDetector) and not whole.domain_classifier
        if with_default:
            whole.set_params(domain_classifier=DomainClassifier(LogisticRegression()))
        fitted = whole.fit(labelled(X))
        scores = fitted.score_samples(table)
        assert scores[2] == -np.inf, whole
        assert np.isfinite(scores[others]).all(), whole
        assert fitted.predict(table)[2] == -1, whole
        assert fitted.decision_function(table)[2] == -np.inf, whole
        assert predict_pvalue(fitted, table)[2] == predict_pvalue(fitted, table).min()


def test_p_values(X, odd):
    detector = Foreign(-np.inf).fit(X)
    assert predict_pvalue(detector, odd)[2] == pytest.approx(1 / 61)
    # Among normal clips of the same score it is one of them.
    assert predict_pvalue(detector, odd, calibration=odd)[2] == pytest.approx(2 / 6)


def test_thresholds(X, odd):
    detector = Foreign(-np.inf).fit(X)
    set_threshold(detector, contamination=0.1, calibration=odd)
    assert detector.offset_ == np.sort(detector.score_samples(odd))[1]
    assert (detector.predict(odd) == [1, 1, -1, 1, 1]).all()
    before = detector.offset_
    with pytest.raises(ValueError, match="1 of 5 scores of normal clips are -inf"):
        set_threshold(detector, contamination=0.2, calibration=odd, method="conformal")
    assert detector.offset_ == before
    assert false_alarms_per_day(detector, 60, calibration=odd)["n_flagged"].item() == 1


def test_a_density_in_groups(X):
    grouped = GroupedDetector(tophat()).fit(labelled(X))
    for group, offset in grouped.offsets_.items():
        own = grouped.training_scores_[grouped.training_groups_ == group]
        assert offset == np.quantile(own, 0.1)


def test_ensemble_with_lowest_training_scores(X, odd):
    values = np.concatenate([X, odd[2:3]])
    members = [("odd", Foreign(-np.inf)), ("knn", KNNDetector(metric="euclidean"))]
    ensemble = ScoreEnsemble(members, by=None).fit(values)
    finite = Foreign().fit(X).training_scores_
    assert ensemble.means_[None][0] == pytest.approx(finite.mean())
    assert ensemble.scales_[None][0] == pytest.approx(finite.std())
    assert ensemble.training_scores_[60] == -np.inf
    assert np.isfinite(ensemble.training_scores_[:60]).all()
    assert np.isfinite(ensemble.offset_)
    assert ensemble.contributions(odd)[2, 0] == -np.inf
    with pytest.raises(ValueError, match="member 'odd' gives all training clips the score -inf"):
        ScoreEnsemble([("odd", Foreign(-np.inf))], by=None).fit(np.full((9, 3), 100.0))
    # A weight of 0 is no opinion.
    other = ScoreEnsemble(members, weights=(0, 1), by=None).fit(values)
    assert np.isfinite(other.score_samples(odd)).all()
    assert (other.contributions(odd)[:, 0] == 0).all()


def test_held_out_training_scores(X):
    ensemble = ScoreEnsemble(
        [("d", KernelDensity(kernel="tophat", bandwidth=1.2))], by=None, crossfit=4
    )
    ensemble.fit(X)
    lowest = np.isneginf(ensemble.training_scores_)
    assert 0 < lowest.sum() < 60
    assert np.isfinite([*ensemble.means_[None], *ensemble.scales_[None], ensemble.offset_]).all()


def test_adapted(X, odd):
    model = ScoreEnsemble([("odd", Foreign(-np.inf))], by=None).fit(X)
    later = adapt(model, odd, scores_only=True)
    assert later.training_scores_[62] == -np.inf
    assert np.isfinite([later.means_[None][0], later.offset_]).all()
    domains = DomainNormalizedDetector(Foreign(-np.inf), DomainClassifier(LogisticRegression()))
    domains = domains.fit(labelled(np.concatenate([X, odd])))
    assert np.isfinite([*np.ravel(list(domains.means_.values())), domains.offset_]).all()
    with pytest.raises(ValueError, match="gives all training clips the score -inf"):
        domains.fit(labelled(np.full((9, 3), 100.0)))


def test_weights_are_found_with_lowest_scores(X):
    rng = np.random.default_rng(1)
    test = np.concatenate([rng.normal(size=(20, 3)), 100 + rng.normal(size=(20, 3))])
    n = {"split": ["train"] * 60 + ["test"] * 40, "label": ["normal"] * 80 + ["anomaly"] * 20}
    table = labelled(np.concatenate([X, test]), machine=["fan"] * 100, **n)
    members = [("noise", IsolationForest(max_samples=2, random_state=0)), ("odd", Foreign(-np.inf))]
    search = ScoreEnsembleCV(members, step=0.25).fit(table)
    assert search.best_score_ == pytest.approx(1)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_metrics():
    clips = pd.DataFrame(
        {
            "machine": "fan",
            "section": "00",
            "domain": ["source", "target"] * 4,
            "label": ["normal"] * 4 + ["anomaly"] * 4,
        }
    )
    scores = np.array([4.0, 3, 2, -3, -np.inf, -np.inf, -2, 1])
    lowest = np.where(np.isneginf(scores), -1e9, scores)
    for rules in (2020, 2021, 2022):
        pd.testing.assert_frame_equal(
            dcase_scores(clips, scores, rules=rules), dcase_scores(clips, lowest, rules=rules)
        )
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="of 8 scores are NaN or"):
            dcase_score(clips, np.where(scores == 1, bad, scores))


def test_drift_by_ranks():
    rng = np.random.default_rng(0)
    normal, today = rng.normal(size=500), rng.normal(size=50)
    today[:10] = -np.inf
    (report,) = DriftMonitor(normal, n_recent=50).update(today)
    lowest = np.where(np.isneginf(today), -1e9, today)
    assert report.p_value == ks_2samp(normal, lowest, method="asymp").pvalue
    both = [np.append(normal, [-np.inf] * 100), today]  # as often before as today
    monitor = DriftMonitor(both[0], n_recent=50)
    assert not monitor.update(both[1])[0].drifted
    monitor.update([-np.inf] * 3)
    again = DriftMonitor(both[0], n_recent=50)
    again.set_state(monitor.get_state())
    assert again.get_state() == monitor.get_state()


def test_streams_raise_the_alarm_with_a_drift_monitor():
    rng, sr = np.random.default_rng(0), 4000

    def noise(seconds):
        return 0.05 * rng.normal(size=seconds * sr)

    train = pd.DataFrame({"audio": [noise(1) for _ in range(200)]})
    pipeline = make_pipeline(
        LogMel(sr=sr, n_fft=256, hop_length=128, n_mels=16),
        TimePooling(),
        KernelDensity(kernel="tophat", bandwidth=6.0),
    ).fit(train)
    sound = noise(40)
    sound[5 * sr : 6 * sr] += 0.5 * np.sin(np.arange(sr))
    sound[20 * sr :] += 0.5 * np.sin(np.arange(20 * sr))
    known = pipeline.score_samples(pd.DataFrame({"audio": [noise(1) for _ in range(50)]}))
    drift = DriftMonitor(known, n_recent=10)
    scorer = StreamingScorer(pipeline, 1.0, sr=sr, threshold=-200.0, drift=drift)
    events = [e for i in range(40) for e in scorer.feed(sound[i * sr : (i + 1) * sr])]
    alarms = [(e.type, e.start, e.score) for e in events if e.type == "alarm"]
    assert alarms == [("alarm", 20.0, -np.inf)]


def test_thresholds_that_decide_nothing(X):
    class Lost(Foreign):
        def fit(self, X, y=None):
            super().fit(X)
            self.offset_ = np.nan
            return self

    with pytest.raises(ValueError, match="section='00': Lost has the threshold nan, expected a f"):
        GroupedDetector(Lost()).fit(labelled(X))
    assert np.isfinite(set_threshold(Lost().fit(X), contamination=0.1).offset_)
