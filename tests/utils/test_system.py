"""Fitted systems taken apart."""

import numpy as np
import pandas as pd
import pytest
from pyod.models import knn as pyod_knn
from sklearn.base import BaseEstimator
from sklearn.ensemble import IsolationForest
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM

from sk_asd.datasets import make_machine_sounds
from sk_asd.decisions import score_clips
from sk_asd.detectors import KNNDetector, MahalanobisDetector
from sk_asd.domains import DomainNormalizedDetector
from sk_asd.ensemble import GroupedDetector, ScoreEnsemble
from sk_asd.features import KeepLabels, LogMel, TimePooling
from sk_asd.inspection import RocDisplay, ScoreDistributionDisplay, explain_clips
from sk_asd.metrics import anomaly_score, dcase_scorer
from sk_asd.utils._system import (
    System,
    chunks,
    every_estimator,
    offset_of,
    parts,
    scores_of,
    steps_of,
    training_scores_of,
)

X = np.random.default_rng(0).normal(size=(40, 2))
TABLE = pd.DataFrame(X, columns=["a", "b"]).assign(section=["00", "01"] * 20)


def mean_score(estimator, X, y=None):
    return float(np.mean(scores_of(estimator, X)))


def searched(detector, **grid):
    return GridSearchCV(detector, grid, scoring=mean_score, cv=2)


@pytest.mark.parametrize(
    "wrap",
    [
        FrozenEstimator,
        lambda fitted: FrozenEstimator(FrozenEstimator(fitted)),
        lambda fitted: make_pipeline(fitted),
        lambda fitted: make_pipeline("passthrough", FrozenEstimator(make_pipeline(fitted))),
    ],
)
def test_whatever_is_around_a_pipeline(wrap):
    fitted = make_pipeline(StandardScaler(), KNNDetector()).fit(X)
    system = System(wrap(fitted))
    assert system.front == [fitted[0]]
    assert system.detector is fitted[1]
    np.testing.assert_array_equal(system.transform(X), fitted[0].transform(X))
    assert system.transform(None) is None
    scores, thresholds, groups = system.score_and_threshold(system.transform(X))
    np.testing.assert_array_equal(scores, fitted.score_samples(X))
    assert set(thresholds) == {fitted[1].offset_}
    assert (system.columns, list(groups)) == ((), [None] * 40)


@pytest.mark.parametrize(
    ("detector", "grid"),
    [
        (KNNDetector(metric="euclidean"), {"n_neighbors": [1, 2]}),
        (MahalanobisDetector(), {"shrinkage": [0.0, 0.5]}),
        (pyod_knn.KNN(), {"n_neighbors": [2, 5]}),
    ],
    ids=["knn", "mahalanobis", "pyod"],
)
def test_a_search_is_what_it_has_chosen(detector, grid):
    search = searched(detector, **grid).fit(X)
    best = search.best_estimator_
    assert System(search).detector is best
    for function in (scores_of, training_scores_of, offset_of):
        np.testing.assert_array_equal(function(search, X), function(best, X))
    inside = ScoreEnsemble([("search", searched(detector, **grid))], by=None).fit(X)
    alone = ScoreEnsemble([("search", best)], by=None).fit(X)
    np.testing.assert_array_equal(inside.training_scores_, alone.training_scores_)
    np.testing.assert_array_equal(inside.score_samples(X + 1), alone.score_samples(X + 1))


def test_groups_are_never_none():
    grouped = GroupedDetector(KNNDetector(metric="euclidean"), by="section").fit(TABLE)
    system = System(make_pipeline(grouped))
    assert system.columns == ("section",)
    assert list(system.known()[1]) == list(system.score(TABLE)[1]) == list(TABLE["section"])
    assert system.thresholds() == grouped.offsets_
    with pytest.warns(UserWarning, match="No column"):
        system = System(GroupedDetector(KNNDetector()).fit(X))
    assert system.columns == ()
    assert set(system.known()[1]) == set(system.score(X)[1]) == set(system.thresholds()) == {None}


