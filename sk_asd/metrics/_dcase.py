"""The official metrics of DCASE Challenge Task 2."""

import sys
import warnings

import numpy as np
import pandas as pd
from scipy.stats import hmean, rankdata
from sklearn.metrics import precision_recall_fscore_support, roc_auc_score

from sk_asd.utils._containers import column_of, is_labelled
from sk_asd.utils._labels import ANOMALY, NORMAL, kinds_of_labels

LABELS = (NORMAL, ANOMALY)
DOMAINS = ("source", "target")
COLUMNS = {
    2022: ("auc_source", "auc_target", "pauc"),
    2021: ("auc_source", "auc_target", "pauc_source", "pauc_target"),
    2020: ("auc", "pauc"),
}
DECIDED = ("precision", "recall", "f1")
NO_DOMAIN = (
    "No test clip has a domain: figures by the rules of 2020, AUC and partial AUC of all clips."
)
_N_SHOWN = 3  # machines and sections without figures that are named


class NotMeasurable(ValueError):  # noqa: N818
    """No section has test clips of both classes, or none of the domains that the rules need."""


def dcase_scores(clips, scores, decisions=None, *, rules=None, max_fpr=0.1):
    """Compute the official metrics of DCASE Task 2 per section, per machine and in total.

    Only test clips with a label count. Rows whose ``split`` is not ``"test"`` (training and
    supplemental clips) are ignored, whatever their scores; without a column ``split`` every row is
    a test clip. Test clips without a label are left out with a warning.

    Parameters
    ----------
    clips : DataFrame or DataArray
        Clip table, or an array labelled from one, with ``machine``, ``section`` and ``label``
        (``"normal"`` or ``"anomaly"``, or another word for them, 0 and 1 among these), and under
        the rules of 2021 and 2022 ``domain`` (``"source"`` or ``"target"``). Under those of 2022
        an anomaly needs no domain. Where the domain of others is missing, they count for what
        needs none alone.
    scores : array-like of shape (n_clips,)
        Scores as `score_samples` gives them: high = normal. One for every row of `clips`, the
        ignored ones too. A Series must have the index of `clips`, in any order.
    decisions : array-like of shape (n_clips,), default=None
        Decisions as `predict` gives them, 1 normal, -1 anomaly; with them the table has precision,
        recall and F1 of the anomalies as well. They count for no mean over metrics and so not for
        the official score.
    rules : {2020, 2021, 2022}, default=None
        Year of the rules. Those of 2022 also hold for the years after it. None: 2022, but 2020,
        with a warning, where no normal test clip has a domain.
    max_fpr : float, default=0.1
        Largest false positive rate of the partial AUC.

    Returns
    -------
    DataFrame
        Rows: one per machine and section, in order; then one per machine over its sections; then
        the total, machine ``"total"``. In the rows of totals ``section`` is ``"hmean"`` (2020:
        ``"mean"``), so that ``table[table["section"] != "hmean"]`` has the sections alone.

        Columns: ``machine``, ``section``, the metrics as fractions of 1, and their mean:

        - 2022: ``auc_source``, ``auc_target``, ``pauc``, ``hmean``;
        - 2021: ``auc_source``, ``auc_target``, ``pauc_source``, ``pauc_target``, ``hmean``;
        - 2020: ``auc``, ``pauc``, ``mean``.

        Then, with `decisions`, ``precision_source``, ``recall_source``, ``f1_source``,
        ``precision_target``, ``recall_target`` and ``f1_target``; in 2020 ``precision``, ``recall``
        and ``f1``.

        A metric of a domain of which a section has no test clips is NaN, and so are all of a
        section that has test clips of one class only. So are precision, recall and F1 of a domain
        that has clips of one class only.

    Raises
    ------
    TypeError
        If `clips` is neither a DataFrame nor a labelled array.
    ValueError
        If a column is missing or has an unknown value, the numbers of clips and scores differ, a
        score is NaN or +inf, a decision is neither 1 nor -1, no labelled test clip is there, or no
        section has clips of both classes.

    Warns
    -----
    UserWarning
        On test clips without a label, on normal ones without a domain where others have one, and
        on sections without figures.

    See Also
    --------
    dcase_score : The official number alone.
    dcase_scorer : The same for `GridSearchCV`.

    Notes
    -----
    2022: the AUC of a domain is that of its normal clips against the anomalies of both domains; the
    partial AUC is that of all clips. 2021: both are of the normal clips and anomalies of one
    domain. 2020: both are of all clips, whatever their domain.

    The partial AUC is McClish's standardised one (``roc_auc_score(..., max_fpr=0.1)``): chance is
    0.5, and the least possible value 0.4737.

    2021 and 2022: a mean is the harmonic mean, over the numbers of one column in the columns of
    metrics of a row of totals, and over all numbers of the row's sections in the column ``hmean``.
    The last number of the last row is the official score; in 2022 the harmonic mean of 63 numbers,
    7 machines x 3 sections x 3 metrics. Each number is first raised to the floating-point epsilon,
    so that an AUC of 0 makes the mean almost 0 and not undefined; NaN are left out.

    2020: means are arithmetic; the total is the mean over machines of their means over sections.

    Precision, recall and F1 of a domain are those of its own clips alone, its normal clips and its
    own anomalies, in 2021 and 2022 alike, as in the organisers' evaluators ([1]_, [2]_): unlike the
    AUC they know nothing of the anomalies of the other domain, and an anomaly without a domain
    counts for none. Where no clip is called an anomaly all three are 0. The rules of 2020 asked for
    no decisions; figures of all clips are ours.

    References
    ----------
    Dohi et al., "Description and discussion on DCASE 2022 Challenge Task 2", DCASE Workshop 2022,
    equations 1 to 3; McClish, "Analyzing a portion of the ROC curve", Medical Decision Making
    9(3), 1989.

    .. [1] https://github.com/Kota-Dohi/dcase2022_evaluator
    .. [2] https://github.com/y-kawagu/dcase2021_task2_evaluator

    Examples
    --------
    >>> import pandas as pd
    >>> from sk_asd.metrics import dcase_scores
    >>> clips = pd.DataFrame(
    ...     {
    ...         "machine": "fan",
    ...         "section": "00",
    ...         "domain": ["source", "source", "target", "target", "source", "target"],
    ...         "label": ["normal"] * 4 + ["anomaly"] * 2,
    ...     }
    ... )
    >>> dcase_scores(clips, [0.9, 0.8, 0.7, 0.3, 0.4, 0.1]).round(3)
      machine section  auc_source  auc_target   pauc  hmean
    0     fan      00         1.0        0.75  0.737  0.813
    1     fan   hmean         1.0        0.75  0.737  0.813
    2   total   hmean         1.0        0.75  0.737  0.813

    With a threshold of 0.5 one normal clip of the target domain is called an anomaly:

    >>> table = dcase_scores(clips, [0.9, 0.8, 0.7, 0.3, 0.4, 0.1], [1, 1, 1, -1, -1, -1])
    >>> table[["precision_source", "recall_source", "precision_target", "recall_target"]][:1]
       precision_source  recall_source  precision_target  recall_target
    0               1.0            1.0               0.5            1.0
    """
    year = _year(rules, clips)
    test = _test_table(clips, scores, year)
    if decisions is not None:
        test["alarm"] = alarms(decisions, clips, test.index)
    metrics = {2020: _metrics_2020, 2021: _metrics_2021, 2022: _metrics_2022}[year]
    keys, sections = zip(*_sections(test, year))
    mean = "mean" if year == 2020 else "hmean"
    rows = [metrics(parts, max_fpr) for parts in sections]
    rows = pd.DataFrame(rows, columns=COLUMNS[year], dtype=float)
    table = _with_totals(keys, rows, mean)
    if decisions is None:
        return table
    domains = [""] if year == 2020 else [f"_{domain}" for domain in DOMAINS]
    columns = [metric + domain for domain in domains for metric in DECIDED]
    rows = [_metrics_of_decisions(parts, year) for parts in sections]
    rows = pd.DataFrame(rows, columns=columns, dtype=float)
    return table.join(_with_totals(keys, rows, mean)[columns])


