"""Mahalanobis distance with a shrunk covariance."""

from numbers import Real

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from sklearn.covariance import empirical_covariance, ledoit_wolf_shrinkage, oas
from torch import nn

from sk_asd.detectors._bank import BankDetector
from sk_asd.detectors._knn import spread_of
from sk_asd.detectors._layers import double
from sk_asd.utils._sklearn import Interval, StrOptions


class MahalanobisDetector(BankDetector):
    r"""Mahalanobis distance to the mean of the training clips.

    The covariance is shrunk toward a multiple of the identity,
    :math:`\Sigma = (1 - a) S + a\,\mathrm{tr}(S)/d\;I + \rho I`, so that it can be inverted with
    fewer clips than features.

    Parameters
    ----------
    shrinkage : {"ledoit_wolf", "oas"} or float, default="ledoit_wolf"
        The intensity :math:`a`: estimated ([1]_, [2]_) or given, between 0 and 1.
    ridge : float, default=1e-6
        The constant :math:`\rho` on the diagonal; as the shrinkage target it is taken relative to
        the mean variance :math:`\mathrm{tr}(S)/d`, so that the scores do not depend on the unit
        of the features.
    standardize : bool, default=False
        Divide every feature by its standard deviation over the training clips before the covariance
        is shrunk: the shrinkage then keeps quiet bands apart as it keeps loud ones.
    contamination : float, default=0.1
        Share of normal clips below the threshold; it sets ``offset_`` and never the scores.
    threshold : {"quantile", "gamma"}, default="quantile"
        How the threshold is taken from ``training_scores_``.

    Attributes
    ----------
    training_scores_ : ndarray of shape (n_clips,)
        Leave-one-out scores: each clip against the mean and covariance of the others, with the
        shrinkage intensity and target of all clips.
    offset_ : float
        Threshold on ``score_samples``.
    location_ : ndarray of shape (n_features,)
        Mean training clip.
    precision_ : ndarray of shape (n_features, n_features)
        Inverse of the shrunk covariance.
    shrinkage_ : float
        The intensity used.
    n_features_in_ : int
        Number of features.

    References
    ----------
    .. [1] Ledoit, O., Wolf, M. "A well-conditioned estimator for large-dimensional covariance
       matrices", J. Multivariate Analysis 88, 2004.
    .. [2] Chen, Y. et al. "Shrinkage algorithms for MMSE covariance estimation", IEEE Trans. Signal
       Processing 58, 2010.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_asd.detectors import MahalanobisDetector
    >>> X = np.array([[-1.0, 0.0], [1.0, 0.0], [0.0, -2.0], [0.0, 2.0]])
    >>> detector = MahalanobisDetector(shrinkage=0.0).fit(X)
    >>> detector.score_samples([[1.0, 0.0], [0.0, 2.0]]).round(3)
    array([-1.414, -1.414])
    """

    _parameter_constraints: dict = {
        **BankDetector._parameter_constraints,
        "shrinkage": [StrOptions({"ledoit_wolf", "oas"}), Interval(Real, 0, 1, closed="both")],
        "ridge": [Interval(Real, 0, None, closed="left")],
        "standardize": ["boolean"],
    }
    _state = ("location_", "shrinkage_", "precision_")

    def __init__(
        self,
        *,
        shrinkage="ledoit_wolf",
        ridge=1e-6,
        standardize=False,
        contamination=0.1,
        threshold="quantile",
    ):
        self.shrinkage = shrinkage
        self.ridge = ridge
        self.standardize = standardize
        self.contamination = contamination
        self.threshold = threshold

    def _fit(self, X):
        n_clips, n_features = X.shape
        self.location_ = X.mean(axis=0)
        centred = X - self.location_
        scale = np.ones(n_features)
        if self.standardize:
            scale = spread_of(X)
            centred /= scale
        covariance = empirical_covariance(centred, assume_centered=True)
        mean_variance = np.trace(covariance) / n_features
        if self.shrinkage == "ledoit_wolf":
            self.shrinkage_ = ledoit_wolf_shrinkage(centred, assume_centered=True)
        elif self.shrinkage == "oas":
            self.shrinkage_ = oas(centred, assume_centered=True)[1]
        else:
            self.shrinkage_ = float(self.shrinkage)
        keep = 1 - self.shrinkage_
        target = (self.shrinkage_ + self.ridge) * mean_variance * np.eye(n_features)
        precision = self._invert(keep * covariance + target)
        self.precision_ = precision / np.outer(scale, scale) if self.standardize else precision

        # Covariance without clip i, mean included, is a rank-one change of that of all clips:
        # n/(n-1) S - n/(n-1)^2 d d'. Sherman and Morrison give its inverse in closed form.
        grow = n_clips / (n_clips - 1)
        q = self._squared_distance(centred, self._invert(keep * grow * covariance + target))
        left = 1 - keep * grow / (n_clips - 1) * q
        left = np.maximum(left, np.finfo(float).eps)
        return -grow * np.sqrt(q / left)

    def _score(self, X):
        return -np.sqrt(self._squared_distance(X - self.location_, self.precision_))

    def _quadratic_form(self, X):
        expected = np.broadcast_to(self.location_, X.shape)
        return expected, (X - expected) @ self.precision_

    def _exported(self):
        return _MahalanobisLayer(self.location_, self.precision_)

    def _invert(self, covariance):
        try:
            factor = cho_factor(covariance)
        except LinAlgError:
            raise ValueError(
                f"The covariance of {len(covariance)} features is singular with "
                f"shrinkage={self.shrinkage!r} and ridge={self.ridge!r}: use more clips, fewer "
                "features, or more shrinkage."
            ) from None
        return cho_solve(factor, np.eye(len(covariance)))

    @staticmethod
    def _squared_distance(centred, precision):
        return np.maximum(np.einsum("ij,ij->i", centred @ precision, centred), 0)


class _MahalanobisLayer(nn.Module):
    def __init__(self, location, precision):
        super().__init__()
        self.register_buffer("location", double(location))
        self.register_buffer("precision", double(precision))

    def forward(self, x):
        centred = x - self.location
        return -(centred @ self.precision * centred).sum(dim=1).clamp(min=0).sqrt()
