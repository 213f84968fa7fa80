"""Telling the domain of a clip, for the sections where it can be told."""

from numbers import Integral, Real

import numpy as np
import pandas as pd
from joblib import Parallel
from sklearn.base import ClassifierMixin, clone
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
    validate_data,
)

from sk_asd.domains._cnn6_classifier import Cnn6Classifier
from sk_asd.ensemble._by_columns import BY, ByColumns, rows_by_group
from sk_asd.utils._base import BaseEstimator
from sk_asd.utils._containers import column_of, is_clip_table, is_labelled, plain, take_clips
from sk_asd.utils._labels import clip_labels, normal_clips
from sk_asd.utils._parallel import task
from sk_asd.utils._sklearn import HasMethods, Interval, _fit_context

DOMAINS = ("source", "target")


class DomainClassifier(ByColumns, ClassifierMixin, BaseEstimator):
    """Classifier of source and target domain, one per section, on where it can tell them apart.

    Test clips do not say which domain they are from. For every group of clips a classifier is
    cross-validated on the training clips; where its AUC is at least `min_auc` it is fitted to all
    of them, elsewhere it is switched off and answers NaN: not known.

    Parameters
    ----------
    classifier : classifier, default=None
        Anything with ``fit(X, y)`` and ``predict_proba(X)``, such as a Pipeline of
        :class:`~sk_asd.features.TimePooling` and a logistic regression, which takes a fraction of
        a second. None is :class:`Cnn6Classifier`, as in [1]_.
    by : str or sequence of str or None, default=("machine", "section")
        Column, or columns whose combinations make the groups; None for one group. Of the default
        those that are there are taken; of others, and of a list, all must be there.
    target : str, default="domain"
        Column of the domains. Clips without a value are not learnt from.
    min_auc : float, default=0.9
        Least area under the ROC curve, the mean over the folds, for a group to be switched on.
    cv : int, default=5
        Number of folds, stratified; never more than a group has clips in its smaller domain.
    n_jobs : int, default=None
        Groups fitted in parallel.
    random_state : int, RandomState instance or None, default=None
        Seed of the folds and of the default classifier; another `classifier` has its own.

    Attributes
    ----------
    classes_ : ndarray of shape (2,)
        The domains, sorted: "source" before "target". Of plain arrays the classes in ``y``.
    auc_ : dict
        Cross-validated AUC by group, NaN where there is only one domain.
    active_ : dict
        Whether the classifier is switched on, by group.
    classifiers_ : dict
        Fitted classifiers by group, None where switched off.
    training_proba_ : ndarray of shape (n_clips, n_classes)
        Probabilities of the training clips, each from the fold in which it was held out.
    n_features_in_ : int
        Number of features; not for clip tables.

    See Also
    --------
    DomainNormalizedDetector : Standardises scores per predicted domain.

    Notes
    -----
    Groups have networks of their own, not one in common: what sets the domains apart differs from
    section to section (a speed, a load, a microphone, the noise), so that what is target in one may
    be source in another; a group that is added or switched off does not touch the others. With
    ``by="machine"`` there is one for all sections of a machine, if the domains are the same.

    Switched off means NaN, not 0, because 0 would be a claim; ``predict`` answers the more frequent
    domain there.

    The report does not say which sections have obvious domain differences, nor how it found them;
    both `min_auc` and cross-validation are ours, and use training clips alone.

    References
    ----------
    .. [1] AITHU's report on DCASE 2022 task 2, section 4, submission-1.

    Examples
    --------
    >>> import numpy as np
    >>> import xarray as xr
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sk_asd.domains import DomainClassifier
    >>> values = np.random.default_rng(0).normal(size=(40, 2))
    >>> domain = np.array(["source", "target"] * 20)
    >>> values[1:20:2, 0] += 9  # section 00 has a domain difference, section 01 has none
    >>> labels = {
    ...     "section": ("clip", np.repeat(["00", "01"], 20)),
    ...     "domain": ("clip", domain),
    ... }
    >>> X = xr.DataArray(values, dims=("clip", "embedding"), coords=labels)
    >>> classifier = DomainClassifier(LogisticRegression()).fit(X)
    >>> classifier.active_
    {'00': True, '01': False}
    >>> classifier.predict_proba(X[[0, 20]]).round(1)
    array([[ 1.,  0.],
           [nan, nan]])
    """

    _parameter_constraints: dict = {
        "classifier": [HasMethods(["fit", "predict_proba"]), None],
        "by": [str, list, tuple, None],
        "target": [str],
        "min_auc": [Interval(Real, 0, 1, closed="both")],
        "cv": [Interval(Integral, 2, None, closed="left")],
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
    }
    _state = (
        "_by",
        "_labelled",
        "classes_",
        "auc_",
        "classifiers_",
        "_most_frequent",
        "_most_frequent_of_all",
        "training_proba_",
        "active_",
    )

    def __init__(
        self,
        classifier=None,
        by=BY,
        *,
        target="domain",
        min_auc=0.9,
        cv=5,
        n_jobs=None,
        random_state=None,
    ):
        self.classifier = classifier
        self.by = by
        self.target = target
        self.min_auc = min_auc
        self.cv = cv
        self.n_jobs = n_jobs
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None):
        """Cross-validate on the clips of every group, and fit where it pays.

        Parameters
        ----------
        X : DataArray, DataFrame or array-like
            What the classifier takes, with the columns `by` and `target` as labels.
        y : array-like of shape (n_clips,), default=None
            Domains of a plain array; ignored where `X` carries labels.

        Returns
        -------
        self
            The fitted classifier.

        Raises
        ------
        ValueError
            If domains are missing or there are more than two, or groups are.
        """
        X, y = normal_clips(X, y)
        classes, codes = self._domains(X, y)
        X, groups = self._split(X, reset=True)
        check_consistent_length(X, codes)
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        base = Cnn6Classifier(random_state=seed) if self.classifier is None else self.classifier
        rows = rows_by_group(groups)
        fitted = Parallel(n_jobs=self.n_jobs)(
            task(_fit_group, base, take_clips(X, r), codes[r], classes, self.cv, self.min_auc, seed)
            for r in rows.values()
        )
        self.classes_ = classes
        self.auc_, self.classifiers_, self._most_frequent = {}, {}, {}
        self._most_frequent_of_all = _most_frequent(codes)
        self.training_proba_ = np.full((len(X), len(classes)), np.nan)
        for (name, r), (classifier, auc, proba) in zip(rows.items(), fitted):
            self.auc_[name], self.classifiers_[name] = auc, classifier
            self._most_frequent[name] = _most_frequent(codes[r])
            if classifier is not None:
                self.training_proba_[r] = proba
        self.active_ = {name: c is not None for name, c in self.classifiers_.items()}
        return self

    def predict_proba(self, X):
        """Probability of the domains.

        Parameters
        ----------
        X : DataArray, DataFrame or array-like
            As in ``fit``; the domain is not needed.

        Returns
        -------
        ndarray of shape (n_clips, n_classes)
            Probabilities in the order of ``classes_``; NaN where the group is switched off, or was
            not there in training.

        Raises
        ------
        ValueError
            If the labels are missing that ``fit`` had.
        """
        return self._predict(X)[0]

    def predict(self, X):
        """Predict the domain.

        Parameters
        ----------
        X : DataArray, DataFrame or array-like
            As in ``fit``; the domain is not needed.

        Returns
        -------
        ndarray of shape (n_clips,)
            More probable domain; where ``predict_proba`` gives NaN, the more frequent one in
            training.
        """
        proba, most_frequent = self._predict(X)
        unknown = np.isnan(proba[:, 0])
        return self.classes_[np.where(unknown, most_frequent, proba.argmax(axis=1))]

    def _predict(self, X):
        check_is_fitted(self, "classifiers_")
        X, groups = self.split_groups(X)
        proba = np.full((len(X), len(self.classes_)), np.nan)
        most_frequent = np.empty(len(X), dtype=int)
        for name, rows in rows_by_group(groups).items():
            most_frequent[rows] = self._most_frequent.get(name, self._most_frequent_of_all)
            if self.active_.get(name, False):
                proba[rows] = self.classifiers_[name].predict_proba(take_clips(X, rows))
        return proba, most_frequent

    def _split(self, X, reset):
        """Checked input, and the group of every clip."""
        groups = self._find_groups(X, reset, stacklevel=5)
        if not self._check_container(X, reset):
            if isinstance(X, pd.DataFrame):
                X = plain(X).drop(columns=[*self._columns(), self.target], errors="ignore")
            X = validate_data(self, X, reset=reset, dtype="numeric", allow_nd=True)
        return X, groups

    def _domains(self, X, y):
        """Classes, and the code of every clip's class, −1 where it is not known."""
        if is_clip_table(X) or is_labelled(X) or column_of(X, self.target) is not None:
            return domain_codes(clip_labels(X, self.target, "target"), f"column {self.target!r}")
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        classes, codes = np.unique(y, return_inverse=True)
        return _at_most_two(classes, "y"), codes

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        tags.input_tags.three_d_array = True
        return tags


