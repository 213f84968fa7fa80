"""The metrics of :func:`~sk_asd.metrics.dcase_scores` for many weights at once."""

import functools
import sys
from typing import NamedTuple

import numpy as np
from joblib import Parallel, delayed
from sklearn.utils import gen_batches

from sk_asd.ensemble._simplex import combine
from sk_asd.metrics import dcase_scorer
from sk_asd.metrics._dcase import COLUMNS, DOMAINS, _sections, _test_table, _year

# Name: year of the rules (None: what the clips can be measured by), and column of the last row.
METRICS = {
    "dcase": (None, "total"),
    "hmean": (None, "total"),
    "auc_source": (2022, "auc_source"),
    "auc_target": (2022, "auc_target"),
    "pauc": (2022, "pauc"),
    "auc": (2020, "auc"),
}
_CHUNK = 2**17  # scores that a thread sorts at a time: they stay in the processor's cache


def metric_of(scoring):
    """Keyword arguments of :class:`GridMetric` for what it can compute, else None.

    Parameters
    ----------
    scoring : str or callable
        A key of ``METRICS``, :func:`~sk_asd.metrics.dcase_scorer`, or a partial of it.

    Returns
    -------
    dict or None
        ``rules``, ``column`` and ``max_fpr``.
    """
    if isinstance(scoring, str) and scoring in METRICS:
        rules, column = METRICS[scoring]
        return {"rules": rules, "column": column, "max_fpr": 0.1}
    keywords = {}
    if isinstance(scoring, functools.partial) and not scoring.args:
        scoring, keywords = scoring.func, scoring.keywords
    if scoring is not dcase_scorer or not set(keywords) <= {"rules", "max_fpr"}:
        return None
    rules = keywords.get("rules")
    rules = None if rules is None else _year(rules)
    return {"rules": rules, "column": "total", "max_fpr": keywords.get("max_fpr", 0.1)}


class _Task(NamedTuple):
    """One number of the table: some normal clips of a field against its anomalies."""

    column: int
    normal: np.ndarray
    max_fpr: float | None


class _Field(NamedTuple):
    """Clips that are ranked together."""

    place: int
    rows: np.ndarray
    anomaly: np.ndarray
    tasks: list


