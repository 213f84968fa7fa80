"""One detector per section, machine or any other group of clips."""

import copy
from numbers import Real

import numpy as np
import pandas as pd
from joblib import Parallel
from sklearn.base import clone
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, validate_data

from sk_asd.detectors import KNNDetector
from sk_asd.detectors._bank import known_clips, scores_only_before
from sk_asd.ensemble._by_columns import (
    BY,
    ByColumns,
    labels_of,
    rows_by_group,
)
from sk_asd.ensemble._smote import fit_with_smote
from sk_asd.utils._base import BaseEstimator
from sk_asd.utils._containers import column_of, is_clip_table, plain, take_clips
from sk_asd.utils._decisions import DecisionMixin
from sk_asd.utils._labels import normal_clips
from sk_asd.utils._learning import learns, why_not_learn
from sk_asd.utils._normal_threshold import normal_threshold
from sk_asd.utils._parallel import task
from sk_asd.utils._sklearn import HasMethods, Interval, StrOptions, _fit_context, _num_samples
from sk_asd.utils._system import each, offset_of, scores_of, training_scores_of


class GroupedDetector(ByColumns, DecisionMixin, BaseEstimator):
    """One outlier detector per value of a column known at test time.

    The column is found among the clip coordinates of a labelled array, or among the columns of a
    DataFrame, which it then leaves out of the features (a clip table is passed on whole). Where no
    label reaches it in ``fit``, it fits one group and warns.

    Parameters
    ----------
    detector : outlier detector, default=None
        Any detector with scikit-learn's interface, a Pipeline that ends in one, or a detector of
        PyOD; None is :class:`~sk_asd.detectors.KNNDetector`.
    by : str or sequence of str, default=("machine", "section")
        Column, or columns whose combinations make the groups. Of the default those
        that are there are taken; of others, and of a list, all must be there.
    over : str, default=None
        Column known in training only, such as ``"domain"``: one detector per value within each
        group, of which the most normal answer counts at test time.
    unseen : {"error", "pool"}, default="error"
        What to do at test time with a group not seen in training: raise, or ask a detector that
        was fitted to all training clips.
    n_jobs : int, default=None
        Groups fitted in parallel.
    smote : float, default=None
        Fill up each value of `over` with synthetic clips, drawn between its clips and their two
        nearest neighbours, to this share of the most frequent value in the group: 0.2 for the ten
        target clips of DCASE, as in [1]_. None adds none. Only for embeddings and pooled features.
    random_state : int, RandomState instance or None, default=None
        Seed of the synthetic clips.

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
    DCASE 2022 task 2 gives the section of every test clip, but not its domain. ``over="domain"`` is
    the minimum of the distances to source and target clips that published systems use.

    With `smote` the training scores of a value that is filled up come from as many fits as it has
    clips, each without one of them and what was drawn from it.

    References
    ----------
    .. [1] Fujimura, T. et al. "ASDKit: a toolkit for comprehensive evaluation of anomalous sound
       detection methods", arXiv:2507.10264, 2025.

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
        "smote": [Interval(Real, 0, 1, closed="right"), None],
        "random_state": ["random_state"],
    }
    _state = (
        "_by",
        "_labelled",
        "training_groups_",
        "_over",
        "detectors_",
        "offsets_",
        "_own_offsets",
        "training_scores_",
        "pooled_",
        "_pooled_offset",
    )

    def __init__(
        self,
        detector=None,
        by=BY,
        over=None,
        unseen="error",
        n_jobs=None,
        smote=None,
        random_state=None,
    ):
        self.detector = detector
        self.by = by
        self.over = over
        self.unseen = unseen
        self.n_jobs = n_jobs
        self.smote = smote
        self.random_state = random_state

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
            cannot be fitted to a group or gives NaN or +inf as a score; the message names it.
        """
        X, _ = normal_clips(X)
        features, groups = self._split(X, reset=True)
        over = None
        if self.over is not None and (self._labelled or column_of(X, self.over) is not None):
            over = labels_of(X, [self.over], "over")
        rows = rows_by_group(groups)
        clips = {name: take_clips(features, r) for name, r in rows.items()}
        fitted = self._fit_groups(clips, rows, over, self._smote(X))
        vars(self).pop("pooled_", None)  # of an earlier fit
        self.training_groups_, self._over = groups, over
        self.detectors_, self.offsets_, self._own_offsets = {}, {}, {}
        self.training_scores_ = np.empty(_num_samples(features))
        self._store(fitted, rows)
        if self.unseen == "pool":
            self._fit_pooled(features)
        return self

    @available_if(learns)
    @_fit_context(prefer_skip_nested_validation=False)
    def partial_fit(self, X, y=None):
        """Learn further normal clips, also of new groups.

        The result, ``training_scores_`` and thresholds included, is that of ``fit`` on all clips
        together, those learnt before first. Groups without further clips stay as they are, with
        thresholds that were set for them. There is this method where `detector` has it.

        Parameters
        ----------
        X : DataArray, DataFrame or array-like
            As in ``fit``, with the column `over`. The first call is ``fit``.
        y : None
            Ignored.

        Returns
        -------
        self
            The fitted detector.

        Raises
        ------
        ValueError
            As ``fit``; the detector then is as it was.
        """
        if not hasattr(self, "detectors_"):
            return self.fit(X)
        X, _ = normal_clips(X)
        features, groups = self.split_groups(X)
        over = None if self._over is None else labels_of(X, [self.over], "over")
        # Any detector will do to check the values; a message about them names no group.
        first = each(next(iter(self.detectors_.values())))[0]
        features = first._validate(features, reset=False)

        new = copy.copy(self)
        new.training_groups_ = np.concatenate([self.training_groups_, groups])
        if over is not None:
            new._over = np.concatenate([self._over, over])
        rows = rows_by_group(new.training_groups_)
        clips = {
            name: features[r]
            if name not in self.detectors_
            else np.concatenate([self.known_clips(name), features[r]])
            for name, r in rows_by_group(groups).items()
        }
        fitted = self._fit_groups(clips, rows, new._over, self._smote(X))
        new.detectors_, new.offsets_ = dict(self.detectors_), dict(self.offsets_)
        new.training_scores_ = np.concatenate([self.training_scores_, np.empty(len(features))])
        new._store(fitted, rows)
        if hasattr(self, "pooled_"):
            new._fit_pooled(np.concatenate([known_clips(self.pooled_), features]))
        vars(self).update(vars(new))
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
        return self.score_groups(X)[0]

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
        scores, offsets, _ = self.score_groups(X)
        return scores - offsets

    def score_groups(self, X):
        """Scores, thresholds and groups of clips, in one pass.

        Parameters
        ----------
        X : DataArray, DataFrame or array-like
            As in ``fit``.

        Returns
        -------
        scores : ndarray of shape (n_clips,)
            Scores, high = normal.
        thresholds : ndarray of shape (n_clips,)
            Threshold of each clip's group.
        groups : ndarray of shape (n_clips,)
            The groups.
        """
        check_is_fitted(self, "detectors_")
        features, groups = self.split_groups(X)
        scores, offsets = np.empty(len(groups)), np.empty(len(groups))
        for name, rows in rows_by_group(groups).items():
            clips = take_clips(features, rows)
            detectors, offsets[rows] = self._of_group(name)
            try:
                scores[rows] = most_normal(detectors, clips)
            except ValueError as error:
                if name is None:
                    raise
                raise ValueError(f"{self.describe(name)}: {error}") from error
        return scores, offsets, groups

    def answering(self, X):
        """Which detector gives the score of which clips.

        Parameters
        ----------
        X : DataArray, DataFrame or array-like
            As in ``fit``.

        Returns
        -------
        X : container of clips
            What the detectors are given.
        answers : list of tuple
            Positions of clips, and the detector; with `over` the one that finds them most normal.
        """
        features, groups = self.split_groups(X)
        answers = []
        for name, rows in rows_by_group(groups).items():
            members, rows = each(self._of_group(name)[0]), np.asarray(rows)
            best = np.zeros(len(rows), dtype=int)
            if len(members) > 1:
                clips = take_clips(features, rows)
                best = np.argmax([scores_of(member, clips) for member in members], axis=0)
            answers += [(rows[best == i], members[i]) for i in np.unique(best)]
        return features, answers

    def known_clips(self, group):
        """Training clips of a group, where its detectors have kept them.

        Parameters
        ----------
        group : object
            The group.

        Returns
        -------
        ndarray of shape (n_clips, n_features)
            The clips, in the order of ``training_scores_``.
        """
        detectors = self.detectors_[group]
        if self._over is None:
            return known_clips(detectors)
        rows = rows_by_group(self._over[rows_by_group(self.training_groups_)[group]])
        if rows.keys() != detectors.keys():
            raise scores_only_before(self)
        # Synthetic clips come after those that they were drawn from.
        parts = [known_clips(detectors[key])[: len(r)] for key, r in rows.items()]
        order = np.argsort(np.concatenate(list(rows.values())))
        return np.concatenate(parts)[order]

    def with_metric(self, metric):
        """The same groups with another `metric` of their detectors, which need no fit.

        Parameters
        ----------
        metric : str
            A metric of detectors that measure clips in several ways, such as
            :class:`~sk_asd.detectors.AEGANDetector`.

        Returns
        -------
        GroupedDetector
            A fitted copy, with training scores and thresholds by that metric.

        Raises
        ------
        ValueError
            If there is one more detector per value of `over`, whose scores are not all kept.
        """
        check_is_fitted(self, "detectors_")
        if self.over is not None or hasattr(self, "pooled_"):
            raise ValueError("Another metric needs a fit where over or unseen='pool' is set.")
        new = copy.copy(self).set_params(detector=clone(self.detector).set_params(metric=metric))
        new.detectors_, new.offsets_ = {}, {}
        new.training_scores_ = np.empty(len(self.training_scores_))
        fitted = {}
        for group, detector in self.detectors_.items():
            other = copy.copy(detector).set_params(metric=metric)
            fitted[group] = {None: other}, other.training_scores_, other.offset_
        new._store(fitted, rows_by_group(self.training_groups_))
        return new

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
        return self._with_anomalies(X, self.training_scores_ >= offsets)

    @property
    def offset_(self):
        """Threshold on ``score_samples``; with several groups see ``offsets_``."""
        check_is_fitted(self, "offsets_")
        if len(self.offsets_) > 1:
            raise AttributeError("There is one threshold per group: see the attribute offsets_.")
        return next(iter(self.offsets_.values()))

    @property
    def pooled_offset_(self):
        """Threshold for clips of unseen groups; only with ``unseen="pool"``."""
        return self._pooled_offset

    @pooled_offset_.setter
    def pooled_offset_(self, threshold):
        self._pooled_offset = threshold

    def _of_group(self, name):
        """Detector, or dict of detectors, and threshold of a group."""
        if name in self.detectors_:
            return self.detectors_[name], self.offsets_[name]
        if self.unseen == "pool":
            return self.pooled_, self._pooled_offset
        raise ValueError(
            f"{self.describe(name)} was not seen in training; known are "
            f"{list(self.detectors_)}. Use unseen='pool' to score it by all clips."
        )

    def _fit_groups(self, clips, rows, over, smote):
        """Detectors, training scores and thresholds of the groups in `clips`."""
        fitted = Parallel(n_jobs=self.n_jobs)(
            task(
                _fit_group,
                self._base(),
                clips[name],
                None if over is None else over[rows[name]],
                self.describe(name),
                smote,
            )
            for name in clips
        )
        return dict(zip(clips, fitted))

    def _store(self, fitted, rows):
        for name, (detectors, scores, offset) in fitted.items():
            self.detectors_[name] = detectors if self._over is not None else detectors[None]
            self.offsets_[name] = offset
            self.training_scores_[rows[name]] = scores
        # Those that the parameters make, whatever is set later.
        made = {name: offset for name, (_, _, offset) in fitted.items()}
        self._own_offsets = {**self._own_offsets, **made}

    def _fit_pooled(self, features):
        pooled, _, self._pooled_offset = _fit_group(self._base(), features, None, "all clips")
        self.pooled_ = pooled[None]

    def _base(self):
        return KNNDetector() if self.detector is None else self.detector

    def _known_scores(self):
        """Scores of the training clips as anybody's, not leave-one-out."""
        scores = np.empty(len(self.training_scores_))
        for name, rows in rows_by_group(self.training_groups_).items():
            scores[rows] = most_normal(self.detectors_[name], self.known_clips(name))
        return scores

    def _why_not_learn(self):
        reason = why_not_learn(self._base())
        return None if reason is None else f"its detector cannot, {reason}"

    def _split(self, X, reset):
        """Features without the label columns, and the group of every clip."""
        groups = self._find_groups(X, reset, stacklevel=5)
        if self._check_container(X, reset):
            return X, groups
        if isinstance(X, pd.DataFrame):
            labels = [*self._columns(), *([self.over] if self.over else [])]
            X = plain(X).drop(columns=labels, errors="ignore")
        return validate_data(self, X, reset=reset, dtype="numeric", allow_nd=True), groups

    def _smote(self, X):
        """Share of synthetic clips and their seed, or None."""
        if self.smote is None:
            return None
        if self.over is None:
            raise ValueError(
                f"smote={self.smote} fills up the values of a column: name it, such as "
                "over='domain'."
            )
        if is_clip_table(X):
            raise ValueError(
                f"smote={self.smote} draws between embeddings or pooled features, not between the "
                "clips of a table: put the GroupedDetector after them in a Pipeline."
            )
        return self.smote, check_random_state(self.random_state).randint(np.iinfo(np.int32).max)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags


