"""Likelihood under a mixture of Gaussians."""

import math
from numbers import Integral, Real

import numpy as np
from sklearn import config_context
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import KFold
from torch import nn

from sk_asd.detectors._bank import BankDetector
from sk_asd.detectors._layers import double
from sk_asd.utils._sklearn import Interval, StrOptions


class GaussianMixtureDetector(BankDetector):
    r"""Log-likelihood under a Gaussian mixture.

    With ranking-pooled log-mel features this is TWFR-GMM [1]_.

    Parameters
    ----------
    n_components : int, default=1
        Number of Gaussians.
    covariance_type : {"full", "tied", "diag", "spherical"}, default="full"
        Form of the covariances.
    reg_covar : float, default=1e-6
        Constant added to the diagonals, in squared units of the features.
    density : {"mixture", "max_component"}, default="mixture"
        :math:`\log \sum_k w_k N_k(x)`, or :math:`\max_k \log N_k(x)` without the weights, as [1]_.
    crossfit : int, default=None
        With an integer, ``training_scores_`` are those of mixtures fitted without the clip's fold,
        which is the honest choice for thresholds with few clips and many features; None takes the
        scores of the fitted mixture itself.
    n_init : int, default=1
        Number of initialisations.
    random_state : int, RandomState instance or None, default=None
        Seed of the initialisation and of the folds.
    contamination : float, default=0.1
        Share of normal clips below the threshold; it sets ``offset_`` and never the scores.
    threshold : {"quantile", "gamma"}, default="quantile"
        How the threshold is taken from ``training_scores_``.

    Attributes
    ----------
    training_scores_ : ndarray of shape (n_clips,)
        Scores of the training clips, cross-fitted if `crossfit` is given.
    offset_ : float
        Threshold on ``score_samples``.
    center_ : ndarray of shape (n_features,)
        Mean training clip, which is subtracted from all clips: where features have a large offset,
        covariances and distances would cancel.
    mixture_ : GaussianMixture
        The fitted mixture, of the clips without ``center_``.
    n_features_in_ : int
        Number of features.

    References
    ----------
    .. [1] Guan, J. et al. "Time-weighted frequency domain audio representation with GMM estimator
       for anomalous sound detection", ICASSP 2023.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_asd.detectors import GaussianMixtureDetector
    >>> X = np.array([[-1.0], [1.0]])
    >>> GaussianMixtureDetector(reg_covar=0.0).fit(X).score_samples([[0.0]]).round(4)
    array([-0.9189])
    """

    _parameter_constraints: dict = {
        **BankDetector._parameter_constraints,
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "covariance_type": [StrOptions({"full", "tied", "diag", "spherical"})],
        "reg_covar": [Interval(Real, 0, None, closed="left")],
        "density": [StrOptions({"mixture", "max_component"})],
        "crossfit": [Interval(Integral, 2, None, closed="left"), None],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
    }
    _state = ("center_", "mixture_")

    def __init__(
        self,
        n_components=1,
        *,
        covariance_type="full",
        reg_covar=1e-6,
        density="mixture",
        crossfit=None,
        n_init=1,
        random_state=None,
        contamination=0.1,
        threshold="quantile",
    ):
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.reg_covar = reg_covar
        self.density = density
        self.crossfit = crossfit
        self.n_init = n_init
        self.random_state = random_state
        self.contamination = contamination
        self.threshold = threshold

    def _fit(self, X):
        needed = max(self.n_components, self.crossfit or 0)
        if len(X) < needed:
            raise ValueError(
                f"n_components={self.n_components} and crossfit={self.crossfit} need at least "
                f"{needed} training clips, found n_samples = {len(X)}."
            )
        self.center_ = X.mean(axis=0)
        X = X - self.center_
        self.mixture_ = self._fit_mixture(X)
        if self.crossfit is None:
            return self._log_density(self.mixture_, X)
        scores = np.empty(len(X))
        folds = KFold(self.crossfit, shuffle=True, random_state=self.random_state)
        for train, held_out in folds.split(X):
            scores[held_out] = self._log_density(self._fit_mixture(X[train]), X[held_out])
        return scores

    def _fit_mixture(self, X):
        mixture = GaussianMixture(
            self.n_components,
            covariance_type=self.covariance_type,
            reg_covar=self.reg_covar,
            n_init=self.n_init,
            random_state=self.random_state,
        )
        # Initialised by k-means, which scikit-learn has for NumPy arrays alone.
        with config_context(array_api_dispatch=False):
            return mixture.fit(X)

    def _score(self, X):
        return self._log_density(self.mixture_, X - self.center_)

    def _log_density(self, mixture, X):
        log_density = mixture.score_samples(X)
        if self.density == "mixture":
            return log_density
        # log N_k = log p + log r_k - log w_k. The responsibility of the largest N_k is at least
        # its weight, so the maximum never underflows.
        with np.errstate(divide="ignore"):
            log_ratio = np.log(mixture.predict_proba(X)) - np.log(mixture.weights_)
        return log_density + log_ratio.max(axis=1)

    def _quadratic_form(self, X):
        """Distance to the component that is responsible."""
        mixture = self.mixture_
        component = mixture.predict(X - self.center_)
        expected = self.center_ + mixture.means_[component]
        deviation, precision = X - expected, mixture.precisions_
        if mixture.covariance_type == "tied":
            return expected, deviation @ precision
        if mixture.covariance_type == "full":
            return expected, np.einsum("nd,nde->ne", deviation, precision[component])
        return expected, deviation * precision[component].reshape(len(X), -1)

    def _exported(self):
        return _MixtureLayer(self.mixture_, self.center_, self.density == "max_component")


class _MixtureLayer(nn.Module):
    def __init__(self, mixture, center, max_component):
        super().__init__()
        means, factors = mixture.means_, mixture.precisions_cholesky_
        n_components, n_features = means.shape
        self.matrix = mixture.covariance_type in ("full", "tied")
        if self.matrix:
            factors = np.broadcast_to(factors, (n_components, n_features, n_features))
            diagonals = np.diagonal(factors, axis1=1, axis2=2)
            shifts = np.einsum("kd,kde->ke", means, factors)
            if mixture.covariance_type == "tied":
                factors = factors[:1]
            self.width = len(factors)
            factors = np.concatenate(list(factors), axis=1)
        else:
            factors = factors if factors.ndim == 2 else factors[:, np.newaxis]
            diagonals = factors = np.broadcast_to(factors, means.shape)
            shifts = means * factors
        constants = np.log(diagonals).sum(axis=1) - 0.5 * n_features * math.log(2 * math.pi)
        self.max_component = max_component
        if not max_component:
            constants = constants + np.log(mixture.weights_)
        self.register_buffer("center", double(center))
        self.register_buffer("factors", double(factors))
        self.register_buffer("shifts", double(shifts))
        self.register_buffer("constants", double(constants))

    def forward(self, x):
        x = x - self.center
        if self.matrix:
            whitened = (x @ self.factors).unflatten(1, (self.width, x.shape[1]))
        else:
            whitened = x.unsqueeze(1) * self.factors
        logs = self.constants - 0.5 * (whitened - self.shifts).square().sum(dim=2)
        largest = logs.amax(dim=1)
        if self.max_component:
            return largest
        return largest + (logs - largest.unsqueeze(1)).exp().sum(dim=1).log()
