"""The simplest system that works: log-mel spectrogram, pooled over time, and a detector."""

from sklearn.pipeline import Pipeline

from sk_asd.features import STFT, LogMel, TimePooling
from sk_asd.systems._common import check_feature, grouped


def make_pooling(
    *,
    feature="logmel",
    statistics=("gwrp",),
    r=0.9,
    detector="mahalanobis",
    by=("machine", "section"),
    over=None,
    random_state=None,
):
    """Pooled log-mel spectrogram and one outlier detector per machine and section.

    No network and no training schedule: it fits in seconds, and with ranking pooling it is a line
    that learned systems have to beat.

    Parameters
    ----------
    feature : {"logmel", "stft"} or transformer, default="logmel"
        From clips to features ``(clip, bin, frame)``.
    statistics : tuple of {"mean", "std", "max", "gwrp"}, default=("gwrp",)
        What :class:`~sk_asd.features.TimePooling` takes over time.
    r : float, default=0.9
        Decay of global weighted ranking pooling: near 1 for steady machines, near 0.5 for short
        events such as those of valves ([1]_, where it is between 1.00 and 0.46).
    detector : {"knn", "lof", "cosine", "mahalanobis", "gmm"} or outlier detector, \
            default="mahalanobis"
        What scores the pooled features.
    by : str or sequence of str, default=("machine", "section")
        Columns whose values get a detector of their own.
    over : str, default=None
        Column known in training only, such as ``"domain"``; see
        :class:`~sk_asd.ensemble.GroupedDetector`.
    random_state : int, RandomState instance or None, default=None
        Seed of a detector that is given by its name and draws numbers.

    Returns
    -------
    Pipeline
        Steps ``feature``, ``pooling`` and ``detector``, unfitted.

    Raises
    ------
    ValueError
        If the name of a feature or a detector is unknown.

    References
    ----------
    .. [1] Guan, J. et al. "Time-weighted frequency domain audio representation with GMM estimator
       for anomalous sound detection", ICASSP 2023.

    Examples
    --------
    >>> from sk_asd.systems import make_pooling
    >>> list(make_pooling(r=0.46).named_steps)
    ['feature', 'pooling', 'detector']
    """
    check_feature(feature)
    if isinstance(feature, str):
        feature = LogMel() if feature == "logmel" else STFT()
    pooling = TimePooling(statistics=statistics, r=r)
    detector = grouped(detector, by, over, random_state)
    return Pipeline([("feature", feature), ("pooling", pooling), ("detector", detector)])
