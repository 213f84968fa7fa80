"""Small csv files that are read back as they were written, whatever recordings are called."""

import csv

NO_TEXT = "surrogateescape"  # what becomes of file names that are no valid UTF-8


def csv_rows(path):
    """Yield the rows of a csv file that are not empty.

    Parameters
    ----------
    path : str or path-like
        The file.

    Yields
    ------
    number : int
        Place of the row, counted from 1.
    fields : list of str
        Its fields.

    Raises
    ------
    OSError, ValueError
        If it cannot be read, or is no csv file; the message names it.
    """
    with open(path, newline="", encoding="utf-8-sig", errors=NO_TEXT) as stream:
        try:
            for number, fields in enumerate(csv.reader(stream), 1):
                if fields:
                    yield number, fields
        except csv.Error as error:
            raise ValueError(f"{path} is no csv file: {error}.") from error


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
