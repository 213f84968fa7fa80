"""What the protocols A and C choose of a fitted system: detector, score, weights.

All that is chosen by default comes from one training: detectors are fitted anew to the embeddings
that are there, and a reconstruction is measured in several ways.
"""

import warnings

import numpy as np
import xarray as xr
from sklearn.base import clone
from sklearn.model_selection import ParameterGrid
from sklearn.pipeline import Pipeline

from sk_asd.detectors import CosineDetector, KNNDetector, LOFDetector, MahalanobisDetector
from sk_asd.ensemble import GroupedDetector, ScoreEnsemble
from sk_asd.ensemble._grid_metrics import GridMetric
from sk_asd.ensemble._simplex import grid_weights, normalized
from sk_asd.metrics import dcase_score
from sk_asd.metrics._dcase import NotMeasurable
from sk_asd.utils._system import (
    chunks,
    detector_of,
    is_ensemble,
    is_rescaled,
    scores_of,
    unwrapped,
)

DETECTORS = {
    "knn": KNNDetector,
    "lof": LOFDetector,
    "cosine": CosineDetector,
    "mahalanobis": MahalanobisDetector,
}
_STEP = 0.1  # of the grid of weights


def is_choosable(system, grid):
    """Whether there is something to choose for an unfitted system."""
    return grid is not None or isinstance(system, ScoreEnsemble) or _kind(system) is not None


def can_choose(clips, rules, where):
    """Whether the labels of clips can choose something; else say that the settings are fixed.

    Parameters
    ----------
    clips : DataFrame
        Clips whose labels may be seen.
    rules : int or None
        Year of the rules.
    where : object
        Whose clips they are, for the warning.

    Returns
    -------
    bool
        Whether they can.
    """
    try:
        dcase_score(clips, np.zeros(len(clips)), rules=rules)
    except NotMeasurable as error:
        warnings.warn(f"{where}: nothing is chosen, the settings are fixed. {error}", stacklevel=2)
        return False
    return True


def choices_of(system):
    """Weights of an ensemble, as pairs of what it is and its value; nothing of others."""
    system = unwrapped(system)
    if not is_ensemble(system):
        return []
    named = zip(system.get_feature_names_out(), system.weights_)
    return [(f"weight of {name}", float(weight)) for name, weight in named]


def choose(system, grid, train, seen, rules):
    """Choose by the labels of clips; of equally good settings the fixed ones.

    Parameters
    ----------
    system : outlier detector
        Fitted to `train`.
    grid : dict, list of dict or None
        Parameters to choose from, as :class:`~sklearn.model_selection.ParameterGrid` takes them;
        None: detector, score and weights, as in the report.
    train, seen : DataFrame
        Training clips, and test clips whose labels the choice may see.
    rules : int or None
        Year of the rules.

    Returns
    -------
    system : outlier detector
        Fitted.
    choices : list of tuple
        What was chosen, and its value.
    """
    system = unwrapped(system)
    if is_ensemble(system):
        return _choose_in_ensemble(system, grid, train, seen, rules)
    return _best(system, grid, train, seen, rules)


def _best(system, grid, train, seen, rules):
    """The best of the variants of a system, and what was chosen."""

    def value_of(scores):
        return dcase_score(seen, scores, rules=rules)

    if is_rescaled(system):
        # Its detector is chosen by its own scores, which cost no look at the domains.
        inner, choices = _best(system.detector_, grid, train, seen, rules)
        if inner is system.detector_:
            return system, choices
        other = system.with_detector(inner)
        if value_of(_scores(other, seen)) > value_of(_scores(system, seen)):
            return other, choices
        return system, _as_it_is(system, grid)
    best, found = value_of(_scores(system, seen)), (system, _as_it_is(system, grid))
    for make, choices, scores in _variants(system, grid, train, seen):
        value = value_of(scores)
        if value > best:
            best, found = value, (make(), choices)
    return found


def _choose_in_ensemble(ensemble, grid, train, seen, rules):
    """Members one by one, then all their weights; the fixed settings where nothing is better."""
    members, choices, weights = {}, [], None
    for name, member in zip(ensemble.get_feature_names_out(), ensemble.estimators_):
        own = None if grid is None else _of_member(grid, name)
        member = unwrapped(member)
        if own == {} or (own is None and _kind(member) is None):
            continue
        chosen, told = _best(member, own, train, seen, rules)
        choices += [(f"{what} of {name}", value) for what, value in told]
        if chosen is not member:
            members[name] = chosen
    if grid is not None:
        weights = grid.get("weights")
    chosen = ensemble.with_members(members) if members else ensemble
    settings = (
        grid_weights(len(ensemble.weights_), _STEP)
        if weights is None
        else np.asarray(weights, dtype=float)
    )
    metric = GridMetric(seen, rules=rules, column="total", max_fpr=0.1)
    matrix = _matrix(ensemble, seen)
    fixed = metric(matrix, ensemble.weights_[np.newaxis])[0]
    if members:
        matrix = _matrix(chosen, seen)
    values = metric(matrix, normalized(settings))
    best = int(np.argmax(values >= values.max() - 1e-12))
    if values[best] > fixed:
        ensemble = chosen.with_weights(settings[best])
    else:
        choices = []
        for name, member in zip(ensemble.get_feature_names_out(), ensemble.estimators_):
            own = None if grid is None else _of_member(grid, name)
            choices += [(f"{w} of {name}", v) for w, v in _as_it_is(unwrapped(member), own)]
    return ensemble, choices + choices_of(ensemble)