def test_thresholds_that_cannot_be_set():
    with pytest.raises(TypeError, match="OneClassSVM decides without its offset_"):
        System(OneClassSVM().fit(X)).set_thresholds({None: 0.0})
    system = System(IsolationForest(n_estimators=2, random_state=0).fit(X))
    system.set_thresholds({None: -0.4})
    assert system.thresholds() == {None: -0.4}
    with pytest.raises(ValueError, match="IsolationForest keeps no scores"):
        system.known()


@pytest.mark.filterwarnings("ignore:No column")
def test_parts():
    inner = make_pipeline(StandardScaler(), KNNDetector())
    grouped = GroupedDetector(inner, by="section").fit(TABLE)
    assert [where for where, _ in parts(grouped)] == [
        *("GroupedDetector", "00", "00 / standardscaler", "00 / knndetector"),
        *("01", "01 / standardscaler", "01 / knndetector"),
    ]
    normalized = DomainNormalizedDetector(inner, by=None).fit(X)
    ensemble = ScoreEnsemble([("a", inner), ("b", FrozenEstimator(normalized))], by=None).fit(X)
    first, second = ensemble.estimators_[0], normalized.detector_
    found = [part for _, part in parts(ensemble)]
    assert found == [ensemble, first, *first, normalized, second, *second]
    assert steps_of(normalized) == [normalized]
    assert steps_of(normalized, rescaled=True) == list(normalized.detector_)
    assert list(parts(inner))[1:] == [(name, step) for name, step in inner.steps]


def test_every_estimator_once():
    class Holder(BaseEstimator):
        pass

    holder, shared = Holder(), StandardScaler()
    holder.inside = {"list": [shared, (shared, KNNDetector())], "number": 1}
    assert [type(e).__name__ for e in every_estimator(holder)] == [
        *("Holder", "StandardScaler", "KNNDetector")
    ]


@pytest.mark.parametrize("clips", [X, TABLE, X.tolist()], ids=["array", "table", "list"])
def test_chunks(clips):
    found = list(chunks(clips, 16))
    assert [len(part) for part in found] == [16, 16, 8]
    assert list(chunks(clips[:0], 16)) == []


class HighIsAbnormal(BaseEstimator):
    """A detector with PyOD's interface."""

    def fit(self, X, y=None):
        self.decision_scores_ = self.decision_function(X)
        self.threshold_ = np.quantile(self.decision_scores_, 0.9)
        return self

    def decision_function(self, X):
        return np.abs(np.asarray(X, dtype=float)).sum(axis=1)


class TestWithoutScoreSamples:
    @pytest.fixture(scope="class")
    def clips(self):
        return make_machine_sounds("fan", n_train=8, n_test=4, duration=0.5, random_state=0)

    @pytest.fixture(scope="class")
    def test(self, clips):
        return clips[clips["split"] == "test"]

    @pytest.fixture(scope="class")
    def fitted(self, clips):
        front = LogMel(n_mels=8), TimePooling(), KeepLabels(StandardScaler())
        return lambda detector: make_pipeline(*front, detector).fit(
            clips[clips["split"] == "train"]
        )

    @pytest.mark.parametrize(
        "ask",
        [
            anomaly_score,
            dcase_scorer,
            RocDisplay.from_estimator,
            ScoreDistributionDisplay.from_estimator,
            explain_clips,
        ],
    )
    def test_the_message_says_what_to_do(self, ask, fitted, test):
        bare = fitted(HighIsAbnormal())
        message = (
            r"HighIsAbnormal has no score_samples, .* GroupedDetector\(HighIsAbnormal\(\.\.\.\)\)\."
        )
        with pytest.raises(TypeError, match=message):
            ask(bare, test)
        assert ask(fitted(GroupedDetector(HighIsAbnormal())), test) is not None

    def test_what_it_recommends_scores_alike(self, fitted, test):
        bare = score_clips(fitted(HighIsAbnormal()), test)
        grouped = fitted(GroupedDetector(HighIsAbnormal()))
        np.testing.assert_array_equal(bare["score"], grouped.score_samples(test))
        np.testing.assert_array_equal(bare["decision"], grouped.predict(test))
        np.testing.assert_array_equal(bare["score"], -anomaly_score(grouped, test))
