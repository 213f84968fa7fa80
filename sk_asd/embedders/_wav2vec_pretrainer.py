"""Pre-training of wav2vec on unlabelled sound."""

import copy
import functools
import hashlib
import os
import time
from numbers import Integral, Real
from pathlib import Path

import numpy as np
import torch
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted
from skorch.callbacks import PassthroughScoring
from skorch.helper import predefined_split
from torch import nn

from sk_asd.datasets._audio import read_audio
from sk_asd.datasets._samples import check_range
from sk_asd.embedders._wav2vec_training import (
    Checkpoint,
    Contrast,
    ContrastiveNet,
    CropBatches,
    Updates,
    check_same_training,
    learning_rate,
    read_checkpoint,
)
from sk_asd.features._wav2vec import WaveformNetwork
from sk_asd.features._wav2vec_files import write_safetensors
from sk_asd.features._wav2vec_models import FirstVersion
from sk_asd.networks import Wav2Vec1
from sk_asd.utils._containers import is_clip_table, plain
from sk_asd.utils._labels import normal_clips
from sk_asd.utils._random import RandomStream
from sk_asd.utils._sklearn import Interval, StrOptions, _fit_context
from sk_asd.utils._training import NetParamsMixin, epochs_of, fitted_net, resolve_device, to_cpu

_OF_READING = ("sr", "on_rate", "device", "cache_dir", "n_jobs")
SIZES = {"small": {"channels": 128}, "large": {"channels": 512}}


