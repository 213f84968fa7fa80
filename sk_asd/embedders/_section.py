"""Embeddings learnt by telling sections, machines or attributes apart."""

import copy
import warnings
from collections.abc import Iterable
from numbers import Integral, Real

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d
from torch import nn

from sk_asd.embedders._windows import RandomWindowSampler, WindowDataset, window_starts
from sk_asd.networks import ArcFace, BinStandardizer, Cnn6, MobileFaceNet
from sk_asd.utils._containers import column_of, is_labelled, metadata_of, wrap
from sk_asd.utils._neural import NetParamsMixin, SeededNet, on_device, resolve_device, to_cpu
from sk_asd.utils._random import RandomStream
from sk_asd.utils._sklearn import Interval, StrOptions, _fit_context
from sk_asd.utils._validation import check_features

BACKBONES = ("mobilefacenet", "mfnse", "cnn6")

# What tells clips apart without being a property of the machine's sound.
_NOT_IN_JOINT = {"path", "sr", "split", "label", "anomaly"}


class SectionEmbedder(NetParamsMixin, TransformerMixin, BaseEstimator):
    """Embedding network trained to classify sections (subsystem SC of the AITHU report).

    A network learns to tell the classes of normal clips apart with an ArcFace loss; its embeddings
    then go to an outlier detector. Classes come from the labels of `X` or, for plain arrays, from
    ``y``. In training every clip gives one random window of `n_frames` an epoch; at test time
    strided windows cover the clip and their embeddings are pooled.

    Parameters
    ----------
    backbone : {"mobilefacenet", "mfnse", "cnn6"}, nn.Module or type, default="mobilefacenet"
        Network from windows ``(batch, n_bins, n_frames)`` to embeddings ``(batch, d)``. An own
        network may be given as an instance, which is copied, or as a class, which is called with
        the ``module__*`` parameters.
    target : str or sequence of str, default="section"
        Column of the class labels. Several columns make one class per combination of their values.
        ``"joint"`` takes every column that describes the recording (machine, section, domain and
        attributes).
    n_frames : int or None, default=192
        Length of a window in frames; None for whole clips.
    window_hop : int, default=32
        Frames between test windows; the last one is flush with the clip's end.
    embedding_dim : int, default=128
        Width of the embeddings; not for an own network.
    pooling : {"mean", "std"}, default="mean"
        How the embeddings of a clip's windows, scaled to unit length, become one.
    margin : float, default=0.5
        Additive angular margin of ArcFace in radians.
    scale : float, default=32.0
        Scale of the ArcFace logits.
    standardize : bool, default=True
        Standardise every bin by its mean and standard deviation over the training clips; STFT
        magnitudes need it.
    max_epochs : int, default=25
        Number of epochs.
    lr : float, default=1e-3
        Learning rate.
    batch_size : int, default=64
        Windows in a training batch.
    weight_decay : float, default=1e-4
        Weight decay of the optimizer.
    optimizer : type, default=torch.optim.AdamW
        Optimizer of torch.
    device : str or torch.device, default="auto"
        Where to compute; ``"auto"`` is a CUDA device if there is one, else the CPU. The fitted
        network is kept on the CPU.
    callbacks : list, default=None
        Callbacks of skorch.
    verbose : int, default=0
        1 prints the loss of every epoch.
    random_state : int, RandomState instance or None, default=None
        Seed of initial weights, windows, order and dropout. On the CPU the same seed gives the
        same fit, bit for bit, with the same number of torch threads.
    **kwargs : dict
        Parameters of skorch: ``module__*`` (of the backbone, such as ``module__width=0.5``),
        ``optimizer__*``, ``iterator_train__*`` (of the DataLoader) and ``callbacks__*``.

    Attributes
    ----------
    net_ : skorch.NeuralNet
        The fitted net, with ``history``, ``module_`` and the ArcFace head in ``criterion_``.
    classes_ : ndarray of shape (n_classes,)
        Class labels; tuples where the target has several columns.
    n_features_in_ : int
        Number of bins.

    See Also
    --------
    sk_asd.ensemble.GroupedDetector : The detector that usually follows.

    References
    ----------
    AITHU report for DCASE 2022 task 2, section 3.1. Deng, J. et al. "ArcFace: Additive angular
    margin loss for deep face recognition", CVPR 2019.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_asd.embedders import SectionEmbedder
    >>> X = np.random.default_rng(0).normal(size=(8, 16, 40)).astype("float32")
    >>> embedder = SectionEmbedder(n_frames=32, max_epochs=1, random_state=0, module__width=0.1)
    >>> embedder.fit(X, y=[0, 1] * 4).transform(X).shape
    (8, 128)
    """

    _parameter_constraints: dict = {
        "backbone": [StrOptions(set(BACKBONES)), nn.Module, type],
        "target": [str, Iterable],
        "n_frames": [Interval(Integral, 1, None, closed="left"), None],
        "window_hop": [Interval(Integral, 1, None, closed="left")],
        "embedding_dim": [Interval(Integral, 1, None, closed="left")],
        "pooling": [StrOptions({"mean", "std"})],
        "margin": [Interval(Real, 0, np.pi, closed="left")],
        "scale": [Interval(Real, 0, None, closed="neither")],
        "standardize": ["boolean"],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "batch_size": [Interval(Integral, 2, None, closed="left")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "optimizer": [callable],
        "device": [str, torch.device],
        "callbacks": [list, None],
        "verbose": ["verbose"],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        backbone="mobilefacenet",
        *,
        target="section",
        n_frames=192,
        window_hop=32,
        embedding_dim=128,
        pooling="mean",
        margin=0.5,
        scale=32.0,
        standardize=True,
        max_epochs=25,
        lr=1e-3,
        batch_size=64,
        weight_decay=1e-4,
        optimizer=torch.optim.AdamW,
        device="auto",
        callbacks=None,
        verbose=0,
        random_state=None,
        **kwargs,
    ):
        self.backbone = backbone
        self.target = target
        self.n_frames = n_frames
        self.window_hop = window_hop
        self.embedding_dim = embedding_dim
        self.pooling = pooling
        self.margin = margin
        self.scale = scale
        self.standardize = standardize
        self.max_epochs = max_epochs
        self.lr = lr
        self.batch_size = batch_size
        self.weight_decay = weight_decay
        self.optimizer = optimizer
        self.device = device
        self.callbacks = callbacks
        self.verbose = verbose
        self.random_state = random_state
        self._set_net_params(kwargs)

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Train the network.

        Parameters
        ----------
        X : DataArray or array-like of shape (n_clips, n_bins, n_frames)
            Features of normal clips; a 2-D array is one frame a clip.
        y : array-like of shape (n_clips,), default=None
            Class labels of a plain array; ignored where `X` carries labels.

        Returns
        -------
        self
            The fitted embedder.

        Raises
        ------
        ValueError
            If the classes are missing or fewer than two, clips are shorter than one window, or the
            training diverges.
        """
        features = check_features(self, X, reset=True, min_clips=2)
        n_frames = self._check_length(features)
        self.classes_, codes = self._classes(X, y, len(features))

        params = self._skorch_params(len(features))

        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        device = resolve_device(self.device)
        stream = RandomStream(seed, device)
        with stream.active():
            module = self._build(features, n_frames)
            head = ArcFace(
                _width(module, features[:1, :, :n_frames]),
                len(self.classes_),
                margin=self.margin,
                scale=self.scale,
            )
        generator = torch.Generator().manual_seed(seed)
        sampler = RandomWindowSampler(len(features), features.shape[2] - n_frames + 1, generator)
        net = SeededNet(
            module,
            criterion=_ArcFaceLoss(head),
            optimizer=self.optimizer,
            lr=self.lr,
            max_epochs=self.max_epochs,
            batch_size=self.batch_size,
            train_split=None,
            device=str(device),
            callbacks=copy.deepcopy(self.callbacks),
            verbose=self.verbose,
            iterator_train__sampler=sampler,
            iterator_train__generator=generator,
            **params,
        )
        net.stream = stream
        net.fit(WindowDataset(features, codes, n_frames), y=None)
        self.net_ = to_cpu(net)
        # Nobody needs the order of the training clips any more.
        net.iterator_train__sampler = net.iterator_train__generator = None
        return self

    def transform(self, X):
        """Embed clips.

        Each clip is computed on its own, so that its embedding does not depend, not even by
        rounding, on the clips that come with it.

        Parameters
        ----------
        X : DataArray or array-like of shape (n_clips, n_bins, n_frames)
            Features.

        Returns
        -------
        DataArray or ndarray of shape (n_clips, embedding_dim)
            Embeddings in float32, labelled as `X` is.

        Raises
        ------
        ValueError
            If clips are shorter than one window.
        """
        check_is_fitted(self)
        features = check_features(self, X, reset=False)
        n_frames = self._check_length(features)
        starts = window_starts(features.shape[2], n_frames, self.window_hop)
        if self.pooling == "std" and len(starts) == 1:
            raise ValueError(
                f"pooling='std' needs several windows a clip, found one of {n_frames} frames in "
                f"{features.shape[2]}: lower n_frames, or take pooling='mean'."
            )
        device = resolve_device(self.device, fitted=True)
        module = on_device(self.net_.module_, device)
        embeddings = []
        with torch.inference_mode():
            for clip in features:
                windows = np.stack([clip[:, s : s + n_frames] for s in starts])
                each = F.normalize(module(torch.from_numpy(windows).to(device)))
                embeddings.append(_pool(each, self.pooling).cpu().numpy())
        return wrap(np.stack(embeddings), X, ("embedding",))

    def _skorch_params(self, n_clips):
        """Parameters for skorch, where the user's come before our own."""
        for name in ("sampler", "batch_sampler", "shuffle", "generator"):
            if f"iterator_train__{name}" in vars(self):
                raise ValueError(
                    f"iterator_train__{name} cannot be set: the order of the windows follows from "
                    "random_state."
                )
        given = {k: v for k, v in self._net_params().items() if not k.startswith("module__")}
        batch_size = given.get("iterator_train__batch_size", self.batch_size)
        return {
            "optimizer__weight_decay": self.weight_decay,
            # Batch normalisation cannot work on a single window.
            "iterator_train__drop_last": n_clips % batch_size == 1,
            **given,
        }

    def _check_length(self, features):
        """Length of a window, after a look whether the clips hold one."""
        n_frames = features.shape[2] if self.n_frames is None else self.n_frames
        if features.shape[2] < n_frames:
            raise ValueError(
                f"The clips have {features.shape[2]} frames, fewer than one window of "
                f"n_frames={n_frames}: lower n_frames or hop_length, or take longer clips."
            )
        return n_frames

    def _classes(self, X, y, n_clips):
        """Classes and the code of every clip's class."""
        if is_labelled(X):
            labels = self._target_labels(X)
        elif y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is None: a plain "
                "array carries no class labels. Pass y, or a labelled array from an extractor."
            )
        else:
            y = column_or_1d(y, warn=True)
            check_classification_targets(y)
            labels = y.tolist()
        if len(labels) != n_clips:
            raise ValueError(f"Found {n_clips} clips but {len(labels)} class labels.")
        # Values of columns may be missing or of different types, those of y are comparable.
        classes = sorted(set(labels), key=str if is_labelled(X) else None)
        if len(classes) < 2:
            raise ValueError(
                f"Found 1 class, {classes[0]!r}, in the target {self.target!r}: classification "
                "needs at least two. Train over several machines or sections, or let further "
                "columns make the classes, such as target=['section', 'vel'] or 'joint'."
            )
        if len(classes) == n_clips > 2:
            warnings.warn(
                f"Every clip is a class of its own in the target {self.target!r}: it has a column "
                "that numbers the clips. Name the columns that describe them instead.",
                UserWarning,
                stacklevel=4,
            )
        codes = {label: code for code, label in enumerate(classes)}
        array = np.empty(len(classes), dtype=object)
        array[:] = classes
        return array, np.array([codes[label] for label in labels])

    def _target_labels(self, X):
        metadata = metadata_of(X)
        if self.target == "joint":
            columns = [c for c in metadata.columns if c not in _NOT_IN_JOINT]
        elif isinstance(self.target, str):
            columns = [self.target]
        else:
            columns = list(self.target)
        missing = [c for c in columns if column_of(X, c) is None]
        if missing or not columns:
            raise ValueError(
                f"The target {self.target!r} needs columns {missing or 'that describe the clips'}; "
                f"the labels of X are {list(metadata.columns)}."
            )
        # An attribute that a machine does not have is a value like any other.
        frame = metadata[columns].astype(object)
        frame = frame.where(frame.notna(), None)
        if isinstance(self.target, str) and self.target != "joint":
            if frame[self.target].isna().any():
                raise ValueError(
                    f"The target column {self.target!r} has no value for "
                    f"{frame[self.target].isna().sum()} of {len(frame)} clips."
                )
            return frame[self.target].tolist()
        return list(zip(*(frame[c].tolist() for c in columns)))

    def _build(self, features, n_frames):
        n_bins = features.shape[1]
        params = self._net_params("module__")
        if isinstance(self.backbone, str):
            params = {"embedding_dim": self.embedding_dim, **params}
        if isinstance(self.backbone, nn.Module):
            backbone = _copy(self.backbone, params)
        elif isinstance(self.backbone, type):
            backbone = self.backbone(**params)
        elif self.backbone == "cnn6":
            backbone = Cnn6(n_bins, **params)
        else:
            se = {"squeeze_excitation": "output"} if self.backbone == "mfnse" else {}
            backbone = MobileFaceNet(input_size=(n_bins, n_frames), **{**se, **params})
        if not self.standardize:
            return nn.Sequential(backbone)
        return nn.Sequential(BinStandardizer(*_bin_statistics(features)), backbone)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = []
        return tags