def dcase_score(clips, scores, *, rules=None, max_fpr=0.1):
    """Compute the official score of DCASE Task 2.

    Parameters
    ----------
    clips : DataFrame or DataArray
        Clip table, or an array labelled from one; see :func:`dcase_scores`.
    scores : array-like of shape (n_clips,)
        Scores as `score_samples` gives them: high = normal.
    rules : {2020, 2021, 2022}, default=None
        Year of the rules; None as in :func:`dcase_scores`.
    max_fpr : float, default=0.1
        Largest false positive rate of the partial AUC.

    Returns
    -------
    float
        The total of :func:`dcase_scores`, in [0, 1].

    See Also
    --------
    dcase_scores : The table it comes from, with the details and errors.

    Examples
    --------
    >>> import pandas as pd
    >>> from sk_asd.metrics import dcase_score
    >>> clips = pd.DataFrame(
    ...     {"machine": "fan", "section": "00", "domain": "source", "label": ["normal", "anomaly"]}
    ... )
    >>> dcase_score(clips, [0.9, 0.1])
    1.0
    """
    return float(dcase_scores(clips, scores, rules=rules, max_fpr=max_fpr).iloc[-1, -1])


def alarms(decisions, clips, rows):
    """Whether some of the clips are called anomalies, by decisions as `predict` gives them.

    Parameters
    ----------
    decisions : array-like of shape (n_clips,)
        1 normal, -1 anomaly.
    clips : DataFrame or DataArray
        The clips.
    rows : array-like of int
        Positions of those that count.

    Returns
    -------
    ndarray of bool
        For each of `rows`.

    Raises
    ------
    ValueError
        If there is not one for each clip, or a decision that counts is neither 1 nor -1.
    """
    values = _aligned(decisions, clips, "decisions")[rows]
    bad = ~np.isin(values, (1, -1))
    if bad.any():
        raise ValueError(
            f"decisions must be 1 (normal) or -1 (anomaly), found {values[bad][0]:g} "
            f"({bad.sum()} of {len(values)} clips)."
        )
    return values == -1


