"""Reconstruction by an autoencoder that is trained against a discriminator."""

from numbers import Integral

import numpy as np
import torch
from torch.utils.data import RandomSampler

from sk_asd.detectors._aegan_scores import (
    CLIP_METRICS,
    WINDOW_METRICS,
    clip_distances,
    fit_embedding_detectors,
    section_of,
    spaces_of,
)
from sk_asd.detectors._aegan_training import AEGAN, AEGANLoss, AEGANNet, epoch_means
from sk_asd.detectors._all_windows import (
    AllWindows,
    OverlapMean,
    as_it_is,
    chunks_of_windows,
)
from sk_asd.detectors._metrics import MetricDetector
from sk_asd.utils._labels import clip_labels, sorted_classes
from sk_asd.utils._sklearn import Interval, StrOptions
from sk_asd.utils._training import Training, on_device, resolve_device
from sk_asd.utils._windows import check_length, window_starts


class AEGANDetector(MetricDetector):
    """AEGAN-AD: reconstruction of windows, in a GAN (subsystem six of the AITHU report, [1]_).

    An autoencoder learns to reconstruct windows of log-mel spectrograms of normal clips, and what
    is abnormal it reconstructs worse. A discriminator learns to tell windows from reconstructions,
    and the autoencoder to match the discriminator's features of both. Nineteen scores, in the space
    of the windows, of the latent vectors and of the discriminator, come from one training.

    Parameters
    ----------
    metric : str, default="input_l2_mean"
        The score: ``<space>_<distance>_<pooling>`` with the difference of windows and their
        reconstructions (``input``) or of the latent vectors of both (``latent``), measured by
        ``l1``, ``l2`` (the sum of squares) or, of latent vectors, ``cosine``, and the ``mean``,
        ``min`` or ``max`` over the windows of a clip; or ``discriminator_knn``, ``_lof``,
        ``_cosine`` or ``_mahalanobis``, the score of the mean of the discriminator's features
        over a clip among those of the training clips. It can be changed after ``fit``, and
        ``training_scores_`` and ``offset_`` change with it.
    n_frames : int or None, default=128
        Length of a window in frames; None for whole clips.
    window_hop : int, default=8
        Frames between windows, in training and test; the last one is flush with the clip's end.
        1 is the original.
    adversarial : bool, default=True
        Train with a discriminator. Without, the loss is that of reconstruction alone, and the
        scores in the space of the discriminator are missing.
    section_adaptive : bool or str, default=False
        Scale and shift the latent vector by section, whose column is ``"section"`` or the one
        named. A section that was not trained gets the mean of the others.
    max_epochs : int, default=60
        Number of epochs.
    lr : float, default=2e-4
        Learning rate of both optimizers.
    batch_size : int, default=64
        Windows in a training batch; 512 in the original, whose hop gives eight times as many.
    optimizer : type, default=torch.optim.Adam
        Optimizer of torch, one for the autoencoder and one for the discriminator.
    max_time : float, default=None
        Seconds after which training ends, in the middle of an epoch if need be.
    mixed_precision : bool, default=False
        Train in bfloat16 where torch deems it safe; the gradient penalty stays in float32.
    contamination : float, default=0.1
        Share of normal clips below the threshold; it sets ``offset_`` and never the scores.
    threshold : {"quantile", "gamma"}, default="quantile"
        How the threshold is taken from ``training_scores_``.
    device : str or torch.device, default="auto"
        Where to compute; ``"auto"`` is a CUDA device if there is one, else the CPU. The fitted
        networks are kept on the CPU.
    callbacks : list, default=None
        Callbacks of skorch.
    verbose : int, default=0
        1 prints the losses of every epoch.
    random_state : int, RandomState instance or None, default=None
        Seed of initial weights, order and penalties. On the CPU the same seed gives the same fit,
        bit for bit, with the same number of torch threads.
    **kwargs : dict
        Parameters of skorch: ``module__*``, which are ``latent_dim`` (256), ``width`` (1.0),
        ``norm`` ("layer") and ``first_norm`` (True) of :class:`~sk_asd.networks.AEGANGenerator`,
        and ``discriminator_norm`` ("layer"); ``loss__penalty_weight`` (10), the λ of eq. (5),
        ``loss__matching_weight`` (0.1), the μ of eq. (6), where both terms are means, not sums, and
        ``loss__match`` ("mean"), the statistics of the features over a batch that are matched, or
        "mean_std"; ``optimizer__*`` (``optimizer__betas`` is (0.5, 0.999), where the optimizer has
        it), ``iterator_train__*`` (of the DataLoader) and ``callbacks__*``.

    Attributes
    ----------
    net_ : skorch.NeuralNet
        The fitted net, with ``history`` and ``module_``, which has ``generator`` and
        ``discriminator``. Beside ``train_loss``, the loss of the autoencoder, the history has
        ``reconstruction_loss``, ``matching_loss``, ``discriminator_loss`` and ``penalty``.
    training_metrics_ : DataFrame of shape (n_clips, n_metrics)
        Scores of the training clips by all metrics; leave-one-out in the space of the
        discriminator, of clips that were trained on in the others.
    training_scores_ : ndarray of shape (n_clips,)
        Those by `metric`.
    metric_offsets_ : dict
        Thresholds by metric.
    offset_ : float
        Threshold on ``score_samples``.
    embedding_detectors_ : dict
        Fitted detectors in the space of the discriminator, by metric.
    sections_ : list
        Sections, where ``section_adaptive``.
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
    AutoEncoderDetector : The baseline of the challenge.
    sk_asd.networks.AEGANGenerator : The autoencoder.

    Notes
    -----
    Features are brought to [−1, 1] by the least and greatest value in the training clips. The
    network is built for the number of bins and frames that it is given; 128 of each are the
    original.

    The published implementation sums two cosine distances in ``discriminator_knn``, where here it
    is their mean, and inverts the plain covariance in ``discriminator_mahalanobis``, where here
    it is shrunk, so that fewer clips than features will do. The layer normalisation by section is
    the report's alone, which does not say where in the latent space it acts: here on the vector
    that the decoder gets, while distances are taken before.

    References
    ----------
    .. [1] AITHU report for DCASE 2022 task 2, section 3.3. Jiang, A. et al. "Unsupervised anomaly
       detection and localization of machine audio: A GAN-based approach", ICASSP 2023.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_asd.detectors import AEGANDetector
    >>> X = np.random.default_rng(0).normal(size=(8, 16, 40)).astype("float32")
    >>> detector = AEGANDetector(n_frames=16, max_epochs=1, module__width=0.25, random_state=0)
    >>> detector.fit(X).score_samples(X).shape, detector.score_metrics(X).shape
    ((8,), (8, 19))
    >>> detector.score_map(X).shape
    (8, 16, 40)
    """

    _parameter_constraints: dict = {
        **MetricDetector._parameter_constraints,
        "metric": [StrOptions({*WINDOW_METRICS, *CLIP_METRICS})],
        "n_frames": [Interval(Integral, 1, None, closed="left"), None],
        "window_hop": [Interval(Integral, 1, None, closed="left")],
        "adversarial": ["boolean"],
        "section_adaptive": ["boolean", str],
    }
    _state = ("n_frames_", "sections_", "_adversarial", "embedding_detectors_")
    _net_class = AEGANNet
    _net_defaults = {"optimizer__betas": (0.5, 0.999)}

    def __init__(
        self,
        metric="input_l2_mean",
        *,
        n_frames=128,
        window_hop=8,
        adversarial=True,
        section_adaptive=False,
        max_epochs=60,
        lr=2e-4,
        batch_size=64,
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
        self.adversarial = adversarial
        self.section_adaptive = section_adaptive
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
        self.sections_, codes = None, np.full(len(features), -1)
        if self.section_adaptive:
            labels = clip_labels(X, self._section_column(), "section_adaptive", known=True)
            self.sections_ = sorted_classes(labels)
            codes = _codes(labels, self.sections_)
        self._adversarial = self.adversarial
        self._check_metric()
        network = {
            "size": (features.shape[1], self.n_frames_),
            "low": float(features.min()),
            "high": float(features.max()),
            "adversarial": self.adversarial,
            "n_sections": None if self.sections_ is None else len(self.sections_),
            **self._net_params("module__"),
        }
        loss = self._net_params("loss__")
        dataset = AllWindows(features, torch.from_numpy(codes), self.n_frames_, self.window_hop)
        return Training(
            {"network": network, "loss": loss},
            dataset,
            RandomSampler(dataset, generator=generator),
            callbacks=epoch_means(self.adversarial, AEGANLoss(**loss)),
            params={"iterator_train__collate_fn": as_it_is},
        )

    @staticmethod
    def _build(network, loss):
        """Autoencoder and critic, and what both are trained by."""
        return AEGAN(**network), AEGANLoss(**loss)

    def _metrics(self):
        return (*WINDOW_METRICS, *(CLIP_METRICS if self._adversarial else ()))

    def _measure(self, features, X, metrics):
        anomaly, embeddings = self._pass(features, X, spaces_of(metrics))
        scores = {name: -values for name, values in anomaly.items() if name in metrics}
        for name in metrics:
            if name in CLIP_METRICS:
                scores[name] = self.embedding_detectors_[name].score_samples(embeddings)
        return scores

    def _measure_training(self, features, X):
        anomaly, embeddings = self._pass(features, X, spaces_of(self._metrics()))
        scores = {name: -values for name, values in anomaly.items()}
        self.embedding_detectors_ = {}
        if self._adversarial:
            self.embedding_detectors_ = fit_embedding_detectors(embeddings)
        for name, detector in self.embedding_detectors_.items():
            scores[name] = detector.training_scores_
        return scores

    def _pass(self, features, X, spaces):
        """Anomaly scores by name, and embeddings of clips, in one pass, clip by clip."""
        rows, embeddings = [], []
        for module, chunks, _, section in self._clips(features, X, self.window_hop):
            row, embedding = clip_distances(module, chunks, section, spaces)
            rows.append(row)
            embeddings.append(embedding)
        anomaly = {name: np.array([row[name] for row in rows]) for name in rows[0]}
        if "discriminator" not in spaces:
            return anomaly, None
        return anomaly, torch.stack(embeddings).cpu().numpy()

    def _error_maps(self, features, X):
        hop = min(self.window_hop, self.n_frames_)
        for module, chunks, starts, section in self._clips(features, X, hop):
            errors = OverlapMean(*features.shape[1:], starts)
            for windows in chunks:
                x, _, y = module(windows, section_of(windows, section))
                errors.add((x - y).square().cpu().numpy())
            yield errors.mean()

    def _clips(self, features, X, hop):
        """For every clip the networks, its windows chunk by chunk, their starts, its section."""
        check_length(features, self.n_frames_)
        device = resolve_device(self.device, fitted=True)
        module = on_device(self.net_.module_, device)
        starts = window_starts(features.shape[2], self.n_frames_, hop)
        with torch.inference_mode():
            for clip, section in zip(features, self._section_codes(X, len(features)).tolist()):
                chunks = chunks_of_windows(clip, self.n_frames_, starts)
                yield module, (chunk.to(device) for chunk in chunks), starts, section

    def _section_column(self):
        return "section" if self.section_adaptive is True else self.section_adaptive

    def _section_codes(self, X, n_clips):
        if self.sections_ is None:
            return np.full(n_clips, -1)
        return _codes(clip_labels(X, self._section_column(), "section_adaptive"), self.sections_)


def _codes(labels, sections):
    """Position of every label among the sections, −1 for one that is not there."""
    position = {section: i for i, section in enumerate(sections)}
    return np.array([position.get(label, -1) for label in labels])
