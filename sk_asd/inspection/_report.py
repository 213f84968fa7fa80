"""A self-contained HTML report of scores: tables, plots, and the most abnormal clips explained."""

import platform
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.utils import check_consistent_length

from sk_asd import __version__
from sk_asd.inspection._figure import bare_figure, svg_uri
from sk_asd.inspection._report_clips import shown_clips
from sk_asd.inspection._roc import RocDisplay
from sk_asd.inspection._score_distribution import ScoreDistributionDisplay, score_table
from sk_asd.metrics import dcase_scores
from sk_asd.metrics._dcase import DECIDED, is_test, rules_for
from sk_asd.utils._checked_scores import checked_scores
from sk_asd.utils._files import replacing
from sk_asd.utils._labels import label_kinds

N_ABNORMAL = 5  # clips listed per machine, section and system
_WORDS = {"auc": "AUC", "pauc": "pAUC", "f1": "F1"}  # in names of columns


def write_report(
    path,
    clips,
    scores,
    *,
    thresholds=None,
    rules=None,
    title="Anomalous sounds",
    settings=None,
    parts=None,
    more_tables=None,
    explain=None,
):
    """Write a report of the scores of test clips as one HTML file.

    The file needs nothing else: styles, figures and sounds are inside, and no request leaves it.
    It holds the official table of every system and, where thresholds are known, precision, recall
    and F1 of its decisions, and for every machine its own tables, for every
    section of it histograms of the scores, ROC curves with the region of the partial AUC and a list
    of the most abnormal clips, and then those clips that are explained.

    Parameters
    ----------
    path : str or path-like
        The file to write. Its folder must exist.
    clips : DataFrame
        Clip table, of which the test clips with a label are shown. It has the columns ``machine``,
        ``section``, ``domain`` and ``label``, and ``path`` where known; ``audio`` is not needed.
    scores : dict of str to array-like of shape (n_clips,)
        Name of each system and its scores, high = normal.
    thresholds : dict of str to array-like of shape (n_clips,), default=None
        Score below which a clip is called abnormal, for systems where it is known.
    rules : {2020, 2021, 2022}, default=None
        Year of the rules of the table; None as in :func:`~sk_asd.metrics.dcase_scores`.
    title : str, default="Anomalous sounds"
        Title of the report.
    settings : dict of str to object, default=None
        Shown in the overview.
    parts : array-like of str of shape (n_clips,), default=None
        Part of the data that each clip is from, such as "dev_data" and "eval_data"; each has an
        official table of its own.
    more_tables : dict of str to DataFrame, default=None
        Further tables by heading.
    explain : list of dict, default=None
        Clips that are shown with spectrogram, anomaly map, contributions and the nearest normal
        clip, all to be played, as :func:`explain_clips` gathers them. Sounds are cut and lowered
        in sample rate, where there are many, so that all of them take 7 MB.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    ImportError
        If jinja2 or matplotlib is not installed.
    TypeError
        If `scores` is no dict.
    ValueError
        If there are no systems, their scores are NaN or +inf, or do not fit the clips.

    Examples
    --------
    >>> import pandas as pd, tempfile
    >>> from pathlib import Path
    >>> from sk_asd.inspection import write_report
    >>> clips = pd.DataFrame(
    ...     {"machine": "fan", "section": "00", "domain": ["source", "target"] * 2,
    ...      "label": ["normal", "normal", "anomaly", "anomaly"]}
    ... )
    >>> folder = Path(tempfile.mkdtemp())
    >>> write_report(folder / "report.html", clips, {"mine": [1.0, 0.9, 0.2, 0.1]}).name
    'report.html'
    """
    require_extra()
    import jinja2

    scores = _check_scores(scores, clips, "scores")
    thresholds = _check_scores(thresholds or {}, clips, "thresholds", may_be_empty=True)
    unknown = set(thresholds) - set(scores)
    if unknown:
        raise ValueError(f"thresholds name systems without scores: {sorted(unknown)}.")
    # Training clips and clips without a label are in no table, so in no figure either.
    clips = clips.assign(label=label_kinds(clips))
    counted = is_test(clips) & clips["label"].notna().to_numpy()
    clips = clips[counted].reset_index(drop=True)
    scores = {name: values[counted] for name, values in scores.items()}
    if parts is not None:
        check_consistent_length(counted, parts)
        parts = np.asarray(parts, dtype=object)[counted]
    thresholds = {name: values[counted] for name, values in thresholds.items()}
    template = jinja2.Environment(
        loader=jinja2.PackageLoader("sk_asd.inspection"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    ).get_template("report.html")
    rules = rules_for(clips) if rules is None else rules
    decisions = {name: np.where(scores[name] < t, -1, 1) for name, t in thresholds.items()}
    systems = {name: (values, decisions.get(name)) for name, values in scores.items()}
    tables = list(_tables(clips, systems, rules, parts))
    html = template.render(
        title=title,
        overview=_overview(clips, scores, rules, settings or {}),
        tables=tables,
        more_tables=[(name, *_plain_table(table)) for name, table in (more_tables or {}).items()],
        machines=_machines(clips, scores, thresholds, tables, explain or []),
    )
    path = Path(path)
    with replacing(path) as temporary:
        # Names of files may be no text at all.
        temporary.write_text(html, encoding="utf-8", errors="backslashreplace")
    return path


def require_extra():
    """Check that the libraries of the extra ``report`` are there.

    Raises
    ------
    ImportError
        With the command that installs them.
    """
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f'the report needs {error.name}, which is not installed: pip install "sk_asd[report]"',
            name=error.name,
        ) from error


