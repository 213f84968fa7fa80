"""The common checks catch what they are there for."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator, TransformerMixin

from sk_asd.detectors import CosineDetector
from sk_asd.utils import estimator_checks as checks
from sk_asd.utils._containers import plain


class Doubler(TransformerMixin, BaseEstimator):
    """A transformer that loses the labels."""

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return 2 * plain(X)


class Whitener(Doubler):
    """A transformer whose result depends on the other clips."""

    def transform(self, X):
        return X - X.mean(axis=0)


class Restless(CosineDetector):
    """A detector that draws from the global generator."""

    def _fit(self, X):
        return super()._fit(X + np.random.normal(size=X.shape))  # noqa: NPY002


class Inverted(CosineDetector):
    """A detector that predicts with the wrong sign."""

    def predict(self, X):
        return -super().predict(X)


class Flipped(CosineDetector):
    """A detector whose scores are high for anomalies."""

    def _fit(self, X):
        return -super()._fit(X)

    def _score(self, X):
        return -super()._score(X)


class Spoiler(CosineDetector):
    """A detector that writes to its input."""

    def fit(self, X, y=None):
        X.values[0] += 1
        return super().fit(X)


@pytest.mark.parametrize(
    ("estimator", "check"),
    [
        (Doubler(), checks.check_labels),
        (Doubler(), checks.check_nan),
        (Doubler(), checks.check_empty),
        (Whitener(), checks.check_rows),
        (Restless(), checks.check_refit),
        (Restless(), checks.check_global_generators),
        (Inverted(), checks.check_detector),
        (Flipped(), checks.check_detector),
        (Spoiler(), checks.check_input_unchanged),
    ],
    ids=lambda v: v.__name__ if callable(v) else type(v).__name__,
)
def test_a_defect_is_found(estimator, check):
    with pytest.raises(AssertionError):
        check(estimator, "embeddings")


def test_a_good_detector_passes():
    checks.check_estimator(CosineDetector(), "embeddings")


def test_unknown_inputs():
    with pytest.raises(ValueError, match="inputs must be one of .* got 'images'"):
        checks.check_estimator(CosineDetector(), "images")
