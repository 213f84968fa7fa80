"""Labels of clips: what the column ``label`` says, that normal clips alone are learnt, classes."""

import sys
import warnings
from numbers import Real

import numpy as np
import pandas as pd
from sklearn.utils import check_consistent_length

from sk_asd.utils._containers import LABEL, as_clips, column_of, metadata_of, take_clips

NORMAL, ANOMALY = "normal", "anomaly"
# Words for them, in small letters.
LABEL_WORDS = {
    **dict.fromkeys(("normal", "ok", "good"), NORMAL),
    **dict.fromkeys(("anomaly", "anomalous", "abnormal", "nok", "fault", "faulty"), ANOMALY),
    **dict.fromkeys(("bad", "defect", "defective"), ANOMALY),
}
# What tables say beside, but no name of a folder.
LABEL_CODES = {"0": NORMAL, "false": NORMAL, "1": ANOMALY, "true": ANOMALY}
_KNOWN = LABEL_WORDS | LABEL_CODES

# Whose frames are passed over on the way to the line that a warning is about.
_INNER = {"sk_asd", "sklearn", "joblib"}


def normal_clips(X, y=None):
    """Leave out clips that are labelled as anomalies: the first thing that every ``fit`` does.

    Parameters
    ----------
    X : container
        Clips; one without the column or coordinate ``label`` is returned as it is, names of files
        as a clip table.
    y : array-like of shape (n_clips,) or (n_clips, n_targets), default=None
        What else is known about the clips.

    Returns
    -------
    X, y : container
        Those of the other clips.

    Raises
    ------
    ValueError
        If all clips are labelled as anomalies, or one has a label that is not understood.

    Warns
    -----
    UserWarning
        With the number of clips that are left out.
    """
    X = as_clips(X)
    anomalous = is_anomaly(X)
    if not anomalous.any():
        return X, y
    if y is not None:
        check_consistent_length(anomalous, y)
        y = y if hasattr(y, "iloc") else np.asarray(y)
    rows = np.flatnonzero(leave_out(anomalous))
    return take_clips(X, rows), None if y is None else take_clips(y, rows)


def leave_out(anomalous):
    """Mask of the clips to learn, given that of the anomalies; warns and raises for `normal_clips`.

    Parameters
    ----------
    anomalous : ndarray of bool of shape (n_clips,)
        Clips that are labelled as anomalies.

    Returns
    -------
    ndarray of bool of shape (n_clips,)
        The other ones.
    """
    n_anomalies = int(anomalous.sum())
    if n_anomalies == len(anomalous) > 0:
        raise ValueError(
            f"All {n_anomalies} training clips are labelled as anomalies: there is no normal clip "
            "to learn."
        )
    if n_anomalies:
        warnings.warn(
            f"{n_anomalies} of {len(anomalous)} training clips are labelled as anomalies: left "
            "out, since only normal clips are learnt.",
            UserWarning,
            stacklevel=users_level(),
        )
    return ~anomalous


def is_anomaly(X):
    """Mask of the clips that are labelled as anomalies, all False without labels."""
    kinds = label_kinds(X)
    if kinds is None:
        return np.zeros(0, dtype=bool)
    return kinds == ANOMALY


def label_kinds(X):
    """What the column ``label`` says about every clip.

    Parameters
    ----------
    X : container
        Clip table, DataFrame or labelled array.

    Returns
    -------
    ndarray of shape (n_clips,) or None
        ``"normal"``, ``"anomaly"`` or None where it is missing; None in place of the array where
        `X` has no such column.

    Raises
    ------
    ValueError
        If a label is none of ``LABEL_WORDS`` and ``LABEL_CODES``.
    """
    values = column_of(X, LABEL)
    if values is None:
        return None
    paths = column_of(X, "path")
    return kinds_of_labels(values, [None] * len(values) if paths is None else paths)


def kinds_of_labels(values, names):
    """As :func:`label_kinds`, of the values of the column and, for messages, the clips' names."""
    texts = [_text(value) for value in values]
    unknown = [row for row, text in enumerate(texts) if text is not None and text not in _KNOWN]
    if unknown:
        raise ValueError(_not_understood(values, texts, names, unknown))
    kinds = np.empty(len(texts), dtype=object)
    kinds[:] = [_KNOWN.get(text) for text in texts]
    return kinds


def _not_understood(values, texts, names, unknown):
    rows = {}
    for row in unknown:
        rows.setdefault(texts[row], []).append(row)
    found = []
    for first, *others in rows.values():
        name = names[first] if isinstance(names[first], str) else f"the clip at position {first}"
        found.append(f"{values[first]!r} for {name} ({1 + len(others)} of {len(texts)} clips)")
    more = f"; and {len(found) - 5} more" if len(found) > 5 else ""
    words = [", ".join(w for w in _KNOWN if _KNOWN[w] == kind) for kind in (NORMAL, ANOMALY)]
    return (
        f"The column {LABEL!r} must hold 'normal' or 'anomaly' or be empty, found "
        f"{'; '.join(found[:5])}{more}. Understood are, for normal clips, {words[0]}; for "
        f"anomalies, {words[1]}."
    )


def _text(value):
    """A label as the table above has it, None where it is missing."""
    if isinstance(value, (Real, np.bool_)) or value is None or value is pd.NA or value is pd.NaT:
        return None if pd.isna(value) else f"{float(value):g}"
    text = str(value).strip().casefold()
    if text and text not in _KNOWN:
        try:
            return f"{float(text):g}"  # "1.0"
        except ValueError:
            pass
    return text or None


def clip_labels(X, columns, parameter, *, known=False):
    """Label of every clip: its value in one column, a tuple of its values in several.

    Parameters
    ----------
    X : container
        Input of an estimator.
    columns : str or sequence of str
        The columns.
    parameter : str
        Parameter that asks for them, for the message.
    known : bool, default=False
        Refuse missing values.

    Returns
    -------
    list
        The labels, as they are.

    Raises
    ------
    ValueError
        If `X` does not carry a column, or a value is missing and `known`.
    """
    values = []
    for name in [columns] if isinstance(columns, str) else columns:
        column = column_of(X, name)
        if column is None:
            found = metadata_of(X)
            raise ValueError(
                f"{parameter} needs the column {name!r} among the labels of X, found "
                f"{type(X).__name__} with {'none' if found is None else list(found)}: give a "
                "labelled array from an extractor."
            )
        missing = pd.isna(column)
        if known and missing.any():
            raise ValueError(
                f"Column {name!r} has no value for {missing.sum()} of {len(column)} clips, "
                f"the first at position {int(np.argmax(missing))}."
            )
        values.append(column.tolist())
    return values[0] if isinstance(columns, str) else list(zip(*values))


def sorted_classes(labels):
    """The distinct labels, sorted as text."""
    return sorted(set(labels), key=str)


def users_level():
    """``stacklevel`` of the line outside of libraries, where one warning is shown once."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals["__name__"].split(".")[0] in _INNER:
        frame, level = frame.f_back, level + 1
    return level
