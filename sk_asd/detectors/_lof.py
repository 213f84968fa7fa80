"""Local outlier factor for new clips."""

import warnings
from numbers import Integral

import numpy as np
import torch
from scipy.sparse.csgraph import connected_components
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors
from torch import nn

from sk_asd.detectors._bank import BankDetector
from sk_asd.detectors._knn import center_of, check_n_neighbors
from sk_asd.detectors._layers import MemoryLayer, double
from sk_asd.utils._labels import users_level
from sk_asd.utils._sklearn import Interval

# Clips that are nearer to each other, relative to distances between any two, are copies.
_COPY = 1e-6
# Cosine distance of parallel clips, by rounding.
_PARALLEL = 1e-14


class LOFDetector(BankDetector):
    """Local outlier factor [1]_, for new clips only.

    :class:`~sklearn.neighbors.LocalOutlierFactor` with ``novelty=True``, and the scores of the
    training clips by the factors of all others.

    Parameters
    ----------
    n_neighbors : int, default=4
        Number of neighbours.
    metric : str or callable, default="cosine"
        Any metric of :class:`~sklearn.neighbors.NearestNeighbors`.
    contamination : float, default=0.1
        Share of normal clips below the threshold; it sets ``offset_`` and never the scores.
    threshold : {"quantile", "gamma"}, default="quantile"
        How the threshold is taken from ``training_scores_``.
    n_jobs : int, default=None
        Parallel jobs of the neighbour search.

    Attributes
    ----------
    training_scores_ : ndarray of shape (n_clips,)
        Leave-one-out scores of the training clips.
    offset_ : float
        Threshold on ``score_samples``.
    center_ : ndarray of shape (n_features,)
        What is subtracted from clips before they are compared; see :class:`KNNDetector`.
    lof_ : LocalOutlierFactor
        The fitted factor, of the training clips without ``center_`` and without copies.
    n_features_in_ : int
        Number of features.

    Notes
    -----
    scikit-learn's ``negative_outlier_factor_`` is not leave-one-out: a clip is not its own
    neighbour, but among the neighbours of its neighbours. So it is larger for training clips than
    for new ones, and of new normal clips far more than the share `contamination` would be below a
    threshold that is taken from it. Here the clip is left out there, too. (With `n_neighbors` + 1
    clips, too few for that, it is scikit-learn's.)

    **Copies** of a training clip, exact ones, under ``metric="cosine"`` scaled ones, all that are
    nearer to each other than a millionth of usual distances, would make the density there infinite
    and all other clips abnormal. As in [1]_ distinct clips alone are neighbours:
    copies count once, with a warning that says how many there are. Distances that are given,
    ``metric="precomputed"``, are taken as they are.

    References
    ----------
    .. [1] Breunig, M. M. et al. "LOF: identifying density-based local outliers", SIGMOD 2000.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_asd.detectors import LOFDetector
    >>> X = np.array([[0.0], [1.0], [2.0], [3.0]])
    >>> LOFDetector(n_neighbors=2, metric="euclidean").fit(X).predict([[1.5], [50.0]])
    array([ 1, -1])
    """

    _parameter_constraints: dict = {
        **BankDetector._parameter_constraints,
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "metric": [str, callable],
        "n_jobs": [Integral, None],
    }
    _state = ("center_", "lof_")

    def __init__(
        self,
        n_neighbors=4,
        *,
        metric="cosine",
        contamination=0.1,
        threshold="quantile",
        n_jobs=None,
    ):
        self.n_neighbors = n_neighbors
        self.metric = metric
        self.contamination = contamination
        self.threshold = threshold
        self.n_jobs = n_jobs

    def _fit(self, X):
        check_n_neighbors(self.n_neighbors, len(X))
        self.center_ = center_of(X, self.metric)
        X = X - self.center_
        first = self._first_copies(X)
        distinct, counts = np.unique(first, return_counts=True)
        k = min(self.n_neighbors, len(distinct) - 1)
        self.lof_ = LocalOutlierFactor(
            n_neighbors=k, metric=self.metric, novelty=True, n_jobs=self.n_jobs
        ).fit(X[distinct])
        scores = np.empty(len(X))
        if len(distinct) < k + 2:
            scores[distinct] = self.lof_.negative_outlier_factor_
        else:
            scores[distinct] = _leave_one_out(self.lof_)
        # Without a clip that has copies all distinct ones are there as before.
        copied = np.isin(first, distinct[counts > 1])
        if copied.any():
            scores[copied] = self.lof_.score_samples(X[copied])
        return scores

    def _first_copies(self, X):
        """Position of the first clip that each clip is a copy of; its own where of none."""
        own = np.arange(len(X))
        if self.metric == "precomputed":
            return own
        _, first, label = np.unique(X, axis=0, return_index=True, return_inverse=True)
        label, clips = label.ravel(), X[first]
        if len(clips) > 1:
            search = NearestNeighbors(metric=self.metric, n_jobs=self.n_jobs).fit(clips)
            some = clips[:: -(-len(clips) // 50)]
            near = _COPY * np.quantile(search.kneighbors(some, len(clips))[0], 0.9)
            if self.metric == "cosine":
                near = max(near, _PARALLEL)
            if search.kneighbors(n_neighbors=1)[0].min() <= near:
                graph = search.radius_neighbors_graph(radius=near)
                label = connected_components(graph, directed=False)[1][label]
        _, first, code = np.unique(label, return_index=True, return_inverse=True)
        if len(first) == len(X):
            return own
        warnings.warn(
            f"{len(X) - len(first)} of {len(X)} training clips are copies of others: as neighbours "
            "they count once.",
            UserWarning,
            stacklevel=users_level(),
        )
        return first[code] if len(first) > 1 else own

    def _searched(self):
        return self.lof_._fit_X

    def _score(self, X):
        return self.lof_.score_samples(X - self.center_)

    def _exported(self):
        return _LOFLayer(self)


class _LOFLayer(nn.Module):
    def __init__(self, detector):
        super().__init__()
        self.distances = MemoryLayer(detector._searched(), detector.metric, detector.center_)
        distances, neighbors = detector.lof_.kneighbors()
        self.k = distances.shape[1]
        reach = distances[:, -1]
        density = 1 / (np.maximum(distances, reach[neighbors]).mean(axis=1) + 1e-10)
        self.register_buffer("reach", double(reach))
        self.register_buffer("density", double(density))

    def forward(self, x):
        distances, neighbors = torch.topk(self.distances(x), self.k, dim=1, largest=False)
        reachable = torch.maximum(distances, self.reach[neighbors])
        own = 1 / (reachable.mean(dim=1, keepdim=True) + 1e-10)
        return -(self.density[neighbors] / own).mean(dim=1)


def _leave_one_out(lof):
    """Score of every clip by the factor of all others, from one more neighbour of each."""
    k = lof.n_neighbors_
    distances, neighbors = lof.kneighbors(None, k + 1)
    n, near = len(neighbors), neighbors[:, :k]
    pairs = (np.arange(n)[:, np.newaxis] * n + near).ravel()

    def reach(clips, out):
        """Distance of the k-th neighbour of `clips` where the clip `out` is not there."""
        lost = np.isin(clips * n + out, pairs)
        return np.where(lost, distances[clips, k], distances[clips, k - 1])

    def density(distance, reached):
        # As scikit-learn has it, with its guard against clips that are all the same.
        return 1 / (np.maximum(distance, reached).mean(axis=-1) + 1e-10)

    out = np.arange(n)[:, np.newaxis, np.newaxis]
    # Of the neighbours' k + 1 neighbours the clip itself goes, or else the last one.
    order = np.argsort(neighbors[near] == out, axis=-1, kind="stable")[..., :k]
    theirs = np.take_along_axis(neighbors[near], order, axis=-1)
    apart = np.take_along_axis(distances[near], order, axis=-1)
    densities = density(apart, reach(theirs, out))
    own = density(distances[:, :k], reach(near, out[..., 0]))
    return -densities.mean(axis=1) / own
