"""A convex combination of the standardised scores of several outlier detectors."""

import copy
import warnings
from numbers import Integral, Real

import numpy as np
import pandas as pd
import xarray as xr
from joblib import Parallel
from sklearn.base import clone
from sklearn.utils import Bunch
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, validate_data

from sk_asd.ensemble._by_columns import (
    BY,
    ByColumns,
    folds_of,
    one_group,
)
from sk_asd.ensemble._front_ends import shared_features
from sk_asd.ensemble._members import NamedMembers, call_named, fit_behind, fit_member
from sk_asd.ensemble._memory import content_key, is_known, is_writable
from sk_asd.ensemble._simplex import combine, convex
from sk_asd.ensemble._standardized_scores import group_statistics, standardized
from sk_asd.utils._containers import LABEL, as_clips, column_of, wrap
from sk_asd.utils._decisions import DecisionMixin
from sk_asd.utils._labels import normal_clips
from sk_asd.utils._learning import learns, why_not_learn
from sk_asd.utils._normal_threshold import normal_threshold
from sk_asd.utils._output import LabelledOutput
from sk_asd.utils._parallel import task
from sk_asd.utils._sklearn import HasMethods, Interval, StrOptions, _fit_context, _num_samples
from sk_asd.utils._system import System, every_estimator, scores_of, unwrapped


