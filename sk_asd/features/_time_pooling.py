"""Statistics over time."""

from numbers import Real

import numpy as np
import torch
from sklearn.utils import gen_batches
from sklearn.utils.validation import check_is_fitted
from torch import nn

from sk_asd.utils._base import BaseEstimator
from sk_asd.utils._containers import is_labelled, wrap
from sk_asd.utils._output import LabelledOutput, bin_names
from sk_asd.utils._sklearn import Interval, _check_feature_names_in, _fit_context
from sk_asd.utils._validation import check_features

_BLOCK_BYTES = 4 * 2**20
_STATISTICS = ("mean", "std", "min", "max", "gwrp", "flux")
# Ranks of less weight than this, relative to the first, change nothing in float32.
_LEAST_WEIGHT = 1e-12


class TimePooling(LabelledOutput, BaseEstimator):
    """Statistics over the frames of every bin: from spectrograms to one vector a clip.

    Parameters
    ----------
    statistics : sequence of {"mean", "std", "min", "max", "gwrp", "flux"}, default=("mean", "std")
        What to compute, in the order of the result. "gwrp" is global weighted ranking pooling
        [1]_: the frames of a bin are sorted from high to low, and frame ``j`` has the weight
        ``r ** j``, the weights being scaled to a sum of 1. "flux" is the mean absolute difference
        from one frame to the next, that is how much a bin moves; 0 for a single frame.
    r : float, default=1.0
        Decay of "gwrp", from 0 (the largest value) to 1 (the mean). [2]_ has 1 for steady machines
        and down to 0.46 for valves.

    Attributes
    ----------
    n_features_in_ : int
        Number of bins.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the columns, if `fit` was given a DataFrame with text as names.

    See Also
    --------
    LogMel : Log-mel spectrogram.

    References
    ----------
    .. [1] Kolesnikov, A. and Lampert, C. H. "Seed, expand and constrain: three principles for
       weakly-supervised image segmentation", ECCV 2016.
    .. [2] Guan, J. et al. "Time-weighted frequency domain audio representation with GMM estimator
       for anomalous sound detection", ICASSP 2023.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_asd.features import TimePooling
    >>> X = np.array([[[4.0, 1.0, 2.0]]])  # one clip, one bin, three frames
    >>> TimePooling(statistics=("mean", "max", "gwrp"), r=0.5).fit_transform(X)
    array([[2.33333333, 4.        , 3.        ]])
    """

    _parameter_constraints: dict = {
        "statistics": ["array-like"],
        "r": [Interval(Real, 0, 1, closed="both")],
    }
    _state = ("_bin", "_coord")
    _takes = "spectrograms"

    def __init__(self, statistics=("mean", "std"), r=1.0):
        self.statistics = statistics
        self.r = r

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Record the number of bins.

        Parameters
        ----------
        X : array-like or DataArray of shape (n_clips, n_bins, n_frames) or (n_clips, n_bins)
            Features; a 2-D array is one frame a clip.
        y : Ignored
            Not used, present by convention.

        Returns
        -------
        self : object
            The fitted transformer.

        Raises
        ------
        ValueError
            If `statistics` is empty, has a repeated or an unknown name, or if `X` is no finite
            array of features.
        """
        unknown = [s for s in self.statistics if s not in _STATISTICS]
        if len(self.statistics) == 0 or unknown or len(set(self.statistics)) < len(self.statistics):
            raise ValueError(
                f"The 'statistics' parameter must be a sequence of different names out of "
                f"{_STATISTICS}, got {self.statistics!r}."
            )
        self._features(X, reset=True)
        self._bin = X.dims[1] if is_labelled(X) else None
        self._coord = X.coords[self._bin].values if self._bin in getattr(X, "coords", ()) else None
        return self

    def get_feature_names_out(self, input_features=None):
        """Names of the output features, such as ``"mean_mel_125Hz"``.

        Parameters
        ----------
        input_features : array-like of str, default=None
            Names of the bins; None is what `fit` has seen: names of columns, or for a labelled
            array ``mel_125Hz, ...``, or ``mel0, ...`` without frequencies; else ``x0, ...``.

        Returns
        -------
        ndarray of str
            Names in the order of the output.
        """
        check_is_fitted(self)
        if input_features is None and self._bin is not None:
            # Models that were saved before know no frequencies.
            coord = getattr(self, "_coord", None)
            names = bin_names(self._bin, self.n_features_in_, coord)
        else:
            names = _check_feature_names_in(self, input_features)
        return np.array([f"{s}_{name}" for s in self.statistics for name in names], dtype=object)

    def transform(self, X):
        """Compute the statistics.

        Parameters
        ----------
        X : array-like or DataArray of shape (n_clips, n_bins, n_frames) or (n_clips, n_bins)
            Features.

        Returns
        -------
        DataArray, ndarray or DataFrame of shape (n_clips, n_statistics * n_bins)
            A DataArray with the labels of `X` for a DataArray, else an ndarray; or what
            ``set_output`` asks for, with the index of the clip table where it was set for the
            extractor, too, as by that of a Pipeline.
        """
        check_is_fitted(self)
        features = self._features(X, reset=False)
        n_clips, n_bins, n_frames = features.shape
        pooled = np.empty((n_clips, len(self.statistics), n_bins), dtype=features.dtype)
        weights = _ranking_weights(self.r, n_frames).astype(features.dtype)
        block = max(1, _BLOCK_BYTES // (features.itemsize * n_bins * n_frames))
        for rows in gen_batches(n_clips, block):
            # One layout for all inputs, so that sums have one order, whatever clips come along.
            values = np.ascontiguousarray(features[rows])
            for i, statistic in enumerate(self.statistics):
                pooled[rows, i] = _pool(statistic, values, weights)
        pooled = pooled.reshape(n_clips, -1)
        names = {"feature": self.get_feature_names_out()}
        return self._contained(wrap(pooled, X, ("feature",), names), X)

    def _features(self, X, reset):
        if is_labelled(X) and X.ndim == 3 and X.dims[2] != "frame":
            raise ValueError(
                f"A labelled array of features must have the dimensions ('clip', <bin>, 'frame'), "
                f"got {X.dims}."
            )
        return check_features(self, X, reset=reset, dtype=[np.float64, np.float32])

    def _exported(self, n_frames):
        return _PoolingLayer(self, n_frames)

    def _over_frames(self, features, expected, gradient):
        """Terms of ``(gradient * (pooled - expected)).sum(axis=1)`` by bin and frame."""
        n_clips, n_bins, _ = features.shape
        expected, gradient = (part.reshape(n_clips, -1, n_bins, 1) for part in (expected, gradient))
        maps = np.zeros(features.shape)
        for clip, e, g, out in zip(features, expected, gradient, maps):
            for i, statistic in enumerate(self.statistics):
                parts, weights = parts_over_time(statistic, clip, self.r)
                out += g[i] * (parts - e[i] * weights)
        return maps

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _ranking_weights(r, n_frames):
    """Weights of frames sorted from high to low; 0 ** 0 is 1, which makes r = 0 the maximum."""
    weights = np.power(float(r), np.arange(n_frames))
    return weights / weights.sum()


def _pool(statistic, values, weights):
    if statistic == "gwrp":
        ascending = np.sort(values, axis=-1)
        return np.multiply(ascending, weights[::-1], out=ascending).sum(axis=-1)
    if statistic == "flux":
        return np.abs(np.diff(values, axis=-1)).sum(axis=-1) / max(1, values.shape[-1] - 1)
    return getattr(np, statistic)(values, axis=-1)


def parts_over_time(statistic, clip, r=1.0):
    """Take a statistic over time apart into what every frame adds to it.

    Parameters
    ----------
    statistic : {"mean", "std", "min", "max", "gwrp", "flux"}
        As :class:`~sk_asd.features.TimePooling` knows them.
    clip : ndarray of shape (n_bins, n_frames)
        Features of a clip.
    r : float, default=1.0
        Decay of "gwrp".

    Returns
    -------
    parts : ndarray of shape (n_bins, n_frames)
        Their sum over frames is the statistic.
    weights : ndarray of shape (n_bins, n_frames)
        Share of every frame in an expected value; their sum over frames is 1.
    """
    clip = np.asarray(clip, dtype=float)
    n_frames = clip.shape[1]
    if statistic == "std":
        std = clip.std(axis=1, keepdims=True)
        squares = np.square(clip - clip.mean(axis=1, keepdims=True)) / n_frames
        parts = np.divide(squares, std, out=np.zeros_like(squares), where=std > 0)
        return parts, np.full(clip.shape, 1 / n_frames)
    weights = np.full(clip.shape, 1 / n_frames)
    if statistic == "flux" and n_frames > 1:
        weights = np.full(clip.shape, 1 / (n_frames - 1))
        weights[:, 0] = 0  # a step belongs to the frame that it leads to
        return weights * np.abs(np.diff(clip, axis=1, prepend=clip[:, :1])), weights
    if statistic == "flux":
        return np.zeros(clip.shape), weights
    if statistic != "mean":
        ranking = _ranking_weights(r if statistic == "gwrp" else 0.0, n_frames)
        order = np.argsort(clip if statistic == "min" else -clip, axis=1, kind="stable")
        np.put_along_axis(weights, order, np.broadcast_to(ranking, clip.shape), axis=1)
    return weights * clip, weights


class _PoolingLayer(nn.Module):
    def __init__(self, pooling, n_frames):
        super().__init__()
        self.statistics = tuple(pooling.statistics)
        weights = _ranking_weights(pooling.r, n_frames).astype(np.float32)
        weights = weights[weights > _LEAST_WEIGHT * weights[0]]
        self.even = pooling.r == 1
        self.register_buffer("weights", torch.from_numpy(weights))

    def forward(self, features):
        return torch.cat([getattr(self, f"_{name}")(features) for name in self.statistics], dim=1)

    def _mean(self, features):
        return features.mean(dim=2)

    def _std(self, features):
        return (features - features.mean(dim=2, keepdim=True)).square().mean(dim=2).sqrt()

    def _min(self, features):
        return features.amin(dim=2)

    def _max(self, features):
        return features.amax(dim=2)

    def _flux(self, features):
        steps = features[:, :, 1:] - features[:, :, :-1]
        return steps.abs().sum(dim=2) / max(1, features.shape[2] - 1)

    def _gwrp(self, features):
        if self.even:
            return features.mean(dim=2)
        return torch.topk(features, len(self.weights), dim=2).values @ self.weights
