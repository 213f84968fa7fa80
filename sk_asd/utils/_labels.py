"""Labels of clips that estimators are fitted by."""

import numpy as np
import pandas as pd

from sk_asd.utils._containers import column_of


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
            raise ValueError(
                f"{parameter} needs the column {name!r} among the labels of X, found "
                f"{type(X).__name__} without it: give a labelled array from an extractor."
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
