"""What a fitted system is: the one place that takes one apart.

A *system* is anything that scores clips: a detector, a Pipeline that ends in one, an ensemble, a
search around one, a frozen one. Its *front end* are the transformers that a clip goes through, its
*detector* is what scores in the end. A detector has *groups* where it has a threshold and training
scores for each of them, as a ``GroupedDetector``; every other has one group, called None.
"""

import contextlib

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.svm import OneClassSVM
from sklearn.utils.validation import check_is_fitted

from sk_asd.utils._checked_scores import checked_scores
from sk_asd.utils._containers import take_clips
from sk_asd.utils._learning import why_not_learn
from sk_asd.utils._normal_threshold import checked_threshold, normal_threshold
from sk_asd.utils._sklearn import _num_samples

CHUNK_SIZE = 256  # clips whose features are in memory at a time


def unwrapped(estimator, rescaled=False):
    """What a search has chosen, or a FrozenEstimator holds; anything else as it is.

    With `rescaled` also what a DomainNormalizedDetector gives the scores of, on another scale.
    """
    while True:
        if isinstance(estimator, FrozenEstimator):
            estimator = estimator.estimator
        elif hasattr(estimator, "best_estimator_"):
            estimator = estimator.best_estimator_
        elif rescaled and is_rescaled(estimator):
            estimator = estimator.detector_
        else:
            return estimator


def steps_of(estimator, rescaled=False):
    """Steps in order; Pipelines within Pipelines, and what :func:`unwrapped` opens, are opened."""
    estimator = unwrapped(estimator, rescaled)
    if not isinstance(estimator, Pipeline):
        return [estimator]
    return [part for _, step in inside(estimator) for part in steps_of(step, rescaled)]


def detector_of(estimator):
    """What scores in the end."""
    while isinstance(estimator := unwrapped(estimator), Pipeline):
        estimator = estimator[-1]
    return estimator


def is_frozen(estimator):
    """Whether the estimator, or the last step of a Pipeline, is a FrozenEstimator."""
    while isinstance(estimator, Pipeline):
        estimator = estimator[-1]
    return isinstance(estimator, FrozenEstimator)


def is_grouped(detector):
    """Tell a fitted GroupedDetector."""
    return isinstance(getattr(detector, "offsets_", None), dict)


def is_ensemble(detector):
    """Tell a fitted ScoreEnsemble."""
    return hasattr(detector, "contributions") and hasattr(detector, "estimators_")


def is_rescaled(detector):
    """Tell a fitted DomainNormalizedDetector."""
    return hasattr(detector, "domain_classifier_") and hasattr(detector, "detector_")


def is_passthrough(step):
    """Whether a step of a Pipeline does nothing."""
    return step is None or (isinstance(step, str) and step == "passthrough")


def each(estimators):
    """Estimators of a group: one, one for every value of the column `over`, or none."""
    if estimators is None:
        return []
    return list(estimators.values()) if isinstance(estimators, dict) else [estimators]


def inside(estimator):
    """Names, or groups, and estimators that one is made of; the fitted ones but in a Pipeline."""
    if isinstance(estimator, Pipeline):
        return [(name, step) for name, step in estimator.steps if not is_passthrough(step)]
    if is_ensemble(estimator):
        return list(zip(estimator.get_feature_names_out(), estimator.estimators_))
    if is_rescaled(estimator):
        found = {"detector": estimator.detector_, "classifier": estimator.domain_classifier_}
    else:
        found = getattr(estimator, "detectors_", getattr(estimator, "classifiers_", None))
    return [(k, one) for k, v in found.items() for one in each(v)] if type(found) is dict else []


def parts(estimator, where=""):
    """Walk through a system, containers first.

    Parameters
    ----------
    estimator : estimator
        The system.
    where : str
        Its own place.

    Yields
    ------
    where : str
        Place of a part.
    part : estimator
        The part.
    """
    estimator = unwrapped(estimator)
    yield where or type(estimator).__name__, estimator
    for name, inner in inside(estimator):
        yield from parts(inner, joined(where, name))


def joined(where, name):
    """Place of a part inside another; the only group, None, has no name."""
    return " / ".join(str(part) for part in (where, name) if part not in ("", None))


def extractors(system):
    """Feature extractors that a system holds, fitted or not."""
    return _with_parameters(system, {"n_jobs", "cache_dir"})


def networks(system):
    """Estimators in a system that train a network, fitted or not."""
    return _with_parameters(system, {"device", "max_epochs"})


