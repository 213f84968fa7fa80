"""Alarms: k of the last n windows, with hysteresis."""

from collections import deque


class Alarm:
    """Raised when k of the last n windows are abnormal, cleared when enough are clearly normal.

    Parameters
    ----------
    k, n : int
        Windows.
    hysteresis : float
        How far above the threshold a score must be to speak for clearing.
    """

    def __init__(self, k, n, hysteresis):
        self.k = k
        self.n = n
        self.hysteresis = hysteresis
        # Start and margin of windows; the margin is None where a window was not scored.
        self.recent = deque(maxlen=n)
        self.since = None

    def push(self, start, margin):
        """Take in a window.

        Parameters
        ----------
        start : int
            Where the window starts.
        margin : float or None
            Score minus threshold; None for a window that was not scored.

        Returns
        -------
        str or None
            "alarm" or "clear" where the state changes.
        """
        self.recent.append((start, margin))
        known = [(begin, m) for begin, m in self.recent if m is not None]
        if self.since is None:
            abnormal = [begin for begin, m in known if m < 0]
            if len(abnormal) >= self.k:
                self.since = abnormal[0]
                return "alarm"
        # A dead microphone does not clear an alarm: normal windows must be heard.
        elif sum(m >= self.hysteresis for _, m in known) > self.n - self.k:
            self.since = None
            return "clear"
        return None
