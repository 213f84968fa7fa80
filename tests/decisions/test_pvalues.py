"""Conformal p-values: counted by hand, and uniform for normal clips."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom, false_discovery_control, kstest
from sklearn import config_context
from sklearn.ensemble import IsolationForest
from sklearn.frozen import FrozenEstimator
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sk_asd.decisions import predict_pvalue
from sk_asd.detectors import KNNDetector, MahalanobisDetector
from sk_asd.domains import DomainNormalizedDetector
from sk_asd.ensemble import GroupedDetector, ScoreEnsemble

KNN = KNNDetector(metric="euclidean")


@pytest.fixture
def line():
    """Training scores -1, -1, -2 and -3."""
    detector = KNNDetector(metric="euclidean").fit([[0.0], [1.0], [3.0], [6.0]])
    np.testing.assert_array_equal(detector.training_scores_, [-1, -1, -2, -3])
    return detector


def test_counted_by_hand(line):
    X = [[0.5], [7.0], [-2.0], [-9.0]]
    np.testing.assert_allclose(predict_pvalue(line, X), [1.0, 1.0, 0.6, 0.2])
    smoothed = predict_pvalue(line, X, smoothed=True, random_state=0)
    u = np.random.RandomState(0).uniform(size=4)
    expected = np.array([4 + u[0], 2 + 3 * u[1], 1 + 2 * u[2], u[3]]) / 5
    np.testing.assert_allclose(smoothed, expected)


@pytest.mark.parametrize("detector", [KNN, MahalanobisDetector()], ids=["knn", "mahalanobis"])
@pytest.mark.slow
def test_uniform_for_exchangeable_normals(detector):
    """2,000 clips, each with training clips of its own, as the guarantee has it."""
    rng = np.random.default_rng(7)
    n, n_clips = 199, 2000
    smoothed, plain = np.empty(n_clips), np.empty(n_clips)
    with config_context(assume_finite=True, skip_parameter_validation=True):
        for i in range(n_clips):
            # Skewed, correlated features of unequal spread.
            mixing = [[1, 0.5, 0], [0, 1, 0.5], [0, 0, 3]]
            clips = np.exp(0.5 * rng.normal(size=(n + 1, 3)) @ mixing)
            fitted = detector.fit(clips[:n])
            plain[i] = predict_pvalue(fitted, clips[n:])[0]
            smoothed[i] = predict_pvalue(fitted, clips[n:], smoothed=True, random_state=i)[0]
    assert kstest(smoothed, "uniform").pvalue > 0.01
    assert np.all(smoothed <= plain)
    for p in (plain, smoothed):
        low, high = binom.interval(0.99, n_clips, 0.01)
        assert low <= np.sum(p <= 0.01) <= high


def test_not_uniform_where_training_scores_know_their_clips():
    """What leave-one-out is for: the same test notices scores that are not."""
    rng = np.random.default_rng(0)
    p = np.empty(300)
    for i in range(len(p)):
        clips = rng.normal(size=(21, 5))
        fitted = MahalanobisDetector(shrinkage=0.0).fit(clips[:20])
        fitted.training_scores_ = fitted.score_samples(clips[:20])
        p[i] = predict_pvalue(fitted, clips[20:], smoothed=True, random_state=i)[0]
    assert kstest(p, "uniform").pvalue < 1e-4


def test_held_out_calibration_is_exact_for_any_detector():
    rng = np.random.default_rng(1)
    p = np.empty(200)
    forest = IsolationForest(n_estimators=2, random_state=0).fit(rng.normal(size=(30, 2)))
    for i in range(len(p)):
        clips = rng.normal(size=(40, 2))
        p[i] = predict_pvalue(
            forest, clips[:1], calibration=clips[1:], smoothed=True, random_state=i
        )[0]
    assert kstest(p, "uniform").pvalue > 0.01


def _groups(n, rng):
    """Clips of two sections whose spreads differ by a factor of ten."""
    X = rng.normal(size=(n, 2))
    section = np.where(np.arange(n) % 2, "01", "00")
    X[section == "01"] *= 10
    return pd.DataFrame(X, columns=["a", "b"]).assign(section=section)


def test_each_clip_is_compared_with_its_group():
    rng = np.random.default_rng(2)
    train, test = _groups(400, rng), _groups(400, rng)
    detector = GroupedDetector(KNN).fit(train)
    p = predict_pvalue(detector, test)
    for section in ("00", "01"):
        mine = test["section"] == section
        alone = KNNDetector(metric="euclidean").fit(
            train.loc[train["section"] == section, ["a", "b"]]
        )
        np.testing.assert_allclose(p[mine], predict_pvalue(alone, test.loc[mine, ["a", "b"]]))
        assert 0.4 < p[mine].mean() < 0.6
    together = predict_pvalue(detector, test, by_group=False)
    assert together[test["section"] == "01"].mean() < 0.4
    np.testing.assert_array_equal(predict_pvalue(detector, test, min_clips=200), p)
    np.testing.assert_array_equal(predict_pvalue(detector, test, min_clips=201), together)
    held_out = predict_pvalue(detector, test, calibration=_groups(200, rng))
    assert 0.4 < held_out[test["section"] == "01"].mean() < 0.6
    with pytest.raises(ValueError, match="section='01' has no clips in calibration"):
        predict_pvalue(detector, test, calibration=train[train["section"] == "00"])


def test_unseen_group_is_compared_with_all_clips():
    rng = np.random.default_rng(3)
    train = _groups(100, rng)
    detector = GroupedDetector(KNN, unseen="pool").fit(train)
    new = _groups(10, rng).assign(section="07")
    pooled = KNNDetector(metric="euclidean").fit(train[["a", "b"]])
    expected = predict_pvalue(pooled, new[["a", "b"]])
    np.testing.assert_allclose(predict_pvalue(detector, new), expected)
    with pytest.raises(ValueError, match="was not seen"):
        predict_pvalue(GroupedDetector(KNN).fit(train), new)


def test_every_kind_of_detector():
    rng = np.random.default_rng(4)
    X, new = rng.normal(size=(60, 2)), rng.normal(size=(5, 2))
    scaled = StandardScaler().fit(X)
    inside = KNNDetector(metric="euclidean").fit(scaled.transform(X))
    expected = predict_pvalue(inside, scaled.transform(new))
    pipeline = make_pipeline(StandardScaler(), KNNDetector(metric="euclidean")).fit(X)
    for detector in (pipeline, FrozenEstimator(pipeline), make_pipeline(pipeline)):
        np.testing.assert_allclose(predict_pvalue(detector, new), expected)
    ensemble = ScoreEnsemble([("knn", KNN), ("spread", MahalanobisDetector())], by=None).fit(X)
    p = predict_pvalue(ensemble, new)
    order = np.argsort(ensemble.score_samples(new))
    assert np.all(np.diff(p[order]) >= 0)
    lof = LocalOutlierFactor(n_neighbors=5, novelty=True).fit(X)
    ours = np.sum(lof.negative_outlier_factor_[:, None] <= lof.score_samples(new), axis=0)
    np.testing.assert_allclose(predict_pvalue(lof, new), (1 + ours) / 61)


@pytest.mark.filterwarnings("ignore:No column")
def test_domain_normalized_detector():
    rng = np.random.default_rng(5)
    X = rng.normal(size=(50, 2))
    detector = DomainNormalizedDetector(MahalanobisDetector(), by=None).fit(X)
    p = predict_pvalue(detector, [[0.0, 0.0], [50.0, 50.0]])
    assert p[0] > 0.5
    assert p[1] == 1 / 51


def test_pyod_scores_are_turned_round():
    knn = pytest.importorskip("pyod.models.knn")
    X = np.random.default_rng(6).normal(size=(60, 2))
    p = predict_pvalue(knn.KNN().fit(X), [[0.0, 0.0], [50.0, 50.0]])
    assert p[0] > 0.5
    assert p[1] == 1 / 61


def test_adjusted_for_many_machines():
    """Of the clips that are called abnormal no more than a tenth are normal, on average."""
    rng = np.random.default_rng(8)
    false = []
    for _ in range(100):
        detector = KNNDetector(metric="euclidean").fit(rng.normal(size=(300, 2)))
        X = rng.normal(size=(50, 2))
        X[:10] += 6
        p = predict_pvalue(detector, X, adjust="bh")
        called = p <= 0.1
        assert called[:10].all()
        false.append(called[10:].sum() / max(called.sum(), 1))
    assert np.mean(false) < 0.1 + 3 * np.std(false) / np.sqrt(100)
    np.testing.assert_array_equal(p, false_discovery_control(predict_pvalue(detector, X)))


def test_no_training_scores():
    forest = IsolationForest(n_estimators=2).fit(np.eye(3))
    with pytest.raises(ValueError, match="IsolationForest keeps no scores.*calibration="):
        predict_pvalue(forest, np.eye(3))
