"""Distance to the nearest training clips."""

from numbers import Integral

import numpy as np
import torch
from sklearn.metrics import pairwise_distances, pairwise_distances_chunked
from sklearn.neighbors import NearestNeighbors
from torch import nn

from sk_asd.detectors._bank import BankDetector
from sk_asd.detectors._layers import MemoryLayer, double
from sk_asd.utils._sklearn import Interval, StrOptions

# Least density that a distance is divided by, relative to the mean density.
_LEAST_DENSITY = 1e-6
# Metrics that are computed as |a|^2 + |b|^2 - 2ab, of which nothing is left far from the origin.
BY_PRODUCTS = frozenset({"euclidean", "l2", "sqeuclidean", "minkowski", "nan_euclidean"})


class KNNDetector(BankDetector):
    """k-nearest-neighbour distance as anomaly score.

    Parameters
    ----------
    n_neighbors : int, default=1
        Number of nearest training clips.
    metric : str or callable, default="cosine"
        Any metric of :class:`~sklearn.neighbors.NearestNeighbors`.
    standardize : bool, default=False
        Divide every feature by its standard deviation over the training clips, after its mean has
        been subtracted, so that a quiet band counts as much as a loud one.
    aggregation : {"mean", "max"}, default="mean"
        Mean of the k distances, or the largest of them, as in [1]_.
    density_neighbors : int, default=None
        Measure the distance to a training clip in units of the mean distance of that clip to so
        many training clips nearest to it (local density normalisation, [2]_). The nearest training
        clips are then those at the smallest ratio. None: distances as they are.
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
    center_ : ndarray of shape (n_features,)
        What is subtracted from clips before they are compared: the mean training clip with
        `standardize` and for Euclidean distances, which would cancel where features have a large
        offset, else zeros.
    scale_ : ndarray of shape (n_features,)
        What they are then divided by: ones without `standardize`.
    neighbors_ : NearestNeighbors
        The memory of training clips, without ``center_`` and in units of ``scale_``.
    density_ : ndarray of shape (n_clips,) or None
        Mean distance of every training clip to the `density_neighbors` nearest others.
    n_features_in_ : int
        Number of features.

    Notes
    -----
    Local density normalisation evens out domains without knowing them: the few clips of a target
    domain lie far from each other, the many of the source close together. It compares every clip
    with all training clips, which takes longer than a search. To every density a millionth of their
    mean is added, for training clips that are copies of one another.

    References
    ----------
    .. [1] Ramaswamy, S., Rastogi, R., Shim, K. "Efficient algorithms for mining outliers from
       large data sets", SIGMOD 2000.
    .. [2] Wilkinghoff, K. et al. "Keeping the balance: anomaly score calculation for domain
       generalization", ICASSP 2025.

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
        **BankDetector._parameter_constraints,
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "metric": [str, callable],
        "standardize": ["boolean"],
        "aggregation": [StrOptions({"mean", "max"})],
        "density_neighbors": [Interval(Integral, 1, None, closed="left"), None],
        "n_jobs": [Integral, None],
    }
    _state = ("center_", "scale_", "neighbors_", "density_")

    def __init__(
        self,
        n_neighbors=1,
        *,
        metric="cosine",
        standardize=False,
        aggregation="mean",
        density_neighbors=None,
        contamination=0.1,
        threshold="quantile",
        n_jobs=None,
    ):
        self.n_neighbors = n_neighbors
        self.metric = metric
        self.standardize = standardize
        self.aggregation = aggregation
        self.density_neighbors = density_neighbors
        self.contamination = contamination
        self.threshold = threshold
        self.n_jobs = n_jobs

    def _fit(self, X):
        check_n_neighbors(self.n_neighbors, len(X))
        self.center_ = X.mean(axis=0) if self.standardize else center_of(X, self.metric)
        self.scale_ = spread_of(X) if self.standardize else np.ones(X.shape[1])
        self.neighbors_ = NearestNeighbors(
            n_neighbors=self.n_neighbors, metric=self.metric, n_jobs=self.n_jobs
        ).fit(self._scaled(X))
        self.density_ = None
        if self.density_neighbors is not None:
            return self._fit_density(self._scaled(X))
        # Without an argument scikit-learn leaves each clip out of its own neighbours.
        return self._aggregate(self.neighbors_.kneighbors()[0])

    def _scaled(self, X):
        return (X - self.center_) / self.scale_

    def _score(self, X):
        X = self._scaled(X)
        if self.density_ is None:
            return self._aggregate(self.neighbors_.kneighbors(X)[0])
        return self._score_ratios(X, lambda rows: self.density_)

    def _fit_density(self, X):
        n_clips, k = len(X), self.density_neighbors
        if k > n_clips - 2:
            raise ValueError(
                f"density_neighbors={k} needs at least {k + 2} training clips (each is scored "
                f"without itself, the density of the others included), found n_samples = {n_clips}."
            )
        distances, neighbors = self.neighbors_.kneighbors(n_neighbors=k + 1)
        self.density_ = distances[:, :k].mean(axis=1)
        # Density of a clip once the j-th of its neighbours has left and the next one moved up.
        without = self.density_[:, np.newaxis] + (distances[:, k:] - distances[:, :k]) / k

        def densities(rows):
            density = np.tile(self.density_, (len(rows), 1))
            clip, j = np.nonzero(np.isin(neighbors[:, :k], rows))
            density[neighbors[clip, j] - rows[0], clip] = without[clip, j]
            density[rows - rows[0], rows] = np.nan  # a clip is no neighbour of itself
            return density

        return self._score_ratios(X, densities)

    def _score_ratios(self, X, densities):
        """Scores by distances over densities, which ``densities(rows)`` gives for rows of `X`."""

        def smallest(distances, start):
            density = densities(np.arange(start, start + len(distances)))
            ratios = distances / _guarded(density)
            # NaN goes to the end.
            return np.sort(ratios, axis=1)[:, : self.n_neighbors]

        chunks = pairwise_distances_chunked(
            X,
            self._searched(),
            reduce_func=smallest,
            metric=self.metric,
            n_jobs=self.n_jobs,
            working_memory=64,
        )
        return self._aggregate(np.concatenate(list(chunks)))

    def _searched(self):
        return self.neighbors_._fit_X

    def _aggregate(self, distances):
        return -(distances.mean(axis=1) if self.aggregation == "mean" else distances[:, -1])

    def _quadratic_form(self, X):
        """Distance to the mean of the nearest training clips."""
        if self.density_ is not None or self.metric not in ("euclidean", "cosine"):
            return None
        nearest = self.neighbors_.kneighbors(self._scaled(X), return_distance=False)
        near = self.center_ + self.scale_ * self.neighbors_._fit_X[nearest]
        if self.metric == "euclidean":
            expected = near.mean(axis=1)
            return expected, (X - expected) / self.scale_**2
        if self.standardize:
            return None
        # Twice the cosine distance is the squared distance of vectors of unit length.
        least = np.finfo(float).tiny
        length = np.maximum(np.linalg.norm(X, axis=1, keepdims=True), least)
        near = near / np.maximum(np.linalg.norm(near, axis=2, keepdims=True), least)
        expected = length * near.mean(axis=1)
        return expected, (X - expected) / length**2

    def _distances(self, a, b):
        return pairwise_distances(self._scaled(a), self._scaled(b), metric=self.metric)

    def _exported(self):
        return _KNNLayer(self)


def _guarded(density):
    """Densities that can be divided by, where copies of clips have made them 0."""
    guard = _LEAST_DENSITY * np.nanmean(density, axis=-1, keepdims=True)
    return np.maximum(density + guard, np.finfo(float).tiny)


class _KNNLayer(nn.Module):
    def __init__(self, detector):
        super().__init__()
        self.k = detector.n_neighbors
        self.mean = detector.aggregation == "mean"
        zeros = np.zeros_like(detector.center_)
        self.distances = MemoryLayer(detector.neighbors_._fit_X, detector.metric, zeros)
        self.register_buffer("center", double(detector.center_))
        self.register_buffer("scale", double(detector.scale_))
        density = detector.density_
        self.register_buffer("density", None if density is None else double(_guarded(density)))

    def forward(self, x):
        distances = self.distances((x - self.center) / self.scale)
        if self.density is not None:
            distances = distances / self.density
        nearest = torch.topk(distances, self.k, dim=1, largest=False).values
        return -(nearest.mean(dim=1) if self.mean else nearest[:, -1])


def center_of(X, metric):
    """What to subtract from clips before they are compared by a metric, so that nothing cancels."""
    return X.mean(axis=0) if metric in BY_PRODUCTS else np.zeros(X.shape[1])


def spread_of(X):
    """Standard deviation of every feature; 1 where it is constant, but for rounding."""
    scale = X.std(axis=0)
    scale[scale <= 1e-7 * np.abs(X).max(axis=0)] = 1.0
    return scale


def check_n_neighbors(n_neighbors, n_clips):
    """Raise if there are not enough training clips to leave one out."""
    if n_neighbors >= n_clips:
        raise ValueError(
            f"n_neighbors={n_neighbors} needs at least {n_neighbors + 1} training clips "
            f"(each is scored without itself), found n_samples = {n_clips}."
        )
