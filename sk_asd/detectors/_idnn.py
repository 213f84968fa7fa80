"""Interpolation by squared error."""

import torch

from sk_asd.detectors._imdn import IMDNDetector


class IDNNDetector(IMDNDetector):
    r"""Interpolation deep neural network: the centre frame of windows predicted from the others.

    :class:`IMDNDetector` with one component of unit variance: what it minimises is half the squared
    error of the standardised features, and scores are the mean squared errors of the windows up to
    a factor and a constant, :math:`-(MSE + \log 2\pi) / 2`.

    Parameters
    ----------
    network : {"mlp", "ignn", "lrcgnn", "dfnet"}, default="mlp"
        Network; the original is the fully connected :class:`~sk_asd.networks.InterpolationMLP`.
    n_frames : int or None, default=5
        Length of a window in frames, at least 3; None for whole clips.
    window_hop : int or None, default=1
        Frames between test windows; None: a quarter of a window.
    pooling : {"mean", "max"}, default="mean"
        How the windows of a clip become one score.
    max_epochs : int, default=50
        Number of epochs.
    lr : float, default=1e-3
        Learning rate.
    batch_size : int, default=128
        Windows in a training batch.
    optimizer : type, default=torch.optim.Adam
        Optimizer of torch.
    max_time : float, default=None
        Seconds after which training ends.
    mixed_precision : bool, default=False
        Train in bfloat16 where torch deems it safe.
    device : str or torch.device, default="auto"
        Where to compute.
    callbacks : list, default=None
        Callbacks of skorch.
    verbose : int, default=0
        1 prints the loss of every epoch.
    random_state : int, RandomState instance or None, default=None
        Seed of initial weights, windows and order.
    contamination : float, default=0.1
        Share of normal clips below the threshold.
    threshold : {"quantile", "gamma"}, default="quantile"
        How the threshold is taken from ``training_scores_``.
    **kwargs : dict
        Parameters of skorch, as those of :class:`IMDNDetector`.

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
    IMDNDetector : Predicts a density.

    References
    ----------
    Suefusa et al., "Anomalous sound detection based on interpolation deep neural network", ICASSP
    2020.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_asd.detectors import IDNNDetector
    >>> X = np.random.default_rng(0).normal(size=(8, 4, 12)).astype("float32")
    >>> IDNNDetector(max_epochs=1, random_state=0).fit(X).score_samples(X).shape
    (8,)
    """

    # Parameters of IMDNDetector that are given here.
    _parameter_constraints: dict = {
        name: constraint
        for name, constraint in IMDNDetector._parameter_constraints.items()
        if name not in ("n_components", "mixture")
    }

    def __init__(
        self,
        network="mlp",
        *,
        n_frames=5,
        window_hop=1,
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

    def _density(self):
        return {"n_components": 1, "scale": "unit"}
