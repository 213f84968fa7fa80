"""The csv files that DCASE Challenge Task 2 asks its participants for."""

import csv
import math
from pathlib import Path

import numpy as np
import pandas as pd

from sk_asd.datasets._csv import NO_TEXT, csv_rows, quoting
from sk_asd.datasets._names import section_name, stem_of, without_suffix
from sk_asd.metrics._dcase import DOMAINS, _aligned, _year, alarms, is_test
from sk_asd.utils._containers import column_of
from sk_asd.utils._files import replacing
from sk_asd.utils._text import composed

_N_SHOWN = 3


def write_submission(clips, scores, decisions, folder, *, rules=2022):
    """Write scores and decisions of test clips as the challenge asks for them.

    Parameters
    ----------
    clips : DataFrame or DataArray
        Clip table, or an array labelled from one, with ``path``, ``machine``, ``section``, and
        under the rules of 2021 ``domain``. Rows whose ``split`` is not ``"test"`` are left out.
    scores : array-like of shape (n_clips,)
        Scores as `score_samples` gives them: high = normal. The files hold their negative.
    decisions : array-like of shape (n_clips,) or None
        Decisions as `predict` gives them: 1 normal, -1 anomaly. The files hold 0 and 1. None, and
        the rules of 2020, write no decisions.
    folder : str or path-like
        Folder for the files; made if it is missing. Other files in it are left alone.
    rules : {2020, 2021, 2022}, default=2022
        Year of the rules. Those of 2022 also hold for the years after it.

    Returns
    -------
    list of pathlib.Path
        The files, in the order in which they were written.

    Raises
    ------
    ValueError
        If a machine, section, domain or path is missing, no file can be named after one of them,
        two clips of a file have one name, a score is not finite, or a decision is not 1 or -1.
        Nothing is written then.

    See Also
    --------
    read_submission : Reads them back.

    Notes
    -----
    Rows are ``<file name>,<value>`` in the order of the names, without a header, and end with LF.
    A section that is a number, as csv files make it, gets its two digits back. The names of the
    files:

    =====  ========================================================
    rules  file
    =====  ========================================================
    2020   ``anomaly_score_<machine>_id_<dd>.csv``
    2021   ``anomaly_score_<machine>_section_<dd>_<domain>_test.csv``
    2022   ``anomaly_score_<machine>_section_<dd>_test.csv``
    =====  ========================================================

    and from 2021 on the same with ``decision_result``. The official evaluator sorts the rows by
    name and aligns them with the ground truth by position, so every clip must be there.

    A file appears under its name only when it is complete.

    Examples
    --------
    >>> import tempfile
    >>> import pandas as pd
    >>> from sk_asd.metrics import write_submission
    >>> clips = pd.DataFrame({"path": ["b.wav", "a.wav"], "machine": "fan", "section": "03"})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for file in write_submission(clips, [-1.5, 0.25], [-1, 1], folder):
    ...         print(file.name, file.read_text().splitlines())
    anomaly_score_fan_section_03_test.csv ['a.wav,-0.25', 'b.wav,1.5']
    decision_result_fan_section_03_test.csv ['a.wav,0', 'b.wav,1']
    """
    year = _year(rules)
    table = _table(clips, year)
    # Adding 0 turns -0.0, which is no score, into 0.0.
    table["anomaly_score"] = 0.0 - _aligned(scores, clips)[table["row"]]
    bad = ~np.isfinite(table["anomaly_score"])
    if bad.any():
        raise ValueError(
            f"{bad.sum()} of {len(table)} scores are not finite, such as that of "
            f"{table['name'][bad].iloc[0]}."
        )
    columns = ["anomaly_score"]
    if decisions is not None and year > 2020:
        table["decision_result"] = alarms(decisions, clips, table["row"]).astype(int)
        columns.append("decision_result")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for tail, rows in _groups(table, year):
        for column in columns:
            path = folder / f"{column}_{tail}.csv"
            with (
                replacing(path) as temporary,
                open(temporary, "w", newline="", encoding="utf-8", errors=NO_TEXT) as stream,
            ):
                values = rows[column].tolist()  # Python's numbers, written so that they read back
                writer = csv.writer(stream, lineterminator="\n", quoting=quoting(rows["name"]))
                writer.writerows(zip(rows["name"], values))
            written.append(path)
    return written


