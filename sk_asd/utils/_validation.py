"""The door for features: arrays ``(n_clips, n_bins, n_frames)``."""

import numpy as np
from sklearn.utils.validation import validate_data

from sk_asd.utils._containers import as_clips, is_clip_table, plain


def check_features(estimator, X, *, reset, min_clips=1, dtype=np.float32):
    """Check features and return them as a plain 3-D array.

    Parameters
    ----------
    estimator : estimator
        Whose ``n_features_in_`` is set or compared; it counts bins.
    X : array-like or DataArray of shape (n_clips, n_bins, n_frames) or (n_clips, n_bins)
        Features; a 2-D array is one frame a clip.
    reset : bool
        True in ``fit``.
    min_clips : int, default=1
        Fewest clips.
    dtype : dtype, default=numpy.float32
        Type of the result; an array that has it already is not copied.

    Returns
    -------
    ndarray of shape (n_clips, n_bins, n_frames)
        The features.

    Raises
    ------
    ValueError
        If `X` is a clip table, has NaN or infinite values, or another number of bins than in fit.
    """
    name = type(estimator).__name__
    X = as_clips(X)
    if is_clip_table(X):
        raise ValueError(
            f"{name} takes features (n_clips, n_bins, n_frames), not a clip table: put a feature "
            "extractor such as LogMel before it in a Pipeline."
        )
    X = validate_data(
        estimator,
        plain(X),
        reset=reset,
        dtype=dtype,
        allow_nd=True,
        ensure_min_samples=min_clips,
    )
    if X.ndim == 2:
        return X[:, :, np.newaxis]
    if X.ndim != 3:
        raise ValueError(
            f"{name} takes features of 3 dimensions (n_clips, n_bins, n_frames), found shape "
            f"{X.shape}."
        )
    if X.shape[2] == 0:
        raise ValueError(f"{name} needs at least one frame, found shape {X.shape}.")
    return X
