"""Training scores of LOFDetector: those of detectors that do not know the clip."""

import numpy as np
import pytest
from scipy.stats import kstest
from sklearn import config_context
from sklearn.neighbors import LocalOutlierFactor

from sk_asd.decisions import predict_pvalue
from sk_asd.detectors import LOFDetector


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize(("n_clips", "n_neighbors"), [(30, 4), (7, 5), (60, 20), (3, 1)])
def test_leave_one_out(metric, n_clips, n_neighbors):
    X = np.random.default_rng(0).normal(size=(n_clips, 3))
    factor = LocalOutlierFactor(n_neighbors, metric=metric, novelty=True)
    expected = [
        factor.fit(np.delete(X, i, axis=0)).score_samples(X[[i]])[0] for i in range(n_clips)
    ]
    detector = LOFDetector(n_neighbors, metric=metric).fit(X)
    np.testing.assert_allclose(detector.training_scores_, expected)


def test_as_few_clips_as_can_be():
    X = np.random.default_rng(1).normal(size=(5, 2))
    detector = LOFDetector(4, metric="euclidean").fit(X)
    np.testing.assert_array_equal(detector.training_scores_, detector.lof_.negative_outlier_factor_)


@pytest.mark.slow
def test_p_values_of_normal_clips_are_uniform():
    rng = np.random.default_rng(2)
    p = np.empty(500)
    with config_context(assume_finite=True, skip_parameter_validation=True):
        for i in range(len(p)):
            X = rng.normal(size=(100, 8))
            fitted = LOFDetector().fit(X[:99])
            p[i] = predict_pvalue(fitted, X[99:], smoothed=True, random_state=i)[0]
    assert kstest(p, "uniform").pvalue > 0.01
