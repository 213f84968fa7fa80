"""Conformal p-values."""

from numbers import Integral

import numpy as np
from scipy.stats import false_discovery_control
from sklearn.utils import check_random_state

from sk_asd.ensemble._by_columns import rows_by_group
from sk_asd.utils._sklearn import HasMethods, Interval, StrOptions, validate_params
from sk_asd.utils._system import System


@validate_params(
    {
        "detector": [HasMethods(["fit"])],
        "by_group": ["boolean"],
        "min_clips": [Interval(Integral, 1, None, closed="left")],
        "smoothed": ["boolean"],
        "adjust": [StrOptions({"bh", "by"}), None],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def predict_pvalue(
    detector,
    X,
    *,
    calibration=None,
    by_group=True,
    min_clips=1,
    smoothed=False,
    adjust=None,
    random_state=None,
):
    r"""Conformal p-values: how rarely a normal clip scores as low as this one.

    Unlike a score, a p-value means the same for every detector, machine and section: call clips
    with :math:`p \le 0.01` abnormal, and one normal clip in a hundred is called so by mistake.

    Parameters
    ----------
    detector : outlier detector
        Fitted: a Pipeline, a :class:`~sk_asd.ensemble.GroupedDetector`, an ensemble, any detector
        of this package, of scikit-learn or of PyOD.
    X : clip table, DataArray or array-like
        Clips, as the detector takes them.
    calibration : clip table, DataArray or array-like, default=None
        Normal clips that the detector was not fitted to. None takes its training scores, which are
        leave-one-out where it memorises its training clips; see Notes.
    by_group : bool, default=True
        Compare a clip with those of its own group, where the detector is a
        :class:`~sk_asd.ensemble.GroupedDetector`, and not with all.
    min_clips : int, default=1
        Groups with fewer clips are compared with the clips of all groups.
    smoothed : bool, default=False
        Draw the p-value at random between its neighbours, so that it is exactly uniform for normal
        clips. Otherwise it is a little too large, never too small.
    adjust : {"bh", "by"}, default=None
        Adjust the p-values for looking at many clips or machines at once:
        :func:`scipy.stats.false_discovery_control`, Benjamini-Hochberg or Benjamini-Yekutieli. Of
        the clips with an adjusted p-value of at most 0.1 no more than a tenth are normal ones, on
        average.
    random_state : int, RandomState instance or None, default=None
        Seed of `smoothed`.

    Returns
    -------
    ndarray of shape (n_clips,)
        Conformal p-values in (0, 1]; low = abnormal.

    Raises
    ------
    ValueError
        If the detector keeps no training scores and there is no `calibration`, if that has no
        clips of a group of `X`, or if a score is NaN or +inf.

    See Also
    --------
    set_threshold : A threshold with the same guarantee.
    scipy.stats.combine_pvalues : One p-value for several recordings of a machine.

    Notes
    -----
    Of a clip with score :math:`s` and :math:`n` scores :math:`s_i` of normal clips,

    .. math:: p = \frac{1 + \#\{i : s_i \le s\}}{n + 1}, \qquad
        p_{smoothed} = \frac{\#\{i : s_i < s\} + U\,(1 + \#\{i : s_i = s\})}{n + 1}

    with :math:`U` uniform on (0, 1) ([1]_, [2]_). If the clip is normal and exchangeable with
    the others, its rank among them is uniform, so that :math:`P(p \le \alpha) \le \alpha` for every
    :math:`\alpha`, whatever the detector and the distribution. No p-value is below
    :math:`1 / (n + 1)`: a hundred clips cannot show that a sound is rarer than one in a hundred.

    **Exchangeable** means that the order of the clips does not matter. Machines wear and seasons
    change; :class:`sk_asd.watching.DriftMonitor` tells when training clips are no longer like those
    of today.

    **Which scores.** With `calibration`, clips that had no part in the fit, the statement is exact.
    Leave-one-out training scores, each by a detector of :math:`n - 1` clips, are nearly so where
    one clip more or less changes the detector little: nearest neighbours, local outlier factors,
    cosine and Mahalanobis distances, with more than a few clips per feature. Others know their
    training clips better than new ones, which makes p-values too small: networks, Gaussian mixtures
    without `cv`, and scikit-learn's LocalOutlierFactor. Give these `calibration`.

    **On average.** The guarantee is over the draw of the :math:`n` clips. With the clips at hand
    the rate of false alarms at :math:`\alpha` is beta-distributed about it; see
    :func:`false_alarms_per_day`.

    p-values that share their :math:`n` clips are not independent, but positively dependent, so that
    Benjamini-Hochberg controls the false discovery rate ([2]_, theorem 2), without `smoothed`.

    References
    ----------
    .. [1] Vovk, V., Gammerman, A., Shafer, G. "Algorithmic learning in a random world", Springer
       2005.
    .. [2] Bates, S. et al. "Testing for outliers with conformal p-values", Annals of Statistics
       51, 2023.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_asd.decisions import predict_pvalue
    >>> from sk_asd.detectors import KNNDetector
    >>> X = np.random.default_rng(0).normal(size=(99, 2))
    >>> detector = KNNDetector(metric="euclidean").fit(X)
    >>> predict_pvalue(detector, [[0.0, 0.1], [9.0, 9.0]]).round(2)
    array([0.66, 0.01])
    """
    system = System(detector)
    known, of_known = system.known(system.transform(calibration))
    rows = rows_by_group(of_known)
    scores, groups = system.score(system.transform(X))
    rng = check_random_state(random_state)
    uniform = rng.uniform(size=len(scores)) if smoothed else None
    p = np.empty(len(scores))
    for group, mine in rows_by_group(groups).items():
        others = known
        if by_group and (group not in rows or len(rows[group]) >= min_clips):
            others = known[rows[group]] if group in rows else _of_unseen(system, group, calibration)
        others = np.sort(others)
        below = np.searchsorted(others, scores[mine], side="left")
        at_most = np.searchsorted(others, scores[mine], side="right")
        place = uniform[mine] if smoothed else 1
        p[mine] = (below + place * (1 + at_most - below)) / (len(others) + 1)
    return p if adjust is None else false_discovery_control(p, method=adjust)


def _of_unseen(system, group, calibration):
    """Scores to compare with clips of a group that was not seen."""
    if calibration is not None:
        raise ValueError(f"{system.detector.describe(group)} has no clips in calibration.")
    return system.pooled()
