"""Plain data as estimators again; see :mod:`sk_asd.persistence._encode` for what there is."""

import pathlib

import numpy as np
import pandas as pd
import torch
import xarray as xr
from sklearn.metrics import check_scoring
from sklearn.neighbors import NearestNeighbors

from sk_asd.persistence._registry import (
    CONTAINERS,
    METRICS,
    NEIGHBOURS,
    PLAIN,
    TREES,
    is_place,
    learnt,
    made,
    may_set,
    named,
    qualified,
    role,
)

_PLAIN = (type(None), bool, int, float, str)
_SCALARS = frozenset(
    {"bool", "float16", "float32", "float64"}
    | {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
)
# Attributes that networks are built by, what these may hold, and a size that any may have.
_NETWORKS = {"_architecture", "network_"}
_IN_NETWORKS = {"dict", "tuple", "tensor", "array", "transposed", "scalar", "name", "ref"}
_LARGE = 1 << 20
# Copies may take so many times what a file has, and some bytes more.
_COPIES = 16
_SOME = 1 << 22


def unknown_names(objects, trusted):
    """Names of classes in a file that are not in the tables, in the order of the file."""
    own = {qualified(cls) for cls in trusted}
    known = own.union(*named().values())
    unknown = dict.fromkeys(o["class"] for o in objects if o["class"] not in {*made(), *own})
    stack = [v for o in objects for part in ("params", "state") for v in o[part].values()]
    while stack:
        node = stack.pop()
        if type(node) is list:
            stack.extend(node)
        elif type(node) is dict:
            if type(name := node.get("name")) is str and name not in known:
                unknown.setdefault(name)
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
    size, max_bytes : int
        Bytes of the file, and most bytes that it may take.
    """

    def __init__(self, arrays, trusted, size, max_bytes):
        self.arrays = arrays
        self.own = {qualified(cls): cls for cls in trusted}
        self.room = min(max_bytes - size, _COPIES * size + _SOME)
        self.n_values = sum(array.size for array in arrays.values())
        self.objects = []

    def make(self, description):
        """Make the next object.

        Parameters
        ----------
        description : dict
            Its ``class``, ``params`` and ``state``.
        """
        name = description["class"]
        cls = made()[name] if name in made() else self.own[name]
        for key in _NETWORKS & description["state"].keys():
            self._check_network(description["state"][key])
        params = {k: self._keyed(k, v) for k, v in description["params"].items()}
        state = {k: self._keyed(k, v) for k, v in description["state"].items()}
        if name in NEIGHBOURS:
            self.objects.append(self._neighbours(cls, params, state, NEIGHBOURS[name]))
            return
        if name in PLAIN:
            _check_plain(state)
        estimator = cls(**params)
        self.objects.append(estimator)
        allowed = state if name not in made() else learnt(name, state)
        if hasattr(estimator, "_set_state"):
            declared = estimator._state_names()
            estimator._set_state({k: v for k, v in state.items() if k in declared})
            state = {k: v for k, v in state.items() if k not in declared}
        _set(estimator, state, allowed)
        if name in CONTAINERS and "best_estimator_" in state:
            estimator.scorer_ = check_scoring(estimator.best_estimator_, estimator.scoring)

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

    def _keyed(self, key, node):
        """A value under the name of a parameter, which may be one that takes classes."""
        if type(node) is dict and node.keys() == {"name"} and role(key) in named():
            name = node["name"]
            return named()[role(key)][name] if name not in self.own else self.own[name]
        value = self.decode(node)
        return None if is_place(key, value) else value

    def _check_network(self, node):
        """Refuse what networks are not built by, and dimensions above all that the file holds."""
        if type(node) is list:
            for part in node:
                self._check_network(part)
        elif type(node) is dict:
            if not node.keys() <= _IN_NETWORKS:
                raise ValueError(f"no network is built by {list(node)}")
            self._check_network(list(node.values()))
        elif type(node) is int and abs(node) > max(_LARGE, self.n_values):
            raise ValueError(f"a network cannot have a dimension of {node}")

    def _take(self, n_bytes):
        """Take room for a copy."""
        self.room -= int(n_bytes)
        if self.room < 0:
            raise ValueError("it takes more memory than such a file may, or than max_bytes")

    def _ref(self, number):
        if type(number) is not int or number < 0:
            raise IndexError(number)
        return self.objects[number]

    def _dict(self, pairs):
        keys = [self.decode(key) for key, _ in pairs]
        return {key: self._keyed(key, node) for key, (_, node) in zip(keys, pairs)}

    def _array(self, node):
        """An array, and nothing that NumPy might take for one."""
        array = self.decode(node)
        if type(array) is not np.ndarray:
            raise TypeError(f"expected an array, found {type(array).__name__}")
        return array

    def _copy(self, node):
        array = self._array(node)
        self._take(array.nbytes)
        return array.copy()

    def _items(self, content):
        kind, shape, items = content
        array = np.empty(len(items), dtype=object)
        for i, item in enumerate(items):
            array[i] = self.decode(item)
        if kind not in ("object", "text"):
            raise ValueError(f"there are no arrays of {kind!r}")
        if kind == "text":
            self._take(4 * len(array) * max(map(len, array), default=1))
            array = array.astype(str)
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
        data, mask = map(self._array, content)
        return np.ma.MaskedArray(data, mask)

    def _random_state(self, content):
        name, position, has_gauss, gauss = content
        keys = self.arrays[name]
        # NumPy would read its numbers from any place in memory.
        if keys.dtype != np.uint32 or keys.shape != (624,) or not 0 <= position <= 624:
            raise ValueError(f"there is no random number {position} of {keys.shape}")
        self._take(keys.nbytes)
        random = np.random.RandomState(0)
        random.set_state(("MT19937", keys, int(position), int(has_gauss), float(gauss)))
        return random

    def _tree(self, content):
        kind, data, leaf_size, metric = content
        data = self._array(data)
        self._take(_bytes_of_tree(data, leaf_size))
        return TREES[kind](data, leaf_size, metric=METRICS[metric])

    def _neighbours(self, cls, params, state, allowed):
        """A search for neighbours, whose tree is built from the training clips."""
        estimator = cls(**params)
        clips = state.pop(allowed[0], None)
        if clips is None:
            _set(estimator, state, ())
            return estimator
        metric, further = params["metric"], params["metric_params"] or {}
        if type(clips) is not np.ndarray or type(metric) is not str or metric == "pyfunc":
            raise ValueError(f"{cls.__name__} cannot be made of a {type(clips).__name__}")
        _check_plain({**further, **state})
        self._take(_bytes_of_tree(clips, params["leaf_size"]))
        names = ("n_neighbors", "algorithm", "leaf_size", "metric", "p", "metric_params")
        search = NearestNeighbors(**{name: params[name] for name in names}).fit(clips)
        built = vars(search).keys() - search.get_params(deep=False).keys()
        vars(estimator).update({name: vars(search)[name] for name in built})
        _set(estimator, state, allowed)
        return estimator

    def _strings(self, content):
        dtype, values = content
        if dtype not in ("str", "string"):
            raise ValueError(f"{dtype!r} is no type of text")
        return pd.array(self._array(values), dtype=dtype)

    def _table(self, content):
        labels, index, columns = content
        index = pd.Index(self._column(index))
        columns = [self._column(column) for column in columns]
        if any(len(column) != len(index) for column in columns):
            raise ValueError(f"a table of {len(index)} rows has columns of other lengths")
        table = pd.DataFrame({i: pd.Series(c, index) for i, c in enumerate(columns)}, index)
        table.columns = self.decode(labels)
        return table

    def _column(self, node):
        if type(node) is dict and "strings" in node:
            return self.decode(node)
        column = self._copy(node)
        if column.ndim != 1:
            raise ValueError(f"a column cannot have the shape {column.shape}")
        return column

    def _labelled(self, content):
        values, dims, coords, name, attrs = content
        coords = {key: (along, self._array(value)) for key, along, value in coords}
        return xr.DataArray(self._array(values), coords, dims, name, self.decode(attrs))


_KINDS = {
    "ref": Decoder._ref,
    "dict": Decoder._dict,
    "tuple": lambda self, items: tuple(self.decode(items)),
    "array": lambda self, name: self.arrays[name],
    "transposed": lambda self, name: self.arrays[name].T,
    "tensor": lambda self, node: torch.from_numpy(self._copy(node)),
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
}


def _check_plain(state):
    """Refuse anything but numbers, text, numeric arrays and lists of these."""
    stack = list(state.values())
    while stack:
        value = stack.pop()
        if type(value) in (list, tuple):
            stack.extend(value)
        elif type(value) is int and abs(value) > 2**53:
            raise ValueError(f"no attribute is {value}")
        elif type(value).__module__ == "sklearn.preprocessing._data":
            pass  # of a PowerTransformer
        elif type(value) not in (*_PLAIN, np.ndarray) and not isinstance(value, np.generic):
            raise ValueError(f"no attribute is a {type(value).__name__}")


def _bytes_of_tree(data, leaf_size):
    """Memory of a search tree, in float64 whatever the data are."""
    if type(leaf_size) is not int or leaf_size < 1 or data.ndim != 2:
        raise ValueError(f"there is no tree of {data.shape} with leaves of {leaf_size}")
    n, width = data.shape
    return 8 * n * (width + 1) + (32 + 16 * width) * (2 * n // leaf_size + 2)


def _set(estimator, state, allowed):
    """Set attributes that are fitted state and nothing of the class."""
    cls = type(estimator)
    for name, value in state.items():
        if not may_set(cls, name, allowed):
            raise ValueError(f"{cls.__name__} has no fitted attribute {name!r}")
        vars(estimator)[name] = value