class ScoreEnsemble(ByColumns, LabelledOutput, DecisionMixin, NamedMembers):
    r"""Weighted sum of the scores of several outlier detectors, each in units of its training.

    Every member is fitted to the same clips. Its scores are standardised by the mean and standard
    deviation of its training scores within each group of clips, so that members of any scale can
    be added, and clips of different sections compared.

    Clips are read once for all members that are Pipelines and begin with a feature extractor, and
    features that several of them begin with are computed once.

    Parameters
    ----------
    estimators : list of tuple (str, outlier detector)
        Members by name: Pipelines, detectors of this package, scikit-learn's or PyOD's. A member
        may be ``"drop"``; a :class:`~sklearn.frozen.FrozenEstimator` is used as it is.
    weights : array-like of shape (n_members,), default=None
        One weight for every member, dropped ones included; not negative, and scaled to a sum of 1.
        None for uniform weights.
    by : str or sequence of str or None, default=("machine", "section")
        Column, or columns whose combinations make the groups; None for one group. Of the default
        those that are there are taken; of others, and of a list, all must be there.
    crossfit : int, splitter or None, default=None
        How to come by training scores. None takes those that a member gives: leave-one-out in
        ``training_scores_`` where it memorises its clips, else the scores of the clips that it was
        fitted to. Otherwise every training clip is scored by a copy of the member that was fitted
        without it; an int is a number of shuffled folds, stratified by group and domain.
    unseen : {"error", "pool"}, default="error"
        What to do at test time with a group not seen in training: raise, or standardise by all
        training clips.
    contamination : float, default=0.1
        Share of normal clips that may be called abnormal.
    threshold : {"quantile", "gamma"}, default="quantile"
        How to find the threshold; see :class:`~sk_asd.detectors.KNNDetector`.
    n_jobs : int, default=None
        Members fitted in parallel.
    memory : str or object with the joblib.Memory interface, default=None
        Where fitted members with their training scores, and scores of other clips, are kept. A
        member is then fitted once to the same clips, and asked once about the same clips, for
        all weights of a search and in all its processes. See Notes.

    Attributes
    ----------
    estimators_ : list of outlier detector
        Fitted members, without dropped ones.
    named_estimators_ : Bunch
        The same by name, and ``"drop"``.
    weights_ : ndarray of shape (n_used,)
        Weights of the fitted members; their sum is 1.
    means_, scales_ : dict of ndarray of shape (n_used,)
        Mean and standard deviation of the members' training scores by group.
    training_matrix_ : ndarray of shape (n_clips, n_used)
        Standardised training scores of the members.
    training_scores_ : ndarray of shape (n_clips,)
        Their weighted sums.
    offset_ : float
        Threshold on ``score_samples``.
    n_features_in_ : int
        Number of features; not for clip tables.
    feature_names_in_ : ndarray of str
        Names of the features, if `fit` was given a DataFrame of features with text as names.

    See Also
    --------
    ScoreEnsembleCV : Chooses the weights.
    simplex_grid : Weights for a search with scikit-learn.

    Notes
    -----
    **Standardisation** follows the report ([1]_, WSP-NFCDEE): for clip :math:`x` of a group and
    member :math:`k`, :math:`z_k(x) = (s_k(x) - m_k) / d_k`, and the score is :math:`\sum_k w_k
    z_k(x)`. Where all training scores of a group are the same, as of a group of one clip,
    :math:`d_k` is the root mean square of that member's deviations in the other groups, or 1
    where it has none; of more than one clip this is said in a warning. Scores of −inf, as abnormal
    as can be, have no part in mean and deviation, and make the weighted sum −inf.

    **Threshold**: one for all groups, from ``training_scores_``.

    **Frozen members** keep their training scores only where `X` are the very clips that they were
    fitted to. They score other clips as new ones, whatever `crossfit` says.

    **DataFrames** that are no clip tables: columns of text and those in `by` are labels, which
    members are given as coordinates of a labelled array, the others features.

    **Memory**: results are found again by the parameters of a member, the versions of this package
    and scikit-learn, and the contents of the clip table; for files, path, size and time of
    modification. A member without ``random_state`` is drawn once, then. Two processes that need
    the same result wait for one another. A fitted ensemble that is loaded where the folder of its
    memory does not exist works without it.

    References
    ----------
    .. [1] AITHU's report for DCASE 2022 Challenge Task 2.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_asd.detectors import KNNDetector, MahalanobisDetector
    >>> from sk_asd.ensemble import ScoreEnsemble
    >>> X = np.random.default_rng(0).normal(size=(50, 3))
    >>> ensemble = ScoreEnsemble(
    ...     [("knn", KNNDetector(metric="euclidean")), ("spread", MahalanobisDetector())],
    ...     weights=(0.75, 0.25),
    ...     by=None,
    ... ).fit(X)
    >>> ensemble.predict([[0.0, 0.0, 0.0], [9.0, 9.0, 9.0]])
    array([ 1, -1])
    """

    _parameter_constraints: dict = {
        "estimators": [list],
        "weights": ["array-like", None],
        "by": [str, list, tuple, None],
        "crossfit": ["cv_object"],
        "unseen": [StrOptions({"error", "pool"})],
        "contamination": [Interval(Real, 0, 0.5, closed="right")],
        "threshold": [StrOptions({"quantile", "gamma"})],
        "n_jobs": [Integral, None],
        "memory": [str, HasMethods(["cache"]), None],
    }
    _state = (
        "_by",
        "_labelled",
        "_keys",
        "_names",
        "estimators_",
        "_raw",
        "_groups",
        "means_",
        "scales_",
        "_all",
        "training_matrix_",
        "weights_",
        "training_scores_",
        "offset_",
    )

    def __init__(
        self,
        estimators,
        weights=None,
        by=BY,
        crossfit=None,
        unseen="error",
        contamination=0.1,
        threshold="quantile",
        n_jobs=None,
        memory=None,
    ):
        self.estimators = estimators
        self.weights = weights
        self.by = by
        self.crossfit = crossfit
        self.unseen = unseen
        self.contamination = contamination
        self.threshold = threshold
        self.n_jobs = n_jobs
        self.memory = memory

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None):
        """Fit all members to normal clips.

        Parameters
        ----------
        X : DataFrame, DataArray or array-like
            What the members take, with the columns `by` as labels.
        y : None
            Ignored.

        Returns
        -------
        self
            The fitted ensemble.

        Raises
        ------
        TypeError
            If a member is no outlier detector.
        ValueError
            If names or weights are not valid, only some of the columns in `by` are there, one has
            missing values, or a member cannot be fitted, gives NaN or +inf as a score, or −inf for
            all clips of a group; the message names it.
        """
        names, members, used = self._check_members()
        weights = convex(self.weights, used)
        X, _ = normal_clips(X)
        X, groups = self._split(X, reset=True)
        folds = self._folds(X)
        # What a fit depends on; known only where there is a memory to look it up in.
        self._keys = [None] * len(members)
        if self.memory is not None:
            clips = content_key(X, folds)
            self._keys = [content_key(_silent(clone(member)), clips) for member in members]
        # Worker processes are slow to start, where there is nothing for them to do.
        known = [key is not None and is_known(self.memory, key) for key in self._keys]
        new = {i: member for i, member in enumerate(members) if not known[i]}
        shared = shared_features(new, X, fit=True)
        work = [
            (fit_behind, member, *shared[i], folds)
            if i in shared
            else (fit_member, member, X, folds)
            for i, member in enumerate(members)
        ]
        fitted = Parallel(n_jobs=1 if all(known) else self.n_jobs)(
            task(call_named, name, self.memory, key, *what)
            for name, key, what in zip(names, self._keys, work)
        )
        self._names = names
        self.estimators_ = [member for member, _ in fitted]
        self._standardize(np.column_stack([scores for _, scores in fitted]), groups)
        self._weigh(weights)
        return self

    @available_if(learns)
    @_fit_context(prefer_skip_nested_validation=False)
    def partial_fit(self, X, y=None):
        """Let all members learn further normal clips, and standardise anew.

        The result, statistics, ``training_scores_`` and threshold included, is that of ``fit`` on
        all clips together, those learnt before first. There is this method where all members have
        it and `crossfit` is None.

        Parameters
        ----------
        X : DataFrame, DataArray or array-like
            As in ``fit``. The first call is ``fit``.
        y : None
            Ignored.

        Returns
        -------
        self
            The fitted ensemble.

        Raises
        ------
        ValueError
            As ``fit``; the ensemble then is as it was.
        """
        if not hasattr(self, "estimators_"):
            return self.fit(X)
        X, _ = normal_clips(X)
        X, groups = self.split_groups(X)
        members = []
        for name, member in zip(self._names, self.estimators_):
            try:
                members.append(copy.copy(member).partial_fit(X))
            except ValueError as error:
                raise ValueError(f"Member {name!r}: {error}") from error
        self._extend(X, groups, members, [member.training_scores_ for member in members])
        return self

    def _extend(self, X, groups, members, scores):
        """Take members with the training scores of the clips before, then of `X`."""
        groups = np.concatenate([self._groups, groups])
        for name, column in zip(self._names, scores):
            if len(column) != len(groups):
                raise ValueError(
                    f"Member {name!r} has scores of {len(column)} training clips, expected "
                    f"{len(groups)}."
                )
        raw = np.column_stack(scores)
        pairs = zip(self._keys, self.estimators_, members)
        self._keys = [
            # The scores that a memory has are those of the member as it was.
            key if key is None or now is before else content_key(key, X)
            for key, before, now in pairs
        ]
        self.estimators_ = members
        self._standardize(raw, groups)
        self._weigh(self.weights_)

    def with_weights(self, weights):
        """The same ensemble with other weights, which need no fit.

        Parameters
        ----------
        weights : array-like of shape (n_members,)
            Weights, as the parameter.

        Returns
        -------
        ScoreEnsemble
            A fitted copy.

        Raises
        ------
        ValueError
            If the weights are not valid.
        """
        check_is_fitted(self)
        new = copy.copy(self).set_params(weights=weights)
        new._weigh(convex(weights, self._check_members()[2]))
        return new

    def with_members(self, members):
        """The same ensemble with other fitted members in the place of some.

        Parameters
        ----------
        members : dict of str to outlier detector
            New ones by name, fitted to the clips that the ensemble was fitted to.

        Returns
        -------
        ScoreEnsemble
            A fitted copy, whose scores are standardised anew.

        Raises
        ------
        ValueError
            If there is no member of that name, or a new one was fitted to another number of clips.
        """
        check_is_fitted(self)
        unknown = sorted(set(members) - set(self._names))
        if unknown:
            raise ValueError(f"There are no members {unknown}; known are {self._names}.")
        new = copy.copy(self)
        new.estimators = [(name, clone(members.get(name, m))) for name, m in self.estimators]
        new.estimators_, new._keys = list(self.estimators_), [None] * len(self._names)
        raw = self._raw.copy()
        for j, name in enumerate(self._names):
            if name in members:
                new.estimators_[j] = members[name]
                scores, _ = System(members[name]).known()
                if len(scores) != len(raw):
                    raise ValueError(
                        f"Member {name!r} has scores of {len(scores)} training clips, expected "
                        f"{len(raw)}."
                    )
                raw[:, j] = scores
        new._standardize(raw, self._groups)
        new._weigh(self.weights_)
        return new

    def score_samples(self, X):
        """Normality of clips.

        Parameters
        ----------
        X : DataFrame, DataArray or array-like
            As in ``fit``.

        Returns
        -------
        ndarray of shape (n_clips,)
            Weighted sums of standardised scores, high = normal: 0 is the mean of the training
            clips of the group.

        Raises
        ------
        ValueError
            If the labels are missing that ``fit`` had, or a group is new and ``unseen="error"``.
        """
        return combine(self._standardized(X), self.weights_)

    def transform(self, X):
        """Standardised scores of all members.

        Parameters
        ----------
        X : DataFrame, DataArray or array-like
            As in ``fit``.

        Returns
        -------
        DataArray, ndarray or DataFrame of shape (n_clips, n_used)
            High = normal, one column a member: a DataArray with the labels of the clips for a clip
            table or DataArray, else an ndarray, or what ``set_output`` asks for.
        """
        X = as_clips(X)
        return self._contained(self._labelled_columns(self._standardized(X), X), X)

    def contributions(self, X):
        """Share of every member in the score of every clip.

        Parameters
        ----------
        X : DataFrame, DataArray or array-like
            As in ``fit``.

        Returns
        -------
        DataArray or ndarray of shape (n_clips, n_used)
            Weight times standardised score; the sum over members is ``score_samples(X)``.
        """
        X = as_clips(X)
        matrix = self._standardized(X)
        with np.errstate(invalid="ignore"):
            parts = np.where(self.weights_ > 0, self.weights_ * matrix, 0.0)
        return self._labelled_columns(parts, X)

    def get_feature_names_out(self, input_features=None):
        """Names of the columns of ``transform``.

        Parameters
        ----------
        input_features : array-like of str, default=None
            Ignored.

        Returns
        -------
        ndarray of str
            Names of the members that are not dropped.
        """
        check_is_fitted(self)
        return np.array(self._names, dtype=object)

    def _split(self, X, reset):
        """What the members are given, and the group of every clip."""
        groups = self._find_groups(X, reset, stacklevel=5)
        if self._check_container(X, reset):
            return X, groups
        labels = []
        if isinstance(X, pd.DataFrame):
            text = [c for c in X.columns if not pd.api.types.is_numeric_dtype(X[c].dtype)]
            labels = [c for c in X.columns if c in text or c in (*self._columns(), LABEL)]
        features = X.drop(columns=labels) if labels else X
        # Whether NaN are allowed is for the members to say; a fit needs two clips for a deviation.
        values = validate_data(
            self,
            features,
            reset=reset,
            dtype="numeric",
            allow_nd=True,
            ensure_all_finite=False,
            ensure_min_samples=2 if reset else 1,
        )
        if labels:
            coords = {c: ("clip", column_of(X, c)) for c in labels}
            return xr.DataArray(values, dims=("clip", "feature"), coords=coords), groups
        return X if isinstance(X, pd.DataFrame) else values, groups

    def _folds(self, X):
        if self.crossfit is None:
            return None
        folds = folds_of(X, self.crossfit, [*self._columns(), "domain"], random_state=0)
        held_out = np.sort(np.concatenate([test for _, test in folds]))
        if not np.array_equal(held_out, np.arange(_num_samples(X))):
            raise ValueError(f"crossfit={self.crossfit!r} must hold out every training clip once.")
        return folds

    @property
    def named_estimators_(self):
        """Fitted members by name; ``"drop"`` for those that were left out."""
        check_is_fitted(self)
        fitted = dict(zip(self._names, self.estimators_))
        return Bunch(**{name: fitted.get(name, "drop") for name, _ in self.estimators})

    def _why_not_learn(self):
        if self.crossfit is not None:
            return f"crossfit={self.crossfit!r} scores training clips by copies that are not kept"
        for name, member in self.estimators:
            reason = None if isinstance(member, str) else why_not_learn(member)
            if reason is not None:
                return f"its member {name!r} cannot, {reason}"
        return None

    def _standardize(self, raw, groups):
        """Learn means and deviations of raw training scores."""
        self._raw, self._groups = raw, groups
        self.means_, self.scales_, constant = group_statistics(raw, groups)
        for group, means in self.means_.items():
            for name in np.array(self._names, dtype=object)[np.isnan(means)]:
                raise ValueError(
                    f"{self.describe(group)}: member {name!r} gives all training clips the score "
                    "-inf, which has no mean to standardise by."
                )
        mean, scale, _ = group_statistics(raw, one_group(raw))
        self._all = mean[None], scale[None]
        for group, j in constant:
            warnings.warn(
                f"{self.describe(group)}: member {self._names[j]!r} gives all training clips the "
                f"same score; its deviation is taken to be {self.scales_[group][j]:.3g}.",
                UserWarning,
                stacklevel=4,
            )
        self.training_matrix_ = self._in_units(raw, groups)

    def _in_units(self, raw, groups):
        return standardized(raw, groups, self.means_, self.scales_, self._of_unseen)

    def _of_unseen(self, group):
        if self.unseen == "pool":
            return self._all
        raise ValueError(
            f"{self.describe(group)} was not seen in training; known are {list(self.means_)}. "
            "Use unseen='pool' to standardise it by all clips."
        )

    def _weigh(self, weights):
        """Learn all that depends on the weights."""
        self.weights_ = weights
        self.training_scores_ = combine(self.training_matrix_, weights)
        self.offset_ = normal_threshold(self.training_scores_, self.contamination, self.threshold)

    def _standardized(self, X):
        """Standardised scores as a plain matrix."""
        check_is_fitted(self)
        X, groups = self.split_groups(X)
        memory, keys, shared = None, self._keys, {}
        members = [unwrapped(member) for member in self.estimators_]
        if keys[0] is not None and is_writable(self.memory):
            memory, clips = self.memory, content_key(X)
            keys = [content_key(key, clips) for key in keys]
        else:
            shared = shared_features(dict(enumerate(members)), X)
        work = [
            (member[1:], shared[i][1]) if i in shared else (member, X)
            for i, member in enumerate(members)
        ]
        scores = Parallel(n_jobs=self.n_jobs, prefer="threads")(
            task(call_named, name, memory, key, scores_of, *what)
            for name, key, what in zip(self._names, keys, work)
        )
        return self._in_units(np.column_stack(scores), groups)

    def _labelled_columns(self, matrix, X):
        return wrap(matrix, X, ("feature",), {"feature": self.get_feature_names_out()})


def _silent(member):
    """Let an unfitted member say nothing, which changes nothing of what it learns."""
    for part in every_estimator(member):
        if "verbose" in part.get_params(deep=False):
            part.set_params(verbose=0)
    return member
