"""Thresholds after the fit, and how often they err."""

import math
from numbers import Real

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from sk_asd.ensemble._by_columns import rows_by_group
from sk_asd.utils._normal_threshold import normal_threshold
from sk_asd.utils._sklearn import HasMethods, Interval, StrOptions, validate_params
from sk_asd.utils._system import System


@validate_params(
    {
        "detector": [HasMethods(["fit"])],
        "contamination": [Interval(Real, 0, 0.5, closed="right"), None],
        "threshold": [Interval(Real, None, None, closed="neither"), dict, None],
        "false_alarms_per_day": [Interval(Real, 0, None, closed="neither"), None],
        "clips_per_day": [Interval(Real, 0, None, closed="neither"), None],
        "method": [StrOptions({"quantile", "gamma", "conformal"}), None],
    },
    prefer_skip_nested_validation=True,
)
def set_threshold(
    detector,
    *,
    contamination=None,
    threshold=None,
    false_alarms_per_day=None,
    clips_per_day=None,
    method=None,
    calibration=None,
):
    """Change the threshold of a fitted detector, without refitting.

    Scores stay as they are; ``predict`` and ``decision_function`` follow. Give one of
    `contamination`, `threshold` and `false_alarms_per_day`.

    Parameters
    ----------
    detector : outlier detector
        Fitted; a Pipeline, a :class:`~sk_asd.ensemble.GroupedDetector`, an ensemble, any detector
        of this package, of scikit-learn or of PyOD. It is changed in place.
    contamination : float, default=None
        Share of normal clips that may be called abnormal, in (0, 0.5].
    threshold : float or dict, default=None
        Threshold on ``score_samples``; for a GroupedDetector also a dict of thresholds by group,
        where the groups that it does not name keep theirs.
    false_alarms_per_day : float, default=None
        Expected number of normal clips a day that are called abnormal, for each group.
    clips_per_day : float, default=None
        Clips of a group that are scored a day; with `false_alarms_per_day`.
    method : {"quantile", "gamma", "conformal"}, default=None
        How a share becomes a threshold. ``"quantile"`` of the training scores; that of a
        ``"gamma"`` distribution fitted to them, for shares that few clips cannot show; or
        ``"conformal"``: clips whose conformal p-value (:func:`predict_pvalue`) is at most the share
        are abnormal, so that no more than this share of normal clips are, on average. None
        is ``"quantile"`` with `contamination`, as in ``fit``, and ``"conformal"`` with
        `false_alarms_per_day`.
    calibration : clip table, DataArray or array-like, default=None
        Normal clips that the detector was not fitted to, whose scores are taken instead of its
        training scores. Groups of which it has none keep their threshold.

    Returns
    -------
    outlier detector
        `detector` itself.

    Raises
    ------
    TypeError
        If the detector has no threshold that could be changed.
    ValueError
        If not one of the three is given, if a group is unknown, if a threshold is not finite, if
        the detector keeps no training scores, or if there are too few of them for
        ``method="conformal"``, too many of them −inf, or one is NaN or +inf. Nothing is changed
        then.

    See Also
    --------
    false_alarms_per_day : What a threshold costs.

    Notes
    -----
    Of a :class:`~sk_asd.ensemble.GroupedDetector` every group gets a threshold of its own, and
    with ``unseen="pool"`` also clips of other groups. Parameters of the detector stay as they are:
    a refit brings back the threshold that they say.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_asd.decisions import set_threshold
    >>> from sk_asd.detectors import MahalanobisDetector
    >>> X = np.random.default_rng(0).normal(size=(500, 2))
    >>> detector = MahalanobisDetector().fit(X)
    >>> int((detector.predict(X) == -1).sum())
    50
    >>> set_threshold(detector, false_alarms_per_day=1, clips_per_day=100)
    MahalanobisDetector()
    >>> int((detector.predict(X) == -1).sum())
    4
    """
    given = [v is not None for v in (contamination, threshold, false_alarms_per_day)]
    if sum(given) != 1:
        raise ValueError(
            "Give one of contamination, threshold and false_alarms_per_day; "
            f"found {sum(given)} of them."
        )
    if (false_alarms_per_day is None) != (clips_per_day is None):
        raise ValueError("clips_per_day goes with false_alarms_per_day, and the other way round.")
    system = System(detector)
    if threshold is not None:
        pooled = None if isinstance(threshold, dict) else float(threshold)
        system.set_thresholds(_checked(threshold, system.thresholds()), pooled)
        return detector
    if contamination is None:
        contamination = false_alarms_per_day / clips_per_day
        if contamination > 0.5:
            raise ValueError(
                f"false_alarms_per_day={false_alarms_per_day} of clips_per_day={clips_per_day} is "
                "more than half of the clips."
            )
        method = method or "conformal"
    method = method or "quantile"
    threshold_at = _conformal if method == "conformal" else normal_threshold
    calibration = system.transform(calibration)
    scores, groups = system.known(calibration)
    rows = rows_by_group(groups)
    found = {
        group: threshold_at(scores[rows[group]], contamination, method)
        for group in system.thresholds()
        if group in rows
    }
    pooled = None
    if system.has_pool:
        pooled = threshold_at(system.pooled(calibration), contamination, method)
    system.set_thresholds(found, pooled)
    return detector


