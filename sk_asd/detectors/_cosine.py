"""Cosine distance to the mean training clip."""

import numpy as np
from sklearn.metrics.pairwise import paired_cosine_distances
from torch import nn

from sk_asd.detectors._bank import BankDetector
from sk_asd.detectors._layers import double, unit


class CosineDetector(BankDetector):
    """Cosine distance to the mean of the training clips (AITHU report, section 3.1.2).

    Parameters
    ----------
    contamination : float, default=0.1
        Share of normal clips below the threshold; it sets ``offset_`` and never the scores.
    threshold : {"quantile", "gamma"}, default="quantile"
        How the threshold is taken from ``training_scores_``.

    Attributes
    ----------
    training_scores_ : ndarray of shape (n_clips,)
        Leave-one-out scores: each clip against the mean of the others.
    offset_ : float
        Threshold on ``score_samples``.
    mean_ : ndarray of shape (n_features,)
        Mean training clip.
    n_features_in_ : int
        Number of features.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_asd.detectors import CosineDetector
    >>> detector = CosineDetector().fit(np.array([[1.0, 0.0], [0.0, 1.0]]))
    >>> detector.score_samples([[2.0, 2.0], [-1.0, 1.0]]).round(6) + 0.0
    array([ 0., -1.])
    """

    _state = ("mean_",)

    def __init__(self, *, contamination=0.1, threshold="quantile"):
        self.contamination = contamination
        self.threshold = threshold

    def _fit(self, X):
        self.mean_ = X.mean(axis=0)
        others = (len(X) * self.mean_ - X) / (len(X) - 1)
        return -paired_cosine_distances(X, others)

    def _score(self, X):
        return -paired_cosine_distances(X, np.broadcast_to(self.mean_, X.shape))

    def _exported(self):
        return _CosineLayer(self.mean_)


class _CosineLayer(nn.Module):
    def __init__(self, mean):
        super().__init__()
        self.register_buffer("mean", unit(double(mean)[None]))

    def forward(self, x):
        return -0.5 * (unit(x) - self.mean).square().sum(dim=1)
