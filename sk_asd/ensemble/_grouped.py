"""One detector per section, machine or any other group of clips."""

import warnings

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from sklearn.base import BaseEstimator, OutlierMixin, clone
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted, validate_data

from sk_asd.detectors import KNNDetector
from sk_asd.utils._containers import (
    check_clip_table,
    column_of,
    is_clip_table,
    is_labelled,
    take_clips,
)
from sk_asd.utils._sklearn import HasMethods, StrOptions, _fit_context, _num_samples


class GroupedDetector(OutlierMixin, BaseEstimator):
    """One outlier detector per value of a column known at test time.

    The column is found among the clip coordinates of a labelled array, or among the columns of a
    DataFrame, which it then leaves out of the features (a clip table is passed on whole). Where no
    label reaches it in ``fit``, it fits one group and warns.

    Parameters
    ----------
    detector : outlier detector, default=None
        Any detector with scikit-learn's interface, a Pipeline that ends in one, or a detector of
        PyOD; None is :class:`~sk_asd.detectors.KNNDetector`.
    by : str or sequence of str, default="section"
        Column, or columns whose combinations make the groups.
    over : str, default=None
        Column known in training only, such as ``"domain"``: one detector per value within each
        group, of which the most normal answer counts at test time.
    unseen : {"error", "pool"}, default="error"
        What to do at test time with a group not seen in training: raise, or ask a detector that
        was fitted to all training clips.
    n_jobs : int, default=None
        Groups fitted in parallel.

    Attributes
    ----------
    detectors_ : dict
        Fitted detectors by group; with `over`, a dict of detectors by its value.
    offsets_ : dict
        Threshold on ``score_samples`` by group.
    training_scores_ : ndarray of shape (n_clips,)
        Scores of the training clips, leave-one-out where the detectors give them so.
    training_groups_ : ndarray of shape (n_clips,)
        Group of each training clip.
    pooled_ : outlier detector
        Fitted to all training clips; only with ``unseen="pool"``.
    n_features_in_ : int
        Number of features; not for clip tables.

    See Also
    --------
    sk_asd.detectors.KNNDetector : The default detector.

    Notes
    -----
    Clips whose column ``label`` says that they are anomalies are fitted like all others, with a
    warning.

    DCASE 2022 task 2 gives the section of every test clip, but not its domain. ``over="domain"`` is
    the minimum of the distances to source and target clips that published systems use.

    Examples
    --------
    >>> import pandas as pd
    >>> from sk_asd.detectors import KNNDetector
    >>> from sk_asd.ensemble import GroupedDetector
    >>> X = pd.DataFrame({"section": ["00", "00", "01", "01"], "level": [0.0, 1.0, 10.0, 11.0]})
    >>> detector = GroupedDetector(KNNDetector(metric="euclidean")).fit(X)
    >>> detector.score_samples(pd.DataFrame({"section": ["00", "01"], "level": [10.0, 10.5]}))
    array([-9. , -0.5])
    """

    _parameter_constraints: dict = {
        "detector": [HasMethods(["fit"]), None],
        "by": [str, list, tuple],
        "over": [str, None],
        "unseen": [StrOptions({"error", "pool"})],
        "n_jobs": [int, None],
    }

    def __init__(self, detector=None, by="section", over=None, unseen="error", n_jobs=None):
        self.detector = detector
        self.by = by
        self.over = over
        self.unseen = unseen
        self.n_jobs = n_jobs

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None):
        """Fit one detector per group to normal clips.

        Parameters
        ----------
        X : DataArray, DataFrame or array-like
            What the detector takes, with the columns `by` and `over` as labels.
        y : None
            Ignored.

        Returns
        -------
        self
            The fitted detector.

        Raises
        ------
        ValueError
            If only some of the columns are there, if one has missing values, or if a detector
            cannot be fitted to a group; the message names it.
        """
        features, groups = self._split(X, reset=True)
        _warn_of_anomalies(X)
        self._labelled = groups is not None
        if groups is None:
            groups = np.full(_num_samples(features), None)
        over = None
        if self.over is not None and (self._labelled or column_of(X, self.over) is not None):
            over = _labels(X, [self.over])
        base = KNNDetector() if self.detector is None else self.detector

        rows = _rows_by_group(groups)
        fitted = Parallel(n_jobs=self.n_jobs)(
            delayed(_fit_group)(
                base,
                take_clips(features, r),
                None if over is None else over[r],
                self._describe(name),
            )
            for name, r in rows.items()
        )
        vars(self).pop("pooled_", None)  # of an earlier fit
        self.training_groups_ = groups
        self.detectors_, self.offsets_ = {}, {}
        self.training_scores_ = np.empty(_num_samples(features))
        for (name, r), (detectors, scores, offset) in zip(rows.items(), fitted):
            self.detectors_[name] = detectors if over is not None else detectors[None]
            self.offsets_[name] = offset
            self.training_scores_[r] = scores
        if self.unseen == "pool":
            pooled, _, self._pooled_offset = _fit_group(base, features, None, "all clips")
            self.pooled_ = pooled[None]
        return self

    def score_samples(self, X):
        """Normality of clips, each by the detector of its group.

        Parameters
        ----------
        X : DataArray, DataFrame or array-like
            As in ``fit``; `over` is not needed.

        Returns
        -------
        ndarray of shape (n_clips,)
            Scores, high = normal.

        Raises
        ------
        ValueError
            If the labels are missing that ``fit`` had, or a group is new and ``unseen="error"``.
        """
        return self._score(X)[0]

    def decision_function(self, X):
        """Scores relative to the threshold of each clip's group.

        Parameters
        ----------
        X : DataArray, DataFrame or array-like
            As in ``fit``.

        Returns
        -------
        ndarray of shape (n_clips,)
            Negative = abnormal.
        """
        scores, offsets = self._score(X)
        return scores - offsets

    def predict(self, X):
        """Decide whether new clips are normal.

        Parameters
        ----------
        X : DataArray, DataFrame or array-like
            As in ``fit``.

        Returns
        -------
        ndarray of shape (n_clips,)
            +1 for normal, −1 for abnormal.
        """
        return np.where(self.decision_function(X) >= 0, 1, -1)

    def fit_predict(self, X, y=None):
        """Fit, and decide on the training clips by ``training_scores_``.

        Parameters
        ----------
        X : DataArray, DataFrame or array-like
            As in ``fit``.
        y : None
            Ignored.

        Returns
        -------
        ndarray of shape (n_clips,)
            +1 for normal, −1 for abnormal.
        """
        self.fit(X)
        offsets = np.array([self.offsets_[group] for group in self.training_groups_])
        return np.where(self.training_scores_ >= offsets, 1, -1)

    @property
    def offset_(self):
        """Threshold on ``score_samples``; with several groups see ``offsets_``."""
        check_is_fitted(self, "offsets_")
        if len(self.offsets_) > 1:
            raise AttributeError("There is one threshold per group: see the attribute offsets_.")
        return next(iter(self.offsets_.values()))

    def _score(self, X):
        check_is_fitted(self, "detectors_")
        features, groups = self._split(X, reset=False)
        if groups is None:
            groups = np.full(_num_samples(features), None)
        scores, offsets = np.empty(len(groups)), np.empty(len(groups))
        for name, rows in _rows_by_group(groups).items():
            clips = take_clips(features, rows)
            if name in self.detectors_:
                detectors, offset = self.detectors_[name], self.offsets_[name]
            elif self.unseen == "pool":
                detectors, offset = self.pooled_, self._pooled_offset
            else:
                raise ValueError(
                    f"{self._describe(name)} was not seen in training; known are "
                    f"{list(self.detectors_)}. Use unseen='pool' to score it by all clips."
                )
            members = detectors.values() if isinstance(detectors, dict) else [detectors]
            scores[rows] = np.max([_scores(member, clips) for member in members], axis=0)
            offsets[rows] = offset
        return scores, offsets

    def _columns(self):
        return [self.by] if isinstance(self.by, str) else list(self.by)

    def _describe(self, name):
        if name is None:
            return "The only group"
        values = name if isinstance(name, tuple) else (name,)
        return "Group " + ", ".join(f"{c}={v!r}" for c, v in zip(self._columns(), values))

    def _split(self, X, reset):
        """Features without the label columns, and the group of every clip (None: no labels)."""
        columns = self._columns()
        found = [c for c in columns if column_of(X, c) is not None]
        if found and len(found) < len(columns):
            raise ValueError(f"Of the columns by={columns} only {found} are there.")
        if not found:
            hint = f"No column {columns} among the labels of the {type(X).__name__}"
            if not reset and self._labelled:
                raise ValueError(f"{hint}, but the detector was fitted with it.")
            if reset:
                warnings.warn(f"{hint}: all clips make one group.", UserWarning, stacklevel=4)
        if not reset and not self._labelled:
            found = []
        groups = _labels(X, columns) if found else None

        if is_clip_table(X):
            return check_clip_table(X), groups
        if is_labelled(X):
            if len(X) == 0:
                raise ValueError("Found a labelled array of 0 clips, expected at least 1.")
            if reset:
                self.n_features_in_ = X.shape[1]
            elif X.shape[1] != getattr(self, "n_features_in_", X.shape[1]):
                raise ValueError(
                    f"X has {X.shape[1]} features, but {type(self).__name__} is expecting "
                    f"{self.n_features_in_} features as input."
                )
            return X, groups
        if isinstance(X, pd.DataFrame):
            X = X.drop(columns=[*columns, *([self.over] if self.over else [])], errors="ignore")
        return validate_data(self, X, reset=reset, dtype="numeric", allow_nd=True), groups

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags


