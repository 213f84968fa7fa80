"""Embeddings learnt by telling sections, machines or attributes apart."""

import warnings
from collections.abc import Iterable

import numpy as np
import torch
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from sk_asd.embedders._base import BaseEmbedder
from sk_asd.embedders._targets import encode, target_labels
from sk_asd.utils._containers import is_labelled


class SectionEmbedder(BaseEmbedder):
    """Embedding network trained to classify sections (subsystem SC of the AITHU report, [1]_).

    A network learns to tell the classes of normal clips apart with an ArcFace loss; its embeddings
    then go to an outlier detector. Classes come from the labels of `X` or, for plain arrays, from
    ``y``. In training every clip gives one random window of `n_frames` an epoch; at test time
    strided windows cover the clip, and their embeddings, scaled to unit length, are averaged.
    Every bin is brought to mean 0 and standard deviation 1 over the training clips first.

    Parameters
    ----------
    backbone : {"mobilefacenet", "mfnse", "ecapa", "cnn6"}, nn.Module or type, \
default="mobilefacenet"
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
        The fitted net, with ``history``, ``module_`` and the head in ``criterion_``.
    classes_ : ndarray of shape (n_classes,)
        Class labels; tuples where the target has several columns.
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
    MultiHeadEmbedder : Learns several targets at a time, numbers too.
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
    >>> from sk_asd.embedders import SectionEmbedder
    >>> X = np.random.default_rng(0).normal(size=(8, 16, 40)).astype("float32")
    >>> embedder = SectionEmbedder(n_frames=32, max_epochs=1, random_state=0, module__width=0.1)
    >>> embedder.fit(X, y=[0, 1] * 4).transform(X).shape
    (8, 128)
    """

    _parameter_constraints: dict = {
        **BaseEmbedder._parameter_constraints,
        "target": [str, Iterable],
    }
    _state = ("classes_",)

    def __init__(
        self,
        backbone="mobilefacenet",
        *,
        target="section",
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
        self.target = target
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

    def _targets(self, X, y, n_clips):
        self.classes_, codes = self._classes(X, y, n_clips)
        return codes[:, np.newaxis], {"class": len(self.classes_)}

    def _classes(self, X, y, n_clips):
        """Classes and the code of every clip's class."""
        if is_labelled(X):
            labels = target_labels(X, self.target)
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
        classes, codes = encode(labels, key=str if is_labelled(X) else None)
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
                stacklevel=7,
            )
        return classes, codes
