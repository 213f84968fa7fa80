"""Csv files that are read back as they were written, whatever recordings are called."""

import csv
import re

from sk_asd.utils._files import replacing

NO_TEXT = "surrogateescape"  # what becomes of file names that are no valid UTF-8
# What spreadsheets calculate, full-width signs included; spaces before it do not help.
_FORMULA = re.compile(r"[ ']*[=+\-@\t\r\n＝＋－＠]")
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_SEPARATORS = {";": "semicolons", "\t": "tabs"}


def csv_rows(path):
    """Yield the rows of a csv file that are not empty.

    Parameters
    ----------
    path : str or path-like
        The file, in UTF-8.

    Yields
    ------
    number : int
        Place of the row, counted from 1.
    fields : list of str
        Its fields, as they are in the file.

    Raises
    ------
    OSError, ValueError
        If it cannot be read, is no csv file, or is not in UTF-8; the message names it.
    """
    hint = "expected UTF-8; a spreadsheet saves that as 'CSV UTF-8'"
    with open(path, "rb") as stream:
        if stream.read(2) in _UTF_16:
            raise ValueError(f"{path} is not UTF-8 but UTF-16 ('Unicode text'): {hint}.")
    with open(path, newline="", encoding="utf-8-sig", errors=NO_TEXT) as stream:
        try:
            for number, fields in enumerate(csv.reader(stream), 1):
                if any("\0" in field for field in fields):
                    raise ValueError(f"{path}, row {number}, has NUL bytes: {hint}.")
                if any(field.strip() for field in fields):
                    yield number, fields
        except csv.Error as error:
            raise ValueError(f"{path} is no csv file: {error}.") from error


def read_table(path, kind, columns):
    """Read a table that :func:`write_table`, or a spreadsheet, has written.

    Parameters
    ----------
    path : str or path-like
        The file.
    kind : str
        What it should hold, for messages, such as "scores".
    columns : sequence of str
        Columns that it must have.

    Returns
    -------
    DataFrame of str
        As text: "NA" may well be the name of a machine. The index is the place of the row in the
        file.

    Raises
    ------
    OSError, ValueError
        If it cannot be read, lacks a column, has one twice, or a row has too few or too many cells.
    """
    import pandas as pd

    rows = csv_rows(path)
    wrong = f"{path} is no csv file of {kind}"
    _, header = next(rows, (1, []))
    header = [_unguarded(name.strip()) for name in header]
    while header and not header[-1]:
        header.pop()
    if len(header) == 1:
        for sign, name in _SEPARATORS.items():
            if sign in header[0]:
                raise ValueError(f"{wrong}: its columns are separated by {name}, expected commas.")
    missing = [column for column in columns if column not in header]
    if missing:
        raise ValueError(
            f"{wrong}: it lacks the column {' and '.join(missing)}; it has "
            f"{', '.join(header) or 'none'}."
        )
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise ValueError(f"{path} has several columns {', '.join(twice)}.")
    numbers, cells = [], []
    for number, fields in rows:
        if len(fields) < len(header) or any(fields[len(header) :]):
            raise ValueError(
                f"{path}, row {number}: expected {len(header)} cells, found {len(fields)}."
            )
        numbers.append(number)
        cells.append([_unguarded(field) for field in fields[: len(header)]])
    return pd.DataFrame(cells, index=numbers, columns=header, dtype=object)


def write_table(table, path):
    """Write a DataFrame as csv under its name only when it is complete.

    Text that a spreadsheet would calculate gets an apostrophe before it, which
    :func:`read_table` takes away; numbers stay numbers.

    Parameters
    ----------
    table : DataFrame
        The table; its index is left out.
    path : str or path-like
        The file.
    """
    guarded = table.rename(columns=_guarded)
    texts = [name for name in guarded if guarded[name].dtype.kind not in "biuf"]
    for name in texts:
        guarded[name] = guarded[name].map(_guarded)
    shown = (str(value) for name in texts for value in guarded[name])
    with replacing(path) as temporary:
        guarded.to_csv(
            temporary, index=False, lineterminator="\n", quoting=quoting(shown), errors=NO_TEXT
        )


def _guarded(value):
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def _unguarded(text):
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def quoting(texts):
    r"""How texts are to be quoted so that every reader finds them again.

    csv and pandas quote no ``\r`` but take it for the end of a line, and a byte order mark at the
    start of a file is dropped.

    Parameters
    ----------
    texts : iterable of str
        All that the file will hold.

    Returns
    -------
    int
        A constant of the module :mod:`csv`.
    """
    odd = any("\r" in text or text.startswith("\ufeff") for text in texts)
    return csv.QUOTE_NONNUMERIC if odd else csv.QUOTE_MINIMAL
