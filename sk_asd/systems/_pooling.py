"""The simplest system that works: log-mel spectrogram, pooled over time, and a detector."""

from sklearn.pipeline import Pipeline

from sk_asd.detectors import MahalanobisDetector
from sk_asd.ensemble import GroupedDetector
from sk_asd.features import LogMel, TimePooling


def make_pooling(
    *,
    feature=None,
    statistics=("gwrp",),
    r=0.9,
    detector=None,
    by=("machine", "section"),
    over=None,
):
    """Pooled log-mel spectrogram and one outlier detector per machine and section.

    No network and no training schedule: it fits in seconds, and with ranking pooling it is a line
    that learned systems have to beat.

    Parameters
    ----------
    feature : transformer, default=None
        From clips to features ``(clip, bin, frame)``; None is :class:`~sk_asd.features.LogMel`.
    statistics : tuple of {"mean", "std", "max", "gwrp"}, default=("gwrp",)
        What :class:`~sk_asd.features.TimePooling` takes over time.
    r : float, default=0.9
        Decay of global weighted ranking pooling: near 1 for steady machines, near 0.5 for short
        events such as those of valves ([1]_, where it is between 1.00 and 0.46).
    detector : outlier detector, default=None
        None is :class:`~sk_asd.detectors.MahalanobisDetector` with Ledoit-Wolf shrinkage.
    by : str or sequence of str, default=("machine", "section")
        Columns whose values get a detector of their own.
    over : str, default=None
        Column known in training only, such as ``"domain"``; see
        :class:`~sk_asd.ensemble.GroupedDetector`.

    Returns
    -------
    Pipeline
        Steps ``feature``, ``pooling`` and ``detector``, unfitted.

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
    return Pipeline(
        [
            ("feature", LogMel() if feature is None else feature),
            ("pooling", TimePooling(statistics=statistics, r=r)),
            (
                "detector",
                GroupedDetector(
                    MahalanobisDetector() if detector is None else detector, by=by, over=over
                ),
            ),
        ]
    )