def _checked(threshold, by_group):
    if not isinstance(threshold, dict):
        return dict.fromkeys(by_group, float(threshold))
    if None in by_group:
        raise ValueError("threshold is a dict, but the detector has one threshold for all clips.")
    unknown = [group for group in threshold if group not in by_group]
    if unknown:
        raise ValueError(
            f"threshold names the groups {unknown}, expected some of {list(by_group)}."
        )
    for group, value in threshold.items():
        if not (isinstance(value, Real) and math.isfinite(value)):
            raise ValueError(f"threshold of the group {group!r} is {value!r}, no finite number.")
    return {group: float(value) for group, value in threshold.items()}


def _conformal(scores, share, method):
    """Largest threshold below which a normal clip falls with a probability of at most `share`."""
    n = len(scores)
    # A hair's breadth, as 0.29 * 100 is less than 29.
    rank = math.floor(share * (n + 1) * (1 + 1e-12))
    if rank < 1:
        raise ValueError(
            f"A share of {share:.3g} of normal clips cannot be told from {n} training scores: "
            f"method={method!r} needs at least {math.ceil(1 / share) - 1}. Use method='gamma', "
            "which goes beyond what the clips show, or calibration= with more clips."
        )
    threshold = float(np.partition(scores, rank - 1)[rank - 1])
    if threshold == -math.inf:
        raise ValueError(
            f"{np.isneginf(scores).sum()} of {n} scores of normal clips are -inf, as abnormal as "
            f"can be: no threshold keeps the share of normal clips below it at {share:.3g}."
        )
    return threshold


@validate_params(
    {
        "detector": [HasMethods(["fit"])],
        "clips_per_day": [Interval(Real, 0, None, closed="neither")],
        "confidence": [Interval(Real, 0, 1, closed="neither")],
    },
    prefer_skip_nested_validation=True,
)
def false_alarms_per_day(detector, clips_per_day, *, confidence=0.95, calibration=None):
    r"""How often a detector will call normal clips abnormal.

    Parameters
    ----------
    detector : outlier detector
        Fitted; as in :func:`set_threshold`.
    clips_per_day : float
        Clips of a group that are scored a day: 8640 for one every ten seconds.
    confidence : float, default=0.95
        Confidence of the interval.
    calibration : clip table, DataArray or array-like, default=None
        Normal clips that the detector was not fitted to, whose scores are taken instead of its
        training scores. Of a GroupedDetector only their groups are in the result.

    Returns
    -------
    DataFrame
        One row a group, a single one for a detector without groups. Columns: those that make the
        groups; ``threshold``; ``n_clips`` and ``n_flagged``, training clips, and those of them that
        are below the threshold; ``per_day``, the expected number; ``low`` and ``high``, its
        interval.

    Raises
    ------
    ValueError
        If the detector keeps no training scores.

    See Also
    --------
    set_threshold : Find the threshold for a number.

    Notes
    -----
    With :math:`j` of :math:`n` normal clips below the threshold the rate is :math:`(j+1)/(n+1)`:
    that of the largest threshold that flags no more of them, exactly, and an upper end
    for others. The interval is that of Clopper and Pearson, from the quantiles of :math:`B(j,
    n-j+1)` and :math:`B(j+1, n-j)`; these are also the distributions of the rate where the
    threshold itself was taken from the scores, as their :math:`j`-th or :math:`(j+1)`-th smallest.

    It is the interval of what to expect. The number on a single day varies around that, and faults
    and bad weather come in runs: several clips that agree before there is an alarm
    (:class:`sk_asd.watching.StreamingScorer`) are worth more than a lower threshold.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_asd.decisions import false_alarms_per_day, set_threshold
    >>> from sk_asd.detectors import MahalanobisDetector
    >>> X = np.random.default_rng(0).normal(size=(999, 2))
    >>> detector = set_threshold(MahalanobisDetector().fit(X), contamination=0.01)
    >>> false_alarms_per_day(detector, 1000)[["n_flagged", "per_day", "low", "high"]].round(1)
       n_flagged  per_day  low  high
    0         10     11.0  4.8  18.3
    """
    system = System(detector)
    scores, groups = system.known(system.transform(calibration))
    rows = rows_by_group(groups)
    found = []
    for group, threshold in system.thresholds().items():
        if group not in rows:
            continue
        n = len(rows[group])
        flagged = int(np.sum(scores[rows[group]] < threshold))
        interval = binomtest(flagged, n).proportion_ci(confidence)
        values = group if isinstance(group, tuple) else (group,)
        found.append(
            {
                **dict(zip(system.columns, values)),
                "threshold": threshold,
                "n_clips": n,
                "n_flagged": flagged,
                "per_day": clips_per_day * (flagged + 1) / (n + 1),
                "low": clips_per_day * interval.low,
                "high": clips_per_day * interval.high,
            }
        )
    return pd.DataFrame(found)