class _ArcFaceLoss(nn.Module):
    """Cross-entropy of the ArcFace logits; skorch trains its weight with the network's."""

    def __init__(self, head):
        super().__init__()
        self.head = head

    def forward(self, embedding, target):
        return F.cross_entropy(self.head(embedding, target), target)


def _copy(module, params):
    if params:
        raise ValueError(
            f"module__* parameters {sorted(params)} need a backbone given by name or as a class, "
            f"not an instance of {type(module).__name__}."
        )
    return copy.deepcopy(module).cpu()


def _width(module, window):
    """Width of the embeddings, by embedding one window."""
    training = module.training
    module.eval()
    with torch.no_grad():
        embedding = module(torch.from_numpy(np.array(window)))
    module.train(training)
    if embedding.ndim != 2:
        raise ValueError(
            "The backbone must return embeddings of shape (batch, embedding_dim), got "
            f"{tuple(embedding.shape)}."
        )
    return embedding.shape[1]


def _pool(windows, pooling):
    return windows.mean(0) if pooling == "mean" else windows.std(0, unbiased=False)


def _bin_statistics(features, chunk=64):
    """Mean and standard deviation of every bin over clips and frames, chunk by chunk."""
    total, square, count = 0.0, 0.0, features.shape[0] * features.shape[2]
    # The first clip's mean as origin keeps the sum of squares from cancelling.
    origin = features[0].mean(axis=1, dtype=np.float64)
    for start in range(0, len(features), chunk):
        centred = features[start : start + chunk] - origin[:, np.newaxis]
        total = total + centred.sum(axis=(0, 2))
        square = square + np.einsum("ijk,ijk->j", centred, centred)
    mean = total / count
    std = np.sqrt(np.maximum(square / count - mean**2, 0))
    # Constant up to rounding is constant.
    std[std < 1e-6 * np.abs(origin + mean)] = 0
    return (torch.tensor(v, dtype=torch.float32) for v in (origin + mean, std))
