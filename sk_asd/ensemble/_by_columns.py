"""Groups of clips by columns known at test time, and the containers that carry the columns."""

import warnings
from numbers import Integral

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedKFold, check_cv

from sk_asd.utils._containers import (
    as_clips,
    check_clip_table,
    column_of,
    is_clip_table,
    is_labelled,
)
from sk_asd.utils._labels import clip_labels
from sk_asd.utils._sklearn import _num_samples
from sk_asd.utils._text import composed

# The default of `by`: those of the columns that are there. Of other columns all must be.
BY = ("machine", "section")
_LOST = (
    " Transformers such as PCA lose the labels: wrap them in sk_asd.features.KeepLabels. So does "
    "set_output: leave it out."
)


class ByColumns:
    """Mixin for estimators with the parameter `by`: a column, several, or None for one group.

    ``_by`` is a fitted attribute: the columns that were there in ``fit``.
    """

    def _columns(self):
        """Columns of the groups: before ``fit`` those of the parameter."""
        return getattr(self, "_by", None) or self._asked()

    def _asked(self):
        if self.by is None:
            return []
        return [self.by] if isinstance(self.by, str) else list(self.by)

    @property
    def group_columns_(self):
        """Columns that make the groups; none where no label reached ``fit``."""
        return tuple(self._columns()) if self._labelled else ()

    def split_groups(self, X):
        """Take clips apart into what is inside and the groups.

        Parameters
        ----------
        X : container of clips
            As in ``fit``.

        Returns
        -------
        X : container of clips
            What is given to the estimators inside.
        groups : ndarray of shape (n_clips,)
            Group of every clip: a value for one column, a tuple for several, None for the only
            group.
        """
        return self._split(as_clips(X), reset=False)

    def describe(self, name):
        """Words for a group, for messages.

        Parameters
        ----------
        name : object
            The group.

        Returns
        -------
        str
            Columns and values.
        """
        if name is None:
            return "The only group"
        values = name if isinstance(name, tuple) else (name,)
        return "Group " + ", ".join(f"{c}={v!r}" for c, v in zip(self._columns(), values))

    def _find_groups(self, X, reset, stacklevel):
        """Group of every clip; one for all where no label is there (or was there in ``fit``).

        Raises
        ------
        ValueError
            If only some of the columns are there, unless they are those of the default in
            ``fit``; if a clip has no value, or if the labels are missing that ``fit`` had.
        """
        columns = self._asked() if reset else self._columns()
        found = [c for c in columns if column_of(X, c) is not None]
        if found and len(found) < len(columns) and not (reset and self.by == BY):
            raise ValueError(f"Of the columns by={columns} only {found} are there.")
        if reset:
            self._by = found or columns
        if columns and not found:
            hint = f"No column {columns} among the labels of the {type(X).__name__}"
            lost = "" if is_labelled(X) or is_clip_table(X) else _LOST
            if not reset and self._labelled:
                todo = lost or " Give a clip table that has it; names of files alone do not tell."
                raise ValueError(f"{hint}, but the detector was fitted with it.{todo}")
            if reset:
                warnings.warn(
                    f"{hint}: all clips make one group.{lost}", UserWarning, stacklevel=stacklevel
                )
        if reset:
            self._labelled = bool(found)
        return labels_of(X, found) if self._labelled else one_group(X)

    def _check_container(self, X, reset):
        """Check a clip table or labelled array; tell whether `X` is one."""
        if is_clip_table(X):
            check_clip_table(X)
            return True
        if not is_labelled(X):
            return False
        if len(X) == 0:
            raise ValueError("Found a labelled array of 0 clips, expected at least 1.")
        if reset:
            self.n_features_in_ = X.shape[1]
        elif X.shape[1] != getattr(self, "n_features_in_", X.shape[1]):
            raise ValueError(
                f"X has {X.shape[1]} features, but {type(self).__name__} is expecting "
                f"{self.n_features_in_} features as input."
            )
        return True


def labels_of(X, columns, parameter="by"):
    """Label of every clip: a value for one column, a tuple for several."""
    columns = columns[0] if len(columns) == 1 else columns
    values = clip_labels(X, columns, parameter, known=True)
    labels = np.empty(len(values), dtype=object)
    labels[:] = [group_name(value) for value in values]
    return labels


def group_name(group):
    """Name of a group that a user has given, as :func:`labels_of` makes it."""
    return tuple(map(composed, group)) if isinstance(group, (list, tuple)) else composed(group)


def one_group(X):
    """The groups of clips without labels."""
    return np.full(_num_samples(X), None)


def rows_by_group(groups):
    """Positions of the clips of each group, in order of first appearance."""
    rows = {}
    for position, group in enumerate(groups):
        rows.setdefault(group, []).append(position)
    return rows


def folds_of(X, cv, columns, random_state):
    """Positions to train on and to score, for every fold of a splitter.

    An int is a number of shuffled folds, stratified by those of `columns` that are there.
    """
    if isinstance(cv, Integral):
        cv = StratifiedKFold(cv, shuffle=True, random_state=random_state)
    with warnings.catch_warnings():
        # The few clips of the target domain need not be in every fold.
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        return list(check_cv(cv).split(X, strata_of(X, columns)))


def strata_of(X, columns):
    """A number for every clip, the same for those that agree in all of `columns` that are there."""
    found = [column_of(X, c) for c in dict.fromkeys(columns)]
    found = [values.astype(str) for values in found if values is not None]
    if not found:
        return np.zeros(_num_samples(X), dtype=int)
    return pd.MultiIndex.from_arrays(found).factorize()[0]
