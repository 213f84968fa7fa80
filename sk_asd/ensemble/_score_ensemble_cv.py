"""The weights of a ScoreEnsemble, searched on one matrix of scores."""

from numbers import Integral, Real

import numpy as np
import pandas as pd
from scipy.stats import rankdata
from sklearn.base import OutlierMixin, clone
from sklearn.metrics import check_scoring, get_scorer_names
from sklearn.model_selection import check_cv
from sklearn.utils import check_array, check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from sk_asd.ensemble._by_columns import BY
from sk_asd.ensemble._grid_metrics import METRICS, GridMetric, metric_of
from sk_asd.ensemble._members import NamedMembers
from sk_asd.ensemble._score_ensemble import ScoreEnsemble
from sk_asd.ensemble._simplex import convex, grid_weights, normalized
from sk_asd.ensemble._splits import pseudo_split, true_splits
from sk_asd.model_selection import NormalTrainSplit
from sk_asd.utils._containers import as_clips, is_labelled, take_clips
from sk_asd.utils._sklearn import HasMethods, Interval, StrOptions, _fit_context

_TOLERANCE = 1e-12  # scores that differ by less are equal up to rounding


def _refitted(self):
    if not self.refit:
        raise AttributeError(f"{type(self).__name__} has no estimator to ask with refit=False.")
    return True