def _of_member(grid, name):
    start = f"{name}__"
    return {key.removeprefix(start): grid[key] for key in grid if key.startswith(start)}


def _scores(system, clips):
    """Scores of clips whose features may not fit into memory at once."""
    return np.concatenate([scores_of(system, part) for part in chunks(clips)])


def _matrix(ensemble, clips):
    return np.concatenate([np.asarray(ensemble.transform(part)) for part in chunks(clips)])


def _kind(system):
    """What can be chosen of a system without training anew: "detector", "metric" or None."""
    system = system.detector_ if is_rescaled(system) else getattr(system, "detector", system)
    if not isinstance(system, Pipeline) or not isinstance(system[-1], GroupedDetector):
        return None
    inner = system[-1].detector
    if inner is None or type(inner) in DETECTORS.values():
        return "detector"
    return "metric" if hasattr(inner, "score_metrics") and system[-1].over is None else None


def _as_it_is(system, grid):
    """What is said where the fixed settings are the best."""
    if grid is not None:
        params = system.get_params()
        keys = {key for part in ParameterGrid(grid) for key in part}
        return [(key, _said(params[key])) for key in sorted(keys)]
    kind, system = _kind(system), system.detector_ if is_rescaled(system) else system
    if kind == "metric":
        return [(kind, system[-1].detector.metric)]
    named = {cls: name for name, cls in DETECTORS.items()}
    return [(kind, named[type(_inner(system))])] if kind else []


def _inner(system):
    """Outlier detector of every group of a Pipeline that ends in a GroupedDetector."""
    inner = detector_of(system).detector
    return KNNDetector() if inner is None else inner


def _said(value):
    return value if isinstance(value, (str, int, float)) else repr(value)


def _variants(system, grid, train, seen):
    """What a system may be instead.

    Yields
    ------
    make : callable
        Makes the fitted variant.
    choices : list of tuple
        What is chosen with it, and its value.
    scores : ndarray of shape (n_clips,)
        Its scores of the clips `seen`.
    """
    if grid is not None:
        yield from _of_grid(system, grid, train, seen)
    elif _kind(system) == "metric":
        yield from _metrics(system, seen)
    elif _kind(system) == "detector":
        inner = _inner(system)
        settings = {"contamination": inner.contamination, "threshold": inner.threshold}
        last = system.steps[-1][0]
        others = {n: cls(**settings) for n, cls in DETECTORS.items() if cls is not type(inner)}
        grid = {f"{last}__detector": list(others.values())}
        for name, (make, _, scores) in zip(others, _of_grid(system, grid, train, seen)):
            yield make, [("detector", name)], scores


def _of_grid(system, grid, train, seen):
    settings = list(ParameterGrid(grid))
    behind = isinstance(system, Pipeline) and len(system) > 1
    if behind:
        start = f"{system.steps[-1][0]}__"
        behind = all(key.startswith(start) for params in settings for key in params)
    if behind:
        front = system[:-1]
        train, seen = (_transformed(front, clips) for clips in (train, seen))
        settings = [{k.removeprefix(start): v for k, v in s.items()} for s in settings]
    for params in settings:
        one = clone(system[-1] if behind else system).set_params(**clone(params, safe=False))
        one.fit(train)
        scores = scores_of(one, seen) if behind else _scores(one, seen)
        said = [(start + k if behind else k, _said(v)) for k, v in sorted(params.items())]

        def make(one=one):
            return Pipeline([*system.steps[:-1], (system.steps[-1][0], one)]) if behind else one

        yield make, said, scores


def _metrics(system, seen):
    front, grouped = system[:-1], system[-1]
    parts = []
    for clips in chunks(seen):
        features, answers = grouped.answering(front.transform(clips))
        scores = {}
        for rows, detector in answers:
            found = detector.score_metrics(features[rows])
            for name in found:
                scores.setdefault(name, np.empty(len(clips)))[rows] = found[name]
        parts.append(scores)
    for name in parts[0]:

        def make(name=name):
            return Pipeline([*system.steps[:-1], (system.steps[-1][0], grouped.with_metric(name))])

        yield make, [("metric", name)], np.concatenate([part[name] for part in parts])


def _transformed(front, clips):
    """What a front end makes of clips whose features may not fit into memory at once."""
    parts = [front.transform(part) for part in chunks(clips)]
    if isinstance(parts[0], xr.DataArray):
        return xr.concat(parts, dim="clip")
    return np.concatenate(parts)
