"""Transformers of other libraries among labelled arrays."""

import numpy as np
import pandas as pd
from scipy.sparse import issparse
from sklearn.base import clone
from sklearn.utils import get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from sk_asd.utils._base import BaseEstimator
from sk_asd.utils._containers import CLIP, is_clip_table, is_labelled, plain, wrap
from sk_asd.utils._labels import normal_clips
from sk_asd.utils._output import LabelledOutput, bin_names
from sk_asd.utils._sklearn import HasMethods, _fit_context


def _transformer_has(name):
    """Whether the wrapped transformer, fitted or not, has a method."""

    def check(self):
        getattr(getattr(self, "transformer_", self.transformer), name)
        return True

    return check


class KeepLabels(LabelledOutput, BaseEstimator):
    """Apply a scikit-learn transformer to the values of a labelled array and keep the labels.

    Scalers, PCA and the like return plain arrays, and the section of a clip is lost for the
    detector behind them. Wrapped they can stand anywhere in a Pipeline. Plain input is handed to
    the transformer as it is.

    Parameters
    ----------
    transformer : transformer
        A transformer of 2-D data with `fit` and `transform`.

    Attributes
    ----------
    transformer_ : transformer
        The fitted clone.
    n_features_in_ : int
        Number of features, if the transformer records it.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the columns, if `fit` was given a DataFrame with text as names.

    See Also
    --------
    TimePooling : From spectrograms to one vector a clip.

    Notes
    -----
    Of a labelled array the values must be 2-D: which axis of a spectrogram counts as features
    is for the user to say, by pooling (:class:`TimePooling`) or reshaping before.

    The result keeps the dimension and its coordinates where the transformer maps features one to
    one, as scalers do; elsewhere the dimension is ``"feature"``, with the transformer's names.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from sklearn.decomposition import PCA
    >>> from sk_asd.features import KeepLabels
    >>> values = np.random.default_rng(0).normal(size=(4, 3))
    >>> X = xr.DataArray(
    ...     values, dims=("clip", "mel"), coords={"section": ("clip", ["00", "00", "01", "01"])}
    ... )
    >>> Z = KeepLabels(PCA(n_components=2)).fit_transform(X)
    >>> Z.dims, Z.section.values.tolist()
    (('clip', 'feature'), ['00', '00', '01', '01'])
    """

    _parameter_constraints: dict = {"transformer": [HasMethods(["fit", "transform"])]}
    _state = ("transformer_", "_dim", "_coord")

    def __init__(self, transformer):
        self.transformer = transformer

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None):
        """Fit a clone of the transformer.

        Parameters
        ----------
        X : array-like or DataArray of shape (n_clips, n_features)
            Features.
        y : array-like of shape (n_clips,), default=None
            Passed on to the transformer.

        Returns
        -------
        self : object
            The fitted transformer.

        Raises
        ------
        ValueError
            If `X` is a clip table or not 2-D.
        """
        X, y = normal_clips(X, y)
        values = self._values(X)
        self.transformer_ = clone(self.transformer).fit(values, y)
        self._dim, self._coord = _bins(X) if is_labelled(X) else ("feature", None)
        return self

    @available_if(_transformer_has("get_feature_names_out"))
    def get_feature_names_out(self, input_features=None):
        """Names of the output features, as the transformer gives them.

        Parameters
        ----------
        input_features : array-like of str, default=None
            Names of the input features; None is those seen in `fit`: names of columns, or of the
            bins or features of a labelled array.

        Returns
        -------
        ndarray of str
            Names of the output features.
        """
        check_is_fitted(self)
        if input_features is None and self._coord is not None:
            coord = self._coord.get(self._dim)
            input_features = bin_names(self._dim, self.n_features_in_, coord)
        return self.transformer_.get_feature_names_out(input_features)

    @available_if(_transformer_has("inverse_transform"))
    def inverse_transform(self, X):
        """Undo the transformation.

        Parameters
        ----------
        X : array-like or DataArray of shape (n_clips, n_features_out)
            Transformed features.

        Returns
        -------
        DataArray or ndarray of shape (n_clips, n_features)
            A DataArray with the labels of `X` for a DataArray, else what the transformer returns.
        """
        check_is_fitted(self)
        values = self.transformer_.inverse_transform(self._values(X))
        if not is_labelled(X):
            return values
        return wrap(_dense(values), X, (self._dim,), self._coord)

    def transform(self, X):
        """Transform `X`.

        Parameters
        ----------
        X : array-like or DataArray of shape (n_clips, n_features)
            Features.

        Returns
        -------
        DataArray, ndarray or DataFrame of shape (n_clips, n_features_out)
            A DataArray with the labels of `X` for a DataArray, else what the transformer returns;
            or what ``set_output`` asks for.
        """
        return self._contained(self._transformed(X), X)

    def _transformed(self, X):
        check_is_fitted(self)
        values = self.transformer_.transform(self._values(X))
        if not is_labelled(X):
            return values
        values = _dense(values)
        dim, coord = _bins(X)
        one_to_one, names = values.shape == X.shape, None
        if hasattr(self, "get_feature_names_out"):
            before = np.array([f"x{i}" for i in range(X.shape[1])], dtype=object)
            names = self.transformer_.get_feature_names_out(before)
            one_to_one = np.array_equal(names, before)
        if one_to_one:
            return wrap(values, X, (dim,), coord)
        coord = None if names is None else {"feature": np.asarray(names, dtype=object)}
        return wrap(values, X, ("feature",), coord)

    def _values(self, X):
        if is_clip_table(X):
            raise ValueError(
                "KeepLabels takes features (n_clips, n_features), not a clip table: put a feature "
                "extractor such as LogMel, and TimePooling, before it in a Pipeline."
            )
        if getattr(X, "ndim", 2) > 2:
            raise ValueError(
                "KeepLabels applies a transformer to 2-D values (n_clips, n_features), found "
                f"shape {X.shape}; pool the frames first, for example with TimePooling."
            )
        return plain(X)

    @property
    def n_features_in_(self):
        """Number of features."""
        check_is_fitted(self)
        return self.transformer_.n_features_in_

    @property
    def feature_names_in_(self):
        """Names of the features."""
        check_is_fitted(self)
        return self.transformer_.feature_names_in_

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        inner = get_tags(self.transformer)
        tags.input_tags = inner.input_tags
        tags.target_tags = inner.target_tags
        tags.requires_fit = inner.requires_fit
        if inner.transformer_tags is not None:
            tags.transformer_tags = inner.transformer_tags
        return tags


def _bins(X):
    """Dimension after ``clip`` of a 2-D labelled array and its coordinates."""
    dim = X.dims[1]
    return dim, {name: c for name, c in X.coords.items() if CLIP not in c.dims and c.dims == (dim,)}


def _dense(values):
    """Result of a transformer as ndarray, whatever its own ``set_output`` says."""
    if issparse(values):
        return values.toarray()
    return values.to_numpy() if isinstance(values, pd.DataFrame) else np.asarray(values)