def domain_codes(labels, source):
    """Domains, and the code of every clip's domain, −1 where it has none.

    Parameters
    ----------
    labels : sequence
        Domain of every clip; None and NaN are missing.
    source : str
        Where they are from, for the message.

    Returns
    -------
    domains : ndarray of shape (2,)
        The domains, sorted; "source" and "target" both, even where only one is there.
    codes : ndarray of shape (n_clips,)
        Position in `domains`.

    Raises
    ------
    ValueError
        If there are more than two.
    """
    labels = pd.Series(labels, dtype=object)
    found = set(labels.dropna())
    domains = _at_most_two(sorted(found | set(DOMAINS) if found <= set(DOMAINS) else found), source)
    return domains, pd.Categorical(labels, categories=domains).codes.astype(int)


def _at_most_two(domains, source):
    if len(domains) > 2:
        raise ValueError(
            "Only binary classification is supported. The type of the target is multiclass: "
            f"{source} has the domains {list(domains)}."
        )
    return np.asarray(domains)


def _most_frequent(codes):
    return np.bincount(codes[codes >= 0], minlength=1).argmax()


def _fit_group(base, X, codes, classes, cv, min_auc, seed):
    """Classifier of one group, None where it is no good, its AUC and held-out probabilities."""
    known = np.flatnonzero(codes >= 0)
    n_folds = min(cv, np.bincount(codes[known], minlength=2).min())
    if n_folds < 2:
        return None, np.nan, None

    def fit(rows):
        return clone(base).fit(take_clips(X, rows), classes[codes[rows]])

    folds = StratifiedKFold(n_folds, shuffle=True, random_state=seed)
    proba, aucs = np.empty((len(codes), 2)), []
    for train, test in folds.split(known, codes[known]):
        rows = known[test]
        proba[rows] = fit(known[train]).predict_proba(take_clips(X, rows))
        aucs.append(roc_auc_score(codes[rows], proba[rows, 1]))
    auc = float(np.mean(aucs))
    if auc < min_auc:
        return None, auc, None
    classifier = fit(known)
    rest = np.flatnonzero(codes < 0)
    if len(rest):
        proba[rest] = classifier.predict_proba(take_clips(X, rest))
    return classifier, auc, proba