def percent_rows(table):
    """Headers and rows of an official table, its figures in percent.

    Parameters
    ----------
    table : DataFrame
        As :func:`~sk_asd.metrics.dcase_scores` returns it.

    Returns
    -------
    headers : list of str
        Column names.
    rows : list of lists
        Cells: text, or a number in percent (NaN where undefined).
    """
    numeric = [pd.api.types.is_float_dtype(table[name]) for name in table.columns]
    rows = [
        [100.0 * cell if number else cell for cell, number in zip(row, numeric)]
        for row in table.itertuples(index=False)
    ]
    headers = [" ".join(_WORDS.get(w, w) for w in name.split("_")) for name in table.columns]
    return headers, rows


def apart(table):
    """An official table without decisions, and one of these, where they are in it, by a heading."""
    decided = [name for name in table.columns if name.startswith(DECIDED)]
    tables = {"": table.drop(columns=decided)}
    if decided:
        tables["decisions"] = table[["machine", "section", *decided]]
    return tables


def _check_scores(scores, clips, what, may_be_empty=False):
    if not isinstance(scores, Mapping):
        raise TypeError(f"{what} must be a dict of system names, got {type(scores).__name__}.")
    if not scores and not may_be_empty:
        raise ValueError(f"{what} names no system.")
    checked = {}
    for name, values in scores.items():
        check_consistent_length(clips, values)
        checked[name] = checked_scores(values, f"{what} of {name!r}: found")
    return checked


