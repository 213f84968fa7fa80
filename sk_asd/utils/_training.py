"""What estimators that own a skorch net share: parameters, the training loop, devices."""

import copy
import difflib
import inspect
import time
import warnings
from contextlib import nullcontext
from dataclasses import dataclass, field
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.utils import check_random_state
from skorch import NeuralNet
from skorch.callbacks import Callback
from skorch.history import History
from torch.utils.data import Dataset, Sampler

from sk_asd.utils._labels import normal_clips
from sk_asd.utils._random import RandomStream
from sk_asd.utils._sklearn import CallbackSupportMixin, Interval
from sk_asd.utils._validation import check_features

PREFIXES = ("module__", "loss__", "optimizer__", "iterator_train__", "callbacks__")


class SeededNet(NeuralNet):
    """skorch net whose training steps draw from a :class:`~sk_asd.utils._random.RandomStream`.

    Training ends cleanly, within an epoch if need be, once `deadline` has passed, a time of
    :func:`time.monotonic`. With `mixed_precision` the module computes in bfloat16 wherever torch
    deems that safe; losses stay in float32.
    """

    stream = None
    deadline = None
    mixed_precision = False
    interrupted = False
    out_of_time = False

    def run_single_epoch(self, iterator, training, *args, **kwargs):
        """One epoch; remembers Ctrl-C, which skorch takes for the wish to stop early."""
        if training and self.deadline is not None:
            iterator = self._until_deadline(iterator)
        try:
            return super().run_single_epoch(iterator, training, *args, **kwargs)
        except KeyboardInterrupt:
            self.interrupted = True
            raise

    def _until_deadline(self, batches):
        for batch in batches:
            yield batch
            if time.monotonic() > self.deadline:
                self.out_of_time = True
                return

    def train_step(self, batch, **fit_params):
        """One training step, with dropout drawn from the stream.

        Raises
        ------
        ValueError
            If the loss is not finite.
        """
        with self.stream.active() if self.stream is not None else nullcontext():
            step = super().train_step(batch, **fit_params)
        if not torch.isfinite(step["loss"]):
            raise ValueError(
                f"Training diverged: the loss of epoch {len(self.history)} is "
                f"{step['loss'].item()}. Lower lr, or look at the scale of the features."
            )
        return step

    def infer(self, x, **fit_params):
        """Output of the module in float32."""
        if not self.mixed_precision:
            return super().infer(x, **fit_params)
        with torch.autocast(torch.device(self.device).type, torch.bfloat16):
            output = super().infer(x, **fit_params)
        return tuple(o.float() for o in output) if isinstance(output, tuple) else output.float()


class _Epochs(Callback):
    """Ends the training when time is up or one of scikit-learn's callbacks asks for it."""

    def __init__(self, estimator, context, X, y):
        self.estimator = estimator
        self.context = context
        self.data = {"X": X, "y": y}

    def on_epoch_begin(self, net, **kwargs):
        if self.context is not None:
            self.task = self.context.subcontext(task_name="epoch")
            self.task.call_on_fit_task_begin(estimator=self.estimator, **self.data)

    def on_epoch_end(self, net, **kwargs):
        stop = net.out_of_time
        if self.context is not None:
            stop |= self.task.call_on_fit_task_end(
                estimator=self.estimator,
                reconstruction_attributes=lambda: self._fitted(net),
                **self.data,
            )
        if stop:
            # skorch's way to stop early; SeededNet tells it from Ctrl-C.
            raise KeyboardInterrupt

    def _fitted(self, net):
        """What the estimator would have as fitted attributes if training ended now."""
        now = copy.copy(net)
        now.module_, now.criterion_ = copy.deepcopy((net.module_, net.criterion_))
        own = {k: v for k, v in vars(self.estimator).items() if k.endswith("_") and k[0] != "_"}
        return {**own, "net_": to_cpu(now)}


class NetParamsMixin:
    """Parameters with skorch's double-underscore prefixes beside those of the signature.

    ``__init__`` takes ``**kwargs`` and keeps them as ``_given``; from then on they are parameters
    like any other, in ``get_params``, ``set_params`` and ``clone``. ``fit`` refuses those without a
    known prefix. `_net_defaults` has those that a class sets where the user does not, by their
    whole names.
    """

    _net_defaults: dict = {}

    def _check_keywords(self):
        """Refuse parameters without a known prefix.

        Raises
        ------
        TypeError
            Naming the parameter that may have been meant.
        """
        for name in self._given:
            if name.startswith(PREFIXES):
                continue
            meant = [prefix + name.partition("__")[2] for prefix in PREFIXES if "__" in name]
            near = difflib.get_close_matches(name, [*self._get_param_names(), *meant], 1)
            raise TypeError(
                f"{type(self).__name__} got an unexpected keyword argument {name!r}"
                f"{f', perhaps for {near[0]!r}' if near else ''}; beside its own parameters it "
                f"takes those that start with {', '.join(PREFIXES)}."
            )

    def _net_params(self, prefix):
        """Parameters of one prefix, without it: those of the class, and before them the user's."""
        return {
            name[len(prefix) :]: value
            for name, value in {**self._net_defaults, **self._given}.items()
            if name.startswith(prefix)
        }

    def _skorch_params(self):
        """Parameters for skorch by their whole names."""
        for name in ("sampler", "batch_sampler", "shuffle", "generator"):
            if f"iterator_train__{name}" in self._given:
                raise ValueError(
                    f"iterator_train__{name} cannot be set: the order of the windows follows from "
                    "random_state."
                )
        # A class's defaults are for its own optimizer; another one may not have them.
        takes = {f"optimizer__{name}" for name in inspect.signature(self.optimizer).parameters}
        params = {k: v for k, v in self._net_defaults.items() if k in takes} | self._given
        return {k: v for k, v in params.items() if not k.startswith(("module__", "loss__"))}

    def get_params(self, deep=True):
        """Get the parameters, those of the net included.

        Parameters
        ----------
        deep : bool, default=True
            Also return the parameters of contained estimators.

        Returns
        -------
        dict
            Names and values.
        """
        return {**super().get_params(deep), **self._given}

    def set_params(self, **params):
        """Set parameters, those of the net included.

        Parameters
        ----------
        **params : dict
            Names and values.

        Returns
        -------
        self
            The estimator.
        """
        given = {k: v for k, v in params.items() if k.startswith(PREFIXES) or k in self._given}
        super().set_params(**{k: v for k, v in params.items() if k not in given})
        self._given = {**self._given, **given}  # anew, as a shallow copy has the same
        return self


@dataclass
class Training:
    """What an estimator wants to be trained.

    Attributes
    ----------
    architecture : dict
        What its ``_build`` takes.
    dataset, sampler : Dataset, Sampler
        Items to train on and their order.
    attributes : dict
        Attributes of the net.
    callbacks : list
        Callbacks of skorch of the estimator's own.
    params : dict
        Further parameters of the net, such as ``train_split``.
    """

    architecture: dict
    dataset: Dataset
    sampler: Sampler
    attributes: dict = field(default_factory=dict)
    callbacks: list = field(default_factory=list)
    params: dict = field(default_factory=dict)


class NeuralMixin(NetParamsMixin, CallbackSupportMixin):
    """One fit for all estimators that train a network on features ``(n_clips, n_bins, n_frames)``.

    The estimator has the parameters of `_training_constraints`, and its ``fit`` calls
    :meth:`_fit_network`. A subclass writes

    - ``_training(features, X, y, generator)``: checks what is particular to it, sets its fitted
      attributes and returns a :class:`Training`; `features` is the plain 3-D array, `X` the
      container it came in, for labels such as the section, and `generator` the source of whatever
      is drawn;
    - the static method ``_build(**architecture)``, which returns module and criterion, untrained.
      What it takes are plain data, arrays and networks without weights: a saved model holds them,
      so that loading builds the networks as fitting did;
    - ``_finish(features, X)``, if something is kept afterwards.

    `_net_class` is the class of ``net_``, `_min_clips` the fewest clips to train on.
    """

    _state = ("net_", "_architecture", "n_epochs_", "stop_reason_", "fit_time_")
    _net_class = SeededNet
    _min_clips = 2

    _training_constraints: dict = {
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "batch_size": [Interval(Integral, 2, None, closed="left")],
        "optimizer": [callable],
        "max_time": [Interval(Real, 0, None, closed="neither"), None],
        "mixed_precision": ["boolean"],
        "device": [str, torch.device],
        "callbacks": [list, None],
        "verbose": ["verbose"],
        "random_state": ["random_state"],
    }

    def _fit_network(self, X, y):
        """Train a net on normal clips and keep it."""
        self._check_keywords()
        X, y = normal_clips(X, y)
        features = self._checked(X)
        # Should this training fail, nobody takes the last one for it.
        vars(self).pop("net_", None)
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        device, generator = resolve_device(self.device), torch.Generator().manual_seed(seed)
        training = self._training(features, X, y, generator)
        # Weights, and then dropout, follow from the seed as well.
        stream = RandomStream(seed, device)
        with stream.active():
            modules = self._build(**training.architecture)
        self._architecture = training.architecture

        start = time.monotonic()
        context = self._init_callback_context(max_subtasks=self.max_epochs)
        if context is not None:
            context.call_on_fit_task_begin(estimator=self, X=X, y=y)
        net = self._new_net(
            training,
            modules,
            device=str(device),
            iterator_train__generator=generator,
            callbacks=[
                *training.callbacks,
                *copy.deepcopy(self.callbacks or []),
                _Epochs(self, context, X, y),
            ],
        )
        net.stream, net.mixed_precision = stream, self.mixed_precision
        for name, value in training.attributes.items():
            setattr(net, name, value)
        if self.max_time is not None:
            net.deadline = start + self.max_time
        net.initialize().partial_fit(training.dataset, y=None)
        self.net_ = to_cpu(net)
        self.n_epochs_ = len(net.history)
        self.stop_reason_ = "max_epochs" if self.n_epochs_ == self.max_epochs else "callback"
        if net.out_of_time:
            self.stop_reason_ = "max_time"
        self.fit_time_ = time.monotonic() - start
        if context is not None:
            context.call_on_fit_task_end(
                estimator=self, X=X, y=y, reconstruction_attributes=lambda: {}
            )
        self._finish(features, X)
        return self

    def _checked(self, X):
        """The clips to train on as a plain 3-D array."""
        return check_features(self, X, reset=True, min_clips=self._min_clips)

    def _new_net(self, training, modules, **own):
        """An untrained net, where the user's parameters come before those of the class."""
        given = self._skorch_params()
        batch_size = given.get("iterator_train__batch_size", self.batch_size)
        # Batch normalisation cannot work on a single window.
        own["iterator_train__drop_last"] = len(training.sampler) % batch_size == 1
        module, criterion = modules
        return self._net_class(
            module,
            criterion=criterion,
            optimizer=self.optimizer,
            lr=self.lr,
            max_epochs=self.max_epochs,
            batch_size=self.batch_size,
            verbose=self.verbose,
            iterator_train__sampler=training.sampler,
            **{"train_split": None, **own, **given, **training.params},
        )

    def _finish(self, features, X):
        """Set what follows from the trained net."""

    def _get_state(self):
        state = super()._get_state()
        net = state.pop("net_", None)
        if net is not None:
            weights = [weights_of(module) for module in (net.module_, net.criterion_)]
            state["net_"] = {"weights": weights, "history": epochs_of(net)}
        return state

    def _set_state(self, state):
        state = dict(state)
        saved = state.pop("net_", None)
        super()._set_state(state)
        if saved is None:
            return
        modules = self._build(**self._architecture)
        for module, weights in zip(modules, saved["weights"], strict=True):
            set_weights(module, weights)
        self.net_ = fitted_net(self._net_class, *modules, saved["history"])

    def __sklearn_is_fitted__(self):
        return hasattr(self, "net_")


def resolve_device(device, *, fitted=False):
    """Turn ``"auto"`` into the CUDA device if there is one, else the CPU.

    Raises
    ------
    ValueError
        If the device is not there; a fitted network warns instead and computes on the CPU.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        if not fitted:
            raise ValueError(f"device={device!r} cannot be used: {reason}") from error
        warnings.warn(
            f"device={device!r} cannot be used, computing on the CPU: {reason}",
            UserWarning,
            stacklevel=3,
        )
        device = "cpu"
    device = torch.device(device)
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    return device


def to_cpu(net):
    """Bring a fitted skorch net to the CPU and drop what only training needs.

    Raises
    ------
    KeyboardInterrupt
        If it ended training.
    """
    if net.interrupted:
        raise KeyboardInterrupt
    # Callbacks and the optimizer may hold tensors of the training device; the module and criterion
    # as parameters would be stored a second time; nobody needs the order of the training clips.
    net.callbacks = net.optimizer_ = net.stream = net.module = net.criterion = None
    net.iterator_train__sampler = net.iterator_train__generator = None
    net.callbacks_ = []
    net.device = "cpu"
    net.module_.cpu().eval()
    net.criterion_.cpu().eval()
    return net


class NoOptimizer:
    """Stands in for an optimizer that nobody needs, and that loads torch's compiler when made."""

    def __init__(self, *args, **kwargs):
        pass


def fitted_net(net_class, module, criterion, history):
    """A net as a fit leaves it, from its modules and the rows of its history."""
    net = net_class(module, criterion=criterion, optimizer=NoOptimizer, verbose=0).initialize()
    net.history_ = History(history)
    return to_cpu(net)


def epochs_of(net):
    """History of a net, epoch by epoch, without the batches of each."""
    return [{k: v for k, v in row.items() if k != "batches"} for row in net.history]


def weights_of(module):
    """Parameters and buffers of a module as arrays, by name."""
    return {name: tensor.numpy() for name, tensor in module.state_dict().items()}


def set_weights(module, weights):
    """Give a module the result of :func:`weights_of`; all names and shapes must be those it has."""
    tensors = {name: torch.from_numpy(value) for name, value in weights.items()}
    module.load_state_dict(tensors, strict=True)


def on_device(module, device):
    """The module itself on the CPU, or a copy on `device`, ready for inference."""
    if device.type == "cpu":
        return module
    return copy.deepcopy(module).to(device).eval()