class GridMetric:
    """One number of the table of totals, for the scores of many weights.

    Parameters
    ----------
    clips : DataFrame or DataArray
        Clips with the columns that :func:`~sk_asd.metrics.dcase_scores` needs.
    rules : {2020, 2021, 2022, None}
        Year of the rules.
    column : str
        Column of the table, or "total", the mean of all; the last row is taken.
    max_fpr : float
        Largest false positive rate of the partial AUC.

    Raises
    ------
    TypeError, ValueError
        As :func:`~sk_asd.metrics.dcase_scores`, or if no section has clips for the column.
    """

    def __init__(self, clips, *, rules, column, max_fpr):
        year = _year(rules, clips)
        self.column, self.columns = column, COLUMNS[year]
        table = _test_table(clips, np.zeros(len(clips)), year)
        self.machines, self.fields = [], []
        for (machine, _), parts in _sections(table, year):
            self.fields += _fields(parts, len(self.machines), year, max_fpr)
            self.machines.append(machine)
        covered = {self.columns[t.column] for field in self.fields for t in field.tasks}
        if column in self.columns and column not in covered:
            raise ValueError(f"No section has test clips for the metric {column!r}.")

    def __call__(self, matrix, weights, n_jobs=None):
        """Compute the number for every setting.

        Parameters
        ----------
        matrix : ndarray of shape (n_clips, n_members)
            Standardised scores of the clips, high = normal.
        weights : ndarray of shape (n_settings, n_members)
            Convex weights.
        n_jobs : int, default=None
            Threads.

        Returns
        -------
        ndarray of shape (n_settings,)
            The metric.
        """
        numbers = np.full((len(weights), len(self.machines), len(self.columns)), np.nan)
        jobs = [
            (field, field_matrix, batch)
            for field in self.fields
            for field_matrix in [matrix[field.rows]]
            for batch in gen_batches(len(weights), max(1, _CHUNK // len(field.rows)))
        ]

        def compute(field, scores, batch):
            found = _numbers(field, combine(scores, weights[batch]))
            for task, values in zip(field.tasks, found):
                numbers[batch, field.place, task.column] = values

        Parallel(n_jobs=n_jobs, prefer="threads", require="sharedmem")(
            delayed(compute)(*job) for job in jobs
        )
        return self._total(numbers)

    def _total(self, numbers):
        """Last row of the table, as sk_asd.metrics puts it together."""
        if self.column in self.columns:
            numbers = numbers[:, :, [self.columns.index(self.column)]]
        if self.columns != COLUMNS[2020]:
            floored = np.maximum(numbers, sys.float_info.epsilon).reshape(len(numbers), -1)
            return 1 / np.nanmean(1 / floored, axis=1)
        machines = np.array(self.machines, dtype=object)
        measured = ~np.isnan(numbers[0]).all(axis=1)
        of_machines = [
            numbers[:, measured & (machines == m)].mean(axis=1)
            for m in dict.fromkeys(machines[measured])
        ]
        return np.mean(of_machines, axis=0).mean(axis=1)


def _fields(parts, place, year, max_fpr):
    """What is ranked in one section, as sk_asd.metrics takes it apart."""

    def field(clips, *tasks):
        anomaly = clips["anomaly"].to_numpy()
        tasks = [(name, ~anomaly & inside, max_fpr) for name, inside, max_fpr in tasks]
        tasks = [
            _Task(COLUMNS[year].index(name), normal, max_fpr)
            for name, normal, max_fpr in tasks
            if normal.any()
        ]
        return _Field(place, clips.index.to_numpy(), anomaly, tasks)

    if year == 2021:
        return [
            field(part, (f"auc_{domain}", True, None), (f"pauc_{domain}", True, max_fpr))
            for domain, part in parts.items()
            if len(part)
        ]
    if not len(parts):
        return []
    if year == 2020:
        return [field(parts, ("auc", True, None), ("pauc", True, max_fpr))]
    inside = {domain: (parts["domain"] == domain).to_numpy() for domain in DOMAINS}
    aucs = [(f"auc_{domain}", mask, None) for domain, mask in inside.items()]
    return [field(parts, *aucs, ("pauc", True, max_fpr))]


def _numbers(field, scores):
    """AUC or partial AUC of every task, for scores of shape (n_settings, n_clips).

    The area under the ROC curve is summed over anomalies: one with `above` normal clips before it
    adds a column of width N - above, cut at the largest false positive rate. Normal clips that are
    `tied` with it make a ramp.
    """
    order = scores.argsort(axis=1)
    ranked = np.take_along_axis(scores, order, axis=1)
    first = np.ones(scores.shape, dtype=bool)  # of equal scores
    np.not_equal(ranked[:, 1:], ranked[:, :-1], out=first[:, 1:])
    tied_rows = np.flatnonzero(~first.all(axis=1))
    anomaly = field.anomaly[order]
    counts = {}
    for task in field.tasks:
        key = task.normal.tobytes()
        if key not in counts:
            counts[key] = _before(task.normal[order], anomaly, first, tied_rows)
        above, tied = counts[key]
        yield _area(above, tied, tied_rows, task)


def _before(normal, anomaly, first, tied_rows):
    """Normal clips before each anomaly; for rows with ties also how many are tied with it."""
    n_settings = len(normal)
    seen = np.cumsum(normal, axis=1, dtype=np.int32)
    above = seen[anomaly].reshape(n_settings, -1)
    if len(tied_rows) == 0:
        return above, None
    seen, first, anomaly = seen[tied_rows], first[tied_rows], anomaly[tied_rows]
    until = seen - normal[tied_rows]
    # What was seen before the first of equal scores, and with the last of them.
    until = np.maximum.accumulate(np.where(first, until, 0), axis=1)
    last = np.ones_like(first)
    last[:, :-1] = first[:, 1:]
    with_last = np.where(last, seen, seen[:, -1:])
    with_last = np.minimum.accumulate(with_last[:, ::-1], axis=1)[:, ::-1]
    shape = (len(tied_rows), -1)
    above[tied_rows] = until[anomaly].reshape(shape)
    return above, (with_last - until)[anomaly].reshape(shape)


def _area(above, tied, tied_rows, task):
    """Area under the ROC curve, or McClish's standardised area up to a false positive rate."""
    n_normal = int(task.normal.sum())
    partial = task.max_fpr is not None and task.max_fpr != 1
    limit = task.max_fpr * n_normal if partial else n_normal
    width = np.maximum(limit - above, 0).sum(axis=1, dtype=float)
    if tied is not None:
        within = np.minimum(np.maximum(limit - above[tied_rows], 0), tied)
        ramp = within**2 / np.maximum(2 * tied, 1)
        beyond = np.maximum(limit - above[tied_rows] - tied, 0)
        width[tied_rows] = (ramp + beyond).sum(axis=1)
    area = width / (above.shape[1] * n_normal)
    if not partial:
        return area
    least, most = 0.5 * task.max_fpr**2, task.max_fpr
    return 0.5 * (1 + (area - least) / (most - least))
