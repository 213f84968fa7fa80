"""Results of long computations, kept on disk and computed once however many processes ask."""

import json
import os
from contextlib import nullcontext
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import sklearn
import torch
import xarray as xr
from filelock import FileLock
from joblib.hashing import NumpyHasher
from sklearn.utils.validation import check_memory
from skorch import NeuralNet

from sk_asd import __version__

_VERSIONS = (__version__, sklearn.__version__)


def content_key(*things):
    """Digest of what things contain, the same in every process.

    Parameters
    ----------
    *things : object
        Estimators, containers of clips, anything that can be pickled. Of a container the index does
        not count; of files in the column ``path`` size and time of modification count as well.

    Returns
    -------
    str
        The digest.
    """
    return _Hasher(coerce_mmap=True).hash((_VERSIONS, *map(_contents, things)))


def call_once(memory, key, function, *args):
    """Result of ``function(*args)``, from disk where it is known under `key`.

    Processes and threads that ask for the same key wait for the first of them.

    Parameters
    ----------
    memory : None, str or object with the interface of joblib.Memory
        Where results are kept; None computes them.
    key : str
        Digest of all that the result depends on.
    function : callable
        What to compute.
    *args : object
        Its arguments.

    Returns
    -------
    object
        The result.
    """
    if memory is None:
        return function(*args)
    memory = check_memory(memory)
    remembered = memory.cache(_call, ignore=["function", "args"])
    with _lock(memory, key):
        return remembered(key, function, args)


def is_known(memory, key):
    """Whether the result under a key is there, so that asking for it is reading a file."""
    remembered = check_memory(memory).cache(_call, ignore=["function", "args"])
    return hasattr(remembered, "check_call_in_cache") and remembered.check_call_in_cache(
        key, None, ()
    )


def is_writable(memory):
    """Whether a memory can be used: its folder, if it has one, is there and may be written to."""
    location = memory if isinstance(memory, str) else getattr(memory, "location", None)
    return memory is not None and (location is None or os.access(location, os.W_OK))


def _call(key, function, args):
    return function(*args)


def _lock(memory, key):
    """Lock between processes, for a memory in a folder."""
    if not isinstance(memory, joblib.Memory) or memory.backend != "local" or not memory.location:
        return nullcontext()
    folder = Path(memory.location) / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / key)


class _Hasher(NumpyHasher):
    """joblib's hasher, for networks too, whose pickles hold addresses in memory."""

    def save(self, obj):
        if isinstance(obj, torch.Tensor):
            obj = ("tensor", str(obj.dtype), np.asarray(obj.detach().cpu().double()))
        elif isinstance(obj, NeuralNet):
            obj = (type(obj), dict(vars(obj)))
        super().save(obj)


def _contents(thing):
    """What counts of a container, without views, blocks and other accidents of its making."""
    if isinstance(thing, xr.DataArray):
        # Text rather than tuples, since pickles tell equal tuples from one that is used twice.
        coords = [(name, repr(c.dims), _values(c.values)) for name, c in thing.coords.items()]
        return "DataArray", repr(thing.dims), _values(thing.values), coords
    if isinstance(thing, pd.DataFrame):
        columns = [(name, _values(column.to_numpy())) for name, column in thing.items()]
        files = [_file(path) for path in thing["path"]] if "path" in thing.columns else None
        return "DataFrame", columns, files
    if isinstance(thing, np.ndarray):
        return _values(thing)
    return thing


def _values(array):
    array = np.asarray(array)
    if array.dtype != object:
        return np.ascontiguousarray(array)
    items = array.tolist()
    try:
        return json.dumps(items)  # a column of text: much faster to hash than its cells
    except TypeError:
        return items


def _file(path):
    try:
        stat = os.stat(path)
    except (OSError, TypeError):
        return None  # whoever reads it says so
    return stat.st_size, stat.st_mtime_ns
