"""Fitted systems taken apart: their steps, and which detector answers for which clip."""

import numpy as np
import xarray as xr
from sklearn.pipeline import Pipeline

from sk_asd.utils import _wrapped
from sk_asd.utils._containers import CLIP, is_clip_table, is_labelled, take_clips


def steps_of(estimator):
    """Fitted steps in order; Pipelines within Pipelines, and what wraps a system, are opened."""
    estimator = unwrapped(estimator)
    if not isinstance(estimator, Pipeline):
        return [estimator]
    steps = [step for _, step in estimator.steps if step is not None and step != "passthrough"]
    return [inner for step in steps for inner in steps_of(step)]


def unwrapped(estimator):
    """The system within a search, a FrozenEstimator or a DomainNormalizedDetector."""
    estimator = _wrapped.unwrapped(estimator)
    while hasattr(estimator, "domain_classifier_") and hasattr(estimator, "detector_"):
        # Its scores are those of the detector on another scale.
        estimator = _wrapped.unwrapped(estimator.detector_)
    return estimator


def is_ensemble(estimator):
    """Tell a fitted ScoreEnsemble."""
    return hasattr(estimator, "contributions") and hasattr(estimator, "estimators_")


def is_grouped(estimator):
    """Tell a fitted GroupedDetector."""
    return hasattr(estimator, "detectors_") and hasattr(estimator, "offsets_")


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


def answering(grouped, X):
    """Which detector of a GroupedDetector gives the score of which clips.

    Parameters
    ----------
    grouped : GroupedDetector
        Fitted.
    X : container
        What it takes.

    Returns
    -------
    X : container
        Without columns that are labels.
    answers : list of tuple
        Positions of clips, and the detector; with ``over`` the one that finds them most normal.
    """
    # ensemble loads torch, which a report of scores alone does without.
    from sk_asd.ensemble._groups import one_group, rows_by_group
    from sk_asd.ensemble._members import scores_of

    X, groups = grouped._split(X, reset=False)
    answers = []
    for name, rows in rows_by_group(one_group(X) if groups is None else groups).items():
        found = grouped.detectors_.get(name, getattr(grouped, "pooled_", None))
        if found is None:
            raise ValueError(
                f"{grouped._describe(name)} was not seen in training; known are "
                f"{list(grouped.detectors_)}."
            )
        members = list(found.values()) if isinstance(found, dict) else [found]
        rows = np.asarray(rows)
        best = np.zeros(len(rows), dtype=int)
        if len(members) > 1:
            clips = take_clips(X, rows)
            best = np.argmax([scores_of(member, clips) for member in members], axis=0)
        answers += [(rows[best == i], members[i]) for i in np.unique(best)]
    return X, answers


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