def _overview(clips, scores, rules, settings):
    """Pairs of name and text at the top of the report."""
    labels = clips["label"].value_counts()
    machines = {
        machine: ", ".join(sorted(rows["section"].dropna().unique()))
        for machine, rows in clips.groupby("machine")
    }
    packages = {name: version(name) for name in ("scikit-learn", "torch", "numpy")}
    return [
        ("Clips", f"{len(clips)} ({', '.join(f'{n} {label}' for label, n in labels.items())})"),
        ("Machines", "; ".join(f"{m} (section {s})" if s else m for m, s in machines.items())),
        ("Systems", ", ".join(scores)),
        *((str(name), str(value)) for name, value in settings.items()),
        ("Rules", f"DCASE Task 2, {rules}"),
        (
            "Versions",
            ", ".join(
                f"{name} {number}"
                for name, number in {
                    "sk_asd": __version__,
                    "Python": platform.python_version(),
                    **packages,
                }.items()
            ),
        ),
        ("Date", datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")),
    ]


def _tables(clips, systems, rules, parts):
    """Official tables of all systems and parts: names, headers, texts, and columns of numbers."""
    for name, (scores, decisions) in systems.items():
        for part in [None] if parts is None else dict.fromkeys(parts):
            rows = slice(None) if part is None else parts == part
            decided = None if decisions is None else decisions[rows]
            figures = dcase_scores(clips[rows], scores[rows], decided, rules=rules)
            for what, table in apart(figures).items():
                headers, cells = percent_rows(table)
                heading = ", ".join(filter(None, (name, part, what)))
                yield heading, headers, _formatted(cells), [i > 1 for i in range(len(headers))]


def _plain_table(table):
    """Headers, formatted rows, and which columns hold numbers."""
    numbers = [pd.api.types.is_numeric_dtype(table[name]) for name in table.columns]
    return list(table.columns), _formatted(table.to_numpy(dtype=object).tolist()), numbers


def _formatted(rows):
    """Cells as text: numbers with two decimals."""
    return [
        [("–" if np.isnan(c) else f"{c:.2f}") if isinstance(c, float) else c or "" for c in row]
        for row in rows
    ]


def _machines(clips, scores, thresholds, tables, explain):
    """What the report shows of each machine: tables, sections, and clips that are explained."""
    machines = []
    known = set(_texts(clips["machine"]))
    strange = sorted({_text(clip["machine"]) for clip in explain} - known)
    if strange:
        raise ValueError(f"explain has clips of {strange}, which are no machines of the report.")
    shown = shown_clips(explain)
    for machine, rows in clips.groupby("machine", dropna=False).indices.items():
        sections = clips.iloc[rows].groupby("section", dropna=False).indices.items()
        machines.append(
            {
                "name": _text(machine),
                "tables": [_of_machine(machine, *table) for table in tables],
                "groups": [
                    _group(clips, rows[inside], machine, section, scores, thresholds)
                    for section, inside in sections
                ],
                "clips": [
                    shown[i]
                    for i, clip in enumerate(explain)
                    if _text(clip["machine"]) == _text(machine)
                ],
            }
        )
    return machines


def _text(value):
    """A value as text, empty where it is missing."""
    return "" if pd.isna(value) else str(value)


def _of_machine(machine, name, headers, rows, numbers):
    """Rows of a table about one machine, without its name."""
    return name, headers[1:], [row[1:] for row in rows if row[0] == machine], numbers[1:]


def _group(clips, rows, machine, section, scores, thresholds):
    """What the report shows of one machine and section."""
    part = clips.iloc[rows]
    systems = []
    for name, values in scores.items():
        values = values[rows]
        limits = thresholds[name][rows] if name in thresholds else None
        kinds = score_table(part, values)["kind"].to_numpy()
        both = 0 < (kinds == "anomaly").sum() < len(kinds)
        distribution = _svg(ScoreDistributionDisplay, part, values, thresholds=limits)
        systems.append(
            {
                "name": name,
                "histogram": distribution,
                "roc": _svg(RocDisplay, part, values) if both else None,
                "decisions": None if limits is None else _decisions(values < limits, kinds),
                "abnormal": _most_abnormal(part, values, limits),
            }
        )
    heading = " ".join(filter(None, (_text(machine), _text(section))))
    return {"heading": heading or "all clips", "systems": systems}


def _svg(display, clips, scores, **options):
    # The heading says which machine and section.
    clips = clips.drop(columns=["machine", "section"])
    figure, ax = bare_figure()
    display.from_predictions(clips, scores, ax=ax, **options)
    return svg_uri(figure)


def _texts(column):
    """Values of a column of text, missing ones empty."""
    return [_text(value) for value in column]


def _decisions(flagged, kinds):
    """Counts of the decisions, as a sentence."""
    anomalous = kinds == "anomaly"
    n_false = (flagged & ~anomalous).sum()
    return (
        f"At the threshold {(flagged & anomalous).sum()} of {anomalous.sum()} anomalies are found, "
        f"with {n_false} false alarm{'' if n_false == 1 else 's'} among {(~anomalous).sum()} "
        "normal clips."
    )


def _most_abnormal(clips, scores, limits):
    """Rows of the clips with the lowest scores."""
    names = [Path(p).name for p in clips["path"]] if "path" in clips.columns else clips.index
    domains = _texts(clips["domain"])
    order = np.argsort(scores, kind="stable")[:N_ABNORMAL]
    return [
        {
            "name": names[i],
            "domain": domains[i],
            "label": clips["label"].iloc[i],
            "score": f"{scores[i]:.4g}",
            "flagged": "" if limits is None else "anomaly" if scores[i] < limits[i] else "normal",
        }
        for i in order
    ]
