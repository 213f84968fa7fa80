"""Labels of clips as what networks learn: classes and their codes."""

import numpy as np
import pandas as pd

from sk_asd.utils._containers import metadata_of
from sk_asd.utils._labels import clip_labels

# What tells clips apart without being a property of the machine's sound.
NOT_IN_JOINT = frozenset({"path", "sr", "split", "label", "anomaly"})


def target_labels(X, target):
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
        If a column is not there, or the only one has no value for a clip.
    """
    if isinstance(target, str) and target != "joint":
        return clip_labels(X, target, "target", known=True)
    columns = list(target)
    if target == "joint":
        columns = [c for c in metadata_of(X) if c not in NOT_IN_JOINT]
    if not columns:
        raise ValueError(f"target={target!r} has no columns that describe the clips.")
    # An attribute that a machine does not have is a value like any other.
    labels = clip_labels(X, columns, "target")
    return [tuple(None if pd.isna(value) else value for value in label) for label in labels]


def encode(labels, key=None):
    """Sorted classes, as an array of objects, and the code of every label's class."""
    classes = sorted(set(labels), key=key)
    codes = {label: code for code, label in enumerate(classes)}
    array = np.empty(len(classes), dtype=object)
    array[:] = classes
    return array, np.array([codes[label] for label in labels])
