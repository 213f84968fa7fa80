"""What estimators that own a skorch net share."""

import copy
import warnings
from contextlib import nullcontext

import numpy as np
import torch
from skorch import NeuralNet

PREFIXES = ("module__", "optimizer__", "iterator_train__", "callbacks__")


class SeededNet(NeuralNet):
    """skorch net whose training steps draw from a :class:`~sk_asd.utils._random.RandomStream`."""

    stream = None
    interrupted = False

    def run_single_epoch(self, *args, **kwargs):
        """One epoch; remembers Ctrl-C, which skorch takes for the wish to stop early."""
        try:
            return super().run_single_epoch(*args, **kwargs)
        except KeyboardInterrupt:
            self.interrupted = True
            raise

    def train_step(self, batch, **fit_params):
        """One training step, with dropout drawn from the stream."""
        with self.stream.active() if self.stream is not None else nullcontext():
            return super().train_step(batch, **fit_params)


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
    ValueError
        If training ended without a finite loss.
    """
    if net.interrupted:
        raise KeyboardInterrupt
    loss = net.history[-1]["train_loss"] if len(net.history) else np.nan
    if not np.isfinite(loss):
        raise ValueError(
            f"Training diverged: the loss of epoch {len(net.history)} is {loss}. Lower lr, or look "
            "at the scale of the features."
        )
    # Callbacks and the optimizer may hold tensors of the training device; the module and criterion
    # as parameters would be stored a second time.
    net.callbacks = net.optimizer_ = net.stream = net.module = net.criterion = None
    net.callbacks_ = []
    net.device = "cpu"
    net.module_.cpu().eval()
    net.criterion_.cpu().eval()
    return net


def on_device(module, device):
    """The module itself on the CPU, or a copy on `device`, ready for inference."""
    if device.type == "cpu":
        return module
    return copy.deepcopy(module).to(device).eval()