def is_test(clips):
    """Mask of the rows whose ``split`` is ``"test"``; all rows where there is no such column.

    Raises
    ------
    TypeError
        If `clips` is neither a DataFrame nor a labelled array.
    ValueError
        If no row is a test clip.
    """
    if not isinstance(clips, pd.DataFrame) and not is_labelled(clips):
        raise TypeError(
            "clips must be a clip table (a DataFrame) or an array labelled from one, got "
            f"{type(clips).__name__}."
        )
    split = column_of(clips, "split")
    if split is None:
        return np.ones(len(clips), dtype=bool)
    rows = split.astype(object) == "test"
    if not rows.any():
        raise ValueError(f"None of the {len(clips)} clips has split 'test'.")
    return rows


def rules_for(clips):
    """Year of the rules that clips can be measured by: 2022, or 2020 where none has a domain."""
    label, domain = column_of(clips, "label"), column_of(clips, "domain")
    if label is None:
        return 2022
    normal = is_test(clips) & (label.astype(object) == "normal")
    known = np.zeros(len(clips), dtype=bool) if domain is None else ~pd.isna(domain)
    return 2022 if known[normal].any() or not normal.any() else 2020


def _year(rules, clips=None):
    """Year as a number; None means what the clips can be measured by."""
    if rules is None and clips is not None:
        year = rules_for(clips)
        if year == 2020:
            warnings.warn(NO_DOMAIN, UserWarning, stacklevel=3)
        return year
    if str(rules) not in ("2020", "2021", "2022"):
        raise ValueError(
            f"rules must be 2020, 2021 or 2022, got {rules!r}; those of 2022 hold after it, too."
        )
    return int(rules)


