"""Plain data as estimators again; see :mod:`sk_asd.persistence._encode` for what there is."""

import pathlib
import re

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
from sk_asd.utils._base import BaseEstimator

_PLAIN = (type(None), bool, int, float, str)
_SCALARS = frozenset(
    {"bool", "float16", "float32", "float64"}
    | {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
)
_COLUMNS = {"bool", "float32", "float64", "int32", "int64", "object"}
# Attributes that networks are built by, what these may hold, and a size that any may have.
_NETWORKS = {"_architecture", "network_"}
_IN_NETWORKS = {"dict", "tuple", "tensor", "array", "transposed", "scalar", "name"}
_LARGE = 1 << 20
# Copies may take so many times what a file has, and some bytes more.
_COPIES = 16
_SOME = 1 << 22
_MOST_COLUMNS = 1000
_MOST_INSIDE = 100_000  # estimators inside one, each counted as often as it is there
_DEVICES = re.compile(r"auto|(cpu|cuda|mps|xpu)(:\d{1,3})?")


def unknown_names(objects, trusted):
    """Names of classes in a file that are not in the tables, in the order of the file."""
    own = {qualified(cls) for cls in trusted}
    known = own.union(*named().values())
    classes = [o["class"] for o in objects]
    if not all(type(name) is str for name in classes):
        raise TypeError("the name of a class is no text")
    unknown = dict.fromkeys(name for name in classes if name not in {*made(), *own})
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
        self.inside = []

    def make(self, description):
        """Make the next object.

        Parameters
        ----------
        description : dict
            Its ``class``, ``params`` and ``state``.
        """
        name = description["class"]
        for key in (*description["params"], *description["state"]):
            if not (key.isidentifier() and key.isascii()):  # they end up in code of HTML
                raise ValueError(f"{key!r} is no name of a parameter or attribute")
        self.inside.append(1)
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
            _check_compiled(name, state)
        estimator = cls(**params)
        if hasattr(estimator, "_check_keywords"):  # whose class takes any
            estimator._check_keywords()
        self.objects.append(estimator)
        allowed = state if name not in made() else learnt(name, state)
        if isinstance(estimator, BaseEstimator):
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
        if role(key) == "device" and not _DEVICES.fullmatch(str(value)):
            raise ValueError(f"{value!r} is no device")
        # Weights of a metric would be read by compiled code, whatever their shape.
        return None if is_place(key, value) or role(key) == "metric_params" else value

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
        if len(self.inside) > len(self.objects):  # within an object that is being made
            self.inside[-1] += self.inside[number]
            if self.inside[-1] > _MOST_INSIDE:
                raise ValueError("it has too many estimators inside each other")
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
        kind, items, codes = content
        codes = self._array(codes)
        table = np.empty(len(items), dtype=object)
        for i, item in enumerate(items):
            table[i] = self.decode(item)
        if kind not in ("object", "text") or codes.dtype != np.int32:
            raise ValueError(f"there are no arrays of {kind!r} by {codes.dtype}")
        width = 8
        if kind == "text":
            width = 4 * max(map(len, table), default=1)
            self._take(width * len(table))
            table = table.astype(str)
        self._take(width * codes.size)
        return table[codes]

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
        data, mask = map(self._copy, content)
        if mask.dtype != bool or mask.shape != data.shape:
            raise ValueError("a mask must have as many truth values as there are data")
        return np.ma.MaskedArray(data, mask)

    def _random_state(self, content):
        name, position, has_gauss, gauss = content
        keys = self.arrays[name]
        # NumPy would read its numbers from any place in memory.
        there = keys.dtype == np.uint32 and keys.shape == (624,) and keys.any()
        if not (there and 0 <= position <= 624):
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
        metric = params["metric"]
        if type(clips) is not np.ndarray or type(metric) is not str or metric == "pyfunc":
            raise ValueError(f"{cls.__name__} cannot be made of a {type(clips).__name__}")
        _check_plain(state)
        self._take(_bytes_of_tree(clips, params["leaf_size"]))
        names = ("n_neighbors", "algorithm", "leaf_size", "metric", "p")
        search = NearestNeighbors(**{name: params[name] for name in names}).fit(clips)
        built = vars(search).keys() - search.get_params(deep=False).keys()
        vars(estimator).update({name: vars(search)[name] for name in built})
        _set(estimator, state, allowed)
        return estimator

    def _strings(self, content):
        dtype, values = content
        if dtype not in ("str", "string"):
            raise ValueError(f"{dtype!r} is no type of text")
        values = self._array(values)
        self._take(64 * values.size)
        if any(type(v) is not str and v is not None and v == v for v in values.ravel().tolist()):
            raise ValueError("a column of text has values that are none")
        return pd.array(values, dtype=dtype)

    def _table(self, content):
        labels, index, columns = content
        _check_few(columns)
        index = pd.Index(self._column(index))
        columns = [self._column(column) for column in columns]
        if any(column.shape != index.shape for column in columns):
            raise ValueError(f"a table of {len(index)} rows has columns of other lengths")
        table = pd.DataFrame({i: pd.Series(c, index) for i, c in enumerate(columns)}, index)
        table.columns = self.decode(labels)
        return table

    def _column(self, node):
        if type(node) is dict and "strings" in node:
            return self.decode(node)
        column = self._array(node)
        if column.ndim > 1 or (column.dtype.name not in _COLUMNS and column.dtype.kind != "U"):
            raise ValueError(f"no column has the shape {column.shape} of {column.dtype}")
        self._take(2 * column.nbytes)
        return column.copy()

    def _labelled(self, content):
        values, dims, coords, name, attrs = content
        _check_few(coords)
        coords = {key: (along, self._column(value)) for key, along, value in coords}
        return xr.DataArray(self._copy(values), coords, dims, name, self.decode(attrs))


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


def _check_few(columns):
    """Refuse what pandas and xarray would work on for a long time."""
    if len(columns) > _MOST_COLUMNS:
        raise ValueError(f"{len(columns)} columns are more than {_MOST_COLUMNS}")


def _check_plain(state):
    """Refuse anything but numbers, text, numeric arrays and lists of these."""
    names = {"classes_", "feature_names_in_"}
    stack = list(state.values())
    for name, value in state.items():
        if name not in names and type(value) is np.ndarray and value.dtype.kind == "O":
            raise ValueError(f"{name} cannot be an array of objects")
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


def _check_compiled(name, state):
    """Refuse arrays that compiled code would read beyond their ends."""
    width = state.get("n_features_in_")
    shapes = {}
    if name == "sklearn.covariance.EllipticEnvelope":
        shapes = {"location_": (width,), "precision_": (width, width)}
    elif name == "sklearn.cluster.KMeans":
        shapes = {"cluster_centers_": (len(state.get("cluster_centers_", ())), width)}
        state["_n_threads"] = 1  # OpenMP ends the process where there are none
    for key, shape in shapes.items():
        array = state.get(key)
        if array is None and len(state) < 2:  # not fitted
            continue
        if getattr(array, "shape", None) != shape or array.dtype not in (np.float64, np.float32):
            raise ValueError(f"{key} must have the shape {shape}")


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
