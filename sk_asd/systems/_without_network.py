"""Systems that train no network: log-mel spectrograms, pooled over time, and detectors."""

from sklearn.pipeline import Pipeline

from sk_asd.detectors import KNNDetector, MahalanobisDetector
from sk_asd.ensemble import GroupedDetector, ScoreEnsemble
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
    statistics : tuple of str, default=("gwrp",)
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


def make_instant(*, by=("machine", "section"), weights=None, n_jobs=None, memory=None):
    """Three ways to pool a log-mel spectrogram, fused: the best system without a network.

    One setting for every machine, nothing random, and a fit in less than a second once the
    features are there. Its members hear the loudest moments of every band, how much a band moves,
    and how near the peaks are to those of some training clip.

    Parameters
    ----------
    by : str or sequence of str, default=("machine", "section")
        Columns whose values get detectors of their own, and within which scores are standardised.
    weights : array-like of shape (3,), default=None
        Weights of the members; None is uniform.
    n_jobs : int, default=None
        Members fitted in parallel.
    memory : str or object with the joblib.Memory interface, default=None
        Where fitted members are kept; see :class:`~sk_asd.ensemble.ScoreEnsemble`.

    Returns
    -------
    ScoreEnsemble
        Unfitted, with the decision threshold of the challenge. Its members are Pipelines with the
        steps ``feature``, ``pooling`` and ``detector``; each recording is read once for all.

        =========  ==================================================================
        ``ranks``  global weighted ranking pooling with r = 0.3, Mahalanobis distance
        ``flux``   mean change from frame to frame, Mahalanobis distance
        ``peaks``  maxima over time, Euclidean distance to the nearest training clip
        =========  ==================================================================

        All bands are standardised by the training clips of their group.

    See Also
    --------
    make_pooling : One such member, with settings of your own.
    make_submission : Ensembles with networks.

    Notes
    -----
    The mel scale is that of HTK, with triangles of height 1. Members and settings were looked at on
    real slide rails and valves, and kept since they hold on other recordings, too
    (``benchmarks/results/quality.md``).

    Examples
    --------
    >>> from sk_asd.systems import make_instant
    >>> [name for name, _ in make_instant().estimators]
    ['ranks', 'flux', 'peaks']
    """

    def member(statistic, detector, r=1.0):
        feature = LogMel(htk=True, norm=None, top_db=None)
        pooling = TimePooling(statistics=(statistic,), r=r)
        detector = GroupedDetector(detector, by=by)
        return Pipeline([("feature", feature), ("pooling", pooling), ("detector", detector)])

    members = [
        ("ranks", member("gwrp", MahalanobisDetector(standardize=True), r=0.3)),
        ("flux", member("flux", MahalanobisDetector(standardize=True))),
        ("peaks", member("max", KNNDetector(metric="euclidean", standardize=True))),
    ]
    return ScoreEnsemble(members, weights, by=by, threshold="gamma", n_jobs=n_jobs, memory=memory)
