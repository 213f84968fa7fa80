"""KNNDetector(density_neighbors=...): local density normalisation of distances."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.metrics import roc_auc_score

from sk_asd.detectors import KNNDetector


@pytest.fixture
def clips():
    return np.random.default_rng(0).normal(size=(40, 5)) + 3


def ratios(new, clips, metric, k):
    """Distances to training clips over their density, smallest first: the definition."""
    own = cdist(clips, clips, metric)
    np.fill_diagonal(own, np.inf)
    density = np.sort(own, axis=1)[:, :k].mean(axis=1)
    density = density + 1e-6 * density.mean()
    return np.sort(cdist(new, clips, metric) / density, axis=1)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("density_neighbors", [1, 4])
@pytest.mark.parametrize(("aggregation", "take"), [("mean", np.mean), ("max", np.max)])
def test_against_the_definition(clips, metric, density_neighbors, aggregation, take):
    new = clips[:7] * 1.1 + 0.2
    detector = KNNDetector(
        3, metric=metric, density_neighbors=density_neighbors, aggregation=aggregation
    ).fit(clips)
    expected = -take(ratios(new, clips, metric, density_neighbors)[:, :3], axis=1)
    np.testing.assert_allclose(detector.score_samples(new), expected, rtol=1e-9)


@pytest.mark.parametrize("n_neighbors", [1, 3])
@pytest.mark.parametrize("density_neighbors", [1, 4])
def test_leave_one_out_is_refitting_without_each_clip(clips, n_neighbors, density_neighbors):
    detector = KNNDetector(n_neighbors, density_neighbors=density_neighbors).fit(clips)
    own = detector.training_scores_
    refitted = [
        detector.fit(np.delete(clips, i, axis=0)).score_samples(clips[i : i + 1])[0]
        for i in range(len(clips))
    ]
    np.testing.assert_allclose(own, refitted, rtol=1e-9)


def test_chunks_do_not_matter():
    """More clips than one chunk of distances holds."""
    X = np.random.default_rng(0).normal(size=(3000, 2)) + 3
    detector = KNNDetector(metric="euclidean", density_neighbors=2).fit(X)
    for i in (0, 2999):
        refitted = KNNDetector(metric="euclidean", density_neighbors=2)
        refitted.fit(np.delete(X, i, axis=0))
        np.testing.assert_allclose(detector.training_scores_[i], refitted.score_samples(X[[i]]))


def test_the_unit_does_not_matter(clips):
    detector = KNNDetector(metric="euclidean", density_neighbors=2)
    expected = detector.fit(clips).training_scores_
    np.testing.assert_allclose(detector.fit(clips * 1e6).training_scores_, expected)


def test_domains_of_different_density():
    """Few clips far apart in the target domain, many close together in the source."""
    rng = np.random.default_rng(0)
    train = np.vstack([rng.normal(size=(200, 4)), 40 + 10 * rng.normal(size=(20, 4))])
    source = rng.normal(size=(100, 4))
    target = 40 + 10 * rng.normal(size=(100, 4))
    anomalies = rng.normal(size=(100, 4)) + [5, -5, 5, -5]

    def auc(normal, detector):
        scores = detector.score_samples(np.vstack([normal, anomalies]))
        return roc_auc_score([1] * 100 + [0] * 100, scores)

    plain = KNNDetector(metric="euclidean").fit(train)
    density = KNNDetector(metric="euclidean", density_neighbors=4).fit(train)
    assert auc(source, plain) > 0.99
    assert auc(target, plain) < 0.3
    assert auc(source, density) > 0.99
    assert auc(target, density) > 0.99


def test_copies_of_clips(clips):
    detector = KNNDetector(density_neighbors=1).fit(np.repeat(clips, 2, axis=0))
    np.testing.assert_allclose(detector.training_scores_, 0, atol=1e-6)
    assert np.isfinite(detector.score_samples(clips + 1)).all()
    # One pair of copies among others attracts nobody.
    mixed = np.vstack([clips, clips[:1]])
    scores = KNNDetector(density_neighbors=1).fit(mixed).score_samples(clips + 0.1)
    expected = KNNDetector(density_neighbors=1).fit(clips[1:]).score_samples(clips + 0.1)
    np.testing.assert_allclose(scores[1:], expected[1:], rtol=0.5)


def test_without_again(clips):
    detector = KNNDetector(density_neighbors=2).fit(clips)
    detector.set_params(density_neighbors=None).fit(clips)
    expected = KNNDetector().fit(clips)
    assert detector.density_ is None
    np.testing.assert_array_equal(detector.training_scores_, expected.training_scores_)
    np.testing.assert_array_equal(detector.score_samples(clips), expected.score_samples(clips))


def test_fewer_clips_than_neighbours(clips):
    with pytest.raises(ValueError, match="density_neighbors=5 needs at least 7 .* n_samples = 6"):
        KNNDetector(density_neighbors=5).fit(clips[:6])
    KNNDetector(density_neighbors=5).fit(clips[:7])
    with pytest.raises(ValueError, match="'density_neighbors' parameter"):
        KNNDetector(density_neighbors=0).fit(clips)
