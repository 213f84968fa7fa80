"""Whether clips of today are still like those of training."""

from collections import deque
from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np
from scipy.stats import false_discovery_control, ks_2samp
from sklearn.utils import check_array, check_random_state

from sk_asd.utils._checked_scores import checked_scores
from sk_asd.utils._containers import plain
from sk_asd.utils._sklearn import Interval, validate_params


@dataclass(frozen=True, slots=True)
class DriftReport:
    """Result of one comparison with the clips of training.

    Parameters
    ----------
    p_value : float
        Of the whole comparison; small = today's clips are different.
    p_scores : float
        Of the scores.
    p_embeddings : float or None
        Of the embeddings.
    drifted : bool
        Whether `p_value` is at most `significance`.
    due : bool
        Whether so many comparisons in a row have drifted that it is time to train anew.
    """

    p_value: float
    p_scores: float
    p_embeddings: float | None
    drifted: bool
    due: bool


class DriftMonitor:
    r"""Tell when clips are no longer like those of training.

    Clips are collected until there are `n_recent` of them, compared with those of training by the
    two-sample test of Kolmogorov and Smirnov, and forgotten. Where nothing has changed a comparison
    errs with the probability `significance`, and several in a row more rarely; see Notes.

    Parameters
    ----------
    scores : array-like of shape (n_clips,)
        Scores of normal clips that the detector does not know by heart: its ``training_scores_``
        where they are as good as those of other clips (:func:`~sk_asd.decisions.predict_pvalue`
        says of which detectors), else scores of other clips.
    embeddings : array-like or DataArray of shape (n_clips, n_features), default=None
        What the detector was given for these or other normal clips. None: scores alone are
        compared.
    n_recent : int, default=100
        Clips of a comparison.
    significance : float, default=0.01
        Level of a comparison.
    patience : int, default=2
        Comparisons in a row that must have drifted before it is time to train anew.
    max_reference : int, default=1000
        Most training clips that are kept, drawn at random.
    random_state : int, RandomState instance or None, default=None
        Seed of that draw.

    Attributes
    ----------
    streak : int
        Comparisons in a row, up to the last, that have drifted.
    knows_embeddings : bool
        Whether embeddings are compared.

    Raises
    ------
    ValueError
        If there are fewer than two clips, a score is NaN or +inf, or a value of the embeddings NaN
        or infinite. A score of −inf is lower than all others.

    See Also
    --------
    StreamingScorer : Its parameter `drift` takes a monitor.

    Notes
    -----
    Every feature of the embeddings is tested on its own, and the smallest p-value after the
    adjustment of Benjamini and Hochberg is that of the embeddings (Simes' test). With `embeddings`
    the p-value of the whole is twice the smaller of the two, at most 1.

    No clip of today is in two comparisons, but all of them share the clips of training. Where these
    are ten times `n_recent`, two in a row err about as rarely as independent ones would, with
    ``significance ** 2``; where they are as many, an unlucky draw of them counts twice, and it is 4
    times that at ``significance=0.05`` and more at lower levels; where they are fewer, it
    approaches `significance`. Leave-one-out scores, or windows of a stream that overlap, depend on
    one another: with the former a comparison errs up to twice as often as `significance` says, with
    the latter oftener still.

    The test asks whether today's clips could be clips of training. Clips of one hour are more
    alike than clips of a month, and that is a difference, too: `n_recent` clips should cover what
    the machine does in the course of its work, as those of training should. A drift
    is no fault of the machine, nor the absence of one. With scores alone, sounds that change
    but stay as likely as before are not seen.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_asd.watching import DriftMonitor
    >>> rng = np.random.default_rng(0)
    >>> monitor = DriftMonitor(rng.normal(size=500), n_recent=50)
    >>> [report.drifted for report in monitor.update(rng.normal(size=100))]
    [False, False]
    >>> [report.due for report in monitor.update(1 + rng.normal(size=100))]
    [False, True]
    """

    @validate_params(
        {
            "n_recent": [Interval(Integral, 2, None, closed="left")],
            "significance": [Interval(Real, 0, 1, closed="neither")],
            "patience": [Interval(Integral, 1, None, closed="left")],
            "max_reference": [Interval(Integral, 2, None, closed="left")],
            "random_state": ["random_state"],
        },
        prefer_skip_nested_validation=True,
    )
    def __init__(
        self,
        scores,
        embeddings=None,
        *,
        n_recent=100,
        significance=0.01,
        patience=2,
        max_reference=1000,
        random_state=None,
    ):
        rng = check_random_state(random_state)
        self.n_recent = n_recent
        self.significance = significance
        self.patience = patience
        self.streak = 0
        self._scores = _drawn(_column(scores), max_reference, rng)
        self._embeddings = None
        if embeddings is not None:
            embeddings = check_array(plain(embeddings), dtype=np.float32, ensure_min_samples=2)
            self._embeddings = _drawn(embeddings, max_reference, rng)
        self._recent = deque()

    @property
    def knows_embeddings(self):
        """Whether embeddings are compared."""
        return self._embeddings is not None

    def update(self, scores, embeddings=None):
        """Take in clips of today.

        Parameters
        ----------
        scores : array-like of shape (n_clips,)
            Their scores.
        embeddings : array-like or DataArray of shape (n_clips, n_features), default=None
            Their embeddings; needed if there are some of training.

        Returns
        -------
        list of DriftReport
            One for every comparison that the clips complete; mostly none.

        Raises
        ------
        ValueError
            If a score is NaN or +inf, embeddings are missing or have another number of features
            than those of training, or numbers of clips differ.
        """
        scores = _column(scores, least=1)
        rows = [None] * len(scores)
        if self.knows_embeddings:
            if embeddings is None:
                raise ValueError("The monitor was given embeddings of training: give some here.")
            rows = check_array(plain(embeddings), dtype=np.float32)
            expected = len(scores), self._embeddings.shape[1]
            if rows.shape != expected:
                raise ValueError(f"embeddings have shape {rows.shape}, expected {expected}.")
        reports = []
        for score, row in zip(scores, rows):
            self._recent.append((float(score), row))
            if len(self._recent) == self.n_recent:
                reports.append(self._compare())
        return reports

    def get_state(self):
        """Scores since the last comparison and the streak, for a process that goes on later.

        Returns
        -------
        dict
            Numbers and lists, as JSON takes them.

        Raises
        ------
        ValueError
            If embeddings are compared; a pickle has all.
        """
        if self.knows_embeddings:
            raise ValueError("The state of a monitor with embeddings is that of its pickle.")
        return {"recent": [score for score, _ in self._recent], "streak": self.streak}

    def set_state(self, state):
        """Go on from what :meth:`get_state` returned.

        Parameters
        ----------
        state : dict
            The state.
        """
        self.streak = state["streak"]
        self._recent = deque((score, None) for score in state["recent"][-self.n_recent + 1 :])

    def _compare(self):
        scores, rows = zip(*self._recent)
        self._recent.clear()
        p_scores = _ks(self._scores, np.array(scores))
        p_value, p_embeddings = p_scores, None
        if self.knows_embeddings:
            found = [_ks(*pair) for pair in zip(self._embeddings.T, np.transpose(rows))]
            p_embeddings = float(false_discovery_control(found).min())
            p_value = min(1.0, 2 * min(p_scores, p_embeddings))
        drifted = p_value <= self.significance
        self.streak = self.streak + 1 if drifted else 0
        return DriftReport(p_value, p_scores, p_embeddings, drifted, self.streak >= self.patience)


def _ks(a, b):
    # The exact distribution is slow for samples this large, and hardly differs.
    return float(ks_2samp(a, b, method="asymp").pvalue)


def _column(scores, least=2):
    scores = checked_scores(np.ravel(scores), "DriftMonitor was given")
    return check_array(
        scores,
        ensure_2d=False,
        ensure_all_finite=False,  # -inf is
        ensure_min_samples=least,
        input_name="scores",
    )


def _drawn(rows, most, rng):
    if len(rows) <= most:
        return rows.copy()
    return rows[np.sort(rng.choice(len(rows), most, replace=False))]
