"""What counts as silence and as clipping, by what a system was trained on."""

import math
from typing import NamedTuple

from sk_asd.utils._system import every_estimator

FULL_SCALE = 1.0
_SILENCE = -80.0  # dB of full scale
_CLIPPING = 0.999  # of full scale
_BELOW = 0.1  # of the quiet parts of training


class Limits(NamedTuple):
    """Limits of the condition of a line.

    Attributes
    ----------
    silence : float or None
        Largest root mean square of silence, without the mean; None: nothing is silence.
    clipping : float or None
        Least magnitude of a clipped sample; None: nothing is clipping.
    full_scale : float
        Largest magnitude up to which `clipping` tells. Beyond, nothing is known of full scale, and
        flat tops tell.
    """

    silence: float | None
    clipping: float | None
    full_scale: float


def limits_of(system, silence, clipping):
    """Limits for the sound that a system was trained on.

    Parameters
    ----------
    system : outlier detector
        Fitted.
    silence : "auto", float or None
        Level in dB of an amplitude of 1.
    clipping : "auto", float or None
        Magnitude.

    Returns
    -------
    Limits
        The limits.
    """
    heard = [(e.peak_, e.quiet_) for e in every_estimator(system) if hasattr(e, "quiet_")]
    peak = max((peak for peak, _ in heard), default=0.0)
    quiet = min((quiet for _, quiet in heard if quiet > 0), default=math.inf)
    if silence == "auto":
        silence = min(10 ** (_SILENCE / 20) * max(FULL_SCALE, peak), _BELOW * quiet)
    elif silence is not None:
        silence = 10 ** (silence / 20)
    if clipping != "auto":
        return Limits(silence, clipping, math.inf)
    if peak <= FULL_SCALE:
        return Limits(silence, _CLIPPING, FULL_SCALE)
    return Limits(silence, peak, 0.0)
