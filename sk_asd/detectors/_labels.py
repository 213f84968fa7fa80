"""Labels of clips that a network learns from."""

from sk_asd.utils._containers import column_of


def clip_labels(X, column, parameter):
    """Values of a label column, one per clip.

    Parameters
    ----------
    X : container
        Input of a detector.
    column : str
        The column.
    parameter : str
        Parameter that asks for it, for the message.

    Returns
    -------
    list
        The values, as they are.

    Raises
    ------
    ValueError
        If `X` does not carry the column.
    """
    values = column_of(X, column)
    if values is None:
        raise ValueError(
            f"{parameter} needs the column {column!r} among the labels of X, found "
            f"{type(X).__name__} without it: give a labelled array from an extractor."
        )
    return values.tolist()


def sorted_classes(values, column):
    """The distinct values, sorted.

    Raises
    ------
    ValueError
        If one is missing.
    """
    # NaN is the only value that is not itself.
    missing = [i for i, value in enumerate(values) if value is None or value != value]
    if missing:
        raise ValueError(
            f"Column {column!r} has no value for {len(missing)} of {len(values)} clips, the first "
            f"at position {missing[0]}."
        )
    return sorted(set(values), key=str)
