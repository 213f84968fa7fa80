"""The dense autoencoder of the challenge baselines."""

from numbers import Integral

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.utils.data import RandomSampler

from sk_asd.detectors._all_windows import (
    AllWindows,
    OverlapMean,
    as_it_is,
    chunks_of_windows,
)
from sk_asd.detectors._metrics import MetricDetector
from sk_asd.networks._autoencoder import AutoEncoder
from sk_asd.utils._containers import column_of
from sk_asd.utils._sklearn import Interval, StrOptions
from sk_asd.utils._training import Training, on_device, resolve_device
from sk_asd.utils._windows import check_length, window_starts

METRICS = ("mse", "mahalanobis", "mahalanobis_of_mean")
_CHUNK = 1024
_RIDGE = 1e-6


class AutoEncoderDetector(MetricDetector):
    r"""Reconstruction by a dense autoencoder, the baseline of DCASE task 2.

    Every `n_frames` consecutive frames make a vector. The network learns to reconstruct those of
    normal clips, and the residuals :math:`r` of a clip's vectors make its score.

    Parameters
    ----------
    metric : {"mse", "mahalanobis", "mahalanobis_of_mean"}, default="mse"
        The mean square of the residuals ([1]_), or a Mahalanobis distance ([2]_): with the
        covariance :math:`\Sigma_d` of the residuals of every domain :math:`d` in training,
        :math:`\min_d \overline{r^\top \Sigma_d^{-1} r}` is the mean over the vectors, and
        :math:`\min_d \bar r^\top \Sigma_d^{-1} \bar r` is what the published implementation
        computes. It can be changed after ``fit``, and ``training_scores_`` and ``offset_`` change
        with it.
    n_frames : int or None, default=5
        Frames of a vector; None for whole clips.
    window_hop : int, default=1
        Frames from one vector to the next; the last one is flush with the clip's end.
    over : str or None, default="domain"
        Column of the domains. Without it, on plain arrays, there is one covariance.
    max_epochs : int, default=100
        Number of epochs.
    lr : float, default=1e-3
        Learning rate.
    batch_size : int, default=512
        Vectors in a training batch.
    optimizer : type, default=torch.optim.Adam
        Optimizer of torch.
    max_time : float, default=None
        Seconds after which training ends, in the middle of an epoch if need be.
    mixed_precision : bool, default=False
        Train in bfloat16 where torch deems it safe.
    contamination : float, default=0.1
        Share of normal clips below the threshold; it sets ``offset_`` and never the scores.
    threshold : {"quantile", "gamma"}, default="quantile"
        How the threshold is taken from ``training_scores_``; ``"gamma"`` is the baseline's.
    device : str or torch.device, default="auto"
        Where to compute; ``"auto"`` is a CUDA device if there is one, else the CPU. The fitted
        network is kept on the CPU.
    callbacks : list, default=None
        Callbacks of skorch.
    verbose : int, default=0
        1 prints the loss of every epoch.
    random_state : int, RandomState instance or None, default=None
        Seed of initial weights and order. On the CPU the same seed gives the same fit, bit for bit,
        with the same number of torch threads.
    **kwargs : dict
        Parameters of skorch: ``module__*`` (of :class:`~sk_asd.networks.AutoEncoder`, such as
        ``module__latent_dim``, the width of the layer in the middle, 8), ``optimizer__*``,
        ``iterator_train__*`` (of the DataLoader) and ``callbacks__*``.

    Attributes
    ----------
    net_ : skorch.NeuralNet
        The fitted net, with ``history`` and ``module_``.
    precisions_ : dict
        Inverse covariance of the residuals by domain, None for the only one where there are none.
    training_metrics_ : DataFrame of shape (n_clips, 3)
        Scores of the training clips by all metrics; the network was trained on these clips.
    training_scores_ : ndarray of shape (n_clips,)
        Those by `metric`.
    metric_offsets_ : dict
        Thresholds by metric.
    offset_ : float
        Threshold on ``score_samples``.
    n_frames_ : int
        Frames of a vector.
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
    AEGANDetector : A convolutional autoencoder of large windows.

    Notes
    -----
    The baselines hold out a tenth of the vectors to watch the loss; here all are trained on. The
    defaults are those of 2022; that of 2023 has ``batch_size=256``. Both take one model for all
    sections of a machine, and log-mel spectrograms of 128 bins with ``n_fft=1024``.

    To the covariances a millionth of their mean variance is added on the diagonal.

    References
    ----------
    .. [1] Dohi, K. et al. "Description and discussion on DCASE 2022 challenge task 2: Unsupervised
       anomalous sound detection for machine condition monitoring applying domain generalization
       techniques", DCASE 2022.
    .. [2] Harada, N. et al. "First-shot anomaly detection for machine condition monitoring: A
       domain generalization baseline", EUSIPCO 2023.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_asd.detectors import AutoEncoderDetector
    >>> X = np.random.default_rng(0).normal(size=(8, 16, 40)).astype("float32")
    >>> detector = AutoEncoderDetector(max_epochs=1, random_state=0).fit(X)
    >>> list(detector.score_metrics(X))
    ['mse', 'mahalanobis', 'mahalanobis_of_mean']
    >>> detector.set_params(metric="mahalanobis").score_samples(X).shape
    (8,)
    """

    _parameter_constraints: dict = {
        **MetricDetector._parameter_constraints,
        "metric": [StrOptions(set(METRICS))],
        "n_frames": [Interval(Integral, 1, None, closed="left"), None],
        "window_hop": [Interval(Integral, 1, None, closed="left")],
        "over": [str, None],
    }
    _state = ("n_frames_", "precisions_")

    def __init__(
        self,
        metric="mse",
        *,
        n_frames=5,
        window_hop=1,
        over="domain",
        max_epochs=100,
        lr=1e-3,
        batch_size=512,
        optimizer=torch.optim.Adam,
        max_time=None,
        mixed_precision=False,
        contamination=0.1,
        threshold="quantile",
        device="auto",
        callbacks=None,
        verbose=0,
        random_state=None,
        **kwargs,
    ):
        self.metric = metric
        self.n_frames = n_frames
        self.window_hop = window_hop
        self.over = over
        self.max_epochs = max_epochs
        self.lr = lr
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.max_time = max_time
        self.mixed_precision = mixed_precision
        self.contamination = contamination
        self.threshold = threshold
        self.device = device
        self.callbacks = callbacks
        self.verbose = verbose
        self.random_state = random_state
        self._given = kwargs

    def _training(self, features, X, y, generator):
        self.n_frames_ = check_length(features, self.n_frames)
        dataset = AllWindows(features, None, self.n_frames_, self.window_hop)
        return Training(
            {"n_inputs": features.shape[1] * self.n_frames_, **self._net_params("module__")},
            dataset,
            RandomSampler(dataset, generator=generator),
            params={"iterator_train__collate_fn": as_it_is},
        )

    @staticmethod
    def _build(**architecture):
        """Autoencoder and the loss of reconstruction."""
        return AutoEncoder(**architecture), nn.MSELoss()

    def _metrics(self):
        return METRICS

    def _measure_training(self, features, X):
        """Learn the covariances of the residuals, then score."""
        domains = None if self.over is None else column_of(X, self.over)
        if domains is None:
            domains = np.full(len(features), None)
        codes, names = pd.factorize(domains, use_na_sentinel=False)
        sums = [_Covariance() for _ in names]
        for code, residuals in zip(codes, self._residuals(features)):
            sums[code].add(residuals.reshape(len(residuals), -1))
        names = [None if pd.isna(name) else name for name in names]
        self.precisions_ = {name: s.precision() for name, s in zip(names, sums)}
        return self._measure(features, X, METRICS)

    def _measure(self, features, X, metrics):
        scores = {name: [] for name in metrics}
        for residuals in self._residuals(features):
            vectors = residuals.reshape(len(residuals), -1)
            mean = vectors.mean(axis=0)
            for name in metrics:
                if name == "mse":
                    distance = np.square(vectors).mean()
                elif name == "mahalanobis":
                    distance = min(
                        np.einsum("ij,ij->i", vectors @ p, vectors).mean()
                        for p in self.precisions_.values()
                    )
                else:
                    distance = min(mean @ p @ mean for p in self.precisions_.values())
                scores[name].append(-distance)
        return {name: np.array(values) for name, values in scores.items()}

    def _error_maps(self, features, X):
        hop = min(self.window_hop, self.n_frames_)
        starts = window_starts(features.shape[2], self.n_frames_, hop)
        for residuals in self._residuals(features, hop):
            errors = OverlapMean(*features.shape[1:], starts)
            errors.add(np.square(residuals))
            yield errors.mean()

    def _residuals(self, features, hop=None):
        """Residuals (n_vectors, n_bins, n_frames) of every clip in turn."""
        check_length(features, self.n_frames_)
        starts = window_starts(features.shape[2], self.n_frames_, hop or self.window_hop)
        device = resolve_device(self.device, fitted=True)
        module = on_device(self.net_.module_, device)
        with torch.inference_mode():
            for clip in features:
                parts = []
                for windows in chunks_of_windows(clip, self.n_frames_, starts, _CHUNK):
                    windows = windows.to(device)
                    parts.append((windows - module(windows)).cpu().numpy())
                yield np.concatenate(parts).astype(np.float64)


class _Covariance:
    """Covariance of vectors that come in parts."""

    def __init__(self):
        self.count = self.total = self.square = 0

    def add(self, vectors):
        """Add vectors (n_vectors, n_values)."""
        self.count += len(vectors)
        self.total = self.total + vectors.sum(axis=0)
        self.square = self.square + vectors.T @ vectors

    def precision(self):
        """Inverse of the covariance of all vectors added."""
        mean = self.total / self.count
        covariance = self.square / self.count - np.outer(mean, mean)
        # Residuals without any variance, too, have an inverse.
        level = np.trace(covariance) / len(covariance) or 1.0
        return np.linalg.inv(covariance + _RIDGE * level * np.eye(len(covariance)))
