"""Labels of clips as what networks learn: classes and their codes."""

import numpy as np

from sk_asd.utils._containers import column_of, metadata_of

# What tells clips apart without being a property of the machine's sound.
NOT_IN_JOINT = frozenset({"path", "sr", "split", "label", "anomaly"})


def clip_labels(X, target):
    """Class label of every clip of a labelled array.

    Parameters
    ----------
    X : DataArray
        Labelled features.
    target : str or sequence of str
        Column, columns, or ``"joint"``; see :class:`~sk_asd.embedders.SectionEmbedder`.

    Returns
    -------
    list
        Values of the column, or tuples of values, where a missing one is None.

    Raises
    ------
    ValueError
        If a column is not there, or has no value for a clip.
    """
    metadata = metadata_of(X)
    if isinstance(target, str):
        columns = [c for c in metadata if c not in NOT_IN_JOINT] if target == "joint" else [target]
    else:
        columns = list(target)
    missing = [c for c in columns if column_of(X, c) is None]
    if missing or not columns:
        raise ValueError(
            f"The target {target!r} needs columns {missing or 'that describe the clips'}; "
            f"the labels of X are {list(metadata.columns)}."
        )
    # An attribute that a machine does not have is a value like any other.
    frame = metadata[columns].astype(object)
    frame = frame.where(frame.notna(), None)
    if not isinstance(target, str) or target == "joint":
        return list(zip(*(frame[c].tolist() for c in columns)))
    if frame[target].isna().any():
        raise ValueError(
            f"The target column {target!r} has no value for {frame[target].isna().sum()} of "
            f"{len(frame)} clips."
        )
    return frame[target].tolist()


def encode(labels, key=None):
    """Sorted classes, as an array of objects, and the code of every label's class."""
    classes = sorted(set(labels), key=key)
    codes = {label: code for code, label in enumerate(classes)}
    array = np.empty(len(classes), dtype=object)
    array[:] = classes
    return array, np.array([codes[label] for label in labels])
