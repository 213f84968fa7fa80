"""Likelihood of the centre frame of windows given the frames around it."""

from numbers import Integral

import numpy as np
import torch
import xarray as xr
from sklearn.utils.validation import check_is_fitted

from sk_asd.detectors._interpolation import (
    NETWORKS,
    InterpolationDensity,
    Marginal,
    MeanLoss,
)
from sk_asd.detectors._neural_detector import NeuralDetector
from sk_asd.networks._mixture import MIXTURES, GaussianMixtureDensity
from sk_asd.networks._standardize import BinStandardizer
from sk_asd.utils._containers import is_labelled
from sk_asd.utils._sklearn import Interval, StrOptions
from sk_asd.utils._statistics import bin_statistics
from sk_asd.utils._training import Training, on_device, resolve_device
from sk_asd.utils._validation import check_features
from sk_asd.utils._windows import (
    RandomWindowSampler,
    WindowDataset,
    check_length,
    window_starts,
)

_CHUNK = 64  # windows in a step of the scores
_MIN_SCALE = 1e-3  # least standard deviation of a standardised bin


class IMDNDetector(NeuralDetector):
    r"""Interpolation mixture density network (subsystem IMDN of the AITHU report, [1]_).

    A network sees a window of frames without the one at its centre and predicts that one, not as
    numbers but as a density, a mixture of Gaussians. Where a normal sound cannot be predicted, the
    density is wide, and a deviation there counts little; this is what it has over the squared error
    of interpolation (:class:`IDNNDetector`). A clip's score is the log-likelihood of its frames.

    In training every clip gives one random window an epoch; at test time strided windows cover the
    clip. Every bin is brought to mean 0 and standard deviation 1 over the training clips first.

    Parameters
    ----------
    network : {"ignn", "lrcgnn", "dfnet", "mlp"}, default="ignn"
        :class:`~sk_asd.networks.IGNN`, :class:`~sk_asd.networks.LRCGNN`,
        :class:`~sk_asd.networks.DFNet` (a number of bins that 8 divides) or
        :class:`~sk_asd.networks.InterpolationMLP`, for windows of few frames.
    n_frames : int or None, default=100
        Length of a window in frames, at least 3; None for whole clips. Predicted is the frame
        ``n_frames // 2``, counted from 0: an even number has one frame more before it than after
        it. Clips of a single frame, with None, have no frames around it; their density is then the
        same for all.
    window_hop : int or None, default=None
        Frames between test windows; the last one is flush with the clip's end. None: a quarter of
        a window.
    n_components : int, default=3
        Gaussians of a mixture.
    mixture : {"frame", "bin", "literal"}, default="frame"
        Mixtures of whole frames; of every bin by itself; or equation (4) of the report as it is
        printed, which is no likelihood and there for comparison. See
        :class:`~sk_asd.networks.GaussianMixtureDensity`. The components have equal weights, as in
        the report.
    pooling : {"mean", "max"}, default="mean"
        How the windows of a clip become one score: the mean of their log-likelihoods, or that of
        the most abnormal one, which needs a small `window_hop` not to miss it.
    max_epochs : int, default=50
        Number of epochs.
    lr : float, default=1e-3
        Learning rate.
    batch_size : int, default=128
        Windows in a training batch.
    optimizer : type, default=torch.optim.Adam
        Optimizer of torch.
    max_time : float, default=None
        Seconds after which training ends, in the middle of an epoch if need be.
    mixed_precision : bool, default=False
        Train in bfloat16 where torch deems it safe; faster on devices made for it.
    device : str or torch.device, default="auto"
        Where to compute; ``"auto"`` is a CUDA device if there is one, else the CPU. The fitted
        network is kept on the CPU.
    callbacks : list, default=None
        Callbacks of skorch.
    verbose : int, default=0
        1 prints the loss of every epoch.
    random_state : int, RandomState instance or None, default=None
        Seed of initial weights, windows and order. On the CPU the same seed gives the same fit,
        bit for bit, with the same number of torch threads.
    contamination : float, default=0.1
        Share of normal clips below the threshold; it sets ``offset_`` and never the scores.
    threshold : {"quantile", "gamma"}, default="quantile"
        How the threshold is taken from ``training_scores_``.
    **kwargs : dict
        Parameters of skorch: ``module__*`` (of the network, such as ``module__hidden=64``),
        ``optimizer__*``, ``iterator_train__*`` (of the DataLoader) and ``callbacks__*``.

    Attributes
    ----------
    net_ : skorch.NeuralNet
        The fitted net, with ``history`` and ``module_``.
    training_scores_ : ndarray of shape (n_clips,)
        Scores of the training clips.
    offset_ : float
        Threshold on ``score_samples``.
    n_features_in_ : int
        Number of bins.
    n_epochs_ : int
        Number of epochs trained.
    stop_reason_ : {"max_epochs", "max_time", "callback"}
        Why training ended.
    fit_time_ : float
        Seconds that the last ``fit`` trained.

    See Also
    --------
    IDNNDetector : One component of unit variance.
    sk_asd.ensemble.GroupedDetector : One detector per section.

    Notes
    -----
    Scores are log-likelihoods per bin in nats, the Gaussian's constant included, of
    standardised features. Bins that are constant in training have a standard deviation
    of at least 1 in units of the features: something new in them counts, and does not outweigh
    everything else.

    References
    ----------
    .. [1] AITHU report for DCASE 2022 task 2, section 3.2. It leaves open the number of components,
       the activations, learning rate and epochs; and its windows of 100, 60 and 30 frames have no
       exact centre.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_asd.detectors import IMDNDetector
    >>> X = np.random.default_rng(0).normal(size=(8, 4, 12)).astype("float32")
    >>> detector = IMDNDetector(n_frames=5, max_epochs=1, module__hidden=8, random_state=0).fit(X)
    >>> detector.score_samples(X).shape, detector.score_map(X).shape
    ((8,), (8, 4, 12))
    """

    _parameter_constraints: dict = {
        **NeuralDetector._parameter_constraints,
        "network": [StrOptions(set(NETWORKS))],
        "n_frames": [Interval(Integral, 3, None, closed="left"), None],
        "window_hop": [Interval(Integral, 1, None, closed="left"), None],
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "mixture": [StrOptions(set(MIXTURES))],
        "pooling": [StrOptions({"mean", "max"})],
    }
    _map_unit = "negative log-likelihood (nats)"

    def __init__(
        self,
        network="ignn",
        *,
        n_frames=100,
        window_hop=None,
        n_components=3,
        mixture="frame",
        pooling="mean",
        max_epochs=50,
        lr=1e-3,
        batch_size=128,
        optimizer=torch.optim.Adam,
        max_time=None,
        mixed_precision=False,
        device="auto",
        callbacks=None,
        verbose=0,
        random_state=None,
        contamination=0.1,
        threshold="quantile",
        **kwargs,
    ):
        self.network = network
        self.n_frames = n_frames
        self.window_hop = window_hop
        self.n_components = n_components
        self.mixture = mixture
        self.pooling = pooling
        self.max_epochs = max_epochs
        self.lr = lr
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.max_time = max_time
        self.mixed_precision = mixed_precision
        self.device = device
        self.callbacks = callbacks
        self.verbose = verbose
        self.random_state = random_state
        self.contamination = contamination
        self.threshold = threshold
        self._given = kwargs

    def score_map(self, X):
        """How abnormal every bin of every frame is, given the frames around it.

        Every frame is predicted from the window around it, as if ``window_hop`` were 1.

        Parameters
        ----------
        X : DataArray or array-like of shape (n_clips, n_bins, n_frames)
            Features.

        Returns
        -------
        DataArray or ndarray of the shape of `X`
            Negative log-likelihoods in nats, float32, high = abnormal, labelled as `X` is; NaN in
            the first and last frames, which have no full window around them. The mean over a
            frame's bins is its negative log-likelihood per bin, so that the mean over the map is
            the clip's score with ``pooling="mean"`` and ``window_hop=1``, but for the sign.

        Raises
        ------
        ValueError
            If clips are shorter than one window.
        """
        check_is_fitted(self)
        features = check_features(self, X, reset=False)
        module, device = self._module(features)
        scores = np.full(features.shape, np.nan, dtype=np.float32)
        starts = window_starts(features.shape[2], module.n_frames, 1)
        frames = slice(module.centre, module.centre + len(starts))
        for clip, out in zip(features, scores):
            out[:, frames] = _over_windows(module.by_bin, clip, starts, module.n_frames, device).T
        if np.ndim(X) == 2:
            scores = scores[:, :, 0]
        return xr.DataArray(scores, X.coords, X.dims) if is_labelled(X) else scores

    def _training(self, features, X, y, generator):
        n_frames = check_length(features, self.n_frames)
        mean, std = bin_statistics(features)
        architecture = {
            "size": (features.shape[1], n_frames),
            "network": self.network,
            "params": self._net_params("module__"),
            "density": {**self._density(), "min_scale": torch.where(std > 0, _MIN_SCALE, 1.0)},
            "statistics": (mean, std),
        }
        return Training(
            architecture,
            WindowDataset(features, torch.zeros(len(features)), n_frames),
            RandomWindowSampler(len(features), features.shape[2] - n_frames + 1, generator),
        )

    def _density(self):
        """Parameters of the density of a frame."""
        return {"n_components": self.n_components, "mixture": self.mixture}

    @staticmethod
    def _build(size, network, params, density, statistics):
        """Density of centre frames, and its mean as the loss."""
        n_bins, n_frames = size
        density = GaussianMixtureDensity(n_bins, **density)
        if n_frames == 1:
            network = Marginal(density.n_outputs)
        else:
            network = NETWORKS[network](n_bins, n_frames, density.n_outputs, **params)
        standardizer = BinStandardizer(*statistics)
        return InterpolationDensity(network, density, n_frames, standardizer), MeanLoss()

    def _score_clips(self, features, X):
        module, device = self._module(features)
        hop = self.window_hop or max(1, module.n_frames // 4)
        starts = window_starts(features.shape[2], module.n_frames, hop)
        windows = (
            _over_windows(module, clip, starts, module.n_frames, device) for clip in features
        )
        pool = np.max if self.pooling == "max" else np.mean
        return -np.array([pool(losses.astype(np.float64)) for losses in windows])

    def _module(self, features):
        """The fitted module where it is to compute, after a look at the clips' length."""
        check_length(features, self.net_.module_.n_frames)
        device = resolve_device(self.device, fitted=True)
        return on_device(self.net_.module_, device), device


def _over_windows(function, clip, starts, n_frames, device):
    """Results of `function` for the windows of one clip, chunk by chunk."""
    with torch.inference_mode():
        # A view; only the windows of one chunk are ever copied.
        windows = torch.tensor(clip, device=device).unfold(1, n_frames, 1)
        parts = [
            function(windows[:, starts[i : i + _CHUNK]].transpose(0, 1)).cpu()
            for i in range(0, len(starts), _CHUNK)
        ]
    return torch.cat(parts).numpy()