def _warn_of_anomalies(X):
    """Say so where a search is refitted to a whole clip table, its test clips included."""
    label = column_of(X, "label")
    anomalies = 0 if label is None else int((label == "anomaly").sum())
    if anomalies:
        warnings.warn(
            f"{anomalies} of {len(label)} training clips are labelled 'anomaly', and are learnt as "
            "normal: fit normal clips only, and search with refit=False.",
            UserWarning,
            stacklevel=4,
        )


def _labels(X, columns):
    """Label of every clip: a value for one column, a tuple for several."""
    values = []
    for name in columns:
        column = column_of(X, name)
        if column is None:
            raise ValueError(f"Column {name!r} is not among the labels of the training clips.")
        missing = pd.isna(column)
        if missing.any():
            raise ValueError(
                f"Column {name!r} has no value for {missing.sum()} of {len(column)} clips, "
                f"the first at position {int(np.argmax(missing))}."
            )
        values.append(column.tolist())
    labels = np.empty(len(values[0]), dtype=object)
    labels[:] = values[0] if len(columns) == 1 else list(zip(*values))
    return labels


def _rows_by_group(groups):
    """Positions of the clips of each group, in order of first appearance."""
    rows = {}
    for position, group in enumerate(groups):
        rows.setdefault(group, []).append(position)
    return rows


