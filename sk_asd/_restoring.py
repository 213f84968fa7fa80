"""What :mod:`sk_asd._description` has described, made anew."""

import functools
import json
import pathlib
from collections import OrderedDict

import numpy as np
import pandas as pd
import torch
import xarray as xr
from sklearn.neighbors import BallTree, KDTree
from torch import nn

from sk_asd._description import CALLABLES, KIND, NETWORKS, PLAIN


def restore(value, weights):
    """Turn a description back into what was described.

    Parameters
    ----------
    value : object
        What skops has loaded; it is changed in place where possible.
    weights : dict of str to Tensor
        The table of weights.

    Returns
    -------
    object
        The estimator.

    Raises
    ------
    Exception
        Any, if the description is wrong.
    """
    return _Restorer(weights).restore(value)


class _Restorer:
    def __init__(self, weights):
        self.weights = weights
        self._results = {}
        self._tensors = {}
        self._others = ()
        self._makers = {
            **_MAKERS,
            "packed": self._packed,
            "other": self._other,
            "tensor": self._tensor,
        }

    def restore(self, value):
        if type(value) in PLAIN:
            return value
        if id(value) not in self._results:
            self._results[id(value)] = value, self._restore(value)
        return self._results[id(value)][1]

    def _restore(self, value):
        if type(value) is dict and KIND in value:
            parts = {k: self.restore(v) for k, v in value.items() if k != KIND}
            return self._makers[value[KIND]](**parts)
        if isinstance(value, dict):
            for key, item in value.items():
                value[key] = self.restore(item)
        elif isinstance(value, list):
            value[:] = map(self.restore, value)
        elif isinstance(value, (np.random.RandomState, np.random.Generator)):
            _check_position(value)
        elif isinstance(value, tuple):
            items = list(map(self.restore, value))
            if any(a is not b for a, b in zip(items, value)):
                return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
        elif isinstance(value, functools.partial):
            func, args = self.restore(value.func), map(self.restore, value.args)
            return functools.partial(func, *args, **self.restore(dict(value.keywords)))
        elif hasattr(value, "__dict__") and not isinstance(value, CALLABLES):
            for key, item in vars(value).items():
                vars(value)[key] = self.restore(item)
        return value

    def _packed(self, text, others):
        outside, self._others = self._others, others
        result = self.restore(json.loads(text))
        self._others = outside
        return result

    def _other(self, number):
        return self._others[number]

    def _tensor(self, name, shape, stride, parameter, requires_grad):
        # Weights that two layers share stay shared.
        if name not in self._tensors:
            data = self.weights[name].as_strided(shape, stride)
            if parameter:
                self._tensors[name] = nn.Parameter(data, requires_grad=requires_grad)
            else:
                self._tensors[name] = data.requires_grad_(requires_grad)
        return self._tensors[name]


def _make_object(cls, state):
    """A network or net with the attributes of the one that was described."""
    if not issubclass(cls, NETWORKS):
        raise TypeError(f"{cls} is no network.")
    made = cls.__new__(cls)
    if isinstance(made, nn.Module):
        nn.Module.__init__(made)
        made.__setstate__(state)
    else:
        vars(made).update(state)
    return made


def _make_objects(shape, json=None, items=()):
    items = _loads(json) if json is not None else items
    made = np.empty(len(items), dtype=object)
    for i, item in enumerate(items):
        made[i] = item
    return made.reshape(shape)


def _make_list(cls, items):
    if not issubclass(cls, list):
        raise TypeError(f"{cls} is no list.")
    return cls(items)


def _make_dict(keys, values, ordered):
    return (OrderedDict if ordered else dict)(zip(keys, values))


def _make_frame(columns, index, values):
    def column(dtype, array):
        return array if dtype is None else pd.array(array, dtype=dtype)

    frame = pd.DataFrame(
        {i: column(*value) for i, value in enumerate(values)}, index=pd.Index(column(*index))
    )
    frame.columns = pd.Index(columns).infer_objects()
    return frame


def _make_labelled(values, dims, coords, name, attrs):
    coords = {coord: tuple(content) for coord, content in coords.items()}
    return xr.DataArray(values, coords=coords, dims=dims, name=name, attrs=attrs)


def _make_tree(name, data, leaf_size, metric, params):
    cls = {"KDTree": KDTree, "BallTree": BallTree}[name]
    if not isinstance(metric, str) or metric == "pyfunc":  # a function would be called
        raise TypeError("The metric of a tree must be given by name.")
    return cls(data, leaf_size, metric=metric, **params)


def _make_generator(state):
    generator = torch.Generator()
    generator.set_state(torch.from_numpy(state))
    return generator


def _check_position(random):
    """Refuse a place outside the block of numbers that are drawn next; NumPy would read there."""
    if isinstance(random, np.random.RandomState):
        state = random.get_state(legacy=False)
    else:
        state = random.bit_generator.state
    pos, buffer_pos = state["state"].get("pos", 0), state.get("buffer_pos", 0)
    if not (0 <= pos <= 624 and 0 <= buffer_pos <= 4):  # of MT19937 and of Philox
        raise ValueError(f"there is no random number {max(pos, buffer_pos, key=abs)}")


def _make_dtype(name):
    dtype = vars(torch)[name]  # not by getattr, which imports what is missing
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"torch.{name} is no dtype.")
    return dtype


_loads = json.loads
_MAKERS = {
    "tuple": lambda items: tuple(items),
    "list": _make_list,
    "object": _make_object,
    "objects": _make_objects,
    "dict": _make_dict,
    "frame": _make_frame,
    "labelled": _make_labelled,
    "tree": _make_tree,
    "generator": _make_generator,
    "dtype": _make_dtype,
    "device": lambda name: torch.device(name),
    "path": lambda name: pathlib.Path(name),
}