def read_submission(folder, clips, *, rules=2022):
    """Read scores and decisions of test clips from the files of a participant.

    Parameters
    ----------
    folder : str or path-like
        Folder with the files that :func:`write_submission` names.
    clips : DataFrame or DataArray
        Clip table, or an array labelled from one, of the clips that the files must list. Rows whose
        ``split`` is not ``"test"`` are left out.
    rules : {2020, 2021, 2022}, default=2022
        Year of the rules.

    Returns
    -------
    DataFrame
        One row a test clip, in the order and with the index of `clips`: ``score`` (high = normal),
        and where there are files of decisions ``decision`` (1 normal, -1 anomaly).

    Raises
    ------
    FileNotFoundError
        If a file of scores is missing, or there are decisions of some sections only.
    ValueError
        If a row is none, a value is wrong, or the clips of a file are not those of the table.

    See Also
    --------
    write_submission : Writes them.

    Notes
    -----
    Clips are found by name, whatever the suffix of the file.
    """
    year = _year(rules)
    folder = Path(folder)
    table = _table(clips, year)
    groups = list(_groups(table, year))
    columns = ["anomaly_score"]
    # macOS may have decomposed their names.
    there = {composed(path.name): path for path in sorted(folder.glob("*.csv"))}
    if any(f"decision_result_{tail}.csv" in there for tail, _ in groups):
        columns.append("decision_result")
    for column in columns:
        names = [f"{column}_{tail}.csv" for tail, _ in groups]
        files = [there.get(name, folder / name) for name in names]
        values = [_read_file(file, rows) for file, (_, rows) in zip(files, groups)]
        table[column] = pd.concat(values)
    index = clips.index[table["row"]] if isinstance(clips, pd.DataFrame) else table["row"].to_list()
    result = pd.DataFrame({"score": 0.0 - table["anomaly_score"].to_numpy()}, index=index)
    if "decision_result" in table:
        result["decision"] = 1 - 2 * table["decision_result"].to_numpy().astype(int)
    return result


def _table(clips, year):
    """Test clips: row in `clips`, name, machine, section and, in 2021, domain."""
    rows = np.flatnonzero(is_test(clips))
    table = pd.DataFrame({"row": rows})
    keys = ["path", "machine", "section", *(["domain"] if year == 2021 else [])]
    for column in keys:
        values = column_of(clips, column)
        if values is None:
            raise ValueError(f"The clips lack the column {column!r}.")
        table[column] = np.asarray(values, dtype=object)[rows]
        unknown = table[column].isna()
        if unknown.any():
            raise ValueError(
                f"The {column} is unknown for {unknown.sum()} of {len(rows)} test clips, such as "
                f"{table['path'][unknown].iloc[0]}."
            )
    table["machine"] = table["machine"].map(composed)
    table["section"] = table["section"].map(section_name)
    for column in keys[1:]:
        for value in table[column].unique():
            if Path(str(value)).name != str(value):
                raise ValueError(f"The {column} {value!r} cannot be a part of a file name.")
    if year == 2021 and not table["domain"].isin(DOMAINS).all():
        raise ValueError(
            f"The column 'domain' must hold {' or '.join(map(repr, DOMAINS))}, found "
            f"{sorted(set(table['domain']).difference(DOMAINS))}."
        )
    table["name"] = [Path(path).name for path in table["path"]]
    table["stem"] = [without_suffix(name) for name in table["name"]]
    repeated = table.duplicated([*keys[1:], "stem"])
    if repeated.any():
        stem = table["stem"][repeated].iloc[0]
        raise ValueError(f"Two test clips of one machine and section are called {stem}.")
    return table


def _groups(table, year):
    """Yield the end of the file name, and the rows of that file in the order of their names."""
    keys = ["machine", "section", *(["domain"] if year == 2021 else [])]
    pattern = {2020: "{}_id_{}", 2021: "{}_section_{}_{}_test"}.get(year, "{}_section_{}_test")
    for key, rows in table.sort_values("name").groupby(keys):
        yield pattern.format(*key), rows


def _read_file(path, clips):
    """Values of one file, with the index of its clips."""
    found, known = {}, set(clips["stem"])
    for line, row in csv_rows(path):
        name, value = _read_row(path, line, row)
        stem = without_suffix(name)
        if stem not in known:
            stem = stem_of(name)  # of a path, on any system, or with spaces around
        if stem in found:
            raise ValueError(f"{path}, line {line}: {name} is there twice.")
        found[stem] = value
    lacking = [stem for stem in clips["stem"] if stem not in found]
    extra = sorted(set(found).difference(clips["stem"]))
    if lacking or extra:
        raise ValueError(
            f"{path} must list the {len(clips)} test clips: it lacks {_some(lacking)}, and "
            f"{_some(extra)} should not be there."
        )
    return pd.Series([found[stem] for stem in clips["stem"]], index=clips.index)


def _read_row(path, line, row):
    decision = path.name.startswith("decision_result_")
    try:
        name, text = row
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or (decision and value not in (0, 1)):
        wanted = "0 or 1" if decision else "finite number"
        raise ValueError(f"{path}, line {line}: expected <file name>,<{wanted}>, found {row}.")
    return name, value


def _some(names):
    if not names:
        return "none"
    more = "" if len(names) <= _N_SHOWN else f" and {len(names) - _N_SHOWN} more"
    return ", ".join(names[:_N_SHOWN]) + more