@contextlib.contextmanager
def portable(system):
    """Let a fitted system forget where, and how loudly, it was trained, for the time of a save."""
    plain = {"cache_dir": None, "device": "auto", "verbose": 0}
    before = []
    for part in [*extractors(system), *networks(system)]:
        params = part.get_params(deep=False)
        changed = {name: params[name] for name in plain if name in params}
        before.append((part, changed))
        part.set_params(**{name: plain[name] for name in changed})
    try:
        yield
    finally:
        for part, changed in reversed(before):
            part.set_params(**changed)


def _with_parameters(system, names):
    return [part for part in every_estimator(system) if names <= set(part.get_params(deep=False))]


def every_estimator(value, seen=None):
    """All estimators that an estimator, a list or a dict holds in whatever way, each once."""
    seen = set() if seen is None else seen
    if isinstance(value, BaseEstimator):
        if id(value) in seen:
            return
        seen.add(id(value))
        yield value
        value = vars(value)
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for part in value:
            yield from every_estimator(part, seen)


def chunks(clips, size=CHUNK_SIZE):
    """Parts of a container of clips whose features fit into memory."""
    for start in range(0, _num_samples(clips), size):
        yield take_clips(clips, slice(start, start + size))


def scores_of(system, X):
    """Scores of any outlier detector, high = normal; an error where one is NaN or +inf."""
    last = detector_of(system)
    if hasattr(system, "score_samples"):
        scores = system.score_samples(X)
    else:
        scores = np.asarray(system.decision_function(X), dtype=float)
        scores = -scores if _is_pyod(last) else scores
    return checked_scores(scores, last)


def score_samples_of(system, X):
    """What the ``score_samples`` of a system gives, checked, or an error that says how to get one.

    Raises
    ------
    TypeError
        If it has none, as a Pipeline that ends in a detector of PyOD.
    ValueError
        If a score is NaN or +inf.
    """
    if not hasattr(system, "score_samples"):
        name = type(detector_of(system)).__name__
        raise TypeError(
            f"{name} has no score_samples, high = normal, but is to score clips. Put it into "
            f"sk_asd.ensemble.GroupedDetector, which makes them of its decision_function, of PyOD "
            f"with the sign turned round: GroupedDetector({name}(...))."
        )
    return checked_scores(system.score_samples(X), system)


def training_scores_of(system, X):
    """Scores of the clips that a detector was fitted to, leave-one-out where it has them.

    A frozen detector may know other clips than `X`. It knows these where it keeps as many scores,
    and they score as the clips do that it keeps; or, where it keeps none, where no score is below
    the one that it keeps: a clip hardly vouches against itself.
    """
    last = detector_of(system)
    kept = _kept_scores(last)
    if kept is None:
        return scores_of(system, X)
    if not is_frozen(system):
        return kept
    scores = scores_of(system, X)
    if len(kept) != len(scores):
        return scores
    own = None
    if hasattr(last, "_known_scores") and why_not_learn(last) is None:
        with contextlib.suppress(ValueError):  # it has scores of clips that it did not learn
            own = last._known_scores()
    if own is not None:
        known = np.allclose(scores, own, rtol=1e-6, atol=1e-4 * np.std(kept))
    else:
        known = np.all(scores >= kept - 1e-6 * np.abs(kept))
    return kept if known else scores


def offset_of(system, X):
    """Threshold on the scores for the clips `X` it was fitted to, whatever the detector calls it.

    Densities have none: of their training scores a tenth is below it, as by default elsewhere.
    """
    last = detector_of(system)
    if is_grouped(last) and len(last.offsets_) > 1:
        raise ValueError(
            "a GroupedDetector with several groups cannot stand inside another: give all columns "
            f"to one, such as by=[..., {last.by!r}]."
        )
    threshold = _threshold(last)
    if threshold is not None:
        return checked_threshold(threshold, last)
    if not hasattr(system, "decision_function"):
        return normal_threshold(training_scores_of(system, X), contamination=0.1)
    scores = scores_of(system, X)
    first = int(np.argmax(np.isfinite(scores)))
    decision = system.decision_function(take_clips(X, [first]))
    return checked_threshold(scores[first] - decision, last)


