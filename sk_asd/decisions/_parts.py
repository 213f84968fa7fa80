"""What decisions need of any fitted outlier detector: scores, groups and thresholds."""

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.svm import OneClassSVM
from sklearn.utils.validation import check_is_fitted

from sk_asd.ensemble._groups import ByColumns, one_group, rows_by_group
from sk_asd.ensemble._members import scores_of
from sk_asd.utils._scores import checked_scores
from sk_asd.utils._thresholds import checked_threshold
from sk_asd.utils._wrapped import unwrapped


def last_step(detector, X=None):
    """Detector inside Pipelines, searches and frozen estimators.

    Parameters
    ----------
    detector : outlier detector
        Fitted.
    X : container, default=None
        What `detector` takes.

    Returns
    -------
    last : outlier detector
        The detector that scores in the end.
    X : container or None
        What it is given when `detector` is given `X`.
    """
    while isinstance(detector := unwrapped(detector), Pipeline):
        if X is not None and len(detector) > 1:
            X = detector[:-1].transform(X)
        detector = detector[-1]
    check_is_fitted(detector)
    return detector, X


def score(last, X):
    """Scores of clips, and the group of each: None where there is one group."""
    groups = last._find_groups(X, reset=False, stacklevel=4) if is_grouped(last) else None
    scores = scores_of(last, X)
    return scores, one_group(scores) if groups is None else groups


def is_grouped(last):
    """Whether the detector has a threshold and training scores of its own for every group."""
    return isinstance(last, ByColumns) and hasattr(last, "offsets_")


def known_scores(last, calibration=None):
    """Scores of normal clips to compare others with.

    Parameters
    ----------
    last : outlier detector
        Fitted; what :func:`last_step` returns, like the clips.
    calibration : container, default=None
        Normal clips that it was not fitted to; None takes the training scores that it kept.

    Returns
    -------
    scores : ndarray of shape (n_clips,)
        Scores, high = normal.
    rows : dict
        Positions of the clips of each group; of a detector without groups ``{None: all}``.

    Raises
    ------
    ValueError
        If it kept none.
    """
    if calibration is not None:
        scores, groups = score(last, calibration)
    else:
        scores = _kept_scores(last)
        groups = last.training_groups_ if is_grouped(last) else one_group(scores)
    return scores, rows_by_group(groups)


def pooled_scores(last, calibration=None):
    """As :func:`known_scores`, by the detector that a GroupedDetector asks for unseen groups."""
    if calibration is None:
        return _kept_scores(last_step(last.pooled_)[0])
    return scores_of(last.pooled_, last._split(calibration, reset=False)[0])


def _kept_scores(last):
    if hasattr(last, "training_scores_"):
        return checked_scores(last.training_scores_, last)
    if hasattr(last, "negative_outlier_factor_"):  # scikit-learn's LocalOutlierFactor
        return checked_scores(last.negative_outlier_factor_, last)
    if hasattr(last, "decision_scores_"):  # PyOD, where high = abnormal
        return checked_scores(-last.decision_scores_, last)
    raise ValueError(
        f"{type(last).__name__} keeps no scores of its training clips: give normal clips that it "
        "was not fitted to as calibration=."
    )


def thresholds(last):
    """Threshold on ``score_samples`` by group; ``{None: threshold}`` where there are no groups."""
    if is_grouped(last):
        return dict(last.offsets_)
    if hasattr(last, "offset_"):
        return {None: float(np.ravel(last.offset_)[0])}
    if hasattr(last, "decision_scores_"):
        return {None: -float(last.threshold_)}
    raise TypeError(f"{type(last).__name__} has no threshold on its scores.")


def threshold_of(last, X):
    """Threshold that counts for the first clip of `X`."""
    by_group = thresholds(last)
    if None in by_group:
        return checked_threshold(by_group[None], last)
    group = last._find_groups(X, reset=False, stacklevel=4)[0]
    if group not in by_group:  # asked of a detector of all groups
        return checked_threshold(last._pooled_offset, last)
    return checked_threshold(by_group[group], last)


def replace_thresholds(last, by_group):
    """Set thresholds on ``score_samples``, by group as :func:`thresholds` gives them."""
    if is_grouped(last):
        last.offsets_ = {**last.offsets_, **by_group}
        return
    (threshold,) = by_group.values()
    name = type(last).__name__
    if isinstance(last, OneClassSVM):
        raise TypeError(
            f"{name} decides without its offset_, which only moves score_samples: its threshold "
            "cannot be changed after fit."
        )
    if hasattr(last, "metric_offsets_"):  # one for every metric
        last.metric_offsets_[last.metric] = threshold
    elif hasattr(last, "offset_"):
        last.offset_ = threshold
    elif hasattr(last, "decision_scores_"):
        last.threshold_ = -threshold
    else:
        raise TypeError(f"{name} has no threshold on its scores.")
