"""Estimators as a file can hold them: networks and other foreign objects described by plain ones.

skops carries estimators of scikit-learn's kind, containers, arrays and names of classes and
functions. What it cannot carry becomes a dict with the key `KIND`, which names one of the
functions in `sk_asd._restoring`. Of a network, which has thousands of small attributes, skops sees
the classes alone: the rest is packed into one text, and the weights go to a table of their own.
"""

import copy
import functools
import json
import os
import pathlib
import re
import sys
import types
from collections import OrderedDict

import joblib
import numpy as np
import pandas as pd
import torch
import xarray as xr
from sklearn.neighbors import BallTree, KDTree
from skorch import NeuralNet
from torch import nn

KIND = "__sk_asd__"
PLAIN = (type(None), bool, int, float, str)
CALLABLES = (type, types.FunctionType, types.BuiltinFunctionType)
NETWORKS = (nn.Module, NeuralNet)
_OF_PYTHON = 1 << 9  # flag of classes that are not built in


class Describer:
    """Turns an estimator into what skops can carry.

    Attributes
    ----------
    weights : dict of str to Tensor
        All tensors met so far, on the CPU, by the place where each was found.
    """

    def __init__(self):
        self.weights = {}
        self._results = {}  # by id, with the original, which must live as long as its id counts
        self._packed = {}
        self._pending = set()
        self._in_network = False

    def describe(self, value, path=""):
        """Describe a value; what is the same object before is the same object after.

        Parameters
        ----------
        value : object
            An estimator or something that one holds; it stays as it is.
        path : str, default=""
            Where in the estimator it was found.

        Returns
        -------
        object
            The value itself, or a copy in which all that skops cannot carry is described.

        Raises
        ------
        ValueError
            If something cannot be described, naming its place.
        """
        if type(value) in PLAIN:
            return value
        if id(value) not in self._results:
            if id(value) in self._pending:
                raise _refusal(path, value, "refers to itself")
            self._pending.add(id(value))
            outside = self._in_network
            self._in_network |= isinstance(value, NETWORKS)
            self._results[id(value)] = value, self._describe(value, path)
            self._in_network = outside
            self._pending.remove(id(value))
        result = self._results[id(value)][1]
        if isinstance(value, NETWORKS) and not self._in_network:
            return self._packed.setdefault(id(value), _pack(result))
        return result

    def _describe(self, value, path):
        if isinstance(value, torch.Tensor):
            return self._tensor(value, path)
        if isinstance(value, nn.Module):
            return _of("object", cls=_named(type(value), path), state=self._module(value, path))
        if isinstance(value, NeuralNet):
            state = self._values(vars(value), path)
            return _of("object", cls=_named(type(value), path), state=state)
        if isinstance(value, torch.dtype):
            return _of("dtype", name=str(value).removeprefix("torch."))
        if isinstance(value, torch.device):
            return _of("device", name=str(value))
        if isinstance(value, torch.Generator):
            return _of("generator", state=value.get_state().cpu().numpy())
        if isinstance(value, joblib.Memory):
            return value.location if value.location is None else os.fspath(value.location)
        if isinstance(value, pathlib.PurePath):
            return _of("path", name=os.fspath(value))
        if isinstance(value, pd.DataFrame):
            return self._frame(value, path)
        if isinstance(value, xr.DataArray):
            return self._labelled(value, path)
        if isinstance(value, np.ndarray) and not isinstance(value, np.ma.MaskedArray):
            return self._array(value, path)
        if isinstance(value, functools.partial):
            func, args = self.describe(value.func, path), self._items(value.args, path)
            return functools.partial(func, *args, **self._values(value.keywords, path))
        if isinstance(value, CALLABLES):
            return _named(value, path)
        if isinstance(value, types.MethodType):
            raise _refusal(path, value, "is a method of an object")
        if isinstance(value, dict):
            return self._dict(value, path)
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*self._items(value, path))
        if type(value) in (tuple, torch.Size):
            return tuple(self._items(value, path))
        if type(value) is list:
            return self._items(value, path)
        if isinstance(value, list):
            cls = _named(type(value), path)
            return _of("list", cls=cls, items=self._items(value, path))
        return self._object(value, path)

    def _items(self, values, path):
        return [self.describe(v, f"{path}[{i}]") for i, v in enumerate(values)]

    def _values(self, values, path):
        return {k: self.describe(v, f"{path}.{k}" if path else k) for k, v in values.items()}

    def _object(self, value, path):
        """A copy of an object that is its attributes and no more; all others are left to skops."""
        cls = type(value)
        usual = cls.__reduce_ex__ is object.__reduce_ex__ and cls.__reduce__ is object.__reduce__
        if not usual or not hasattr(value, "__dict__") or not cls.__flags__ & _OF_PYTHON:
            return value
        _named(cls, path)
        copied = cls.__new__(cls)
        vars(copied).update(self._values(vars(value), path))
        built = isinstance(vars(value).get("_tree"), (KDTree, BallTree))
        if built and isinstance(value.effective_metric_, str):
            # Built anew from its clips: what a file says of its nodes would be believed unchecked.
            vars(copied)["_tree"] = _of(
                "tree",
                name=type(value._tree).__name__,
                data=copied._fit_X,
                leaf_size=value.leaf_size,
                metric=value.effective_metric_,
                params=copied.effective_metric_params_,
            )
        return copied

    def _dict(self, value, path):
        if KIND not in value and all(type(key) is str for key in value):
            copied = {} if type(value) is dict else copy.copy(value)
            copied.update(self._values(value, path))
            return copied
        if type(value) not in (dict, OrderedDict):
            raise _refusal(path, value, "has keys that are no text")
        return _of(
            "dict",
            keys=self._items(value, path),
            values=[self.describe(v, f"{path}[{k!r}]") for k, v in value.items()],
            ordered=type(value) is OrderedDict,
        )

    def _array(self, value, path):
        if value.dtype != object:
            return np.asarray(value)  # a memory map is read
        items = value.ravel().tolist()
        if all(type(item) in PLAIN for item in items):
            return _of("objects", shape=list(value.shape), json=json.dumps(items))
        return _of("objects", shape=list(value.shape), items=self._items(items, path))

    def _frame(self, frame, path):
        if frame.index.nlevels + frame.columns.nlevels > 2:
            raise _refusal(path, frame, "has several levels of labels")
        for dtype in {*frame.dtypes, frame.index.dtype}:
            if not isinstance(dtype, (np.dtype, pd.StringDtype)):
                raise _refusal(path, frame, f"has values of type {dtype}")
        return _of(
            "frame",
            columns=self.describe(frame.columns.to_numpy(object), path),
            index=self._column(frame.index, path),
            values=[self._column(frame.iloc[:, i], path) for i in range(frame.shape[1])],
        )

    def _column(self, column, path):
        if isinstance(column.dtype, np.dtype) and column.dtype != object:
            return [None, column.to_numpy()]
        values = column.to_numpy(object)
        return [str(column.dtype), self.describe(values, path)]

    def _labelled(self, array, path):
        if any(index.nlevels > 1 for index in array.indexes.values()):
            raise _refusal(path, array, "has several levels of labels")
        coords = {
            name: [list(coord.dims), self.describe(coord.to_numpy(), f"{path}.{name}")]
            for name, coord in array.coords.items()
        }
        return _of(
            "labelled",
            values=self.describe(array.to_numpy(), path),
            dims=list(array.dims),
            coords=coords,
            name=array.name,
            attrs=self.describe(array.attrs, path),
        )

    def _tensor(self, tensor, path):
        if type(tensor) not in (torch.Tensor, nn.Parameter) or tensor.layout is not torch.strided:
            raise _refusal(path, tensor, "is no plain tensor")
        data = tensor.detach().cpu().clone(memory_format=torch.preserve_format)
        order = list(range(data.ndim))
        if not data.is_contiguous():
            order.sort(key=data.stride, reverse=True)
        name = re.sub(r"\b_(modules|parameters|buffers)\.", "", path)
        while name in self.weights:
            name += "'"
        self.weights[name] = data.permute(order).contiguous()
        # Convolutions choose their algorithm, and with it the last bits, by the strides, even by
        # those of dimensions of size 1.
        return _of(
            "tensor",
            name=name,
            shape=list(data.shape),
            stride=list(data.stride()),
            parameter=isinstance(tensor, nn.Parameter),
            requires_grad=tensor.requires_grad,
        )

    def _module(self, module, path):
        state = module.__getstate__()
        empty = vars(nn.Module())
        # Most of a module's attributes are empty tables of hooks, which every module has.
        state = {k: v for k, v in state.items() if k not in empty or v != empty[k]}
        return self._values(state, path)


def _of(kind, **parts):
    return {KIND: kind, **parts}


def _refusal(path, value, reason):
    cls = type(value)
    return ValueError(
        f"{path or 'The estimator'} cannot be saved: this {cls.__module__}.{cls.__qualname__} "
        f"{reason}."
    )


def _named(value, path):
    """The class or function itself, if it can be found by its name."""
    module, name = getattr(value, "__module__", None), value.__name__
    if module is not None and getattr(sys.modules.get(module), name, None) is not value:
        raise ValueError(
            f"{path or 'The estimator'} cannot be saved: {value!r} is not found as {name!r} in "
            f"{module}. Classes and functions are saved by name: define it at the top of a module."
        )
    return value


def _pack(description):
    """A description as one text, beside the classes and other things that no text can hold."""
    others = {}

    def plain(value):
        if type(value) in PLAIN:
            return value
        if type(value) is list:
            return list(map(plain, value))
        if type(value) is tuple:
            return _of("tuple", items=list(map(plain, value)))
        if type(value) is dict:
            return {k: plain(v) for k, v in value.items()}
        number, _ = others.setdefault(id(value), (len(others), value))
        return _of("other", number=number)

    text = json.dumps(plain(description))
    return _of("packed", text=text, others=[value for _, value in others.values()])