def _test_table(clips, scores, year):
    """Checked labelled test clips: machine, section, domain, anomaly (bool), score (high = odd)."""
    rows = is_test(clips)
    scores = _aligned(scores, clips)
    table = pd.DataFrame({"name": _names(clips), "score": -scores})
    for column in ("machine", "section", "domain", "label"):
        values = column_of(clips, column)
        if values is None and (column != "domain" or year > 2020):
            hint = "; rules=2020 need none" if column == "domain" else ""
            raise ValueError(f"The clips lack the column {column!r}{hint}.")
        values = pd.Series(values, index=table.index, dtype=object)
        table[column] = values.where(values.notna(), None)

    table = table[rows]
    table = table.assign(label=kinds_of_labels(table["label"].tolist(), table["name"].tolist()))
    labelled = table["label"].notna()
    if not labelled.any():
        raise ValueError(f"None of the {len(table)} test clips has a value in the column 'label'.")
    if not labelled.all():
        warnings.warn(
            f"{(~labelled).sum()} of {len(table)} test clips have no value in the column 'label' "
            "and are left out.",
            UserWarning,
            stacklevel=3,
        )
        table = table[labelled]
    table = table.assign(anomaly=(table["label"] == ANOMALY).astype(bool))
    if year > 2020:
        needing = table if year == 2021 else table[~table["anomaly"]]
        _check_values(needing, "domain", (*DOMAINS, None), "; rules=2020 need none")
        lacking = needing["domain"].isna()
        if lacking.any():
            message = (
                f"{lacking.sum()} of {len(needing)} test clips have no domain, the first "
                f"{needing['name'][lacking].iloc[0]}"
            )
            if lacking.all():
                raise NotMeasurable(f"{message}; rules=2020 need none.")
            what = "they do not count" if year == 2021 else "they count for the partial AUC alone"
            warnings.warn(f"{message}: {what}.", UserWarning, stacklevel=3)
    bad = ~(table["score"].to_numpy() > -np.inf)
    if bad.any():
        raise ValueError(
            f"The score of {table['name'][bad].iloc[0]} is {-table['score'][bad].iloc[0]}; "
            f"{bad.sum()} of {len(table)} scores are NaN or +inf. A score must be a number, or "
            "-inf for a clip that is as abnormal as can be."
        )
    return table


def _aligned(values, clips, what="scores"):
    """Scores or decisions as a float64 array in the order of the clips."""
    if np.ndim(values) != 1 or len(values) != len(clips):
        raise ValueError(
            f"{what} must be one-dimensional with one value for each of the "
            f"{len(clips)} clips, got shape {np.shape(values)}."
        )
    if isinstance(values, pd.Series) and isinstance(clips, pd.DataFrame):
        if not values.index.equals(clips.index):
            unique = values.index.is_unique and clips.index.is_unique
            if not unique or not clips.index.isin(values.index).all():
                raise ValueError(
                    f"The index of {what} is not that of the clips; pass {what}.to_numpy() if they "
                    "are in the order of the clips."
                )
            values = values.loc[clips.index]
        return values.to_numpy(dtype=float, na_value=np.nan)
    return np.asarray(values, dtype=float)


def _names(clips):
    """What to call each clip in a message."""
    path = column_of(clips, "path")
    labels = clips.index if isinstance(clips, pd.DataFrame) else range(len(clips))
    paths = [None] * len(clips) if path is None else path
    return [f"clip {label!r}" if pd.isna(p) else p for p, label in zip(paths, labels)]


def _check_values(table, column, allowed, hint=""):
    bad = ~table[column].isin(allowed)
    if bad.any():
        expected = " or ".join(repr(value) for value in allowed if value is not None)
        raise ValueError(
            f"The column {column!r} must hold {expected}, found "
            f"{table[column][bad].iloc[0]!r} for {table['name'][bad].iloc[0]} "
            f"({bad.sum()} of {len(table)} clips){hint}."
        )


def _sections(test, year):
    """Sections and what can be measured of them.

    Parameters
    ----------
    test : DataFrame
        As :func:`_test_table` returns it.
    year : int
        Year of the rules.

    Returns
    -------
    list of tuple
        Machine and section (None where there is none), and their clips; under the rules of 2021 a
        dict of those by domain. Clips of one class only are left out (empty).

    Raises
    ------
    NotMeasurable
        If nothing is left.

    Warns
    -----
    UserWarning
        Naming what is left out.
    """
    found, faults, measurable = [], [], False

    def both(group, place):
        nonlocal measurable
        kinds = group["anomaly"].unique()
        if len(kinds) == 1:
            only, other = (LABELS[int(anomaly)] for anomaly in (kinds[0], not kinds[0]))
            faults.append(
                f"the {len(group)} test clips of {place} are all {only!r}: expected at least one "
                f"{other!r}"
            )
        measurable |= len(kinds) == 2
        return group if len(kinds) == 2 else group[:0]

    for names, group in test.groupby(["machine", "section"], dropna=False):
        key = tuple(None if pd.isna(name) else name for name in names)
        place = f"machine {key[0]!r}, section {key[1]!r}"
        if year == 2021:
            parts = {
                domain: both(group[group["domain"] == domain], f"{place}, domain {domain!r}")
                for domain in DOMAINS
            }
        else:
            parts = both(group, place)
        found.append((key, parts))
    if faults:
        more = f", and {len(faults) - _N_SHOWN} more" if len(faults) > _N_SHOWN else ""
        message = f"An AUC needs both classes, but {'; '.join(faults[:_N_SHOWN])}{more}."
        if not measurable:
            raise NotMeasurable(message)
        warnings.warn(
            f"{message} Their figures are missing, also in totals.", UserWarning, stacklevel=3
        )
    return found


