"""Which classes and functions a file of :func:`sk_asd.save` may name, and what for.

skops refuses names that are not trusted, but it may call one that is: as the type of a list, say,
or of the keys of a dict. Here a name is therefore trusted for certain nodes of its schema alone. A
name is looked up among what is loaded anyway: no module is imported because a file names it.
"""

import importlib
import sys

import torch
from sklearn import metrics
from sklearn.base import BaseEstimator
from skorch import NeuralNet
from skorch.callbacks import Callback
from torch import nn

# Loaded whatever a file holds, so that what it may name is there.
_MODULES = (
    "sk_asd.detectors",
    "sk_asd.embedders",
    "sk_asd.ensemble",
    "sk_asd.features",
    "sk_asd.metrics",
    "sk_asd.model_selection",
    "sk_asd.networks",
    "zuko",
)
_PACKAGES = ("sk_asd", "sklearn", "skorch", "torch", "zuko")

# Nodes of skops that take a class or function as a value, and that make an object from a class and
# attributes.
_NAMED = frozenset({"TypeNode", "FunctionNode"})
_MADE = _NAMED | {"ObjectNode"}

# What a file may hold as objects. skorch's nets would run a pickle when their state is set, so
# that they are not among them: `sk_asd._description` makes them from their attributes.
_BASES_MADE = (BaseEstimator, Callback)
_MODULES_MADE = (
    "sk_asd.model_selection._split",
    "sklearn.gaussian_process.kernels",
    "sklearn.metrics._scorer",
    "sklearn.model_selection._split",
)
_BASES_NAMED = (
    nn.Module,
    NeuralNet,
    torch.optim.Optimizer,
    torch.optim.lr_scheduler.LRScheduler,
    torch.distributions.Transform,
)
_SINGLE = {
    "functools.partial": {"PartialNode"},
    "numpy.dtype": {"DTypeNode"},
    "sklearn.utils._bunch.Bunch": {"DictNode"},
    "sk_asd.embedders._wav2vec_training.Updates": _MADE,
    **dict.fromkeys(
        (
            "builtins.print",  # where skorch's callbacks write
            "sk_asd.detectors._windows.as_it_is",
            "sk_asd.embedders._wav2vec_training.learning_rate",
            "sk_asd.metrics._dcase.dcase_score",
            "sk_asd.metrics._dcase.dcase_scores",
            "sk_asd.metrics._scorer.anomaly_score",
            "sk_asd.metrics._scorer.dcase_scorer",
            "skorch.dataset.Dataset",
            "skorch.dataset.ValidSplit",
            "skorch.history.History",
            "skorch.setter.optimizer_setter",
            "torch.utils.data.dataloader.DataLoader",
        ),
        _NAMED,
    ),
}
_KEYS = {"builtins.str", "builtins.int", "builtins.float", "builtins.bool"}


def refused(schema, untrusted, trusted):
    """What in a file is not trusted.

    Parameters
    ----------
    schema : dict
        The schema of skops.
    untrusted : list of str
        Names that skops does not trust by itself.
    trusted : collection of str
        Names that the user trusts, for whatever node.

    Returns
    -------
    dict of str to str
        Places in the estimator by name; empty where skops does not tell.
    """
    found = {}
    allowed = {name: _allowed(name) for name in untrusted if name not in trusted}
    for name, loader, path in _nodes(schema, ""):
        wrong_key = loader == "key" and name not in _KEYS and name not in trusted
        if wrong_key or loader not in allowed.get(name, (loader,)):
            found.setdefault(name, path)
    # Methods, for example, have names that are those of no node.
    return {**{name: "" for name, loaders in allowed.items() if not loaders}, **found}


def _allowed(name):
    """Nodes of skops that a name is trusted for."""
    for module in _MODULES:
        importlib.import_module(module)
    if name in _SINGLE:
        return _SINGLE[name]
    module, _, attribute = name.rpartition(".")
    value = getattr(sys.modules.get(module), attribute, None)
    # What a module merely imports is not its own.
    if getattr(value, "__module__", None) != module or module.split(".")[0] not in _PACKAGES:
        return frozenset()
    if isinstance(value, type):
        if module in _MODULES_MADE or issubclass(value, _BASES_MADE):
            return _MADE
        return _NAMED if issubclass(value, _BASES_NAMED) else frozenset()
    # Public metrics of scikit-learn, as scorers hold them.
    public = attribute in metrics.__all__ and getattr(metrics, attribute) is value
    return _NAMED if public else frozenset()


def _nodes(state, path):
    """Name, kind and place of every node of a schema; types of keys are of the kind "key"."""
    if isinstance(state, list):
        for i, item in enumerate(state):
            yield from _nodes(item, f"{path}[{i}]")
    elif isinstance(state, dict):
        is_node = "__loader__" in state
        if is_node:
            # Classes of a packed network are in a list; what counts is where the network is.
            place = path.split(".others[")[0] or "the top"
            yield f"{state.get('__module__')}.{state.get('__class__')}", state["__loader__"], place
        for key, item in state.items():
            if not is_node:
                yield from _nodes(item, f"{path}.{key}" if path else key)
            elif key != "key_types":
                yield from _nodes(item, path)
            else:
                for name, loader, place in _nodes(item, path):
                    yield name, "key" if loader == "TypeNode" else loader, place
