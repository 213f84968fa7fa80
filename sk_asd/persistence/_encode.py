"""Estimators as plain data: JSON and arrays.

JSON's own values stand for themselves, a list for a list. Everything else is an object with one
key, which tells its kind; :mod:`sk_asd.persistence._decode` has a function for each.
"""

import inspect
import pathlib

import numpy as np
import pandas as pd
import torch
import xarray as xr
from skorch.callbacks import Callback
from torch import nn

from sk_asd.persistence._registry import (
    METRICS,
    NEIGHBOURS,
    TREES,
    is_place,
    learnt,
    made,
    named,
    qualified,
    role,
)

_PLAIN = (type(None), bool, int, float, str)


class Encoder:
    """Turns estimators into JSON and arrays.

    Attributes
    ----------
    objects : list of dict
        Class, parameters and fitted attributes of every estimator, each after those it holds.
    arrays : dict of str to ndarray
        All arrays, by the place where each was found.
    foreign : dict of str to str
        Place of every class that is not in the tables, by its name.
    """

    def __init__(self):
        self.objects = []
        self.arrays = {}
        self.foreign = {}
        self._known = {}  # by id, with the object, which must live as long as its id counts
        self._pending = set()
        self._names = {cls: name for name, cls in made().items()}

    def encode(self, value, path):
        """Encode a value.

        Parameters
        ----------
        value : object
            The value.
        path : str
            Where in the estimator it is.

        Returns
        -------
        object
            As JSON has it.

        Raises
        ------
        ValueError
            If there is no plain data for it; the message has the path.
        """
        if type(value) in _PLAIN:
            return value
        if type(value) is list:
            return [self.encode(item, f"{path}[{i}]") for i, item in enumerate(value)]
        if id(value) not in self._known:
            if id(value) in self._pending:
                raise _refusal(path, value, "refers to itself")
            self._pending.add(id(value))
            self._known[id(value)] = value, self._encode(value, path)
            self._pending.remove(id(value))
        return self._known[id(value)][1]

    def _encode(self, value, path):
        if isinstance(value, dict):
            if type(value) is not dict:
                raise _refusal(path, value, "is no plain dict")
            return {
                "dict": [
                    [self.encode(k, f"{path} (a key)"), self._keyed(k, v, f"{path}[{k!r}]")]
                    for k, v in value.items()
                ]
            }
        if type(value) in (tuple, torch.Size):
            return {"tuple": self.encode(list(value), path)}
        if isinstance(value, np.random.RandomState):
            return self._random_state(value, path)
        if isinstance(value, np.ma.MaskedArray):
            return {"masked": [self.encode(np.asarray(v), path) for v in (value.data, value.mask)]}
        if isinstance(value, np.generic):
            return self._scalar(value, path)
        if isinstance(value, np.ndarray):
            return self._array(value, path)
        if isinstance(value, torch.Tensor):
            return {"tensor": self._array(value.detach().cpu().numpy(), path)}
        if isinstance(value, pd.DataFrame):
            return self._table(value, path)
        if isinstance(value, xr.DataArray):
            return self._labelled(value, path)
        if isinstance(value, slice):
            return {"slice": [value.start, value.stop, value.step]}
        if isinstance(value, pathlib.PurePath):
            return {"path": str(value)}
        if isinstance(value, torch.device):
            return {"device": str(value)}
        if isinstance(value, tuple(TREES.values())):
            return self._tree(value, path)
        if isinstance(value, type) or inspect.isroutine(value):
            raise _refusal(path, value, "is a class or function, which no file can hold there")
        return self._object(value, path)

    def _keyed(self, key, value, path):
        """A value under the name of a parameter, which may be one that takes classes."""
        if is_place(key, value):
            return None
        table = named().get(role(key))
        if table is None or not (isinstance(value, type) or inspect.isroutine(value)):
            return self.encode(value, path)
        public = {thing: name for name, thing in table.items()}
        if value in public:
            return {"name": public[value]}
        if not isinstance(value, type):
            raise _refusal(path, value, "is a function that is not public in this package")
        return {"name": self._foreign(value, path)}

    def _tree(self, tree, path):
        state = tree.__getstate__()
        leaf_size, metric = state[4], type(state[11]).__name__
        if metric not in METRICS:
            raise _refusal(path, tree, f"measures by {metric}, expected one of {list(METRICS)}")
        return {"tree": [type(tree).__name__, self._array(tree.data, path), leaf_size, metric]}

    def _scalar(self, value, path):
        if value.dtype.kind == "U":
            return str(value)
        if value.dtype.kind not in "biuf":
            raise _refusal(path, value, "is no number")
        return {"scalar": [value.dtype.name, value.item()]}

    def _foreign(self, cls, path):
        self.foreign.setdefault(qualified(cls), path)
        return qualified(cls)

    def _object(self, value, path):
        cls = type(value)
        if isinstance(value, nn.Module) and cls not in self._names:
            raise _refusal(
                path,
                value,
                "is a network given as an instance, which cannot be made again from parameters: "
                "give its class and module__* in its place, or use joblib",
            )
        if cls not in self._names and not hasattr(value, "get_params"):
            raise _refusal(path, value, "is neither plain data nor an estimator")
        params = parameters(value)
        state = self._state(value, params, path)
        place = f"{path}." if path else ""
        self.objects.append(
            {
                "class": self._names[cls] if cls in self._names else self._foreign(cls, path),
                "params": {k: self._keyed(k, v, f"{place}{k}") for k, v in params.items()},
                "state": {k: self._keyed(k, v, f"{place}{k}") for k, v in state.items()},
            }
        )
        # The parts were appended before it.
        return {"ref": len(self.objects) - 1}

    def _state(self, value, params, path):
        """Fitted attributes by name."""
        cls, attributes = type(value), vars(value)
        public = self._names.get(cls, "")
        if public in NEIGHBOURS and value.metric_params is not None:
            raise _refusal(path, value, f"has metric_params={value.metric_params}: use joblib")
        if public.startswith("sklearn."):
            names = learnt(public, attributes) & attributes.keys()
            return {name: attributes[name] for name in sorted(names)}
        state, declared = {}, set()
        if hasattr(value, "_get_state"):
            declared = value._state_names()
            try:
                state = value._get_state()
            except ValueError as error:
                raise _refusal(path, value, f"holds {error}") from error
        rest = attributes.keys() - params.keys() - declared
        if not public:
            return {**state, **{name: attributes[name] for name in sorted(rest)}}
        if rest:
            rest -= vars(cls(**params)).keys()  # set by the constructor
        if rest:
            reason = f"has {sorted(rest)}, which its class does not name in `_state`"
            raise _refusal(path, value, reason)
        return state

    def _array(self, value, path):
        value = np.asarray(value)  # a memory map is read
        if value.dtype.kind in "OU":
            return self._items(value, path)
        if value.dtype.kind not in "biuf":
            raise _refusal(path, value, f"has values of type {value.dtype}")
        # Products of matrices depend, in their last digits, on the order in memory.
        if value.ndim > 1 and value.flags.f_contiguous and not value.flags.c_contiguous:
            return {"transposed": self._store(value.T, path)}
        return {"array": self._store(value, path)}

    def _items(self, value, path):
        """An array of objects or text, by its distinct values and where each of them is."""
        kind = "object" if value.dtype == object else "text"
        codes, items, known = np.empty(value.size, dtype=np.int32), [], {}
        for i, item in enumerate(value.ravel().tolist()):
            parts = item if type(item) is tuple else [item]
            # Others may be equal and not the same, as 1 and True.
            key = item if all(type(part) is str for part in parts) else i
            codes[i] = known.setdefault(key, len(items))
            if codes[i] == len(items):
                items.append(item)
        return {
            "items": [kind, self.encode(items, path), self._array(codes.reshape(value.shape), path)]
        }

    def _store(self, value, path):
        name = path or "estimator"
        while name in self.arrays:
            name += "'"
        self.arrays[name] = value.copy(order="C")
        return name

    def _random_state(self, value, path):
        kind, keys, position, has_gauss, gauss = value.get_state(legacy=True)
        if kind != "MT19937":
            raise _refusal(path, value, f"draws from {kind}, not from MT19937")
        return {"random_state": [self._store(keys, path), position, has_gauss, gauss]}

    def _table(self, frame, path):
        if frame.index.nlevels + frame.columns.nlevels > 2:
            raise _refusal(path, frame, "has several levels of labels")
        labels = [self.encode(label, path) for label in frame.columns]
        columns = [self._column(frame.iloc[:, i], path) for i in range(frame.shape[1])]
        return {"table": [labels, self._column(frame.index, path), columns]}

    def _column(self, column, path):
        if isinstance(column.dtype, pd.StringDtype):
            values = self.encode(column.to_numpy(object), path)
            return {"strings": [str(column.dtype), values]}
        if not isinstance(column.dtype, np.dtype):
            raise _refusal(path, column, f"has values of type {column.dtype}")
        return self._array(column.to_numpy(), path)

    def _labelled(self, array, path):
        if any(index.nlevels > 1 for index in array.indexes.values()):
            raise _refusal(path, array, "has several levels of labels")
        coords = [
            [name, list(coord.dims), self._array(coord.to_numpy(), f"{path}.{name}")]
            for name, coord in array.coords.items()
        ]
        values, attrs = self._array(array.to_numpy(), path), self.encode(dict(array.attrs), path)
        return {"labelled": [values, list(array.dims), coords, array.name, attrs]}


def parameters(value):
    """What makes an object again: the arguments of its class by name, but for those left out."""
    if isinstance(value, Callback) or not hasattr(value, "get_params"):
        # Splitters and callbacks keep their arguments as attributes.
        defaults = inspect.signature(type(value)).parameters
        given = {name: vars(value)[name] for name in defaults if name in vars(value)}
        return {k: v for k, v in given.items() if v is not defaults[k].default}
    return value.get_params(deep=False)


def _refusal(path, value, reason):
    cls = type(value)
    what = f"this {cls.__module__}.{cls.__qualname__}"
    return ValueError(f"{path or 'The estimator'} cannot be saved: {what} {reason}.")
