"""Scores and alarms from a stream of samples."""

from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np
import pandas as pd
from sklearn.utils.validation import check_is_fitted

from sk_asd.datasets._samples import as_samples
from sk_asd.utils._containers import plain
from sk_asd.utils._sklearn import HasMethods, Interval, StrOptions, validate_params
from sk_asd.utils._system import System
from sk_asd.watching._alarm import Alarm
from sk_asd.watching._conditions import FINE, conditions
from sk_asd.watching._drift import DriftMonitor
from sk_asd.watching._limits import limits_of


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """Something that happened in a stream.

    Parameters
    ----------
    type : str
        ``"score"`` of a window. ``"alarm"``, from the first of the windows that raised it, and
        ``"clear"``, from there to the window that cleared it. A condition of the line, ``"gap"``,
        ``"silence"``, ``"clipping"`` or ``"dead"``: once when it begins, with `end` None, and once
        when it is over. ``"drift"`` of the windows that were compared with those of training.
    start, end : float
        Seconds since the start of the stream, or on the clock that chunks were fed with.
    score, threshold : float or None
        Of the window; with ``"alarm"`` and ``"clear"`` of the last one.
    p_value : float or None
        Of drift.
    due : bool or None
        Of drift: whether it is time to train anew.
    """

    type: str
    start: float
    end: float | None = None
    score: float | None = None
    threshold: float | None = None
    p_value: float | None = None
    due: bool | None = None


