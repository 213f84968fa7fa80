"""Members of ensembles, and features."""

from functools import partial

import numpy as np
import xarray as xr

from sk_asd.utils import _system
from sk_asd.utils._containers import CLIP, is_clip_table, is_labelled

# Scores on another scale have the same explanation.
steps_of = partial(_system.steps_of, rescaled=True)
unwrapped = partial(_system.unwrapped, rescaled=True)


def member_of(ensemble, X, member=None):
    """Name and fitted member of an ensemble.

    Parameters
    ----------
    ensemble : ScoreEnsemble
        Fitted.
    X : container
        Clips; not looked at with a name.
    member : str, default=None
        Name; None is the member that speaks the loudest against the clips, all taken together.

    Returns
    -------
    name : str
        Its name.
    member : outlier detector
        The fitted member.

    Raises
    ------
    ValueError
        If there is no such member.
    """
    names = list(ensemble.get_feature_names_out())
    if member is None:
        total = np.asarray(ensemble.contributions(X)).sum(axis=0)
        member = names[int(total.argmin())]
    if member not in names:
        raise ValueError(f"member={member!r} is none of the ensemble's: {names}.")
    return member, ensemble.estimators_[names.index(member)]


def is_features(X):
    """Tell features ``(clip, bin, frame)``, labelled or not."""
    if isinstance(X, xr.DataArray):
        return X.ndim == 3 and X.dims[2] == "frame"
    return np.ndim(X) == 3 and not is_clip_table(X)


def labelled_features(X, step=None):
    """Features as a DataArray.

    Parameters
    ----------
    X : DataArray or ndarray of shape (n_clips, n_bins, n_frames)
        Features.
    step : transformer, default=None
        The extractor they are from, which knows hertz and seconds; otherwise the dimensions are
        ``clip``, ``bin`` and ``frame``, without coordinates.

    Returns
    -------
    DataArray
        The features.
    """
    if is_labelled(X):
        return X
    dims, coords = step._labels() if hasattr(step, "_labels") else (("bin", "frame"), {})
    return xr.DataArray(X, dims=(CLIP, *dims), coords=coords)