def most_normal(detectors, X):
    """Scores of clips of one group: of its detector, or the most normal of those in a dict."""
    return np.max([scores_of(member, X) for member in each(detectors)], axis=0)


def _fit_group(base, X, over, description, smote=None):
    """Fit the detectors of one group; return them, the training scores and the threshold."""
    everything = np.arange(_num_samples(X))
    members = {None: everything} if over is None else rows_by_group(over)
    share, seed = (0, None) if smote is None else smote
    n_least = int(share * max(map(len, members.values())))
    detectors, scores = {}, np.empty((len(members), len(everything)))
    flagged = 0.0
    for i, (key, rows) in enumerate(members.items()):
        clips = take_clips(X, rows)
        try:
            if len(rows) < n_least:
                detector, clips, own = fit_with_smote(base, plain(clips), n_least, seed)
            else:
                detector = clone(base).fit(clips)
                own = training_scores_of(detector, clips)
            others = np.setdiff1d(everything, rows)
            if len(others):
                scores[i, others] = scores_of(detector, take_clips(X, others))
            offset = offset_of(detector, clips)
        except ValueError as error:
            if over is None and description == "The only group":
                raise
            inner = "" if over is None else f" ({key})"
            raise ValueError(f"{description}{inner}: {error}") from error
        scores[i, rows] = own
        flagged += len(rows) * np.mean(training_scores_of(detector, clips) < offset)
        detectors[key] = detector
    combined = scores.max(axis=0)
    if over is not None:
        # The threshold of the combined score flags the share of training clips that the detectors
        # flag on their own.
        offset = normal_threshold(combined, flagged / len(everything))
    return detectors, combined, offset