class StreamingScorer:
    r"""Score a stream of samples window by window, and raise alarms.

    Windows that a fault of the line touches are not scored, so that such a fault is never taken
    for an anomaly of the machine. The scorer is picklable at any time, and then goes on where it
    was.

    Parameters
    ----------
    pipeline : outlier detector
        Fitted to clip tables: a Pipeline from sound to scores, or an ensemble of some.
    window : float
        Seconds of a window, the length of the clips that `pipeline` was fitted to.
    hop : float, default=None
        Seconds from the start of a window to that of the next; None is `window`.
    k_of_n : tuple of int, default=(3, 5)
        An alarm is raised when k of the last n windows score below the threshold.
    hysteresis : float, default=0.0
        In units of the score: an alarm is cleared when so many of the last n windows score at least
        this far above the threshold that no k are left.
    threshold : float, default=None
        Threshold on scores; None is that of `pipeline` for this machine and section, as it is when
        the first window is scored.
    sr : int, default=16000
        Sample rate of the stream in Hz.
    machine, section : str, default=None
        Labels of the machine that is heard, where `pipeline` tells several apart.
    labels : dict, default=None
        Further columns of the clip table and their value.
    drift : DriftMonitor, default=None
        Told of every window that is scored while there is no alarm, with what the detector of
        `pipeline` is given, if the monitor knows embeddings.
    resolution : float, default=0.1
        Seconds of the blocks that are looked at for faults of the line. One that is shorter than
        two blocks may not be seen.
    silence : "auto", float or None, default="auto"
        A block whose level (root mean square without the mean, in dB of an amplitude of 1) is below
        this is silent; None: no block is. "auto" is -80 dB of full scale, or less: 20 dB below the
        quiet parts of the clips that `pipeline` was fitted to. See Notes.
    clipping : "auto", float or None, default="auto"
        A block with more than two samples of at least this magnitude is clipped; None: no block is.
        "auto" is 0.999 where the clips that `pipeline` was fitted to stay within [-1, 1]. See
        Notes.

    Attributes
    ----------
    position : int
        Samples since the start, those of gaps included.
    in_alarm : bool
        Whether there is an alarm.

    Raises
    ------
    NotFittedError
        If `pipeline` is not fitted.
    ValueError
        If `window`, `hop` or `resolution` are less than a sample, or `k_of_n` are no integers with
        1 <= k <= n.

    See Also
    --------
    sk_asd.decisions.set_threshold : For a number of false alarms per day.

    Notes
    -----
    A block in which a sample is NaN, infinite or beyond 1e10 is a **gap**; one in which all samples
    are the same comes from a **dead** microphone or converter, whatever the value; else it may be
    **clipping** or **silence**. A window is scored when no such block, nor a block beside it, is in
    it, and as soon as that is known: one to two blocks after the end of the window.

    Full scale is 1 for integers, and for float samples as sound cards give them. Recordings in
    physical units, such as pascal or g, have none that is known: what counts is how loud the clips
    were that the feature extractors of `pipeline` were fitted to (their ``peak_`` and ``quiet_``).
    A block that goes beyond 1, or whatever the block where these clips do, is clipped if three
    samples in a row are its largest, bit for bit, and at least as large as ``peak_``: a loud
    machine exceeds all of training, a clipped signal also stays there. Full scale is then ``peak_``
    for silence.

    Blocks and windows are counted from the start, or the last :meth:`finish`: events are the
    same however the stream is cut into chunks. Every window is scored on its own. Its score is,
    bit for bit, the one that ``pipeline.score_samples`` gives for a clip table of this window; in a
    table of many, matrix products may round the last digit otherwise.

    A window that is not scored counts neither as normal nor as abnormal, but takes its place among
    the last n: after a long gap an alarm needs k new windows, and so does its end.

    Memory is that of two windows, and does not grow. Scores are not kept.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from sklearn.pipeline import make_pipeline
    >>> from sk_asd.detectors import MahalanobisDetector
    >>> from sk_asd.features import LogMel, TimePooling
    >>> from sk_asd.watching import StreamingScorer
    >>> rng = np.random.default_rng(0)
    >>> clips = pd.DataFrame({"audio": list(0.01 * rng.normal(size=(50, 4000)))})
    >>> pipeline = make_pipeline(
    ...     LogMel(sr=4000, n_fft=256, n_mels=8),
    ...     TimePooling(),
    ...     MahalanobisDetector(contamination=0.02),
    ... ).fit(clips)
    >>> scorer = StreamingScorer(pipeline, window=1.0, k_of_n=(2, 3), sr=4000)
    >>> sound = 0.01 * rng.normal(size=40000)
    >>> sound[20000:] += 0.01 * np.sin(np.arange(20000))
    >>> events = scorer.feed(sound[:25000]) + scorer.feed(sound[25000:])
    >>> [(e.type, e.start, e.end) for e in events if e.type != "score"]
    [('alarm', 5.0, 7.0)]
    """

    @validate_params(
        {
            "pipeline": [HasMethods(["fit"])],
            "window": [Interval(Real, 0, None, closed="neither")],
            "hop": [Interval(Real, 0, None, closed="neither"), None],
            "k_of_n": [tuple, list],
            "hysteresis": [Interval(Real, 0, None, closed="left")],
            "threshold": [Interval(Real, None, None, closed="neither"), None],
            "sr": [Interval(Integral, 1, None, closed="left")],
            "machine": [str, None],
            "section": [str, None],
            "labels": [dict, None],
            "drift": [DriftMonitor, None],
            "resolution": [Interval(Real, 0, None, closed="neither")],
            "silence": [StrOptions({"auto"}), Interval(Real, None, None, closed="neither"), None],
            "clipping": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither"), None],
        },
        prefer_skip_nested_validation=True,
    )
    def __init__(
        self,
        pipeline,
        window,
        hop=None,
        *,
        k_of_n=(3, 5),
        hysteresis=0.0,
        threshold=None,
        sr=16000,
        machine=None,
        section=None,
        labels=None,
        drift=None,
        resolution=0.1,
        silence="auto",
        clipping="auto",
    ):
        check_is_fitted(pipeline)
        integers = all(isinstance(number, Integral) for number in k_of_n)
        if not integers or len(k_of_n) != 2 or not 1 <= k_of_n[0] <= k_of_n[1]:
            raise ValueError(f"k_of_n={k_of_n!r} must be two integers 1 <= k <= n.")
        self.pipeline = pipeline
        self.sr = sr
        self.threshold = threshold
        self.drift = drift
        self._window = round(window * sr)
        self._hop = self._window if hop is None else round(hop * sr)
        self._block = round(resolution * sr)
        for name, seconds, n in (
            ("window", window, self._window),
            ("hop", hop, self._hop),
            ("resolution", resolution, self._block),
        ):
            if n < 1:
                raise ValueError(f"{name}={seconds} s is less than a sample at sr={sr} Hz.")
        self._labels = {"sr": sr, "machine": machine, "section": section, **(labels or {})}
        self._limits = limits_of(pipeline, silence, clipping)
        self._alarm = Alarm(*k_of_n, hysteresis)
        self.position = 0
        self._clock = None  # a position, and the time given for it
        self._condition, self._since = FINE, 0
        self._compared_from = None  # start of the first window that drift has not been judged by
        # Samples from self._kept up to self.position; blocks up to self._judged are judged.
        self._samples = np.empty(2 * (self._window + 3 * self._block), dtype=np.float32)
        self._begin(0)

    def _begin(self, position):
        """Start counting blocks and windows at a position."""
        self._kept = self._judged = self._next = position
        self._bad_until = position - self._block  # end of the last block with a fault

    @property
    def in_alarm(self):
        """Whether there is an alarm."""
        return self._alarm.since is not None

    def feed(self, chunk, time=None):
        """Take in the next samples.

        Parameters
        ----------
        chunk : array-like of shape (n_samples,)
            Any number of samples: float, where NaN is a missing sample, or int8, int16, int32 or
            uint8, which are scaled as those of sound files are. 24 bits are the upper ones of
            int32.
        time : float, default=None
            Time of the first sample in seconds on any clock, such as ``time.time()``; events then
            have times on this clock. Where it is ahead of the samples so far, by more than
            `resolution`, there is a gap. None: the chunk joins on.

        Returns
        -------
        list of StreamEvent
            What happened, in order.

        Raises
        ------
        TypeError
            If samples are of another type.
        ValueError
            If the chunk is not one-dimensional, `time` is not finite or behind the samples so far,
            or `pipeline` cannot score a window.
        """
        samples = np.asarray(chunk)
        samples = as_samples(samples if samples.size else samples.astype(float), "The chunk")
        events = [] if time is None else self._set_clock(float(time))
        capacity = len(self._samples) - self._window - 3 * self._block
        for start in range(0, len(samples), capacity):
            self._append(samples[start : start + capacity])
            self._judge(events)
        return events

    def gap(self, seconds):
        """Say that samples are missing, as feeding NaN for so long does.

        Parameters
        ----------
        seconds : float
            How long.

        Returns
        -------
        list of StreamEvent
            What happened, in order.

        Raises
        ------
        ValueError
            If `seconds` is negative or not finite.
        """
        if not (seconds >= 0 and np.isfinite(seconds)):
            raise ValueError(f"seconds={seconds} of a gap must be at least 0 and finite.")
        n = round(seconds * self.sr)
        # To the end of a block that is a gap itself; whole blocks after it need no samples.
        lead = min(n, self._block + (self._judged - self.position) % self._block)
        events = self.feed(np.full(lead, np.nan, dtype=np.float32))
        blocks = (n - lead) // self._block
        self._skip(blocks * self._block)
        rest = n - lead - blocks * self._block
        return events + self.feed(np.full(rest, np.nan, dtype=np.float32))

    def finish(self):
        """End the stream, or this stretch of it: what is fed next does not join on.

        Windows and blocks are counted anew from here; alarm and history stay.

        Returns
        -------
        list of StreamEvent
            What was still open.
        """
        events = []
        if self.position > self._judged:
            rest = self._samples[self._judged - self._kept : self.position - self._kept]
            (condition,) = conditions(rest[np.newaxis], self._limits, whole=False)
            self._block_is(condition, self.position, events)
        self._score_windows(self.position, events)
        self._change(FINE, self.position, events)
        self._begin(self.position)
        return events

    def get_state(self):
        """What is remembered between two stretches of a stream, for a process that goes on later.

        Returns
        -------
        dict
            Numbers, texts and lists, as JSON takes them. Samples since the last :meth:`finish`, and
            the drift monitor, are not in it; a pickle of the scorer has all.
        """
        return {
            "position": self.position,
            "recent": [list(window) for window in self._alarm.recent],
            "since": self._alarm.since,
            "compared_from": self._compared_from,
        }

    def set_state(self, state):
        """Go on from what :meth:`get_state` returned.

        Parameters
        ----------
        state : dict
            The state.
        """
        self.position, self._clock, self._condition = state["position"], None, FINE
        self._alarm.recent.clear()
        self._alarm.recent.extend(map(tuple, state["recent"]))
        self._alarm.since = state["since"]
        self._compared_from = state["compared_from"]
        self._begin(self.position)

    def _set_clock(self, time):
        """Compare the clock with the samples so far."""
        if not np.isfinite(time):
            raise ValueError(f"time={time} of a chunk must be finite.")
        events = []
        if self._clock is not None:
            ahead = time - self._time(self.position)
            if ahead < -self._block / self.sr:
                raise ValueError(
                    f"time={time} is {-ahead:.3f} s behind the end of the chunk before: chunks "
                    "must come in order and not overlap."
                )
            if ahead > self._block / self.sr:
                events = self.gap(ahead)
        # Clocks of sound cards are not exact: the time given last counts.
        self._clock = self.position, time
        return events

    def _time(self, position):
        if self._clock is None:
            return position / self.sr
        then, time = self._clock
        return time + (position - then) / self.sr

    def _append(self, samples):
        """Put samples behind the ones that are kept, after making room."""
        used = self.position - self._kept
        if used + len(samples) > len(self._samples):
            drop = max(0, min(self._next, self._judged) - self._kept)
            self._samples[: used - drop] = self._samples[drop:used].copy()
            self._kept += drop
            used -= drop
        self._samples[used : used + len(samples)] = samples
        self.position += len(samples)

    def _judge(self, events):
        """Go through the blocks that are complete."""
        n = (self.position - self._judged) // self._block
        start = self._judged - self._kept
        blocks = self._samples[start : start + n * self._block].reshape(n, self._block)
        for condition in conditions(blocks, self._limits):
            self._block_is(condition, self._judged + self._block, events)
            self._score_windows(self._judged - self._block, events)

    def _block_is(self, condition, end, events):
        self._change(condition, self._judged, events)
        if condition != FINE:
            self._bad_until = end
        self._judged = end

    def _change(self, condition, position, events):
        """Note that a condition begins at a position, or is over."""
        if condition == self._condition:
            return
        if self._condition != FINE:
            start = self._time(self._since)
            events.append(StreamEvent(self._condition, start, self._time(position)))
        if condition != FINE:
            events.append(StreamEvent(condition, self._time(position)))
        self._condition, self._since = condition, position

    def _skip(self, n):
        """Pass over blocks of a gap, behind a block that is one."""
        if n == 0:
            return
        self.position += n
        self._kept = self._judged = self._bad_until = self.position
        passed = max(0, (self._judged - self._block - self._window - self._next) // self._hop + 1)
        for i in range(passed - min(passed, self._alarm.n), passed):
            self._alarm.push(self._next + i * self._hop, None)
        self._next += passed * self._hop

    def _score_windows(self, known, events):
        """Score the windows that end where the blocks beside them are known."""
        while self._next + self._window <= known:
            start, end = self._next, self._next + self._window
            self._next += self._hop
            if self._bad_until + self._block > start:
                self._alarm.push(start, None)
                continue
            wave = self._samples[start - self._kept : end - self._kept].copy()
            score, features = self._score(wave)
            times = self._time(start), self._time(end)
            events.append(StreamEvent("score", *times, score, self.threshold))
            self._decide(start, end, score, events)
            if self.drift is not None and not self.in_alarm:
                self._tell_drift(score, features, start, end, events)

    def _score(self, wave):
        table = pd.DataFrame({"audio": [wave]} | {k: [v] for k, v in self._labels.items()})
        system = System(self.pipeline)
        features = system.transform(table)
        if self.threshold is None:
            (score,), (self.threshold,), _ = system.score_and_threshold(features)
            self.threshold = float(self.threshold)
        else:
            (score,), _ = system.score(features)
        return float(score), features

    def _decide(self, start, end, score, events):
        since = self._alarm.since
        change = self._alarm.push(start, score - self.threshold)
        if change is not None:
            begin = self._alarm.since if change == "alarm" else since
            times = self._time(begin), self._time(end)
            events.append(StreamEvent(change, *times, score, self.threshold))

    def _tell_drift(self, score, features, start, end, events):
        if self._compared_from is None:
            self._compared_from = start
        embedding = np.asarray(plain(features)) if self.drift.knows_embeddings else None
        for report in self.drift.update([score], embedding):
            times = self._time(self._compared_from), self._time(end)
            self._compared_from = None
            if report.drifted:
                events.append(StreamEvent("drift", *times, p_value=report.p_value, due=report.due))