def _fit_group(base, X, over, description):
    """Fit the detectors of one group; return them, the training scores and the threshold."""
    everything = np.arange(_num_samples(X))
    members = {None: everything} if over is None else _rows_by_group(over)
    detectors, scores = {}, np.empty((len(members), len(everything)))
    flagged = 0
    for i, (key, rows) in enumerate(members.items()):
        clips = take_clips(X, rows)
        try:
            detector = clone(base).fit(clips)
        except ValueError as error:
            if over is None and description == "The only group":
                raise
            inner = "" if over is None else f" ({key})"
            raise ValueError(f"{description}{inner}: {error}") from error
        others = np.setdiff1d(everything, rows)
        if len(others):
            scores[i, others] = _scores(detector, take_clips(X, others))
        scores[i, rows] = own = _training_scores(detector, clips)
        offset = _offset(detector, clips)
        flagged += int((own < offset).sum())
        detectors[key] = detector
    combined = scores.max(axis=0)
    if over is not None:
        # The threshold of the combined score flags the share of training clips that the detectors
        # flag on their own.
        offset = float(np.quantile(combined, flagged / len(everything)))
    return detectors, combined, offset


def _scores(detector, X):
    """Scores of any outlier detector, high = normal."""
    if hasattr(detector, "score_samples"):
        return np.asarray(detector.score_samples(X), dtype=float)
    scores = np.asarray(detector.decision_function(X), dtype=float)
    return -scores if _is_pyod(_last(detector)) else scores


def _training_scores(detector, X):
    last = _last(detector)
    if hasattr(last, "training_scores_"):
        return last.training_scores_
    if hasattr(last, "negative_outlier_factor_"):
        return last.negative_outlier_factor_
    if _is_pyod(last):
        return -last.decision_scores_
    return _scores(detector, X)


def _offset(detector, X):
    """Threshold on the scores, whatever the detector calls it."""
    last = _last(detector)
    if len(getattr(last, "offsets_", ())) > 1:
        raise ValueError(
            "a GroupedDetector with several groups cannot stand inside another: give all columns "
            f"to one, such as by=[..., {last.by!r}]."
        )
    if hasattr(last, "offset_"):
        return float(np.ravel(last.offset_)[0])
    if _is_pyod(last):
        return -float(last.threshold_)
    first = take_clips(X, [0])
    return float((_scores(detector, first) - detector.decision_function(first))[0])


def _last(detector):
    while isinstance(detector, Pipeline):
        detector = detector[-1]
    return detector


def _is_pyod(detector):
    """PyOD's detectors score high = abnormal and keep their training scores so."""
    return hasattr(detector, "decision_scores_")
