"""What stands behind searches and frozen estimators."""

from sklearn.frozen import FrozenEstimator


def unwrapped(estimator):
    """What a search has chosen, or a FrozenEstimator holds; anything else as it is."""
    while True:
        if isinstance(estimator, FrozenEstimator):
            estimator = estimator.estimator
        elif hasattr(estimator, "best_estimator_"):
            estimator = estimator.best_estimator_
        else:
            return estimator
