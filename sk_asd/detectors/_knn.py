"""Distance to the nearest training clips."""

from numbers import Integral

from sklearn.neighbors import NearestNeighbors

from sk_asd.detectors._base import BaseDetector
from sk_asd.utils._sklearn import Interval, StrOptions


class KNNDetector(BaseDetector):
    """k-nearest-neighbour distance as anomaly score.

    Parameters
    ----------
    n_neighbors : int, default=1
        Number of nearest training clips.
    metric : str or callable, default="cosine"
        Any metric of :class:`~sklearn.neighbors.NearestNeighbors`.
    aggregation : {"mean", "max"}, default="mean"
        Mean of the k distances, or the largest of them, as in [1]_.
    contamination : float, default=0.1
        Share of normal clips below the threshold; it sets ``offset_`` and never the scores.
    threshold : {"quantile", "gamma"}, default="quantile"
        How the threshold is taken from ``training_scores_``.
    n_jobs : int, default=None
        Parallel jobs of the neighbour search.

    Attributes
    ----------
    training_scores_ : ndarray of shape (n_clips,)
        Leave-one-out scores of the training clips: no clip is its own neighbour.
    offset_ : float
        Threshold on ``score_samples``.
    neighbors_ : NearestNeighbors
        The memory of training clips.
    n_features_in_ : int
        Number of features.

    References
    ----------
    .. [1] Ramaswamy, S., Rastogi, R., Shim, K. "Efficient algorithms for mining outliers from
       large data sets", SIGMOD 2000.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_asd.detectors import KNNDetector
    >>> X = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    >>> detector = KNNDetector(metric="euclidean").fit(X)
    >>> detector.score_samples([[4.0, 0.0]])
    array([-3.])
    >>> detector.training_scores_
    array([-1., -1., -2.])
    """

    _parameter_constraints: dict = {
        **BaseDetector._parameter_constraints,
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "metric": [str, callable],
        "aggregation": [StrOptions({"mean", "max"})],
        "n_jobs": [Integral, None],
    }

    def __init__(
        self,
        n_neighbors=1,
        *,
        metric="cosine",
        aggregation="mean",
        contamination=0.1,
        threshold="quantile",
        n_jobs=None,
    ):
        self.n_neighbors = n_neighbors
        self.metric = metric
        self.aggregation = aggregation
        self.contamination = contamination
        self.threshold = threshold
        self.n_jobs = n_jobs

    def _fit(self, X):
        check_n_neighbors(self.n_neighbors, len(X))
        self.neighbors_ = NearestNeighbors(
            n_neighbors=self.n_neighbors, metric=self.metric, n_jobs=self.n_jobs
        ).fit(X)
        # Without an argument scikit-learn leaves each clip out of its own neighbours.
        return self._aggregate(self.neighbors_.kneighbors()[0])

    def _score(self, X):
        return self._aggregate(self.neighbors_.kneighbors(X)[0])

    def _aggregate(self, distances):
        return -(distances.mean(axis=1) if self.aggregation == "mean" else distances[:, -1])


def check_n_neighbors(n_neighbors, n_clips):
    """Raise if there are not enough training clips to leave one out."""
    if n_neighbors >= n_clips:
        raise ValueError(
            f"n_neighbors={n_neighbors} needs at least {n_neighbors + 1} training clips "
            f"(each is scored without itself), found n_samples = {n_clips}."
        )
