"""A small convolutional network that classifies clips."""

from numbers import Integral, Real

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d
from torch import nn

from sk_asd.embedders._net import EmbeddingNet
from sk_asd.networks import Cnn6
from sk_asd.networks._standardize import BinStandardizer
from sk_asd.utils._base import BaseEstimator
from sk_asd.utils._containers import is_labelled
from sk_asd.utils._labels import clip_labels
from sk_asd.utils._sklearn import Interval, _fit_context
from sk_asd.utils._statistics import bin_statistics
from sk_asd.utils._training import NeuralMixin, Training, on_device, resolve_device
from sk_asd.utils._validation import check_features
from sk_asd.utils._windows import (
    RandomWindowSampler,
    WindowDataset,
    check_length,
    window_starts,
)


class Cnn6Classifier(NeuralMixin, ClassifierMixin, BaseEstimator):
    """Cnn6 as a classifier of clips, for classes of very different size.

    All classes are drawn equally often in training, whatever their number of clips, and windows are
    blended by mixup, so that ten clips of a class are not simply learnt by heart. An epoch is a
    fixed number of windows: what a fit costs does not grow with the clips.

    Parameters
    ----------
    target : str, default=None
        Column of the classes in labelled arrays; None takes them from ``y``, as plain arrays do.
    n_frames : int or None, default=64
        Length of a window in frames; clips that are shorter are taken whole, and None takes all so.
    window_hop : int, default=64
        Frames between the windows of a clip to classify; the last one is flush with the clip's end.
    epoch_size : int, default=256
        Windows drawn in an epoch.
    mixup : float, default=0.2
        Parameter of the Beta distribution of :func:`~sk_asd.networks.mixup`; 0 for none.
    max_epochs : int, default=15
        Number of epochs.
    lr : float, default=1e-3
        Learning rate.
    batch_size : int, default=32
        Windows in a training batch.
    optimizer : type, default=torch.optim.Adam
        Optimizer of torch.
    max_time : float, default=None
        Seconds after which training ends, in the middle of an epoch if need be.
    mixed_precision : bool, default=False
        Train in bfloat16 where torch deems it safe.
    device : str or torch.device, default="auto"
        Where to compute; ``"auto"`` is a CUDA device if there is one, else the CPU. The fitted
        network is kept on the CPU.
    callbacks : list, default=None
        Callbacks of skorch.
    verbose : int, default=0
        1 prints the loss of every epoch.
    random_state : int, RandomState instance or None, default=None
        Seed of initial weights, windows and blends. On the CPU the same seed gives the same fit,
        bit for bit, with the same number of torch threads.
    **kwargs : dict
        Parameters of skorch: ``module__*`` (of :class:`~sk_asd.networks.Cnn6`;
        ``module__embedding_dim`` is 128, and ``module__width`` 0.125: 1 is the network of PANNs, at
        some 30 times the cost), ``optimizer__*``, ``iterator_train__*`` (of the DataLoader) and
        ``callbacks__*``.

    Attributes
    ----------
    net_ : skorch.NeuralNet
        The fitted net, with ``history`` and ``module_``.
    classes_ : ndarray of shape (n_classes,)
        The classes.
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
    DomainClassifier : Tells domains apart with it.

    Notes
    -----
    Because classes are drawn equally often, probabilities are those of classes that are equally
    likely beforehand.

    References
    ----------
    Kong et al., "PANNs: Large-scale pretrained audio neural networks for audio pattern
    recognition", IEEE/ACM TASLP 28, 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_asd.domains import Cnn6Classifier
    >>> X = np.random.default_rng(0).normal(size=(40, 8, 16)).astype("float32")
    >>> y = np.array(["a"] * 35 + ["b"] * 5)
    >>> X[35:, 2] += 3
    >>> classifier = Cnn6Classifier(max_epochs=3, random_state=0).fit(X, y)
    >>> classifier.predict(X[[0, 39]])
    array(['a', 'b'], dtype='<U1')
    """

    _parameter_constraints: dict = {
        "target": [str, None],
        "n_frames": [Interval(Integral, 1, None, closed="left"), None],
        "window_hop": [Interval(Integral, 1, None, closed="left")],
        "epoch_size": [Interval(Integral, 2, None, closed="left")],
        "mixup": [Interval(Real, 0, None, closed="left")],
        **NeuralMixin._training_constraints,
    }
    _state = ("classes_", "n_frames_")
    _net_class = EmbeddingNet
    _net_defaults = {"module__embedding_dim": 128, "module__width": 0.125}

    def __init__(
        self,
        target=None,
        *,
        n_frames=64,
        window_hop=64,
        epoch_size=256,
        mixup=0.2,
        max_epochs=15,
        lr=1e-3,
        batch_size=32,
        optimizer=torch.optim.Adam,
        max_time=None,
        mixed_precision=False,
        device="auto",
        callbacks=None,
        verbose=0,
        random_state=None,
        **kwargs,
    ):
        self.target = target
        self.n_frames = n_frames
        self.window_hop = window_hop
        self.epoch_size = epoch_size
        self.mixup = mixup
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
        self._given = kwargs

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Train the network.

        Parameters
        ----------
        X : DataArray or array-like of shape (n_clips, n_bins, n_frames)
            Features; a 2-D array is one frame a clip.
        y : array-like of shape (n_clips,), default=None
            Classes; ignored where `target` finds them among the labels of `X`.

        Returns
        -------
        self
            The fitted classifier.

        Raises
        ------
        ValueError
            If classes are missing or there is only one, the features have NaN or infinite values,
            or the training diverges.
        """
        return self._fit_network(X, y)

    def _training(self, features, X, y, generator):
        self.classes_, codes = np.unique(self._classes(X, y), return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"Found 1 class, {self.classes_.tolist()}: a classifier needs at least two."
            )
        check_consistent_length(features, codes)
        self.n_frames_ = min(self.n_frames or features.shape[2], features.shape[2])
        # Weighted, so many are drawn from all clips.
        sampler = RandomWindowSampler(
            self.epoch_size,
            features.shape[2] - self.n_frames_ + 1,
            generator,
            weights=1 / np.bincount(codes)[codes],
        )
        architecture = {
            "n_bins": features.shape[1],
            "n_classes": len(self.classes_),
            "statistics": bin_statistics(features),
            "params": self._net_params("module__"),
        }
        targets = torch.eye(len(self.classes_))[torch.from_numpy(codes)]
        return Training(
            architecture,
            WindowDataset(features, targets, self.n_frames_),
            sampler,
            attributes={"mixup": self.mixup},
        )

    def predict_proba(self, X):
        """Probability of the classes: the mean over a clip's windows.

        Parameters
        ----------
        X : DataArray or array-like of shape (n_clips, n_bins, n_frames)
            Features.

        Returns
        -------
        ndarray of shape (n_clips, n_classes)
            Probabilities, in the order of ``classes_``.

        Raises
        ------
        ValueError
            If clips are shorter than one window.
        """
        check_is_fitted(self)
        features = check_features(self, X, reset=False)
        check_length(features, self.n_frames_)
        starts = window_starts(features.shape[2], self.n_frames_, self.window_hop)
        device = resolve_device(self.device, fitted=True)
        module = on_device(self.net_.module_, device)
        probabilities = np.empty((len(features), len(self.classes_)))
        with torch.inference_mode():
            # Clip by clip, so that none depends on those that come with it, not even by rounding.
            for i, clip in enumerate(features):
                windows = np.stack([clip[:, s : s + self.n_frames_] for s in starts])
                logits = module(torch.from_numpy(windows).to(device)).double()
                probabilities[i] = logits.softmax(dim=1).mean(dim=0).cpu()
        return probabilities

    def predict(self, X):
        """Most probable class.

        Parameters
        ----------
        X : DataArray or array-like of shape (n_clips, n_bins, n_frames)
            Features.

        Returns
        -------
        ndarray of shape (n_clips,)
            Classes.
        """
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(axis=1)]

    def _classes(self, X, y):
        if self.target is not None and is_labelled(X):
            return np.array(clip_labels(X, self.target, "target", known=True))
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        return y

    @staticmethod
    def _build(n_bins, n_classes, statistics, params):
        """Classifier of windows and its loss."""
        module = nn.Sequential(
            BinStandardizer(*statistics),
            Cnn6(n_bins, **params),
            nn.Linear(params["embedding_dim"], n_classes),
        )
        return module, nn.CrossEntropyLoss()

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags
