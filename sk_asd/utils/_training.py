"""What estimators that own a skorch net share: parameters, the training loop, devices."""

import copy
import time
import warnings
from contextlib import nullcontext
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.utils import check_random_state
from skorch import NeuralNet
from skorch.callbacks import Callback
from skorch.history import History

from sk_asd.utils._random import RandomStream
from sk_asd.utils._sklearn import CallbackSupportMixin, Interval

PREFIXES = ("module__", "optimizer__", "iterator_train__", "callbacks__")


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

    ``__init__`` takes ``**kwargs`` and hands them to ``_set_net_params``; from then on they are
    parameters like any other, in ``get_params``, ``set_params`` and ``clone``.
    """

    def _set_net_params(self, kwargs):
        unknown = [name for name in kwargs if not name.startswith(PREFIXES)]
        if unknown:
            raise TypeError(
                f"{type(self).__name__}.__init__() got an unexpected keyword argument "
                f"{unknown[0]!r}; beside its own parameters it takes those that start with "
                f"{', '.join(PREFIXES)}."
            )
        vars(self).update(kwargs)

    def _net_params(self, prefix=""):
        """Given parameters of one prefix, without it; all of them whole without a prefix."""
        return {
            name[len(prefix) :]: value
            for name, value in vars(self).items()
            if name.startswith(prefix or PREFIXES)
        }

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
        return {**super().get_params(deep), **self._net_params()}

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
        net_params = {name: params.pop(name) for name in list(params) if name.startswith(PREFIXES)}
        super().set_params(**params)
        vars(self).update(net_params)
        return self


class NeuralMixin(NetParamsMixin, CallbackSupportMixin):
    """Training of an estimator that owns a skorch net.

    The estimator has the parameters of `_training_constraints`. Its ``fit`` calls
    :meth:`_training_setup` for the device and the sources of random numbers, :meth:`_networks` for
    module and criterion, builds dataset and sampler, and hands all to :meth:`_train`, which sets
    ``net_``, ``n_epochs_``, ``stop_reason_`` and ``fit_time_``.

    A subclass writes the static method ``_build(**architecture)``, which returns module and
    criterion, untrained. What it takes are plain data, arrays and networks without weights: a saved
    model holds them, so that loading builds the networks as fitting did. `_net_class` is the class
    of ``net_``.
    """

    _state = ("net_", "_architecture", "n_epochs_", "stop_reason_", "fit_time_", "_n_fits")
    _net_class = SeededNet

    _training_constraints: dict = {
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "batch_size": [Interval(Integral, 2, None, closed="left")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "optimizer": [callable],
        "max_time": [Interval(Real, 0, None, closed="neither"), None],
        "mixed_precision": ["boolean"],
        "warm_start": ["boolean"],
        "device": [str, torch.device],
        "callbacks": [list, None],
        "verbose": ["verbose"],
        "random_state": ["random_state"],
    }

    def _training_setup(self):
        """Device, random stream for weights and dropout, generator for windows and order."""
        rng = check_random_state(self.random_state)
        # A warm start goes on with numbers that the fits before it did not see.
        n_before = self._n_fits if self._continues() else 0
        for _ in range(n_before + 1):
            seed = rng.randint(np.iinfo(np.int32).max)
        device = resolve_device(self.device)
        return device, RandomStream(seed, device), torch.Generator().manual_seed(seed)

    def _continues(self):
        """Tell whether this fit goes on where the last one ended."""
        return self.warm_start and hasattr(self, "net_")

    def _networks(self, stream, architecture):
        """Module and criterion to train.

        Parameters
        ----------
        stream : RandomStream
            Draws the initial weights.
        architecture : callable
            Returns what ``_build`` takes; not called where this fit goes on with the last one.

        Returns
        -------
        module, criterion : nn.Module
            Copies of those of the last fit, or new ones.
        """
        if self._continues():
            return copy.deepcopy((self.net_.module_, self.net_.criterion_))
        self._architecture = architecture()
        with stream.active():
            return self._build(**self._architecture)

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

    def _skorch_params(self, n_items):
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
            "iterator_train__drop_last": n_items % batch_size == 1,
            **given,
        }

    def _train(
        self,
        module,
        criterion,
        dataset,
        sampler,
        setup,
        *,
        X,
        y=None,
        attributes=None,
        callbacks=(),
        **params,
    ):
        """Train a net and keep it.

        Parameters
        ----------
        module, criterion : nn.Module
            What is trained; both on the CPU.
        dataset, sampler : Dataset, Sampler
            Items to train on and their order.
        setup : tuple
            Result of :meth:`_training_setup`.
        X, y : container
            Input of ``fit``, for scikit-learn's callbacks alone.
        attributes : dict, default=None
            Attributes to set on the net.
        callbacks : sequence of Callback
            skorch callbacks of the estimator's own.
        **params : dict
            Further parameters of the net, such as ``train_split``.
        """
        device, stream, generator = setup
        start = time.monotonic()
        context = self._init_callback_context(max_subtasks=self.max_epochs)
        if context is not None:
            context.call_on_fit_task_begin(estimator=self, X=X, y=y)
        net = self._net_class(
            module,
            criterion=criterion,
            optimizer=self.optimizer,
            lr=self.lr,
            max_epochs=self.max_epochs,
            batch_size=self.batch_size,
            device=str(device),
            callbacks=[
                *callbacks,
                *copy.deepcopy(self.callbacks or []),
                _Epochs(self, context, X, y),
            ],
            verbose=self.verbose,
            iterator_train__sampler=sampler,
            iterator_train__generator=generator,
            **{"train_split": None, **self._skorch_params(len(sampler)), **params},
        )
        net.stream, net.mixed_precision = stream, self.mixed_precision
        for name, value in (attributes or {}).items():
            setattr(net, name, value)
        if self.max_time is not None:
            net.deadline = start + self.max_time
        net.initialize()
        before = []
        if self._continues():
            before = self.net_.history
            net.history_.extend(before)
        net.partial_fit(dataset, y=None)
        n_epochs = len(net.history) - len(before)
        out_of_time = net.out_of_time
        self.net_ = to_cpu(net)
        self.n_epochs_ = len(net.history)
        self.stop_reason_ = (
            "max_time"
            if out_of_time
            else "max_epochs"
            if n_epochs == self.max_epochs
            else "callback"
        )
        self.fit_time_ = time.monotonic() - start
        self._n_fits = self._n_fits + 1 if len(before) else 1
        if context is not None:
            context.call_on_fit_task_end(
                estimator=self, X=X, y=y, reconstruction_attributes=lambda: {}
            )


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