class ScoreEnsembleCV(OutlierMixin, NamedMembers):
    """A :class:`ScoreEnsemble` that chooses its weights.

    Every member is fitted and asked once; then all weights of a grid are compared on the matrix of
    standardised scores. The result is that of scikit-learn's ``GridSearchCV`` over ``weights``.

    Parameters
    ----------
    estimators : list of tuple (str, outlier detector)
        Members by name, as in :class:`ScoreEnsemble`.
    step : float, default=0.1
        Distance of the grid of :func:`simplex_grid`.
    scoring : str or callable, default="dcase"
        What to maximise. ``"dcase"`` or ``"hmean"`` is the official number
        (:func:`~sk_asd.metrics.dcase_score`), ``"auc_source"``, ``"auc_target"`` and ``"pauc"``
        are its parts, the totals in the columns of :func:`~sk_asd.metrics.dcase_scores`, and
        ``"auc"`` is the AUC whatever the domain, the mean over sections and machines. These, and
        :func:`~sk_asd.metrics.dcase_scorer` or a :func:`functools.partial` of it, are computed for
        all weights at once. Any other scorer of scikit-learn is called once for every setting.
    cv : int, splitter or None, default=None
        Which clips to fit and which to score. With true labels None is
        :class:`~sk_asd.model_selection.NormalTrainSplit`; an int is a number of folds. With pseudo
        labels the normal training clips are split, an int being a number of shuffled folds,
        stratified by machine, section, group and domain, and None 3.
    labels : {"true", "pseudo"}, default="true"
        ``"true"``: the labels of the clips that are scored. ``"pseudo"``: no labels and no test
        clips are looked at; normal training clips, held out, are compared with pseudo-anomalies.
    pseudo : {"other", "perturbed"}, default="other"
        Pseudo-anomalies. ``"other"``: held-out clips of other sections of the machine, or of other
        machines where it has one section, under the labels of the section. ``"perturbed"``: the
        held-out clips changed; see Notes.
    by : str or sequence of str or None, default=("machine", "section")
        Column, or columns whose combinations make the groups; None for one group. Of the default
        those that are there are taken; of others, and of a list, all must be there.
    crossfit : int, splitter or None, default=None
        The parameter `cv` of :class:`ScoreEnsemble`.
    contamination : float, default=0.1
        Share of normal clips that may be called abnormal.
    threshold : {"quantile", "gamma"}, default="quantile"
        How to find the threshold.
    n_jobs : int, default=None
        Members fitted in parallel, and threads of the search.
    memory : str or object with the joblib.Memory interface, default=None
        Where fitted members and scores are kept; see :class:`ScoreEnsemble`.
    refit : bool, default=True
        Whether to make ``best_estimator_``. It is fitted to the training clips of all splits; of a
        single split the fitted members are taken as they are.
    random_state : int, RandomState instance or None, default=None
        Seed of folds and pseudo-anomalies.

    Attributes
    ----------
    best_weights_ : ndarray of shape (n_members,)
        One weight for every member, 0 for dropped ones. Of weights whose scores are equal the most
        uniform ones, and of equally uniform ones those that weigh the first members most.
    best_score_ : float
        Their mean score.
    best_index_ : int
        Their row in ``cv_results_``.
    best_params_ : dict
        ``{"weights": ...}``, for ``set_params``.
    cv_results_ : dict of ndarray
        All settings, in the order of :func:`simplex_grid`, as ``GridSearchCV`` has them:
        ``params``, ``weight_<name>`` for every member, ``split<i>_test_score``,
        ``mean_test_score``, ``std_test_score``, ``rank_test_score``. Ready for
        :class:`pandas.DataFrame`.
    best_estimator_ : ScoreEnsemble
        The ensemble with the best weights; only with `refit`.
    n_splits_ : int
        Number of splits; the folds of pseudo labels are one matrix.

    See Also
    --------
    ScoreEnsemble : The same with weights that are given.

    Notes
    -----
    **Ties** are scores that differ by less than 1e-12. ``GridSearchCV`` over :func:`simplex_grid`
    takes the first of the best as well, but takes numbers for different whose last digits differ.

    **Perturbations** of a sound, each for a sixth of the clips: a tone 5 to 15 dB below the clip;
    noise in a band 0 to 10 dB below it; the clip reversed; one to three segments of 3 to 8 %
    nearly silent; a segment of 10 to 30 % moved elsewhere; speed and pitch changed by 3 to 9 %. A
    clip is as loud after as before. Some of them a steady machine does not show at all. Of arrays,
    which have no sound, every feature is taken from another clip of the same section.

    **What pseudo-anomalies are worth.** They stand for what a machine may do wrong, as nobody knows
    it. Clips of other sections favour members that were trained to tell sections apart. Where a
    search with true labels reports its score on the same clips, that is an upper bound (protocol A
    of the user guide); one with pseudo labels is not, since it never sees a test clip.

    Examples
    --------
    >>> from sk_asd.datasets import make_machine_sounds
    >>> from sk_asd.ensemble import ScoreEnsembleCV
    >>> from sk_asd.systems import make_pooling
    >>> clips = make_machine_sounds(
    ...     ("fan",), sections=2, n_train=12, n_test=10, duration=1.0, random_state=0
    ... )
    >>> search = ScoreEnsembleCV(
    ...     [("mean", make_pooling(r=1.0)), ("peaks", make_pooling(r=0.5))], step=0.25
    ... ).fit(clips)
    >>> len(search.cv_results_["params"]), search.score_samples(clips).shape
    (5, (44,))
    """

    _parameter_constraints: dict = {
        "estimators": [list],
        "step": [Interval(Real, 0, 1, closed="right")],
        "scoring": [str, callable],
        "cv": ["cv_object"],
        "labels": [StrOptions({"true", "pseudo"})],
        "pseudo": [StrOptions({"other", "perturbed"})],
        "by": [str, list, tuple, None],
        "crossfit": ["cv_object"],
        "contamination": [Interval(Real, 0, 0.5, closed="right")],
        "threshold": [StrOptions({"quantile", "gamma"})],
        "n_jobs": [Integral, None],
        "memory": [str, HasMethods(["cache"]), None],
        "refit": ["boolean"],
        "random_state": ["random_state"],
    }
    _state = (
        "cv_results_",
        "best_index_",
        "best_weights_",
        "best_params_",
        "best_score_",
        "n_splits_",
        "_rows",
        "best_estimator_",
    )

    def __init__(
        self,
        estimators,
        step=0.1,
        scoring="dcase",
        cv=None,
        labels="true",
        pseudo="other",
        by=BY,
        crossfit=None,
        contamination=0.1,
        threshold="quantile",
        n_jobs=None,
        memory=None,
        refit=True,
        random_state=None,
    ):
        self.estimators = estimators
        self.step = step
        self.scoring = scoring
        self.cv = cv
        self.labels = labels
        self.pseudo = pseudo
        self.by = by
        self.crossfit = crossfit
        self.contamination = contamination
        self.threshold = threshold
        self.n_jobs = n_jobs
        self.memory = memory
        self.refit = refit
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None):
        """Choose the weights.

        Parameters
        ----------
        X : clip table, DataArray or array-like
            With true labels training and test clips, in the columns ``split`` and ``label``, unless
            `cv` says which are which. With pseudo labels normal training clips; others are left
            out.
        y : array-like of shape (n_clips,), default=None
            +1 for normal, −1 for abnormal: for scorers that ask for it, never for fitting.

        Returns
        -------
        self
            The fitted search.

        Raises
        ------
        ValueError
            If members, labels or splits are not valid, or a score is not a number.
        """
        names, _, used = self._check_members()
        X = as_clips(X)
        if not isinstance(X, pd.DataFrame) and not is_labelled(X):
            checks = {"allow_nd": True, "ensure_all_finite": False, "ensure_min_samples": 2}
            X = check_array(X, estimator=self, input_name="X", **checks)
        y = None if y is None else np.asarray(y)
        settings = grid_weights(len(names), self.step)
        if self.labels == "true":
            cv = NormalTrainSplit() if self.cv is None else check_cv(self.cv)
            splits = true_splits(self._ensemble(), X, y, cv)
        else:
            rng = check_random_state(self.random_state)
            cv = 3 if self.cv is None else self.cv
            splits = [pseudo_split(self._ensemble(), X, y, cv, self.pseudo, rng)]
        scores = [self._scores(split, normalized(settings)) for split in splits]
        self._set_results(settings, np.column_stack(scores), used)
        vars(self).pop("best_estimator_", None)  # of an earlier fit
        if self.refit:
            self._set_best(X, splits, used)
        return self

    @available_if(_refitted)
    def score_samples(self, X):
        """Normality of clips, by ``best_estimator_``.

        Parameters
        ----------
        X : DataFrame, DataArray or array-like
            Clips.

        Returns
        -------
        ndarray of shape (n_clips,)
            Scores, high = normal.
        """
        return self._best().score_samples(X)

    @available_if(_refitted)
    def decision_function(self, X):
        """Scores relative to the threshold, by ``best_estimator_``.

        Parameters
        ----------
        X : DataFrame, DataArray or array-like
            Clips.

        Returns
        -------
        ndarray of shape (n_clips,)
            Negative = abnormal.
        """
        return self._best().decision_function(X)

    @available_if(_refitted)
    def predict(self, X):
        """Decide whether clips are normal, by ``best_estimator_``.

        Parameters
        ----------
        X : DataFrame, DataArray or array-like
            Clips.

        Returns
        -------
        ndarray of shape (n_clips,)
            +1 for normal, −1 for abnormal.
        """
        return self._best().predict(X)

    @available_if(_refitted)
    def fit_predict(self, X, y=None):
        """Fit, and decide on all clips, on training clips by ``training_scores_``.

        Parameters
        ----------
        X : DataFrame, DataArray or array-like
            As in ``fit``.
        y : array-like of shape (n_clips,), default=None
            As in ``fit``.

        Returns
        -------
        ndarray of shape (n_clips,)
            +1 for normal, −1 for abnormal.
        """
        decisions = self.fit(X, y).predict(X)
        decisions[self._rows] = np.where(self.training_scores_ >= self.offset_, 1, -1)
        return decisions

    @available_if(_refitted)
    def contributions(self, X):
        """Share of every member in the score of every clip, by ``best_estimator_``.

        Parameters
        ----------
        X : DataFrame, DataArray or array-like
            Clips.

        Returns
        -------
        DataArray or ndarray of shape (n_clips, n_used)
            See :meth:`ScoreEnsemble.contributions`.
        """
        return self._best().contributions(X)

    @property
    def training_scores_(self):
        """Training scores of ``best_estimator_``."""
        return self.best_estimator_.training_scores_

    @property
    def offset_(self):
        """Threshold of ``best_estimator_``."""
        return self.best_estimator_.offset_

    @property
    def n_features_in_(self):
        """Number of features of ``best_estimator_``."""
        return self.best_estimator_.n_features_in_

    @property
    def feature_names_in_(self):
        """Names of the features of ``best_estimator_``."""
        return self.best_estimator_.feature_names_in_

    def _best(self):
        check_is_fitted(self)
        return self.best_estimator_

    def _ensemble(self, weights=None):
        ensemble = ScoreEnsemble(
            self.estimators,
            weights,
            by=self.by,
            crossfit=self.crossfit,
            contamination=self.contamination,
            threshold=self.threshold,
            n_jobs=self.n_jobs,
            memory=self.memory,
        )
        return clone(ensemble)

    def _scores(self, split, settings):
        """Score of every setting on one split."""
        metric = metric_of(self.scoring)
        if metric is not None:
            return GridMetric(split.clips, **metric)(split.matrix, settings, self.n_jobs)
        if isinstance(self.scoring, str) and self.scoring not in get_scorer_names():
            raise ValueError(
                f"The parameter 'scoring' must be one of {list(METRICS)}, a callable or the name "
                f"of a scorer of scikit-learn, got {self.scoring!r}."
            )
        scorer = check_scoring(split.ensemble, self.scoring)
        scores = np.empty(len(settings))
        for i, weights in enumerate(settings):
            scores[i] = scorer(split.weighted(weights), split.clips, split.y)
        return scores

    def _set_results(self, settings, scores, used):
        weights = np.zeros((len(settings), len(used)))
        weights[:, used] = settings
        mean = scores.mean(axis=1)
        if np.isnan(mean).any():
            raise ValueError(f"scoring={self.scoring!r} gave NaN.")
        params = [{"weights": row} for row in map(tuple, weights.tolist())]
        names = [name for name, _ in self.estimators]
        self.cv_results_ = {
            "params": params,
            **{f"weight_{name}": weights[:, j] for j, name in enumerate(names)},
            **{f"split{i}_test_score": scores[:, i] for i in range(scores.shape[1])},
            "mean_test_score": mean,
            "std_test_score": scores.std(axis=1),
            "rank_test_score": rankdata(-np.round(mean, 12), method="min").astype(np.int32),
        }
        # The first of the best: settings are sorted by how uniform they are.
        self.best_index_ = int(np.argmax(mean >= mean.max() - _TOLERANCE))
        self.best_weights_ = weights[self.best_index_]
        self.best_params_ = params[self.best_index_]
        self.best_score_ = float(mean[self.best_index_])
        self.n_splits_ = scores.shape[1]

    def _set_best(self, X, splits, used):
        weights = self.best_params_["weights"]
        if self.labels == "true" and len(splits) == 1:
            self._rows = splits[0].train
            self.best_estimator_ = splits[0].ensemble.set_params(weights=weights)
            self.best_estimator_._weigh(convex(weights, used))
            return
        self._rows = np.unique(np.concatenate([split.train for split in splits]))
        self.best_estimator_ = self._ensemble(weights).fit(take_clips(X, self._rows))