def _auc(group, max_fpr=None):
    # Ranks, since a score may be infinite.
    return float(roc_auc_score(group["anomaly"], rankdata(group["score"]), max_fpr=max_fpr))


def _metrics_2022(group, max_fpr):
    if not len(group):
        return {}
    metrics = {"pauc": _auc(group, max_fpr)}
    for domain in DOMAINS:
        normal = ~group["anomaly"] & (group["domain"] == domain)
        # The anomalies of both domains, also where this one has no anomaly of its own.
        if normal.any():
            metrics[f"auc_{domain}"] = _auc(group[normal | group["anomaly"]])
    return metrics


def _metrics_2021(parts, max_fpr):
    metrics = {}
    for domain, part in parts.items():
        if len(part):
            metrics |= {f"auc_{domain}": _auc(part), f"pauc_{domain}": _auc(part, max_fpr)}
    return metrics


def _metrics_2020(group, max_fpr):
    return {"auc": _auc(group), "pauc": _auc(group, max_fpr)} if len(group) else {}


def _metrics_of_decisions(parts, year):
    """Precision, recall and F1, of every domain where there are domains."""
    if year == 2020:
        parts = {"": parts}
    elif year == 2021:
        parts = {f"_{domain}": part for domain, part in parts.items()}
    else:
        parts = {f"_{domain}": parts[parts["domain"] == domain] for domain in DOMAINS}
    metrics = {}
    for domain, part in parts.items():
        if part["anomaly"].nunique() == 2:
            figures = precision_recall_fscore_support(
                part["anomaly"], part["alarm"], average="binary", zero_division=0
            )
            metrics |= {metric + domain: figure for metric, figure in zip(DECIDED, figures)}
    return metrics


def _with_totals(keys, metrics, name):
    """Table of the metrics of every section, with means and rows of totals.

    Parameters
    ----------
    keys : list of tuple
        Machine and section of each row.
    metrics : DataFrame
        The metrics of each section.
    name : {"hmean", "mean"}
        The mean to take, and what it is called.
    """
    mean = _floored_hmean if name == "hmean" else _mean

    def total(rows):
        columns = {column: mean(rows[column].to_numpy()) for column in rows}
        return {**columns, name: mean(rows.to_numpy().ravel())}

    of_machine = np.array([machine for machine, _ in keys], dtype=object)
    machines = list(dict.fromkeys(of_machine))
    totals = [total(metrics[of_machine == machine]) for machine in machines]
    # The arithmetic mean is taken over machines, which may differ in their number of sections.
    overall = metrics if name == "hmean" else pd.DataFrame(totals)[metrics.columns]
    sections = [{**row, name: mean(row.to_numpy())} for _, row in metrics.iterrows()]
    table = pd.DataFrame([*sections, *totals, total(overall)])
    places = [*keys, *((machine, name) for machine in machines), ("total", name)]
    for position, column in enumerate(("machine", "section")):
        # Of type object, which keeps the None of a section without a name.
        values = pd.Series([place[position] for place in places], dtype=object)
        table.insert(position, column, values)
    return table


def _mean(values):
    """Mean of the values that are not NaN; NaN if there are none."""
    values = values[~np.isnan(values)]
    return np.mean(values) if len(values) else np.nan


def _floored_hmean(values):
    """Harmonic mean of the values that are not NaN, raised to epsilon; NaN if there are none."""
    values = values[~np.isnan(values)]
    return hmean(np.maximum(values, sys.float_info.epsilon)) if len(values) else np.nan