class System:
    """A fitted system, taken apart.

    But for :meth:`transform` all methods take features: what the front end gives the detector.

    Parameters
    ----------
    estimator : outlier detector
        The fitted system.

    Attributes
    ----------
    front : list of transformer
        The front end.
    detector : outlier detector
        The detector.
    is_grouped : bool
        Whether it has groups.
    has_pool : bool
        Whether clips of groups that it does not know have a detector and a threshold, too.
    columns : tuple of str
        Columns that make the groups; empty for one group.
    """

    def __init__(self, estimator):
        *self.front, self.detector = steps_of(estimator)
        check_is_fitted(self.detector)
        self.is_grouped = is_grouped(self.detector)
        self.has_pool = self.is_grouped and hasattr(self.detector, "pooled_")
        self.columns = self.detector.group_columns_ if self.is_grouped else ()

    def transform(self, X):
        """What the detector is given for clips; None for None."""
        for step in self.front if X is not None else ():
            X = step.transform(X)
        return X

    def score(self, X):
        """Scores of clips, high = normal, and the group of each."""
        if self.is_grouped:
            scores, _, groups = self.detector.score_groups(X)
            return scores, groups
        scores = scores_of(self.detector, X)
        return scores, _one_group(scores)

    def score_and_threshold(self, X):
        """As :meth:`score`, with the threshold that counts for each clip between the two.

        Raises
        ------
        TypeError
            If there is no threshold.
        """
        if self.is_grouped:
            scores, thresholds, groups = self.detector.score_groups(X)
        else:
            (threshold,) = self.thresholds().values()
            scores, groups = self.score(X)
            thresholds = np.full(len(scores), threshold)
        for threshold in np.unique(thresholds):
            checked_threshold(threshold, self.detector)
        return scores, thresholds, groups

    def known(self, calibration=None):
        """Scores of normal clips to compare others with, and the group of each.

        Parameters
        ----------
        calibration : container, default=None
            Features of normal clips that the system was not fitted to; None takes the training
            scores that the detector kept.

        Returns
        -------
        scores : ndarray of shape (n_clips,)
            Scores, high = normal.
        groups : ndarray of shape (n_clips,)
            The groups.

        Raises
        ------
        ValueError
            If the detector kept none.
        """
        if calibration is not None:
            return self.score(calibration)
        scores = _kept_scores(self.detector)
        if scores is None:
            raise ValueError(
                f"{type(self.detector).__name__} keeps no scores of its training clips: give "
                "normal clips that it was not fitted to as calibration=."
            )
        return scores, self.detector.training_groups_ if self.is_grouped else _one_group(scores)

    def pooled(self, calibration=None):
        """As the scores of :meth:`known`, by the detector for groups that are not known."""
        pooled = self.detector.pooled_
        if calibration is None:
            return System(pooled).known()[0]
        return scores_of(pooled, self.detector.split_groups(calibration)[0])

    def thresholds(self):
        """Threshold by group; ``{None: threshold}`` where there are no groups.

        Raises
        ------
        TypeError
            If there is none.
        """
        if self.is_grouped:
            return dict(self.detector.offsets_)
        threshold = _threshold(self.detector)
        if threshold is None:
            raise self._without_threshold()
        return {None: threshold}

    def set_thresholds(self, by_group, pooled=None):
        """Set the thresholds of some groups, and that for clips of groups that are not known."""
        detector = self.detector
        if self.is_grouped:
            detector.offsets_ = {**detector.offsets_, **by_group}
            if pooled is not None:
                detector.pooled_offset_ = pooled
            return
        (threshold,) = by_group.values()
        if isinstance(detector, OneClassSVM):
            raise TypeError(
                f"{type(detector).__name__} decides without its offset_, which only moves "
                "score_samples: its threshold cannot be changed after fit."
            )
        if hasattr(detector, "metric_offsets_"):  # one for every metric
            detector.metric_offsets_[detector.metric] = threshold
        elif hasattr(detector, "offset_"):
            detector.offset_ = threshold
        elif _is_pyod(detector):
            detector.threshold_ = -threshold
        else:
            raise self._without_threshold()

    def _without_threshold(self):
        return TypeError(f"{type(self.detector).__name__} has no threshold on its scores.")


def _is_pyod(detector):
    """PyOD's detectors score high = abnormal and keep their training scores so."""
    return hasattr(detector, "decision_scores_")


def _kept_scores(detector):
    """Scores of its training clips that a detector keeps, or None."""
    if hasattr(detector, "training_scores_"):
        kept = detector.training_scores_
    elif hasattr(detector, "negative_outlier_factor_"):  # scikit-learn's LocalOutlierFactor
        kept = detector.negative_outlier_factor_
    elif _is_pyod(detector):
        kept = -detector.decision_scores_
    else:
        return None
    return checked_scores(kept, detector)


def _threshold(detector):
    """The only threshold of a detector on its scores, or None."""
    if hasattr(detector, "offset_"):
        return float(np.ravel(detector.offset_)[0])
    return -float(detector.threshold_) if _is_pyod(detector) else None


def _one_group(scores):
    return np.full(len(scores), None)
