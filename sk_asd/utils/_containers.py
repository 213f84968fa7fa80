"""Clip tables, labelled arrays and plain arrays: the one place that tells them apart and converts.

Container in, container out. A *clip table* is a DataFrame with the column ``path`` or ``audio``; a
*labelled array* is an :class:`xarray.DataArray` whose first dimension is ``clip`` and whose
coordinates along it are the metadata columns of the table; everything else is a plain array, but
for names of files, which stand for a clip table.
"""

import os

import numpy as np
import pandas as pd
import xarray as xr

CLIP = "clip"
LABEL = "label"
SOUND_COLUMNS = ("path", "audio")
RESERVED = frozenset({CLIP, "frequency", "mel", "frame", "channel", "embedding", "feature"})


def as_clips(X):
    """Names of files as the clip table that they stand for, anything else as it is.

    Parameters
    ----------
    X : container
        Any input of an estimator, or str or path-like in a list, tuple, Series, Index or array.

    Returns
    -------
    container
        For names a DataFrame with the column ``path`` and the index of a Series, else `X`.

    Raises
    ------
    ValueError
        If `X` is a single name.
    """
    if isinstance(X, (str, os.PathLike)):
        raise ValueError(f"Expected several clips, got the name of one: give a list, [{str(X)!r}].")
    if isinstance(X, np.ndarray) and X.ndim != 1:
        return X
    if not isinstance(X, (list, tuple, pd.Series, pd.Index, np.ndarray)):
        return X
    if not isinstance(next(iter(X), None), (str, os.PathLike)):
        return X
    paths = [os.fspath(path) if isinstance(path, os.PathLike) else path for path in X]
    return pd.DataFrame({"path": paths}, index=X.index if isinstance(X, pd.Series) else None)


def is_clip_table(X):
    """Tell whether `X` is a DataFrame with a column ``path`` or ``audio``."""
    return isinstance(X, pd.DataFrame) and any(c in X.columns for c in SOUND_COLUMNS)


def is_labelled(X):
    """Tell whether `X` is an :class:`xarray.DataArray`; its first dimension must be ``clip``."""
    if not isinstance(X, xr.DataArray):
        return False
    if not X.dims or X.dims[0] != CLIP:
        raise ValueError(f"A labelled array must have {CLIP!r} as first dimension, got {X.dims}.")
    return True


def check_clip_table(X):
    """Check a clip table at the door and return it.

    Parameters
    ----------
    X : DataFrame or sequence of str or path-like
        The clip table, or names of files.

    Returns
    -------
    DataFrame
        `X` itself, or the table that names of files stand for.

    Raises
    ------
    TypeError
        If `X` is no DataFrame.
    ValueError
        If `X` has no rows, no column with sound, or a repeated or reserved column name.
    """
    X = as_clips(X)
    if not isinstance(X, pd.DataFrame):
        raise TypeError(f"Expected a clip table (a DataFrame), got {type(X).__name__}.")
    if not is_clip_table(X):
        raise ValueError(
            f"A clip table needs a column 'path' or 'audio'; found columns {list(X.columns)}."
        )
    if len(X) == 0:
        raise ValueError("The clip table has no rows: found 0 clips, expected at least 1.")
    if X.columns.has_duplicates:
        repeated = X.columns[X.columns.duplicated()].unique().tolist()
        raise ValueError(f"The clip table has repeated column names: {repeated}.")
    reserved = sorted(RESERVED.intersection(X.columns))
    if reserved:
        raise ValueError(
            f"Column names {reserved} are reserved for dimensions of labelled arrays; rename them."
        )
    return X


def metadata_of(X):
    """Metadata per clip of a clip table or labelled array.

    Parameters
    ----------
    X : container
        Any input of an estimator.

    Returns
    -------
    DataFrame or None
        One row a clip, with a fresh RangeIndex and without the column ``audio``. None for a
        container that carries no metadata.
    """
    if isinstance(X, pd.DataFrame):
        if not is_clip_table(X):
            return None
        return X.drop(columns="audio", errors="ignore").reset_index(drop=True)
    if isinstance(X, xr.DataArray):
        return pd.DataFrame(
            {
                name: coord.values
                for name, coord in X.coords.items()
                if coord.dims == (CLIP,) and name != CLIP
            },
            index=pd.RangeIndex(X.sizes[CLIP]),
        )
    return None


def column_of(X, name):
    """Values of the per-clip column `name`, or None where `X` does not carry it.

    Unlike :func:`metadata_of` this also finds a column of a DataFrame that is no clip table.
    """
    if isinstance(X, pd.DataFrame):
        return _coordinate(X[name]) if name in X.columns else None
    if isinstance(X, xr.DataArray) and name in X.coords and X.coords[name].dims == (CLIP,):
        return X.coords[name].values
    return None


def _coordinate(column):
    """One metadata column as a NumPy array: numbers and booleans as they are, the rest objects."""
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "biufM":
        return column.to_numpy()
    if pd.api.types.is_bool_dtype(column.dtype) or not pd.api.types.is_numeric_dtype(column.dtype):
        return column.to_numpy(dtype=object)
    return column.to_numpy(dtype=float, na_value=np.nan)


def wrap(values, like, dims, coords=None):
    """Label `values` if `like` is a clip table or labelled array, else return them unchanged.

    Parameters
    ----------
    values : ndarray of shape (n_clips, ...)
        The result of an estimator.
    like : container
        Its input, whose metadata go along.
    dims : tuple of str
        Names of the dimensions after ``clip``.
    coords : dict, optional
        Coordinates along those dimensions, such as ``{"mel": hz, "frame": seconds}``.

    Returns
    -------
    DataArray or ndarray
        Labelled as `like` is.
    """
    metadata = metadata_of(like)
    if metadata is None:
        return values
    labels = {name: (CLIP, _coordinate(metadata[name])) for name in metadata.columns}
    return xr.DataArray(values, dims=(CLIP, *dims), coords={**(coords or {}), **labels})


def plain(X):
    """Values alone: of a labelled array an ndarray, of features in a DataFrame those without label.

    Other containers are returned unchanged.
    """
    if isinstance(X, pd.DataFrame) and not is_clip_table(X):
        return X.drop(columns=LABEL, errors="ignore")
    return X.values if is_labelled(X) else X


def take_clips(X, rows):
    """Select clips of any container by integer position or boolean mask."""
    return X.iloc[rows] if hasattr(X, "iloc") else X[rows]
