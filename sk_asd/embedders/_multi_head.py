"""Embeddings learnt by telling several properties of a recording at a time."""

import warnings
from collections.abc import Iterable, Mapping
from numbers import Real

import numpy as np
import pandas as pd
import torch
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d

from sk_asd.embedders._base import BaseEmbedder
from sk_asd.embedders._targets import NOT_IN_JOINT, encode
from sk_asd.utils._containers import is_labelled, metadata_of

KINDS = ("classification", "regression")


class MultiHeadEmbedder(BaseEmbedder):
    """Embedding network trained by parallel heads (subsystem MHCR of the AITHU report, [1]_).

    Every target column has a head on the embeddings: a classifier, or a linear regression on the
    standardised value with the squared error. Their losses, each the mean over the clips whose
    value is known, are summed with `loss_weights` (equation 1 of the report). A missing value is
    never filled in: such a clip takes no part in that head's loss. The embeddings then go to an
    outlier detector, as those of :class:`SectionEmbedder` do; windows and their standardisation are
    the same.

    Parameters
    ----------
    backbone : {"mobilefacenet", "mfnse", "ecapa", "cnn6"}, nn.Module or type, \
default="mobilefacenet"
        Network from windows ``(batch, n_bins, n_frames)`` to embeddings ``(batch, d)``. An own
        network may be given as an instance, which is copied, or as a class, which is called with
        the ``module__*`` parameters.
    targets : sequence of str, default=None
        Columns that get a head each. None takes the section, the machine and every attribute that
        varies; among several machines a section is told together with its machine.
    kinds : dict of str to {"classification", "regression"}, default=None
        What to do with a column that may be a target; for columns that are not named numbers are
        regressed and everything else is classified.
    loss_weights : dict of str to float, default=None
        Factor of every head's loss, the lambdas of equation 1, each positive; 1 for heads that are
        not named.
    n_frames : int or None, default=192
        Length of a window in frames; None for whole clips.
    window_hop : int, default=32
        Frames between test windows; the last one is flush with the clip's end.
    layer : {"embedding", "penultimate"}, default="embedding"
        Layer whose output is taken: the last one, which the heads are trained on, or the one before
        it, of an own network its method ``penultimate``. It can be changed after ``fit``.
    loss : {"arcface", "adacos", "subcluster_adacos", "softmax"}, default="arcface"
        What the network is trained by: softmax over angles with a margin, over angles with a scale
        that adapts itself, the same with several centres a class, or a plain linear classifier.
    subtract_mean : bool, default=False
        First subtract from every bin its mean over the clip's frames. Level and stationary sound
        fall out, and what changes over time remains ([2]_, for STFT magnitudes).
    mixup : float, default=0.0
        Mix windows and their classes, with shares from a Beta distribution of this parameter
        ([3]_); 0 mixes nothing, 1 draws the shares uniformly.
    max_epochs : int, default=25
        Number of epochs.
    lr : float, default=1e-3
        Learning rate.
    batch_size : int, default=64
        Windows in a training batch.
    optimizer : type, default=torch.optim.AdamW
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
        Seed of initial weights, windows, order and dropout. On the CPU the same seed gives the
        same fit, bit for bit, with the same number of torch threads.
    **kwargs : dict
        Parameters of skorch: ``module__*`` (of the backbone, such as ``module__width=0.5``;
        ``module__embedding_dim`` is 128 unless given, but for an own network), ``loss__margin`` and
        ``loss__scale`` (of ArcFace, 0.5 and 32), ``loss__n_subclusters`` (centres a class of
        sub-cluster AdaCos, 16), ``optimizer__*`` (``optimizer__weight_decay`` is 1e-4),
        ``iterator_train__*`` (of the DataLoader) and ``callbacks__*``.

    Attributes
    ----------
    net_ : skorch.NeuralNet
        The fitted net, with ``module_``, the heads in ``criterion_`` and, in ``history``, the joint
        loss and ``<target>_loss`` of every head.
    heads_ : dict of str to {"classification", "regression"}
        What every head learns.
    classes_ : dict of str to ndarray
        Classes of the classification heads.
    statistics_ : dict of str to tuple of float (mean, std)
        By which the targets of the regression heads are standardised.
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
    SectionEmbedder : Learns a single target.
    sk_asd.ensemble.GroupedDetector : The detector that usually follows.

    References
    ----------
    .. [1] AITHU report for DCASE 2022 task 2, section 3.1. Deng, J. et al. "ArcFace: Additive
       angular margin loss for deep face recognition", CVPR 2019.
    .. [2] Wilkinghoff, K. "Design choices for learning embeddings from auxiliary tasks for domain
       generalization in anomalous sound detection", ICASSP 2023.
    .. [3] Zhang, H. et al. "mixup: Beyond empirical risk minimization", ICLR 2018.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from sk_asd.embedders import MultiHeadEmbedder
    >>> X = np.random.default_rng(0).normal(size=(8, 16, 40)).astype("float32")
    >>> y = pd.DataFrame({"section": ["00", "01"] * 4, "speed": [1.0, 2.0, None, 4.0] * 2})
    >>> embedder = MultiHeadEmbedder("cnn6", n_frames=32, max_epochs=1, module__width=0.1)
    >>> embedder.fit(X, y).heads_
    {'section': 'classification', 'speed': 'regression'}
    """

    _parameter_constraints: dict = {
        **BaseEmbedder._parameter_constraints,
        "targets": [Iterable, None],
        "kinds": [Mapping, None],
        "loss_weights": [Mapping, None],
    }
    _state = ("heads_", "classes_", "statistics_")

    def __init__(
        self,
        backbone="mobilefacenet",
        *,
        targets=None,
        kinds=None,
        loss_weights=None,
        n_frames=192,
        window_hop=32,
        layer="embedding",
        loss="arcface",
        subtract_mean=False,
        mixup=0.0,
        max_epochs=25,
        lr=1e-3,
        batch_size=64,
        optimizer=torch.optim.AdamW,
        max_time=None,
        mixed_precision=False,
        device="auto",
        callbacks=None,
        verbose=0,
        random_state=None,
        **kwargs,
    ):
        self.backbone = backbone
        self.targets = targets
        self.kinds = kinds
        self.loss_weights = loss_weights
        self.n_frames = n_frames
        self.window_hop = window_hop
        self.layer = layer
        self.loss = loss
        self.subtract_mean = subtract_mean
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

    def predict_targets(self, X):
        """Predict what the heads learnt.

        Parameters
        ----------
        X : DataArray or array-like of shape (n_clips, n_bins, n_frames)
            Features.

        Returns
        -------
        DataFrame of shape (n_clips, n_heads)
            Most probable class, or mean value, over the windows of every clip.

        Raises
        ------
        ValueError
            If clips are shorter than one window.
        """
        check_is_fitted(self, "net_")
        heads = self.net_.criterion_.heads
        rows = []
        for windows in self._embed(X, "embedding"):
            windows = windows.cpu()
            rows.append([head.predict(windows).item() for head in heads])
        table = pd.DataFrame(rows, columns=list(self.heads_))
        for name, kind in self.heads_.items():
            if kind == "classification":
                table[name] = self.classes_[name][table[name].astype(int)]
            else:
                mean, std = self.statistics_[name]
                table[name] = mean + std * table[name]
        return table

    def _targets(self, X, y, n_clips):
        self.heads_, self.classes_, self.statistics_ = {}, {}, {}
        columns = self._columns(X, y)
        unknown = [name for name in self.loss_weights or {} if name not in columns]
        if unknown:
            raise ValueError(
                f"loss_weights names {unknown}, which are not among the targets {list(columns)}."
            )
        for name, weight in (self.loss_weights or {}).items():
            if not isinstance(weight, Real) or not 0 < weight < np.inf:
                raise ValueError(
                    f"loss_weights[{name!r}] must be a positive number, the factor of a loss that "
                    f"is minimised, got {weight!r}; leave a head out by targets."
                )
        targets = []
        for name, (values, kind) in columns.items():
            if len(values) != n_clips:
                raise ValueError(f"Found {n_clips} clips but {len(values)} values of {name!r}.")
            known = ~pd.isna(values)
            target = np.full(n_clips, np.nan)
            if not _varies(values):
                found = f"one value, {values[known][0]!r}" if known.any() else "no value"
                warnings.warn(
                    f"The target {name!r} has {found}, which tells no clips apart: left out.",
                    UserWarning,
                    stacklevel=6,
                )
                continue
            if kind == "classification":
                self.classes_[name], target[known] = encode(values[known], key=str)
            else:
                numbers = _numbers(name, values[known])
                mean, std = numbers.mean(), numbers.std()
                self.statistics_[name] = float(mean), float(std)
                target[known] = (numbers - mean) / std
            self.heads_[name] = kind
            targets.append(target)
        if not targets:
            raise ValueError(
                f"Nothing to learn: every target of {list(columns)} has the same value in all "
                "clips. Train over several sections or machines, or name columns that vary."
            )
        n_classes = {name: len(classes) for name, classes in self.classes_.items()}
        return np.stack(targets, axis=1), {name: n_classes.get(name) for name in self.heads_}

    def _columns(self, X, y):
        """Values and kind of every target column."""
        if not is_labelled(X):
            if y is None:
                raise ValueError(
                    f"{type(self).__name__} requires y to be passed, but the target y is None: a "
                    "plain array carries no labels. Pass a DataFrame of targets as y, or a "
                    "labelled array from an extractor."
                )
            if not isinstance(y, pd.DataFrame):
                labels = column_or_1d(y, warn=True)
                check_classification_targets(labels)
                return {"class": (labels.astype(object), "classification")}
            table = y
        else:
            table = metadata_of(X)
        if isinstance(self.targets, str):
            raise ValueError(f"targets must be a sequence of columns, got {self.targets!r}.")
        names = self._varying(table) if self.targets is None else list(self.targets)
        missing = [name for name in names if name not in table]
        if missing:
            raise ValueError(
                f"The targets {names} need columns {missing}; there are {list(table.columns)}."
            )
        kinds = self.kinds or {}
        unknown = {kind for kind in kinds.values() if kind not in KINDS}
        if unknown:
            raise ValueError(f"Kinds of targets must be among {KINDS}, got {sorted(unknown)}.")
        columns = {}
        for name in names:
            number = pd.api.types.is_numeric_dtype(table[name]) and not (
                pd.api.types.is_bool_dtype(table[name])
            )
            kind = kinds.get(name, "regression" if number else "classification")
            columns[name] = table[name].to_numpy(dtype=object), kind
        if "section" in columns and "machine" in table and _varies(table["machine"]):
            # Section 00 of one machine has nothing in common with that of another.
            pairs = np.empty(len(table), dtype=object)
            pairs[:] = list(zip(table["machine"], columns["section"][0]))
            columns["section"] = pairs, "classification"
        return columns

    @staticmethod
    def _varying(table):
        names = [name for name in table if name not in NOT_IN_JOINT | {"domain"}]
        return [name for name in names if _varies(table[name])]

    def _head_weights(self, heads):
        return [(self.loss_weights or {}).get(name, 1.0) for name in heads]


def _varies(values):
    """Tell whether there are two values or more, beside missing ones."""
    return len(pd.unique(pd.Series(values).dropna())) > 1


def _numbers(name, values):
    try:
        return values.astype(float)
    except (TypeError, ValueError):
        raise ValueError(
            f"The target {name!r} is to be regressed, but has values that are no numbers, such as "
            f"{next(v for v in values if not isinstance(v, Real))!r}."
        ) from None
