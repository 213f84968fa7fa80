"""The section classifier of the challenge baselines."""

from numbers import Integral

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import nn
from torch.utils.data import RandomSampler

from sk_asd.detectors._all_windows import AllWindows, as_it_is, chunks_of_windows
from sk_asd.detectors._neural_detector import NeuralDetector
from sk_asd.networks._mobilenetv2 import MobileNetV2
from sk_asd.utils._labels import clip_labels, sorted_classes
from sk_asd.utils._sklearn import Interval
from sk_asd.utils._training import Training, on_device, resolve_device
from sk_asd.utils._windows import check_length, window_starts


class MobileNetV2Detector(NeuralDetector):
    r"""Classifier of sections, the second baseline of DCASE 2021 and 2022 task 2 ([1]_).

    A network learns to tell the sections of normal clips apart. A clip is abnormal as far as the
    network does not take it for one of its own section: the score is the mean over its windows of
    :math:`\log\,(1 - p) - \log p`, where :math:`p` is the probability of the true section.

    Parameters
    ----------
    target : str, sequence of str or int, default="section"
        Column of the classes, or columns whose combinations are the classes, which clips must carry
        in ``fit`` and after. A number takes so many clusters instead, found by k-means among the
        mean spectra of the training clips, for arrays without labels.
    n_frames : int or None, default=64
        Length of a window in frames; None for whole clips.
    train_hop : int, default=8
        Frames between training windows; the last one is flush with the clip's end.
    window_hop : int, default=1
        The same when clips are scored.
    max_epochs : int, default=20
        Number of epochs.
    lr : float, default=1e-5
        Learning rate.
    batch_size : int, default=32
        Windows in a training batch.
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
        Seed of initial weights, order and clusters. On the CPU the same seed gives the same fit,
        bit for bit, with the same number of torch threads.
    **kwargs : dict
        Parameters of skorch: ``module__*`` (of :class:`~sk_asd.networks.MobileNetV2`):
        ``module__width`` (0.5), ``module__in_channels`` (3, to which windows are repeated) and
        ``module__momentum`` of batch normalisation (0.01). That of the baseline, 0.001, wants tens
        of thousands of batches: before, the network scored with is not the one that was trained.
        Trainings of a few hundred batches want 0.1. Further ``optimizer__*``,
        ``iterator_train__*`` (of the DataLoader) and ``callbacks__*``.

    Attributes
    ----------
    net_ : skorch.NeuralNet
        The fitted net, with ``history`` and ``module_``.
    classes_ : list
        The classes; numbers where they are clusters.
    clusters_ : KMeans
        The clusters, None where the classes are those of a column.
    training_scores_ : ndarray of shape (n_clips,)
        Scores of the clips that the network was trained on.
    offset_ : float
        Threshold on ``score_samples``.
    n_frames_ : int
        Length of a window in frames.
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
    sk_asd.embedders.SectionEmbedder : Classification of sections for an outlier detector to follow.

    Notes
    -----
    The log odds are computed from the logits. The published implementation rounds probabilities to
    float32 first, and cuts them off where that has no digits left; its threshold is fitted to other
    numbers than its scores.

    References
    ----------
    .. [1] Dohi, K. et al. "Description and discussion on DCASE 2022 challenge task 2: Unsupervised
       anomalous sound detection for machine condition monitoring applying domain generalization
       techniques", DCASE 2022.

    Examples
    --------
    >>> import numpy as np
    >>> import xarray as xr
    >>> from sk_asd.detectors import MobileNetV2Detector
    >>> X = np.random.default_rng(0).normal(size=(8, 16, 40)).astype("float32")
    >>> X = xr.DataArray(
    ...     X, dims=("clip", "mel", "frame"), coords={"section": ("clip", ["00", "01"] * 4)}
    ... )
    >>> detector = MobileNetV2Detector(n_frames=32, max_epochs=1, random_state=0).fit(X)
    >>> detector.score_samples(X).shape, detector.classes_
    ((8,), ['00', '01'])
    """

    _parameter_constraints: dict = {
        **NeuralDetector._parameter_constraints,
        "target": [str, list, tuple, Interval(Integral, 2, None, closed="left")],
        "n_frames": [Interval(Integral, 1, None, closed="left"), None],
        "train_hop": [Interval(Integral, 1, None, closed="left")],
        "window_hop": [Interval(Integral, 1, None, closed="left")],
    }
    _state = ("n_frames_", "classes_", "clusters_")
    _net_defaults = {"module__in_channels": 3}

    def __init__(
        self,
        target="section",
        *,
        n_frames=64,
        train_hop=8,
        window_hop=1,
        max_epochs=20,
        lr=1e-5,
        batch_size=32,
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
        self.target = target
        self.n_frames = n_frames
        self.train_hop = train_hop
        self.window_hop = window_hop
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
        seed = generator.initial_seed()
        self.classes_, self.clusters_ = self._find_classes(features, X, seed)
        codes = torch.from_numpy(self._codes(features, X))
        dataset = AllWindows(features, codes, self.n_frames_, self.train_hop)
        return Training(
            {"n_classes": len(self.classes_), **self._net_params("module__")},
            dataset,
            RandomSampler(dataset, generator=generator),
            params={"iterator_train__collate_fn": as_it_is},
        )

    @staticmethod
    def _build(**architecture):
        """Classifier of windows and its loss."""
        return MobileNetV2(**architecture), nn.CrossEntropyLoss()

    def _score_clips(self, features, X):
        check_length(features, self.n_frames_)
        starts = window_starts(features.shape[2], self.n_frames_, self.window_hop)
        codes = self._codes(features, X)
        device = resolve_device(self.device, fitted=True)
        module = on_device(self.net_.module_, device)
        scores = np.empty(len(features))
        with torch.inference_mode():
            for i, (clip, code) in enumerate(zip(features, codes)):
                odds = [
                    _log_odds(module(windows.to(device)), int(code))
                    for windows in chunks_of_windows(clip, self.n_frames_, starts)
                ]
                scores[i] = torch.cat(odds).mean().item()
        return scores

    def _find_classes(self, features, X, seed):
        """Classes in the target column or, without one, clusters."""
        if isinstance(self.target, Integral):
            clusters = KMeans(self.target, n_init=10, random_state=seed)
            clusters.fit(_mean_spectra(features))
            return list(range(self.target)), clusters
        classes = sorted_classes(clip_labels(X, self.target, "target", known=True))
        if len(classes) < 2:
            raise ValueError(
                f"Found 1 class, {classes[0]!r}, in the target {self.target!r}: classification "
                "needs at least two. Train over several sections or machines."
            )
        return classes, None

    def _codes(self, features, X):
        """Code of the class of every clip.

        Raises
        ------
        ValueError
            If a clip is of a class that was not trained.
        """
        if self.clusters_ is not None:
            return self.clusters_.predict(_mean_spectra(features)).astype(np.int64)
        labels = clip_labels(X, self.target, "target")
        unseen = sorted({str(label) for label in labels if label not in self.classes_})
        if unseen:
            raise ValueError(
                f"{self.target} {', '.join(unseen)} was not seen in training; known are "
                f"{self.classes_}."
            )
        position = {label: i for i, label in enumerate(self.classes_)}
        return np.array([position[label] for label in labels])


def _mean_spectra(features):
    return features.mean(axis=2, dtype=np.float64)


def _log_odds(logits, code):
    """Log of the probability of one class over that of all others, window by window."""
    others = torch.cat([logits[:, :code], logits[:, code + 1 :]], dim=1)
    return logits[:, code] - others.logsumexp(dim=1)
