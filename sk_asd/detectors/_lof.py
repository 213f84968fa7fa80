"""Local outlier factor for new clips."""

from numbers import Integral

from sklearn.neighbors import LocalOutlierFactor

from sk_asd.detectors._bank import BankDetector
from sk_asd.detectors._knn import check_n_neighbors
from sk_asd.utils._sklearn import Interval


class LOFDetector(BankDetector):
    """Local outlier factor [1]_, for new clips only.

    :class:`~sklearn.neighbors.LocalOutlierFactor` with ``novelty=True``; the scores of the training
    clips, which scikit-learn computes without the clip itself, are kept beside it.

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
    lof_ : LocalOutlierFactor
        The fitted factor.
    n_features_in_ : int
        Number of features.

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
        self.lof_ = LocalOutlierFactor(
            n_neighbors=self.n_neighbors, metric=self.metric, novelty=True, n_jobs=self.n_jobs
        ).fit(X)
        return self.lof_.negative_outlier_factor_

    def _keep(self, X):
        pass  # lof_ does

    def _kept(self):
        return self.lof_._fit_X

    def _score(self, X):
        return self.lof_.score_samples(X)
