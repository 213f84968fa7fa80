"""The metrics of :func:`~sk_asd.metrics.dcase_scores` for many weights at once."""

import functools
import sys
from typing import NamedTuple

import numpy as np
from joblib import Parallel, delayed
from sklearn.utils import gen_batches

from sk_asd.ensemble._simplex import combine
from sk_asd.metrics import dcase_scorer
from sk_asd.metrics._dcase import DOMAINS, _check_classes, _test_table, _year

# Name: year of the rules and column of the total.
METRICS = {
    "dcase": (2022, "hmean"),
    "hmean": (2022, "hmean"),
    "auc_source": (2022, "auc_source"),
    "auc_target": (2022, "auc_target"),
    "pauc": (2022, "pauc"),
    "auc": (2020, "auc"),
}
_COLUMNS = {
    2022: ("auc_source", "auc_target", "pauc"),
    2021: ("auc_source", "auc_target", "pauc_source", "pauc_target"),
    2020: ("auc", "pauc"),
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
    rules = _year(keywords.get("rules", 2022))
    column = "mean" if rules == 2020 else "hmean"
    return {"rules": rules, "column": column, "max_fpr": keywords.get("max_fpr", 0.1)}


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
    rules : {2020, 2021, 2022}
        Year of the rules.
    column : str
        Column of the table; the last row is taken.
    max_fpr : float
        Largest false positive rate of the partial AUC.

    Raises
    ------
    TypeError, ValueError
        As :func:`~sk_asd.metrics.dcase_scores`, or if no section has clips for the column.
    """

    def __init__(self, clips, *, rules, column, max_fpr):
        self.column, self.columns = column, _COLUMNS[rules]
        table = _test_table(clips, np.zeros(len(clips)), rules)
        self.machines, self.fields = [], []
        for (machine, section), group in table.groupby(["machine", "section"], dropna=False):
            place = f"machine {machine!r}, section {section!r}"
            _check_classes(group, place)
            self.fields += _fields(group, len(self.machines), place, rules, max_fpr)
            self.machines.append(machine if machine == machine else None)  # NaN to None
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
        if self.columns != _COLUMNS[2020]:
            floored = np.maximum(numbers, sys.float_info.epsilon).reshape(len(numbers), -1)
            return 1 / np.nanmean(1 / floored, axis=1)
        machines = np.array(self.machines, dtype=object)
        of_machines = [numbers[:, machines == m].mean(axis=1) for m in dict.fromkeys(machines)]
        return np.mean(of_machines, axis=0).mean(axis=1)


def _fields(group, place, name, rules, max_fpr):
    """What is ranked in one section."""
    rows, anomaly = group.index.to_numpy(), group["anomaly"].to_numpy()
    columns = _COLUMNS[rules]
    everything = np.ones(len(rows), dtype=bool)
    if rules == 2020:
        tasks = [_Task(0, ~anomaly, None), _Task(1, ~anomaly, max_fpr)]
        return [_Field(place, rows, anomaly, tasks)]
    fields, tasks = [], []
    for domain in DOMAINS:
        inside = (group["domain"] == domain).to_numpy()
        auc = columns.index(f"auc_{domain}")
        if rules == 2022:
            normal = inside & ~anomaly
            tasks += [_Task(auc, normal, None)] if normal.any() else []
        elif inside.any():
            _check_classes(group[inside], f"{name}, domain {domain!r}")
            normal = ~anomaly[inside]
            pauc = columns.index(f"pauc_{domain}")
            own = [_Task(auc, normal, None), _Task(pauc, normal, max_fpr)]
            fields.append(_Field(place, rows[inside], anomaly[inside], own))
    if rules == 2022:
        tasks.append(_Task(columns.index("pauc"), everything & ~anomaly, max_fpr))
        fields.append(_Field(place, rows, anomaly, tasks))
    return fields


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