class Wav2VecPretrainer(NetParamsMixin, WaveformNetwork):
    """Trains a wav2vec model on clips without labels (first part of subsystem SC-wav2vec).

    From what it has heard so far the network predicts its own features of frames to come, and
    learns to tell them from those of other frames of the clip. Every update takes random crops of
    `batch_size` clips, which may be of different lengths; of files with several channels the first
    is read. `save` writes a file for :class:`~sk_asd.features.Wav2Vec`. The fitted pre-trainer is a
    transformer itself, of clips as long as the first one in `fit`.

    Parameters
    ----------
    size : {"small", "large"}, default="small"
        128 channels, 2.0 million parameters; or 512, 32.5 million, "wav2vec large" as the report
        has it.
    max_updates : int, default=10000
        Updates of the weights.
    batch_size : int, default=10
        Crops of an update; fewer if there are not as many clips.
    max_samples : int, default=150000
        Samples of the longest crop. The crops of an update are as long as its shortest clip.
    lr : float, default=5e-3
        Largest learning rate; it ends at 1e-6 along half a cosine.
    warmup : int, default=500
        Updates in which the learning rate rises in a line from 1e-7.
    optimizer : type, default=torch.optim.Adam
        Optimizer of torch.
    validation_fraction : float, default=0.05
        Share of clips, at least one, that are held out to measure loss and accuracy; 0 for none.
    checkpoint : str or path-like, default=None
        File that is written every `checkpoint_every` updates, and from which `fit` goes on if it is
        there. The weights are then those of a training without interruption.
    checkpoint_every : int, default=500
        Updates from one row of the history to the next: held-out clips are measured and
        `checkpoint` is written.
    max_time : float, default=None
        Seconds after which training ends, within an update more or less. A `checkpoint` is
        written, from which it can go on.
    mixed_precision : bool, default=False
        Compute in bfloat16 wherever torch deems that safe.
    sr : int, default=16000
        Sample rate in Hz.
    on_rate : {"error", "resample"}, default="error"
        What to do with clips of another sample rate than `sr`. Resampling is soxr's, quality HQ.
    device : str or torch.device, default="auto"
        Where to compute; ``"auto"`` is a CUDA device if there is one, else the CPU. The fitted
        network is kept on the CPU.
    callbacks : list, default=None
        Callbacks of skorch; its epochs are the rows of the history.
    verbose : int, default=0
        1 prints every row of the history.
    random_state : int, RandomState instance or None, default=None
        Seed of initial weights, held-out clips, crops and negatives. On the CPU the same seed gives
        the same fit, bit for bit, with the same number of torch threads.
    cache_dir : str or path-like, default=None
        Folder in which `transform` keeps features, as that of ``Wav2Vec`` does.
    n_jobs : int, default=None
        Threads of `transform`.
    **kwargs : dict
        Parameters of skorch: ``module__*`` (of :class:`~sk_asd.networks.Wav2Vec1`, such as
        ``module__channels`` or ``module__n_steps``, the 12 frames ahead that are predicted);
        ``loss__n_negatives`` (10), the other frames that every predicted one is told from;
        ``loss__infonce`` (False), whether the loss is InfoNCE, fairseq's other one, instead of a
        binary cross-entropy of every frame: the latter, the report's, spends thousands of updates
        on the one value that all logits need, and a training of minutes or hours wants InfoNCE;
        ``optimizer__*``, ``iterator_train__*`` (of the DataLoader, such as
        ``iterator_train__num_workers``) and ``callbacks__*``.

    Attributes
    ----------
    net_ : skorch.NeuralNet
        The fitted net. Rows of its ``history`` have ``update``, ``lr``, ``train_loss``,
        ``train_accuracy``, ``valid_loss`` and ``valid_accuracy``.
    accuracy_ : float
        Share of predictions on held-out clips that suit the true frame better than all negatives,
        at the end. Chance is ``1 / (1 + loss__n_negatives)``. NaN without held-out clips.
    n_updates_ : int
        Updates done.
    stop_reason_ : {"max_updates", "max_time", "callback"}
        What ended the training.
    network_ : nn.Module
        Network from waveforms ``(batch, n_samples)`` to features ``(batch, n_channels, n_frames)``.
    n_samples_ : int
        Samples of a clip, for `transform`.
    n_frames_ : int
        Frames of a clip.
    peak_ : float
        Largest magnitude of the samples of up to 16 clips that `fit` was given.
    quiet_ : float
        Level that 95 % of the tenths of a second of these clips exceed: standard deviation, in
        their unit; 0 if nothing was heard.
    n_features_in_ : int
        Samples of a clip, or the width of the array seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features,)
        Column names of a numeric DataFrame without sound, if `fit` was given one.

    See Also
    --------
    sk_asd.features.Wav2Vec : The transformer for models in files.

    Notes
    -----
    Schedule, negatives and steps are those of the report and of the training of "wav2vec large" in
    fairseq, whose batches are of up to 1.5 million samples in 400,000 updates. The report does not
    give the number of updates. Short trainings want a shorter `warmup`.

    References
    ----------
    Schneider, S. et al. "wav2vec: Unsupervised pre-training for speech recognition", Interspeech
    2019. AITHU report for DCASE 2022 task 2, section 3.1.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_asd.embedders import Wav2VecPretrainer
    >>> X = np.random.default_rng(0).normal(size=(6, 8000)).astype("float32")
    >>> pretrainer = Wav2VecPretrainer(
    ...     max_updates=2, batch_size=2, module__channels=8, random_state=0
    ... )
    >>> pretrainer.fit(X).transform(X).shape
    (6, 8, 48)
    """

    _parameter_constraints: dict = {
        **{name: WaveformNetwork._parameter_constraints[name] for name in _OF_READING},
        "size": [StrOptions(set(SIZES))],
        "max_updates": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "max_samples": [Interval(Integral, 1, None, closed="left")],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "warmup": [Interval(Integral, 0, None, closed="left")],
        "optimizer": [callable],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
        "checkpoint": [str, os.PathLike, None],
        "checkpoint_every": [Interval(Integral, 1, None, closed="left")],
        "max_time": [Interval(Real, 0, None, closed="neither"), None],
        "mixed_precision": ["boolean"],
        "callbacks": [list, None],
        "verbose": ["verbose"],
        "random_state": ["random_state"],
    }
    _net_class = ContrastiveNet
    _net_defaults = {"loss__n_negatives": 10, "loss__infonce": False}
    # `transform` is that of Wav2Vec, but for what is fixed here.
    features, duration, on_length, channel = "context", None, "error", 0
    _state = ("net_", "n_updates_", "stop_reason_", "accuracy_", "_origin")

    def __init__(
        self,
        size="small",
        *,
        max_updates=10000,
        batch_size=10,
        max_samples=150000,
        lr=5e-3,
        warmup=500,
        optimizer=torch.optim.Adam,
        validation_fraction=0.05,
        checkpoint=None,
        checkpoint_every=500,
        max_time=None,
        mixed_precision=False,
        sr=16000,
        on_rate="error",
        device="auto",
        callbacks=None,
        verbose=0,
        random_state=None,
        cache_dir=None,
        n_jobs=None,
        **kwargs,
    ):
        self.size = size
        self.max_updates = max_updates
        self.batch_size = batch_size
        self.max_samples = max_samples
        self.lr = lr
        self.warmup = warmup
        self.optimizer = optimizer
        self.validation_fraction = validation_fraction
        self.checkpoint = checkpoint
        self.checkpoint_every = checkpoint_every
        self.max_time = max_time
        self.mixed_precision = mixed_precision
        self.sr = sr
        self.on_rate = on_rate
        self.device = device
        self.callbacks = callbacks
        self.verbose = verbose
        self.random_state = random_state
        self.cache_dir = cache_dir
        self.n_jobs = n_jobs
        self._given = kwargs

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Train the network, or go on where `checkpoint` has it.

        Parameters
        ----------
        X : DataFrame, sequence of str or path-like, or array-like of shape (n_clips, n_samples)
            Clip table or names of sound files, whose clips may be of different lengths, or
            waveforms at the rate `sr`.
        y : Ignored
            Not used, present by convention.

        Returns
        -------
        self : object
            The fitted pre-trainer.

        Raises
        ------
        FileNotFoundError
            If a sound file or the folder of `checkpoint` does not exist.
        ValueError
            If a clip cannot be read or is too short to predict a frame, `checkpoint` is of another
            training, or the training diverges.
        """
        start = time.monotonic()
        self._check_keywords()
        X, _ = normal_clips(X)
        super().fit(X)  # takes the length of a clip; the network follows from the training
        contents = read_checkpoint(self.checkpoint)
        if contents is not None and self.random_state is None:
            seed = contents["seed"]
        else:
            seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        device = resolve_device(self.device)
        with RandomStream(seed, device).active():
            network = Wav2Vec1(**{**SIZES[self.size], **self._net_params("module__")})
        train, held_out = self._batches(X, network, seed)

        settings = self._settings(network, train)
        if contents is not None:
            check_same_training(self.checkpoint, contents, settings, seed)
        net = self._net(network, held_out, device, Checkpoint(self.checkpoint, settings, seed))
        if self.max_time is not None:
            net.deadline = start + self.max_time
        net.initialize()
        if contents is not None:
            Checkpoint.restore(net, contents)
        if net.updates.done < self.max_updates:
            net.partial_fit(train, y=None, epochs=net.updates.rows_left())

        self.net_ = to_cpu(net)
        # The held-out clips, and what cannot be pickled.
        net.train_split = net.schedule = net.iterator_valid__generator = None
        self.n_updates_ = net.updates.done
        self.stop_reason_ = "callback"
        if net.out_of_time or net.updates.done == self.max_updates:
            self.stop_reason_ = "max_time" if net.updates.done < self.max_updates else "max_updates"
        self.accuracy_ = float(net.history[-1].get("valid_accuracy", np.nan))
        self._use(FirstVersion(network, self.features, self.sr).eval(), self._origin)
        return self

    def save(self, path, *, half=False):
        """Write weights and configuration to a file for :class:`~sk_asd.features.Wav2Vec`.

        Parameters
        ----------
        path : str or path-like
            The file; its name must end in ``.safetensors``. Missing folders are made.
        half : bool, default=False
            Whether weights are stored in float16, half as large.

        Raises
        ------
        ValueError
            If the name ends otherwise.
        """
        check_is_fitted(self)
        path = Path(path)
        if path.suffix != ".safetensors":
            raise ValueError(f"path must end in '.safetensors', got {str(path)!r}.")
        path.parent.mkdir(parents=True, exist_ok=True)
        accuracy = None if np.isnan(self.accuracy_) else round(self.accuracy_, 4)
        notes = {"updates": self.n_updates_, "accuracy": accuracy}
        write_safetensors(self.net_.module_.network, path, sr=self.sr, half=half, **notes)

    def _setup(self, origin):
        self._origin = origin

    def _get_state(self):
        state = super()._get_state()
        net = state.pop("net_", None)
        if net is not None:  # its network is that of `network_`
            state["net_"] = {"infonce": net.module_.infonce, "history": epochs_of(net)}
        return state

    def _set_state(self, state):
        state = dict(state)
        saved = state.pop("net_", None)
        super()._set_state(state)
        if saved is not None:
            module = Contrast(self.network_.network, saved["infonce"])
            self.net_ = fitted_net(ContrastiveNet, module, nn.Identity, saved["history"])

    def _batches(self, X, network, seed):
        """Batches of training and of held-out clips, None without."""
        least = network.receptive_field + network.offset * network.hop_length
        fewest = 2 if self.validation_fraction else 1
        if not is_clip_table(X):
            check_array(
                plain(X),
                estimator=self,
                ensure_all_finite=False,
                ensure_min_samples=fewest,
                ensure_min_features=least,
            )
        source = self._source(X, reset=False)
        need = (
            f"expected at least {least}: one frame of {network.receptive_field} and another, "
            f"{network.offset} frames later, to predict"
        )
        if self.max_samples < least:
            raise ValueError(f"max_samples={self.max_samples} are too few: {need}.")
        if len(source) < fewest:
            raise ValueError(
                "Found 1 clip, expected at least 2 since validation_fraction="
                f"{self.validation_fraction} holds out some."
            )
        lengths = np.empty(len(source), dtype=np.int64)
        in_part = np.zeros(len(source), dtype=bool)  # clips that can be read in part
        for row in range(len(source)):
            lengths[row], sr = source.length(row)
            in_part[row] = sr == self.sr and hasattr(source, "paths")
            if sr != self.sr:
                lengths[row] = len(self._resampled(*source.read(row), source.name(row)))
            if lengths[row] < least:
                raise ValueError(
                    f"{source.name(row)}: the clip has {lengths[row]} samples, {need}."
                )

        def read(row, start, length):
            name = source.name(row)
            if in_part[row]:
                wave, _ = read_audio(name, channel=self.channel, start=start, frames=length)
            else:
                wave = self._resampled(*source.read(row), name)[start : start + length]
            check_range(wave, name)
            return wave

        order = np.random.default_rng((seed, 3)).permutation(len(source))
        n_held_out = 0
        if self.validation_fraction:
            n_held_out = min(max(1, round(self.validation_fraction * len(order))), len(order) - 1)
        held_out, train = (np.sort(rows) for rows in np.split(order, [n_held_out]))
        make = functools.partial(
            CropBatches,
            read,
            network=network,
            batch_size=self.batch_size,
            max_samples=self.max_samples,
            n_negatives=self._net_params("loss__")["n_negatives"],
            seed=seed,
        )
        return make(rows=train, lengths=lengths[train]), (
            make(rows=held_out, lengths=lengths[held_out], held_out=True) if n_held_out else None
        )

    def _net(self, network, held_out, device, checkpoint):
        updates = Updates(self.checkpoint_every, self.max_updates)
        scores = [
            (f"{part}_accuracy", PassthroughScoring(f"{part}_accuracy", False, part == "train"))
            for part in ("train", "valid")
        ]
        net = ContrastiveNet(
            Contrast(network, self._net_params("loss__")["infonce"]),
            criterion=nn.Identity,
            optimizer=self.optimizer,
            lr=self.lr,
            batch_size=None,  # a batch is an item of the dataset
            train_split=None if held_out is None else predefined_split(held_out),
            device=str(device),
            callbacks=[
                *scores,
                *copy.deepcopy(self.callbacks or []),
                ("checkpoint", checkpoint),
            ],
            verbose=self.verbose,
            iterator_train__sampler=updates,
            # A loader without generator draws from the global one, if only to seed its workers.
            iterator_train__generator=torch.Generator(),
            iterator_valid__generator=torch.Generator(),
            **self._skorch_params(),
        )
        net.updates, net.mixed_precision = updates, self.mixed_precision
        net.schedule = functools.partial(
            learning_rate,
            warmup=self.warmup,
            lr=self.lr,
            max_updates=self.max_updates,
        )
        return net

    def _settings(self, network, train):
        """What the trained weights depend on beside the seed."""
        names = ("max_updates", "batch_size", "max_samples", "sr", "lr", "warmup")
        names += ("validation_fraction", "mixed_precision")
        clips = hashlib.blake2b(repr((train.rows.tolist(), train.lengths.tolist())).encode())
        optimizer = {k: repr(v) for k, v in self._net_params("optimizer__").items()}
        return {
            "network": network.config,
            **{name: getattr(self, name) for name in names},
            **{f"loss__{name}": value for name, value in self._net_params("loss__").items()},
            "optimizer": [getattr(self.optimizer, "__name__", repr(self.optimizer)), optimizer],
            "clips": clips.hexdigest()[:16],
        }
