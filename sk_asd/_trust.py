"""Which classes and functions a file of :func:`sk_asd.save` may name, and what for.

skops refuses names that are not trusted, but it may call one that is: as the type of a list, say,
or of the keys of a dict. Here a name is therefore trusted for certain nodes of its schema alone,
and what stands where it would be called may be a plain type alone. A name is looked up among what
is loaded anyway: no module is imported because a file names it.
"""

import importlib
import sys

import torch
from sklearn import metrics
from sklearn.base import BaseEstimator
from skorch import NeuralNet
from skorch.callbacks import Callback
from torch import nn

from sk_asd._versions import VersionStamp

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

# What a file may hold as objects, if no code of their own sets their state. That of skorch's nets,
# which are estimators too, would run a pickle: `sk_asd._restoring` makes them otherwise.
_BASES_MADE = (BaseEstimator, Callback)
_STATE_SETTERS = (None, BaseEstimator.__setstate__, VersionStamp.__setstate__)
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
# Nodes for names that skops trusts by itself. It has others, some of which call what they hold: a
# defaultdict, for one, is asked for keys that it lacks when it is the state of something else.
_NODES = frozenset(
    f"{kind}Node"
    for kind in (
        *("Dict", "List", "Tuple", "Set", "Slice", "Json", "Bytes", "Bytearray", "NdArray"),
        *("MaskedArray", "RandomState", "RandomGenerator", "Type", "Function", "Object", "Loss"),
    )
)
# The types of the keys of a dict are called with the keys.
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
    found, kinds = {}, {}
    allowed = {name: _allowed(name) for name in untrusted if name not in trusted}
    for name, loader, is_key, number, path in _nodes(schema, ""):
        # skops takes the first node of a number for all of them, whatever the others say.
        kind = name, loader, is_key and loader == "ListNode"
        if number and kinds.setdefault(number, kind) != kind:
            raise ValueError(f"different things have the number {number}")
        wrong = loader not in allowed.get(name, _NODES)
        if is_key and loader != "ListNode":
            wrong |= loader != "TypeNode" or name not in _KEYS
        if wrong and name not in trusted:
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
        made = module in _MODULES_MADE or issubclass(value, _BASES_MADE)
        setter = getattr(value, "__setstate__", None)
        if made and value.__new__ is object.__new__ and setter in _STATE_SETTERS:
            return _MADE
        return _NAMED if made or issubclass(value, _BASES_NAMED) else frozenset()
    # Public metrics of scikit-learn, as scorers hold them.
    public = attribute in metrics.__all__ and getattr(metrics, attribute) is value
    return _NAMED if public else frozenset()


def _nodes(state, path, is_key=False):
    """Name, loader, whether it is a type of keys or their list, number and place of every node."""
    if isinstance(state, list):
        for i, item in enumerate(state):
            yield from _nodes(item, f"{path}[{i}]", is_key)
    elif isinstance(state, dict):
        loader = state.get("__loader__")
        is_node = is_key or "__loader__" in state
        if is_node:
            # Classes of a packed network are in a list; what counts is where the network is.
            place = path.split(".others[")[0] or "the top"
            name = f"{state.get('__module__')}.{state.get('__class__')}"
            yield name, loader, is_key, state.get("__id__"), place
        for key, item in state.items():
            inner = path if is_node else f"{path}.{key}" if path else key
            of_keys = (is_node and key == "key_types") or (is_key and loader == "ListNode")
            yield from _nodes(item, inner, of_keys)
