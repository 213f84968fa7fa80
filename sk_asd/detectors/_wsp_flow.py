"""Likelihood of pooled spectrograms under conditional normalizing flows."""

import warnings
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from skorch.callbacks import EarlyStopping
from skorch.helper import predefined_split
from torch.utils.data import Subset

from sk_asd.detectors._neural_detector import NeuralDetector
from sk_asd.detectors._wsp_net import (
    STATISTICS,
    NegativeLogLikelihood,
    PooledFlow,
    RecordAlpha,
    StatisticsDataset,
    WindowsOf,
    moments,
    over_frames,
    varying,
)
from sk_asd.networks._flows import FLOWS, GroupedFlow
from sk_asd.networks._weighted_pooling import WeightedStatisticPooling
from sk_asd.utils._containers import is_labelled, wrap
from sk_asd.utils._labels import clip_labels, sorted_classes
from sk_asd.utils._sklearn import Interval, StrOptions
from sk_asd.utils._training import Training, on_device, resolve_device
from sk_asd.utils._validation import check_features
from sk_asd.utils._windows import check_length, window_starts

# At most so many a clip; without pooling all frames would take longer than the training.
_VALIDATION_WINDOWS = 32


class WSPFlowDetector(NeuralDetector):
    r"""Pseudo log-likelihood under conditional normalizing flows (WSP-NFCDEE of the AITHU report).

    A clip's log-mel spectrogram becomes one number per bin, :math:`\alpha` times its mean plus
    :math:`\beta` times its standard deviation over time, with :math:`\alpha + \beta = 1`, both
    positive and trained ([1]_, equation 2). The bins fall into groups, and a normalizing flow gives
    the density of each group given all other bins and the clip's section.

    Parameters
    ----------
    flow : {"maf", "nsf", "realnvp", "gaussian"}, default="maf"
        Form of the densities, see :class:`~sk_asd.networks.ConditionalFlow`.
    pooling : {"wsp", "mean", "std", "gwrp", "none"}, default="wsp"
        How the frames of a window become one number per bin: the weighted sum, one of the two
        alone, ranking pooling as :class:`~sk_asd.features.TimePooling` does it, or not at all.
        "none" gives the density of single frames, which is NFCDEE.
    alpha : {"trained", "literal"} or float, default="trained"
        Weight of the mean in "wsp". "trained" takes the likelihood of the pooled bins standardised
        for the weights at hand; "literal" that of the pooled bins themselves, which draws the
        weights to where the bins vary least (see Notes). A number between 0 and 1 stays as it is.
    r : float, default=0.9
        Decay of "gwrp".
    n_frames : int, default=None
        Length of a window in frames; None for whole clips. Not for ``pooling="none"``.
    window_hop : int, default=None
        Frames between test windows; the last one is flush with the clip's end. None is a quarter of
        a window. Not for ``pooling="none"``, which scores every frame.
    by : str or sequence of str, default=("machine", "section")
        Columns known at test time, each combination of whose values is a condition of the
        densities. They are found among the labels of a labelled array; plain arrays have none, and
        their densities depend on the bins alone. None: never a condition.
    validation_fraction : float, default=0.1
        Share of the training clips, spread evenly over conditions, that is held out to stop
        training early; rounded down. None, or fewer than one clip: all are trained on, for
        `max_epochs`.
    max_epochs : int, default=100
        Number of epochs.
    lr : float, default=1e-3
        Learning rate.
    batch_size : int, default=64
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
        1 prints the losses and the weight of the mean after every epoch.
    random_state : int, RandomState instance or None, default=None
        Seed of the held-out clips, initial weights, windows and order. On the CPU the same seed
        gives the same fit, bit for bit, with the same number of torch threads.
    contamination : float, default=0.1
        Share of normal clips below the threshold; it sets ``offset_`` and never the scores.
    threshold : {"quantile", "gamma"}, default="quantile"
        How the threshold is taken from ``training_scores_``.
    **kwargs : dict
        Parameters of skorch: ``module__*`` (of :class:`~sk_asd.networks.GroupedFlow` and
        :class:`~sk_asd.networks.ConditionalFlow`, such as ``module__n_groups``, 8 groups of bins, 1
        for the joint density of all, or ``module__transforms``, 5 blocks of each flow),
        ``optimizer__*`` (``optimizer__weight_decay`` is 1e-5), ``iterator_train__*`` (of the
        DataLoader) and ``callbacks__*``, such as ``callbacks__early_stopping__patience``: training
        ends after 10 epochs without a better likelihood of the held-out clips, and the weights of
        the best epoch are kept.

    Attributes
    ----------
    net_ : skorch.NeuralNet
        The fitted net, with ``history`` and ``module_``.
    alpha_ : float
        Weight of the mean; only with ``pooling="wsp"``. The history has that of every epoch.
    conditions_ : list of tuple or None
        Values of the columns `by` seen in training; None where there are none.
    validation_clips_ : ndarray of int
        Positions of the training clips that were held out.
    training_scores_ : ndarray of shape (n_clips,)
        Scores of the training clips.
    offset_ : float
        Threshold on ``score_samples``.
    n_features_in_ : int
        Number of bins.
    n_epochs_ : int
        Number of epochs trained.
    stop_reason_ : {"max_epochs", "max_time", "callback"}
        Why training ended; "callback" where it was stopped early.
    fit_time_ : float
        Seconds that the last ``fit`` trained.

    See Also
    --------
    GaussianMixtureDetector : Likelihood under a mixture of normal distributions.
    sk_asd.networks.GroupedFlow : The density.

    Notes
    -----
    Scores are nats per bin of standardised bins, the mean over windows. As the groups are given
    each other, their sum is not the logarithm of a joint density, but for ``module__n_groups=1``.

    Pooling has no Jacobian. The likelihood of the pooled bins as they are thus rises with every
    step towards the weights with which they vary least, whether or not these tell normal clips from
    others; this is what the equations of [1]_ say literally. Here the bins are standardised by
    their mean and standard deviation over the training clips as functions of :math:`\alpha`, which
    follow in closed form from the moments of the two statistics. This is the same as adding
    :math:`\sum_i \log \mathrm{std}_i(\alpha)` to the likelihood, and leaves it the choice of the
    weights with which the bins explain each other.

    Where sections sound different in many bins, the other bins tell the section as well, and a
    group's density may learn it from them. With ``module__n_groups=1``
    there are no other bins.

    Bins that are the same in all training clips, such as mel filters without an FFT bin, have no
    density: they are left out, with a warning, and contribute 0.

    References
    ----------
    .. [1] AITHU report for DCASE 2022 task 2, section 3.2. The groups, networks and sizes are not
       in it, nor in any public source, and are this package's reading.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_asd.detectors import WSPFlowDetector
    >>> X = np.random.default_rng(0).normal(size=(40, 16, 30)).astype("float32")
    >>> detector = WSPFlowDetector(max_epochs=2, random_state=0, module__transforms=1).fit(X)
    >>> detector.score_samples(X[:3]).shape, detector.score_map(X[:3]).shape
    ((3,), (3, 16))
    """

    _parameter_constraints: dict = {
        **NeuralDetector._parameter_constraints,
        "flow": [StrOptions(set(FLOWS))],
        "pooling": [StrOptions(set(STATISTICS))],
        "alpha": [StrOptions({"trained", "literal"}), Interval(Real, 0, 1, closed="neither")],
        "r": [Interval(Real, 0, 1, closed="both")],
        "n_frames": [Interval(Integral, 1, None, closed="left"), None],
        "window_hop": [Interval(Integral, 1, None, closed="left"), None],
        "by": [str, list, tuple, None],
        "validation_fraction": [Interval(Real, 0, 0.5, closed="right"), None],
    }
    _net_defaults = {"module__n_groups": 8, "optimizer__weight_decay": 1e-5}
    _state = ("conditions_", "validation_clips_", "alpha_")
    _map_unit = "negative log-likelihood (nats)"

    def __init__(
        self,
        flow="maf",
        *,
        pooling="wsp",
        alpha="trained",
        r=0.9,
        n_frames=None,
        window_hop=None,
        by=("machine", "section"),
        validation_fraction=0.1,
        max_epochs=100,
        lr=1e-3,
        batch_size=64,
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
        self.flow = flow
        self.pooling = pooling
        self.alpha = alpha
        self.r = r
        self.n_frames = n_frames
        self.window_hop = window_hop
        self.by = by
        self.validation_fraction = validation_fraction
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
        """Tell which bins make clips abnormal.

        Parameters
        ----------
        X : DataArray or array-like of shape (n_clips, n_bins, n_frames)
            Features.

        Returns
        -------
        DataArray or ndarray of shape (n_clips, n_bins), or (n_clips, n_bins, n_frames)
            Contribution of every bin, and without pooling of every frame, to the negative pseudo
            log-likelihood, high = abnormal, labelled as `X` is. The mean over bins and frames is
            ``-score_samples(X)``.

        Notes
        -----
        Within a group the contributions are those of :class:`~sk_asd.networks.ConditionalFlow`:
        each bin given the bins before it in the blocks' order. An odd bin also makes others look
        odd, those that are given it.
        """
        check_is_fitted(self)
        features = check_features(self, X, reset=False)
        maps = -np.stack([density.T for density in self._densities(features, X)])
        if self.pooling != "none":
            maps = maps.mean(axis=2)
        dims = X.dims[1 : maps.ndim] if is_labelled(X) else ()
        return wrap(maps, X, dims, {d: X.coords[d] for d in dims if d in X.coords})

    def _map_over_frames(self, X):
        bins = np.asarray(self.score_map(X))
        if self.pooling == "none":
            return bins
        module = self.net_.module_
        return np.stack(
            [
                over_frames(own, clip, module, self.pooling, self.r)
                for own, clip in zip(bins, np.asarray(X))
            ]
        )

    def _score_clips(self, features, X):
        return [density.mean() for density in self._densities(features, X)]

    def _densities(self, features, X):
        """Contributions ``(n_windows, n_bins)`` in float64, clip by clip.

        One clip at a time, so that its scores do not depend, not even by rounding, on those that
        come with it.
        """
        context = self._one_hot(self._codes(X))
        dataset, starts = self._dataset(features, context)
        device = resolve_device(self.device, fitted=True)
        module = on_device(self.net_.module_, device)
        with torch.inference_mode():
            for clip in range(len(features)):
                statistics = torch.from_numpy(dataset.statistics(clip, starts)).to(device)
                given = None
                if context is not None:
                    given = context[clip].expand(len(statistics), -1).to(device)
                yield module(statistics, given).double().cpu().numpy()

    def _training(self, features, X, y, generator):
        values = self._conditions(X)
        self.conditions_ = None if values is None else sorted_classes(values)
        codes = self._codes(X)
        dataset, starts = self._dataset(features, self._one_hot(codes))
        n_clips = len(features)
        self.validation_clips_ = self._held_out(n_clips, codes, generator.initial_seed())
        trained = np.setdiff1d(np.arange(n_clips), self.validation_clips_)
        callbacks = [RecordAlpha()] if self.pooling == "wsp" else []
        # Without one of its own a DataLoader draws a number from the global generator.
        params = {"iterator_valid__generator": torch.Generator()}
        if len(self.validation_clips_):
            some = starts[:: -(-len(starts) // _VALIDATION_WINDOWS)]
            windows = [(clip, start) for clip in self.validation_clips_ for start in some]
            params["train_split"] = predefined_split(Subset(dataset, windows))
            # The loss may be negative, of which a relative threshold makes no sense.
            stop = EarlyStopping(patience=10, threshold_mode="abs", load_best=True)
            callbacks.append(("early_stopping", stop))
        return Training(
            self._architecture_for(dataset, trained, starts),
            dataset,
            WindowsOf(trained, features.shape[2] - dataset.n_frames + 1, generator),
            callbacks=callbacks,
            params=params,
        )

    def _finish(self, features, X):
        # The former holds the clips.
        self.net_.train_split = self.net_.iterator_valid__generator = None
        vars(self).pop("alpha_", None)  # of an earlier fit
        if self.pooling == "wsp":
            self.alpha_ = self.net_.module_.pooling.weights()[0].item()
        super()._finish(features, X)

    def _architecture_for(self, dataset, clips, starts):
        """What :meth:`_build` takes, after a look at which bins vary."""
        mean, covariance = moments(dataset, clips, starts)
        varies = varying(mean, covariance).numpy()
        n_bins = int(varies.sum())
        if n_bins == 0:
            hint = ": a single frame has no spread" if dataset.n_frames == 1 else ""
            raise ValueError(
                f"After pooling={self.pooling!r} over {dataset.n_frames} frames all {len(varies)} "
                f"bins are constant over the training clips{hint}."
            )
        flow = {"flow": self.flow, **self._net_params("module__")}
        if n_bins < flow["n_groups"]:
            found = f"n_features = {len(varies)}"
            if n_bins < len(varies):
                found += f", of which {n_bins} vary"
            raise ValueError(
                f"module__n_groups={flow['n_groups']} groups need at least as many bins, found "
                f"{found}: lower it."
            )
        if n_bins < len(varies):
            constant = np.flatnonzero(~varies)
            some = ", ".join(map(str, constant[:5])) + (", ..." if len(constant) > 5 else "")
            warnings.warn(
                f"{len(constant)} of {len(varies)} bins are constant over the training clips and "
                f"left out: {some}.",
                UserWarning,
                stacklevel=6,
            )
        return {
            "moments": (mean, covariance),
            "alpha": self.alpha if self.pooling == "wsp" else None,
            "n_context": 0 if self.conditions_ is None else len(self.conditions_),
            "flow": flow,
        }

    @staticmethod
    def _build(moments, alpha, n_context, flow):
        """Density of pooled statistics and its loss; `alpha` None is a single statistic."""
        flow = GroupedFlow(int(varying(*moments).sum()), n_context, **flow)
        pooling = None
        if alpha is not None:
            trained = isinstance(alpha, str)
            pooling = WeightedStatisticPooling(0.5 if trained else alpha, trainable=trained)
        module = PooledFlow(*moments, flow, pooling, literal=alpha == "literal")
        return module, NegativeLogLikelihood()

    def _dataset(self, features, context):
        """Statistics of windows, and the first frames of those that cover a clip."""
        frames = self.pooling == "none"
        n_frames = check_length(features, 1 if frames else self.n_frames)
        hop = max(1, n_frames // 4) if self.window_hop is None or frames else self.window_hop
        dataset = StatisticsDataset(features, context, n_frames, self.pooling, self.r)
        return dataset, window_starts(features.shape[2], n_frames, hop)

    def _held_out(self, n_clips, codes, seed):
        """Clips for validation: random ones, spread evenly over conditions."""
        n_held_out = min(int((self.validation_fraction or 0) * n_clips), n_clips - 2)
        order = np.random.RandomState(seed).permutation(n_clips)
        if codes is not None:
            order = order[np.argsort(codes[order], kind="stable")]
        places = (np.arange(n_held_out) + 0.5) * n_clips / max(n_held_out, 1)
        return np.sort(order[places.astype(int)])

    def _conditions(self, X):
        """Values of the columns `by`, a tuple a clip; None where `X` has no labels."""
        if self.by is None or not is_labelled(X):
            return None
        columns = [self.by] if isinstance(self.by, str) else self.by
        return clip_labels(X, columns, f"by={self.by!r}", known=True)

    def _codes(self, X):
        """Position of every clip's condition among those of the training clips."""
        if self.conditions_ is None:
            return None
        values = self._conditions(X)
        if values is None:
            raise ValueError(
                f"No column by={self.by!r} among the labels of the {type(X).__name__}, but "
                f"{type(self).__name__} was fitted with it."
            )
        codes = {value: code for code, value in enumerate(self.conditions_)}
        unseen = sorted_classes(set(values) - set(codes))
        if unseen:
            raise ValueError(
                f"by={self.by!r} has values that were not seen in training: {unseen}; known are "
                f"{self.conditions_}."
            )
        return np.array([codes[value] for value in values])

    def _one_hot(self, codes):
        if codes is None:
            return None
        return torch.eye(len(self.conditions_))[torch.from_numpy(codes)]
