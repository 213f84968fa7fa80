"""Scores of estimators."""

from sk_asd.metrics._dcase import dcase_score, is_test
from sk_asd.utils._containers import take_clips
from sk_asd.utils._system import score_samples_of


def anomaly_score(estimator, X):
    """Compute how abnormal clips are: high = abnormal.

    The one place that turns scikit-learn's sign round.

    Parameters
    ----------
    estimator : estimator
        Fitted, with `score_samples`.
    X : clip table, DataArray or array-like
        What the estimator takes.

    Returns
    -------
    ndarray of shape (n_clips,)
        ``-estimator.score_samples(X)`` in float64; +inf is as abnormal as can be.

    Raises
    ------
    TypeError
        If the estimator has no `score_samples`, as PyOD's detectors, which must be put into a
        :class:`~sk_asd.ensemble.GroupedDetector`.
    ValueError
        If a score is NaN or, of the estimator, +inf.

    See Also
    --------
    dcase_scores : Metrics; they take the scores as `score_samples` gives them.

    Examples
    --------
    >>> from sklearn.neighbors import LocalOutlierFactor
    >>> from sk_asd.metrics import anomaly_score
    >>> detector = LocalOutlierFactor(n_neighbors=2, novelty=True).fit([[0.0], [1.0], [2.0]])
    >>> anomaly_score(detector, [[1.0], [9.0]]).round(2)
    array([0.88, 4.37])
    """
    return -score_samples_of(estimator, X)


def dcase_scorer(estimator, X, y=None, *, rules=None, max_fpr=0.1):
    """Score an estimator with the official number, for ``GridSearchCV(..., scoring=dcase_scorer)``.

    Only the test clips of `X` are scored, so that it can be given a whole clip table.

    Parameters
    ----------
    estimator : estimator
        Fitted, with `score_samples`.
    X : DataFrame or DataArray
        Clip table, or an array labelled from one; see :func:`dcase_scores`.
    y : None
        Ignored: the labels are a column of `X`.
    rules : {2020, 2021, 2022}, default=None
        Year of the rules; None as in :func:`dcase_scores`. For another year pass
        ``functools.partial(dcase_scorer, rules=2020)``.
    max_fpr : float, default=0.1
        Largest false positive rate of the partial AUC.

    Returns
    -------
    float
        The official score in [0, 1]; greater is better.

    See Also
    --------
    sk_asd.model_selection.NormalTrainSplit : The splitter that goes with it.
    dcase_scores : What is computed, and the errors.

    Examples
    --------
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sk_asd.metrics import dcase_scorer
    >>> from sk_asd.model_selection import NormalTrainSplit
    >>> search = GridSearchCV(
    ...     pipeline, {"detector__n_neighbors": [1, 2]}, scoring=dcase_scorer, cv=NormalTrainSplit()
    ... )  # doctest: +SKIP
    """
    rows = is_test(X)
    X = X if rows.all() else take_clips(X, rows)
    scores = score_samples_of(estimator, X)
    return dcase_score(X, scores, rules=rules, max_fpr=max_fpr)
