"""Copies among the training clips: a LOFDetector scores as if each clip were there once."""

import warnings

import numpy as np
import pytest
import xarray as xr
from sklearn.neighbors import LocalOutlierFactor

from sk_asd.detectors import (
    CosineDetector,
    GaussianMixtureDetector,
    KNNDetector,
    LOFDetector,
    MahalanobisDetector,
)
from sk_asd.ensemble import GroupedDetector, ScoreEnsemble

METRICS = ["euclidean", "cosine", "manhattan", "sqeuclidean", "minkowski", "chebyshev"]


@pytest.fixture
def X():
    return np.random.default_rng(0).normal(size=(60, 5))


@pytest.fixture
def new():
    rng = np.random.default_rng(1)
    return np.concatenate([rng.normal(size=(200, 5)), 10 + rng.normal(size=(20, 5))])


def fitted(X, message=None, **params):
    """A detector, and the warnings of its fit."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        detector = LOFDetector(**params).fit(X)
    assert [str(w.message)[: len(message or "")] for w in caught] == [message] * bool(message)
    return detector


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("n", [1, 3, 4, 8, 100])
def test_exact_copies(X, new, metric, n):
    message = f"{n} of {60 + n} training clips are copies of others"
    detector = fitted(np.concatenate([X, np.repeat(X[:1], n, axis=0)]), message, metric=metric)
    alone = fitted(X, metric=metric)
    np.testing.assert_allclose(detector.score_samples(new), alone.score_samples(new), rtol=1e-9)
    # Leave-one-out: a clip with copies is still there, the others are scored as before.
    np.testing.assert_allclose(
        detector.training_scores_[1:60], alone.training_scores_[1:], rtol=1e-9
    )
    expected = alone.score_samples(X[:1])
    np.testing.assert_allclose(detector.training_scores_[[0, -1]], expected[[0, 0]], rtol=1e-9)


@pytest.mark.parametrize("dims", [5, 40])  # by a tree, and by products
@pytest.mark.parametrize("noise", [1e-12, 1e-9, 1e-8])
def test_near_copies(dims, noise):
    rng = np.random.default_rng(0)
    X, new = rng.normal(size=(60, dims)), rng.normal(size=(100, dims))
    near = X[:1] + noise * rng.normal(size=(8, dims))
    detector = fitted(np.concatenate([X, near]), "8 of 68", metric="euclidean")
    expected = fitted(X, metric="euclidean").score_samples(new)
    np.testing.assert_allclose(detector.score_samples(new), expected, rtol=1e-6)


@pytest.mark.parametrize("gain", [0.5, 1e-6, 1e6])
def test_scaled_copies_under_cosine(X, new, gain):
    detector = fitted(np.concatenate([X, gain * X[:1].repeat(8, axis=0)]), "8 of 68")
    expected = fitted(X).score_samples(new)
    np.testing.assert_allclose(detector.score_samples(new), expected, rtol=1e-6)


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("offset", [0, 1e5])
def test_any_unit_and_offset(X, new, unit, offset):
    alone = fitted(X, metric="euclidean")
    few = np.concatenate([X, X[:6], X[:6]])
    detector = fitted(unit * (few + offset), "12 of 72", metric="euclidean")
    scores = detector.score_samples(unit * (new + offset))
    # scikit-learn adds 1e-10 to distances.
    np.testing.assert_allclose(scores, alone.score_samples(new), rtol=1e-3)


def test_single_precision(X, new):
    X = X.astype(np.float32)
    detector = fitted(np.concatenate([X, X[:5]]), "5 of 65", metric="euclidean")
    expected = fitted(X, metric="euclidean").score_samples(new)
    np.testing.assert_allclose(detector.score_samples(new), expected, rtol=1e-9)


def test_copies_of_an_outlier():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 32))
    X[0] *= 1000
    new = rng.normal(size=(50, 32))
    detector = fitted(np.concatenate([X, X[:1].repeat(8, axis=0)]), "8 of 68", metric="euclidean")
    expected = fitted(X, metric="euclidean").score_samples(new)
    np.testing.assert_allclose(detector.score_samples(new), expected, rtol=1e-6)


def test_most_clips_are_copies(X, new):
    many = np.concatenate([X[:20], X[:3].repeat(30, axis=0)])
    detector = fitted(many, "90 of 110", metric="euclidean")
    expected = fitted(X[:20], metric="euclidean").score_samples(new)
    np.testing.assert_allclose(detector.score_samples(new), expected, rtol=1e-9)


def test_fewer_distinct_clips_than_neighbours(X, new):
    detector = fitted(np.concatenate([X[:3]] * 5), "12 of 15", metric="euclidean")
    assert detector.lof_.n_neighbors_ == 2
    assert np.isfinite(detector.training_scores_).all()
    scores = detector.score_samples(new)
    assert scores[200:].max() < scores[:200].mean()


def test_all_clips_are_copies(X):
    with pytest.raises(ValueError, match="constant over the 9 training clips"):
        LOFDetector().fit(X[:1].repeat(9, axis=0))
    one_direction = np.arange(1.0, 10.0)[:, np.newaxis] * X[:1]
    detector = fitted(one_direction, "8 of 9")
    np.testing.assert_allclose(detector.training_scores_, -1, rtol=1e-3)
    assert detector.score_samples(-X[:1]) < -1


def test_distinct_clips_are_all_there(X):
    # As near as clips of a steady machine: no copies.
    close = np.concatenate([X, X[:1] + 1e-3 * np.random.default_rng(0).normal(size=(8, 5))])
    detector = fitted(close, metric="euclidean")
    assert len(detector.lof_._fit_X) == 68
    peer = LocalOutlierFactor(4, metric="euclidean", novelty=True).fit(close)
    np.testing.assert_allclose(detector.score_samples(X), peer.score_samples(X), rtol=1e-6)


def test_partial_fit(X, new):
    few = np.repeat(X[:1], 8, axis=0)
    detector = fitted(X, metric="euclidean")
    with pytest.warns(UserWarning, match="8 of 68 training clips are copies"):
        detector.partial_fit(few)
    at_once = fitted(np.concatenate([X, few]), "8 of 68", metric="euclidean")
    np.testing.assert_array_equal(detector.score_samples(new), at_once.score_samples(new))
    np.testing.assert_array_equal(detector.training_scores_, at_once.training_scores_)
    with pytest.warns(UserWarning, match="9 of 69"):  # all of them were kept
        detector.partial_fit(X[:1])
    assert detector.training_scores_.shape == (69,)


def test_groups_and_ensembles(X, new):
    few = np.concatenate([X, X[:1].repeat(8, axis=0)])
    section = np.array(["00", "01"] * 34, dtype=object)
    labelled = xr.DataArray(few, dims=("clip", "bin"), coords={"section": ("clip", section)})
    with pytest.warns(UserWarning, match="4 of 34 .* copies"):
        grouped = GroupedDetector(LOFDetector(metric="euclidean")).fit(labelled)
    assert min(scores.min() for scores in [grouped.training_scores_]) > -10
    members = [("lof", LOFDetector(metric="euclidean")), ("spread", MahalanobisDetector())]
    with pytest.warns(UserWarning, match="8 of 68 .* copies"):
        ensemble = ScoreEnsemble(members, by=None).fit(few)
    parts = ensemble.contributions(new[200:])
    assert (parts < -5).all()  # both members know the anomalies


@pytest.mark.parametrize(
    "detector",
    [
        KNNDetector(metric="euclidean"),
        KNNDetector(metric="euclidean", density_neighbors=4),
        CosineDetector(),
        MahalanobisDetector(),
        GaussianMixtureDetector(2, random_state=0),
    ],
)
def test_other_detectors_bear_copies(X, new, detector):
    detector.fit(np.concatenate([X, np.repeat(X[:1], 8, axis=0)]))
    scores = detector.score_samples(new)
    assert np.isfinite(detector.training_scores_).all()
    assert np.isfinite(scores).all()
    assert scores[200:].mean() < scores[:200].mean()
