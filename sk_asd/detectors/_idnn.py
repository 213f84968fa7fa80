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
    pooling : {"mean", "max", "topk"}, default="mean"
        How the windows of a clip become one score.
    top_k : int, default=3
        Windows of ``pooling="topk"``.
    standardize : bool, default=True
        Standardise every bin by its mean and standard deviation over the training clips.
    max_epochs : int, default=50
        Number of epochs.
    lr : float, default=1e-3
        Learning rate.
    batch_size : int, default=128
        Windows in a training batch.
    weight_decay : float, default=0.0
        Weight decay of the optimizer.
    optimizer : type, default=torch.optim.Adam
        Optimizer of torch.
    max_time : float, default=None
        Seconds after which training ends.
    mixed_precision : bool, default=False
        Train in bfloat16 where torch deems it safe.
    warm_start : bool, default=False
        Let the next ``fit`` go on with the network of the last one.
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
        if name not in ("n_components", "mixture", "weights", "scale", "min_scale")
    }

    def __init__(
        self,
        network="mlp",
        *,
        n_frames=5,
        window_hop=1,
        pooling="mean",
        top_k=3,
        standardize=True,
        max_epochs=50,
        lr=1e-3,
        batch_size=128,
        weight_decay=0.0,
        optimizer=torch.optim.Adam,
        max_time=None,
        mixed_precision=False,
        warm_start=False,
        device="auto",
        callbacks=None,
        verbose=0,
        random_state=None,
        contamination=0.1,
        threshold="quantile",
        **kwargs,
    ):
        super().__init__(
            network,
            n_frames=n_frames,
            window_hop=window_hop,
            n_components=1,
            scale="unit",
            pooling=pooling,
            top_k=top_k,
            standardize=standardize,
            max_epochs=max_epochs,
            lr=lr,
            batch_size=batch_size,
            weight_decay=weight_decay,
            optimizer=optimizer,
            max_time=max_time,
            mixed_precision=mixed_precision,
            warm_start=warm_start,
            device=device,
            callbacks=callbacks,
            verbose=verbose,
            random_state=random_state,
            contamination=contamination,
            threshold=threshold,
        )
        self._set_net_params(kwargs)
