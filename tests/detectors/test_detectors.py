"""Meaning of the detectors: known geometries, hand computations, planted anomalies, errors."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats
from scipy.spatial.distance import cdist
from sklearn.base import clone
from sklearn.covariance import LedoitWolf
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import LocalOutlierFactor

from sk_asd.detectors import (
    CosineDetector,
    GaussianMixtureDetector,
    KNNDetector,
    LOFDetector,
    MahalanobisDetector,
)
from sk_asd.utils._normal_threshold import normal_threshold

DETECTORS = [
    KNNDetector(),
    LOFDetector(),
    CosineDetector(),
    MahalanobisDetector(),
    GaussianMixtureDetector(random_state=0),
]
MEMORISING = [*DETECTORS[:4], GaussianMixtureDetector(crossfit=5, random_state=0)]


@pytest.fixture
def clips():
    return np.random.default_rng(0).normal(size=(40, 5)) + 3


@pytest.mark.parametrize("detector", DETECTORS, ids=lambda d: type(d).__name__)
def test_planted_anomalies_score_lower(detector, clips):
    rng = np.random.default_rng(1)
    normal = rng.normal(size=(50, 5)) + 3
    anomalies = rng.normal(size=(50, 5)) + [8, 3, 3, -2, 3]
    scores = detector.fit(clips).score_samples(np.vstack([normal, anomalies]))
    assert roc_auc_score([1] * 50 + [0] * 50, scores) > 0.95
    assert (detector.predict(anomalies) == -1).mean() > 0.9


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize(("aggregation", "take"), [("mean", np.mean), ("max", np.max)])
def test_knn_against_the_distance_matrix(clips, metric, aggregation, take):
    new = clips[:7] * 1.1 + 0.2
    detector = KNNDetector(3, metric=metric, aggregation=aggregation).fit(clips)
    expected = take(np.sort(cdist(new, clips, metric), axis=1)[:, :3], axis=1)
    np.testing.assert_allclose(detector.score_samples(new), -expected, rtol=1e-6)
    own = cdist(clips, clips, metric)
    np.fill_diagonal(own, np.inf)
    expected = take(np.sort(own, axis=1)[:, :3], axis=1)
    np.testing.assert_allclose(detector.training_scores_, -expected, rtol=1e-6)


@pytest.mark.parametrize(
    "detector", [MahalanobisDetector(standardize=True), KNNDetector(standardize=True)]
)
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_standardised_features_by_hand(clips, detector, metric):
    """As the detector alone on standardised features, whatever the units of the columns."""
    if isinstance(detector, KNNDetector):
        detector = clone(detector).set_params(metric=metric)
    loud = clips * [1, 100, 1e-3, 7, 1] + [0, 5, 0, -1000, 2]
    loud[:, 4] = 3.3  # a dead band
    new = 1.1 * loud[:7] + 0.2
    mean, scale = loud.mean(axis=0), loud.std(axis=0)
    scale[4] = 1
    plain = clone(detector).set_params(standardize=False).fit((loud - mean) / scale)
    fitted = clone(detector).fit(loud)
    np.testing.assert_allclose(fitted.score_samples(new), plain.score_samples((new - mean) / scale))
    np.testing.assert_allclose(fitted.training_scores_, plain.training_scores_, rtol=1e-6)
    # What explains a score is in the units of the features.
    form = fitted._quadratic_form(new)
    if form is not None:
        expected, gradient = form
        squared = ((new - expected) * gradient).sum(axis=1)
        np.testing.assert_allclose(squared, fitted.score_samples(new) ** 2, rtol=1e-6)


def test_lof_is_scikit_learns(clips):
    new = clips[:7] * 1.1 + 0.2
    detector = LOFDetector(5, metric="euclidean").fit(clips)
    reference = LocalOutlierFactor(5, metric="euclidean", novelty=True).fit(clips)
    np.testing.assert_array_equal(detector.score_samples(new), reference.score_samples(new))


def test_cosine_by_hand():
    X = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    detector = CosineDetector().fit(X)
    np.testing.assert_allclose(detector.score_samples([[1.0, 0.0]]), np.sqrt(0.5) - 1)
    # The mean of the others: (1/2, 1), (1, 1/2), (1/2, 1/2).
    expected = [0.5 / np.sqrt(1.25) - 1, 0.5 / np.sqrt(1.25) - 1, 0]
    np.testing.assert_allclose(detector.training_scores_, expected, atol=1e-12)


def test_mahalanobis_is_ledoit_wolf(clips):
    reference = LedoitWolf().fit(clips)
    new = clips[:7] * 1.1 + 0.2
    detector = MahalanobisDetector(ridge=0.0).fit(clips)
    np.testing.assert_allclose(detector.score_samples(new) ** 2, reference.mahalanobis(new))
    assert detector.shrinkage_ == reference.shrinkage_


@pytest.mark.parametrize("shrinkage", [0.0, 0.3, "ledoit_wolf", "oas"])
def test_mahalanobis_leave_one_out_is_exact(clips, shrinkage):
    """Against refitting without each clip, at the same shrinkage intensity and target."""
    detector = MahalanobisDetector(shrinkage=shrinkage).fit(clips)
    a = detector.shrinkage_
    target = (a + 1e-6) * np.trace(np.cov(clips.T, ddof=0)) / 5 * np.eye(5)
    for i in range(len(clips)):
        others = np.delete(clips, i, axis=0)
        centred = clips[i] - others.mean(axis=0)
        covariance = (1 - a) * np.cov(others.T, ddof=0) + target
        expected = np.sqrt(centred @ np.linalg.solve(covariance, centred))
        np.testing.assert_allclose(detector.training_scores_[i], -expected)


def test_mahalanobis_with_more_features_than_clips():
    rng = np.random.default_rng(0)
    X, new = rng.normal(size=(10, 50)), rng.normal(size=(200, 50))
    detector = MahalanobisDetector(contamination=0.1).fit(X)
    # In-sample scores would put the threshold far above every new clip.
    assert (detector.predict(new) == 1).mean() > 0.6
    with pytest.raises(ValueError, match=r"singular with shrinkage=0.0 and ridge=0.0"):
        MahalanobisDetector(shrinkage=0.0, ridge=0.0).fit(X)


def test_mahalanobis_does_not_depend_on_the_unit(clips):
    a = MahalanobisDetector().fit(clips)
    b = MahalanobisDetector().fit(clips * 1e-6)
    np.testing.assert_allclose(a.training_scores_, b.training_scores_, rtol=1e-6)


def test_gaussian_mixture_density(clips):
    new = clips[:7] * 1.1 + 0.2
    detector = GaussianMixtureDetector(2, random_state=0).fit(clips)
    m = detector.mixture_
    parts = np.array(
        [
            stats.multivariate_normal(mean, covariance).logpdf(new - detector.center_)
            for mean, covariance in zip(m.means_, m.covariances_)
        ]
    )
    expected = np.log(m.weights_ @ np.exp(parts))
    np.testing.assert_allclose(detector.score_samples(new), expected)
    detector.set_params(density="max_component").fit(clips)
    np.testing.assert_allclose(detector.score_samples(new), parts.max(axis=0))
    far = detector.score_samples(clips + 1e4)
    assert np.isfinite(far).all()


def test_gaussian_mixture_cross_fitted_training_scores():
    rng = np.random.default_rng(0)
    X, new = rng.normal(size=(60, 40)), rng.normal(size=(300, 40))
    within = GaussianMixtureDetector(random_state=0).fit(X)
    across = GaussianMixtureDetector(crossfit=5, random_state=0).fit(X)
    np.testing.assert_allclose(within.score_samples(new), across.score_samples(new))
    assert (within.predict(new) == 1).mean() < 0.1
    assert (across.predict(new) == 1).mean() > 0.8


@pytest.mark.parametrize("detector", MEMORISING, ids=lambda d: type(d).__name__)
def test_contamination_is_the_false_alarm_rate(detector):
    """Thresholds of leave-one-out scores hold for new normal clips."""
    rng = np.random.default_rng(0)
    X, new = rng.normal(size=(400, 4)) + 2, rng.normal(size=(2000, 4)) + 2
    for threshold in ("quantile", "gamma"):
        detector.set_params(contamination=0.1, threshold=threshold)
        rate = (detector.fit(X).predict(new) == -1).mean()
        assert 0.06 < rate < 0.15, (threshold, rate)


def test_gamma_threshold_withstands_one_odd_clip():
    scores = -np.random.default_rng(0).gamma(2, 1, size=200)
    for odd in (30, 1000):
        threshold = normal_threshold(np.append(scores, -odd), 0.1, "gamma")
        assert 0.06 < (scores < threshold).mean() < 0.14


def test_quantile_threshold(clips):
    detector = KNNDetector(contamination=0.25).fit(clips)
    assert (detector.training_scores_ < detector.offset_).sum() == 10
    assert (detector.fit_predict(clips) == -1).sum() == 10


def test_duplicates_do_not_break_the_gamma_threshold():
    X = np.repeat(np.eye(3), 4, axis=0)
    for detector in (KNNDetector(threshold="gamma"), CosineDetector(threshold="gamma")):
        assert np.isfinite(detector.fit(X).offset_)


def test_labelled_array(clips):
    labelled = xr.DataArray(clips, dims=("clip", "embedding"))
    for detector in DETECTORS:
        np.testing.assert_array_equal(
            detector.fit(clips).score_samples(clips), detector.fit(labelled).score_samples(labelled)
        )


@pytest.mark.parametrize("detector", DETECTORS, ids=lambda d: type(d).__name__)
class TestErrors:
    def test_constant_features(self, detector):
        with pytest.raises(ValueError, match="All 3 features are constant over the 6 training"):
            detector.fit(np.ones((6, 3)))

    def test_one_training_clip(self, detector):
        with pytest.raises(ValueError, match=r"minimum of 2 is required"):
            detector.fit(np.ones((1, 3)))

    def test_features_with_a_time_axis(self, detector):
        with pytest.raises(ValueError, match=r"\(4, 3, 2\): put TimePooling or an embedder"):
            detector.fit(np.ones((4, 3, 2)))

    def test_clip_table(self, detector):
        with pytest.raises(ValueError, match="not a clip table: put a feature extractor"):
            detector.fit(pd.DataFrame({"path": ["a.wav", "b.wav"]}))

    def test_contamination(self, detector, clips):
        detector = type(detector)(contamination=0.7)
        with pytest.raises(ValueError, match="'contamination' parameter .* must be a float"):
            detector.fit(clips)


@pytest.mark.parametrize("detector", [KNNDetector(6), LOFDetector(6)])
def test_fewer_clips_than_neighbours(detector):
    with pytest.raises(ValueError, match="n_neighbors=6 needs at least 7 training clips.*= 6"):
        detector.fit(np.random.default_rng(0).normal(size=(6, 2)))


def test_fewer_clips_than_components():
    X = np.random.default_rng(0).normal(size=(3, 2))
    with pytest.raises(ValueError, match="n_components=4 .* at least 4 training clips.* = 3"):
        GaussianMixtureDetector(4).fit(X)
