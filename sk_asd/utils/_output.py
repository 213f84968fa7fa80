"""What ``transform`` returns: labelled arrays, plain ones, or what ``set_output`` asks for."""

import numpy as np
import pandas as pd
import xarray as xr
from sklearn.base import TransformerMixin

from sk_asd.utils._containers import CLIP
from sk_asd.utils._sklearn import _wrap_data_with_container


class LabelledOutput(TransformerMixin, auto_wrap_output_keys=None):
    """Mixin for transformers of labelled arrays: ``set_output`` where it makes sense.

    A labelled array becomes a DataFrame where the transformer itself was told so: by scikit-learn's
    global setting it would lose, unasked, the labels that later steps need. Features ``(clip, bin,
    frame)`` fit into no table and stay what they are, so that ``set_output`` of a Pipeline reaches
    the steps behind; they bring along the index of the clip table.

    A subclass has ``get_feature_names_out``, and its ``transform`` returns what `_contained` makes
    of the result.
    """

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(auto_wrap_output_keys=None, **kwargs)
        # There is a set_output, but nothing wraps `transform`, which looks after it itself.
        cls._sklearn_auto_wrap_output_keys = {"transform"}

    def fit_transform(self, X, y=None):
        """Fit, then transform the same clips.

        Parameters
        ----------
        X : container of clips
            As for `fit`.
        y : array-like of shape (n_clips,), default=None
            Passed on to `fit`.

        Returns
        -------
        DataArray, ndarray or DataFrame
            As `transform` returns it.
        """
        return self.fit(X, y).transform(X)

    def _contained(self, result, X):
        """The result for `X` in the container that it is asked for."""
        if isinstance(result, xr.DataArray):
            config = getattr(self, "_sklearn_output_config", {})
            if config.get("transform", "default") == "default":
                return result
            index = _index_of(X)
            if result.ndim > 2:
                name = {"name": index.name}
                return result.assign_coords({CLIP: (CLIP, index.to_flat_index(), name)})
            result, X = result.values, pd.Series(index=index, dtype=object)
        if np.ndim(result) > 2:
            return result
        return _wrap_data_with_container("transform", result, X, self)


def _index_of(X):
    """Index of a clip table, or of that which a labelled array is from and has kept it."""
    if isinstance(X, pd.DataFrame):
        return X.index
    return X.get_index(CLIP).rename(X.coords[CLIP].attrs.get("name") if CLIP in X.coords else None)


def bin_names(dim, n_bins, coordinate=None):
    """Names of bins, as features are called: ``mel_125Hz``, or ``mel0`` where nothing is known.

    Parameters
    ----------
    dim : str
        Dimension of a labelled array.
    n_bins : int
        Length of it.
    coordinate : array-like of shape (n_bins,), default=None
        Its coordinate: Hz, or names, which are taken as they are.

    Returns
    -------
    ndarray of str
        Different names.
    """
    names = [f"{dim}{i}" for i in range(n_bins)]
    if coordinate is not None:
        values = np.asarray(coordinate)
        if values.dtype.kind in "OUT":
            names = [str(value) for value in values]
        elif dim in ("mel", "frequency"):
            rounded = ([f"{dim}_{hz:.{d}f}Hz" for hz in values] for d in range(9))
            names = next((r for r in rounded if len(set(r)) == n_bins), names)
    return np.array(names, dtype=object)
