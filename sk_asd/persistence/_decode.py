"""Plain data as estimators again; see :mod:`sk_asd.persistence._encode` for what there is."""

import io
import pathlib
import warnings
import zipfile

import numpy as np
import pandas as pd
import torch
import xarray as xr
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.metrics import check_scoring
from sklearn.utils import Bunch

from sk_asd.persistence._registry import (
    CONTAINERS,
    METRICS,
    PLACES,
    REFITTED,
    TREES,
    made,
    named,
    qualified,
)

_SCALARS = frozenset(
    {"bool", "float16", "float32", "float64"}
    | {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
)

# Attributes that networks are built by, and a size that any may have.
_NETWORKS = {"_architecture", "network_"}
_LARGE = 1 << 20
_TREE = 4  # times the data, that a tree takes with all its nodes


def unknown_names(nodes, table):
    """Names in the nodes of a file that are not in the table, in the order of the file."""
    unknown, stack = {}, [nodes]
    while stack:
        node = stack.pop()
        if type(node) is list:
            stack.extend(reversed(node))
        elif type(node) is dict:
            for key in ("class", "name"):
                if type(node.get(key)) is str and node[key] not in table:
                    unknown.setdefault(node[key])
            stack.extend(node.values())
    return list(unknown)


class Decoder:
    """Makes what an :class:`~sk_asd.persistence._encode.Encoder` has encoded.

    Parameters
    ----------
    arrays : dict of str to ndarray
        The arrays.
    trusted : sequence of type
        Classes of the user's own.
    room : int
        Bytes that what is packed in the arrays may take.
    """

    def __init__(self, arrays, trusted, room):
        self.arrays = arrays
        own = {qualified(cls): cls for cls in trusted}
        self.made = {**own, **made()}
        self.named = {**own, **named()}
        self.room = room
        self.objects = []

    def make(self, description):
        """Make the objects of a description one after the other.

        Parameters
        ----------
        description : dict
            Entry of an object: ``class``, ``params`` and ``state``.
        """
        cls = self.made[description["class"]]
        for name in _NETWORKS & description["state"].keys():
            self._check_sizes(description["state"][name])
        params = {k: self.decode(v) for k, v in description["params"].items() if k not in PLACES}
        state = {k: self.decode(v) for k, v in description["state"].items()}
        if cls in REFITTED and state:
            self._take(_TREE * state[REFITTED[cls]].nbytes)
            self.objects.append(_refit(cls, params, state))
            return
        estimator = cls(**params)
        if cls in CONTAINERS:
            _set(estimator, state, CONTAINERS[cls])
            if "best_estimator_" in state:
                estimator.scorer_ = check_scoring(estimator.best_estimator_, estimator.scoring)
        elif hasattr(estimator, "_set_state"):
            own = estimator._state_names()
            estimator._set_state({k: v for k, v in state.items() if k in own})
            rest = {k: v for k, v in state.items() if k not in own}
            _set(estimator, rest, () if self._is_ours(cls) else rest)
        else:
            _set(estimator, state, () if self._is_ours(cls) else state)
        self.objects.append(estimator)

    def _is_ours(self, cls):
        return cls in made().values()

    def _check_sizes(self, node):
        """Refuse networks with a dimension above all that the file holds."""
        for part in node if type(node) is list else node.values() if type(node) is dict else ():
            self._check_sizes(part)
        if type(node) is int and abs(node) > max(_LARGE, sum(a.size for a in self.arrays.values())):
            raise ValueError(f"a network cannot have a dimension of {node}")

    def decode(self, node):
        """Decode a value.

        Raises
        ------
        ValueError, KeyError, TypeError, IndexError
            If it is not as the encoder writes it.
        """
        if type(node) is list:
            return [self.decode(item) for item in node]
        if type(node) is not dict:
            return node
        ((kind, content),) = node.items()
        return _KINDS[kind](self, content)

    def _take(self, *copies):
        """Take room for copies: arrays or sizes."""
        self.room -= sum(getattr(copy, "nbytes", copy) for copy in copies)
        if self.room < 0:
            raise ValueError("it takes more memory than max_bytes allows")

    def _ref(self, number):
        if number < 0:
            raise IndexError(number)
        return self.objects[number]

    def _pairs(self, pairs):
        return {self.decode(k): self.decode(v) for k, v in pairs}

    def _items(self, content):
        dtype, shape, items = content
        array = np.empty(len(items), dtype=object)
        for i, item in enumerate(items):
            array[i] = self.decode(item)
        if dtype != "object":
            width = int(dtype.removeprefix("U"))
            self._take(4 * width * len(array))
            array = array.astype(f"U{width}")
        return array.reshape(shape)

    def _scalar(self, content):
        name, value = content
        if name not in _SCALARS or type(value) not in (bool, int, float):
            raise ValueError(f"{content} is no number")
        return np.dtype(name).type(value)

    def _slice(self, content):
        if any(type(value) not in (int, type(None)) for value in content):
            raise ValueError(f"{content} is no slice")
        return slice(*content)

    def _masked(self, content):
        data, mask = (self.decode(part) for part in content)
        return np.ma.MaskedArray(data, mask)

    def _random_state(self, content):
        name, position, has_gauss, gauss = content
        keys = self.arrays[name]
        # NumPy would read its numbers from any place in memory.
        if keys.dtype != np.uint32 or keys.shape != (624,) or not 0 <= position <= 624:
            raise ValueError(f"there is no random number {position} of {keys.shape}")
        random = np.random.RandomState(0)
        random.set_state(("MT19937", keys, int(position), int(has_gauss), float(gauss)))
        return random

    def _tree(self, content):
        kind, data, leaf_size, metric = content
        data = self.decode(data)
        self._take(_TREE * data.nbytes)
        return TREES[kind](data, leaf_size, metric=METRICS[metric])

    def _table(self, content):
        labels, index, columns = (self.decode(part) for part in content)
        self._take(*columns)
        index = pd.Index(index)
        table = pd.DataFrame({i: pd.Series(c, index) for i, c in enumerate(columns)}, index)
        table.columns = labels
        return table

    def _strings(self, content):
        dtype, values = content
        if dtype not in ("str", "string"):
            raise ValueError(f"{dtype!r} is no type of text")
        return pd.array(self.decode(values), dtype=dtype)

    def _labelled(self, content):
        values, dims, coords, name, attrs = content
        coords = {key: (along, self.decode(value)) for key, along, value in coords}
        return xr.DataArray(self.decode(values), coords, dims, name, self.decode(attrs))

    def _skops(self, name):
        import skops.io

        content = self.arrays[name].tobytes()
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            self._take(*(entry.file_size for entry in archive.infolist()))
        wanted = skops.io.get_untrusted_types(data=content)
        refused = [t for t in wanted if t not in self.named]
        if refused:
            raise UntrustedError(refused)
        with warnings.catch_warnings():
            # One line about versions for the file instead of one per estimator.
            warnings.simplefilter("ignore", InconsistentVersionWarning)
            return skops.io.loads(content, trusted=wanted)


class UntrustedError(ValueError):
    """Names that a file holds and nobody has trusted."""

    def __init__(self, names):
        super().__init__(", ".join(names))
        self.names = names


_KINDS = {
    "ref": Decoder._ref,
    "dict": Decoder._pairs,
    "bunch": lambda self, pairs: Bunch(**self._pairs(pairs)),
    "tuple": lambda self, items: tuple(self.decode(items)),
    "array": lambda self, name: self.arrays[name],
    "transposed": lambda self, name: self.arrays[name].T,
    "tensor": lambda self, array: torch.from_numpy(np.ascontiguousarray(self.decode(array))),
    "items": Decoder._items,
    "scalar": Decoder._scalar,
    "slice": Decoder._slice,
    "masked": Decoder._masked,
    "random_state": Decoder._random_state,
    "tree": Decoder._tree,
    "strings": Decoder._strings,
    "table": Decoder._table,
    "labelled": Decoder._labelled,
    "path": lambda self, name: pathlib.Path(name),
    "device": lambda self, name: torch.device(name),
    "name": lambda self, name: self.named[name],
    "skops": Decoder._skops,
}


def _refit(cls, params, state):
    """An estimator whose trees are built from its training data."""
    estimator = cls(**{**params, "n_jobs": None}).fit(state.pop(REFITTED[cls]))
    _set(estimator, state, {"offset_"})
    return estimator.set_params(n_jobs=params["n_jobs"])


def _set(estimator, state, allowed):
    """Set attributes that are fitted state and nothing of the class."""
    cls = type(estimator)
    for name, value in state.items():
        if name not in allowed or hasattr(cls, name) or name.startswith("__"):
            raise ValueError(f"{cls.__name__} has no fitted attribute {name!r}")
        vars(estimator)[name] = value
