"""Features with a large common offset: distances are those without it."""

import numpy as np
import pytest
from sklearn.base import clone

from sk_asd.detectors import (
    CosineDetector,
    GaussianMixtureDetector,
    KNNDetector,
    LOFDetector,
    MahalanobisDetector,
)

DETECTORS = [
    KNNDetector(metric="euclidean"),
    KNNDetector(metric="sqeuclidean", n_neighbors=3),
    KNNDetector(metric="minkowski"),
    KNNDetector(metric="manhattan"),
    KNNDetector(metric="euclidean", density_neighbors=4),
    LOFDetector(metric="euclidean"),
    LOFDetector(metric="l2", n_neighbors=10),
    MahalanobisDetector(),
    MahalanobisDetector(shrinkage="oas"),
    *(
        GaussianMixtureDetector(2, covariance_type=kind, random_state=0)
        for kind in ("full", "tied", "diag", "spherical")
    ),
    GaussianMixtureDetector(1, crossfit=3, density="max_component", random_state=0),
]


def clips(dims):
    rng = np.random.default_rng(0)
    return rng.normal(size=(80, dims)), 1.5 * rng.normal(size=(40, dims))


@pytest.mark.parametrize("dims", [8, 32])
@pytest.mark.parametrize("offset", [1e5, 1e8, "per feature"])
@pytest.mark.parametrize("detector", DETECTORS, ids=str)
def test_offset(detector, offset, dims):
    X, new = clips(dims)
    if offset == "per feature":
        offset = np.logspace(2, 7, dims) * np.resize([1, -1], dims)
    here, there = clone(detector).fit(X), clone(detector).fit(X + offset)
    np.testing.assert_allclose(
        there.score_samples(new + offset), here.score_samples(new), rtol=1e-5
    )
    np.testing.assert_allclose(there.training_scores_, here.training_scores_, rtol=1e-5)
    assert there.offset_ == pytest.approx(here.offset_, rel=1e-5)


def test_single_precision():
    X, new = ((v + 1000).astype(np.float32) for v in clips(32))
    shifted = KNNDetector(metric="euclidean").fit(X).score_samples(new)
    exact = KNNDetector(metric="euclidean").fit(X.astype(float) - 1000)
    np.testing.assert_allclose(shifted, exact.score_samples(new.astype(float) - 1000), rtol=1e-9)


def test_cosine_sees_the_angle_beside_an_offset():
    X, new = clips(8)
    detector = CosineDetector().fit(X + 1e6)
    mean = (X + 1e6).mean(axis=0)
    unit = mean / np.linalg.norm(mean)
    # The squared sine from the part across the mean, computed without cancellation.
    across = (new + 1e6 - mean) - np.outer((new + 1e6 - mean) @ unit, unit)
    expected = -0.5 * (np.linalg.norm(across, axis=1) / np.linalg.norm(mean)) ** 2
    np.testing.assert_allclose(detector.score_samples(new + 1e6), expected, rtol=1e-3)


@pytest.mark.parametrize("metric", ["cosine", "correlation", "braycurtis"])
def test_distances_that_a_shift_would_change_are_not_shifted(metric):
    X, new = (np.abs(values) + 1 for values in clips(8))
    detector = KNNDetector(metric=metric).fit(X)
    assert not detector.center_.any()
    from sklearn.metrics import pairwise_distances

    expected = -pairwise_distances(new, X, metric=metric).min(axis=1)
    np.testing.assert_allclose(detector.score_samples(new), expected, atol=1e-12)


def test_partial_fit_from_the_clips_themselves():
    X, new = (values + 1e7 for values in clips(32))
    for detector in (KNNDetector(metric="euclidean"), LOFDetector(metric="euclidean")):
        part = clone(detector).fit(X[:50]).partial_fit(X[50:])
        whole = clone(detector).fit(X)
        np.testing.assert_array_equal(part.score_samples(new), whole.score_samples(new))
        np.testing.assert_array_equal(part.training_scores_, whole.training_scores_)
