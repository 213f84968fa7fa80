"""Scores of clips that members were not fitted to: what a search of weights looks at."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.base import clone

from sk_asd.ensemble._by_columns import folds_of
from sk_asd.ensemble._pseudo import (
    evaluation_table,
    from_other_places,
    normal_training_rows,
    perturbed,
)
from sk_asd.ensemble._score_ensemble import ScoreEnsemble
from sk_asd.utils._containers import column_of, take_clips
from sk_asd.utils._labels import is_anomaly, leave_out


class Split(NamedTuple):
    """Test clips, what is known about them, and their scores.

    Attributes
    ----------
    ensemble : ScoreEnsemble
        Fitted to the training clips; with pseudo labels that of the last fold.
    train : ndarray of int
        Positions of the training clips.
    clips : container
        Test clips as scorers get them.
    y : ndarray of shape (n_clips,), or None
        +1 for normal, −1 for abnormal.
    matrix : ndarray of shape (n_clips, n_members)
        Standardised scores of the test clips.
    """

    ensemble: ScoreEnsemble
    train: np.ndarray
    clips: object
    y: np.ndarray | None
    matrix: np.ndarray

    def weighted(self, weights):
        """The ensemble with other weights, which need not ask its members about `clips`."""
        ensemble = _OnMatrix(**self.ensemble.get_params(deep=False))
        vars(ensemble).update(vars(self.ensemble))
        ensemble._split_known = self
        ensemble._weigh(weights)
        return ensemble


class _OnMatrix(ScoreEnsemble):
    """A fitted ensemble that knows the scores of some clips."""

    def _standardized(self, X):
        known = self._split_known
        return known.matrix if X is known.clips else super()._standardized(X)


def true_splits(ensemble, X, y, cv):
    """Scores of the test clips of every split.

    Parameters
    ----------
    ensemble : ScoreEnsemble
        Cloned for every split.
    X : container
        Clips.
    y : ndarray of shape (n_clips,), or None
        For scorers.
    cv : splitter
        Which clips to fit and which to score.

    Returns
    -------
    list of Split
        One for every split of `cv`.
    """
    splits, anomalous = [], is_anomaly(X)
    folds = list(cv.split(X, y))
    if anomalous.any():
        learnt = np.unique(np.concatenate([train for train, _ in folds]))
        leave_out(anomalous[learnt])
        folds = [(train[~anomalous[train]], test) for train, test in folds]
    for train, test in folds:
        fitted = clone(ensemble).fit(take_clips(X, train))
        clips = take_clips(X, test)
        matrix = fitted._standardized(clips)
        splits.append(Split(fitted, train, clips, None if y is None else y[test], matrix))
    return splits


def pseudo_split(ensemble, X, y, cv, pseudo, random_state):
    """Scores of held-out normal clips and of pseudo-anomalies, all folds in one matrix.

    Parameters
    ----------
    ensemble : ScoreEnsemble
        Cloned for every fold.
    X : container
        Clips, of which the normal training clips are used.
    y : ndarray of shape (n_clips,), or None
        −1 for clips to leave out.
    cv : int or splitter
        Folds of the training clips; an int is stratified and shuffled.
    pseudo : {"other", "perturbed"}
        Kind of pseudo-anomalies.
    random_state : RandomState instance
        Source of folds and pseudo-anomalies.

    Returns
    -------
    Split
        With a table of labels as `clips`.
    """
    by = [c for c in ensemble._columns() if column_of(X, c) is not None]
    rows = normal_training_rows(X, y)
    clips = take_clips(X, rows)
    seeds = random_state.randint(2**31 - 1, size=2)
    rng = np.random.default_rng(seeds[1])
    make = from_other_places if pseudo == "other" else perturbed
    matrices, tables = [], []
    columns = [*by, "machine", "section", "domain"]
    for train, test in folds_of(clips, cv, columns, random_state=seeds[0]):
        held_out = take_clips(clips, test)
        anomalies = make(held_out, by, rng)
        fitted = clone(ensemble).fit(take_clips(clips, train))
        matrices += [fitted._standardized(held_out), fitted._standardized(anomalies)]
        tables.append(evaluation_table(held_out, anomalies, by))
    table = pd.concat(tables, ignore_index=True)
    signs = np.where(table["label"] == "normal", 1, -1)
    return Split(fitted, rows, table, signs, np.vstack(matrices))
