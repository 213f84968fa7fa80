"""What a saved model may name: closed tables by public name, filled before any file is read."""

import functools
import inspect

import sklearn.frozen
import sklearn.model_selection
import sklearn.neighbors
import sklearn.pipeline
import skorch.callbacks
import torch
from sklearn.base import BaseEstimator
from sklearn.model_selection import BaseCrossValidator, BaseShuffleSplit

from sk_asd import detectors, embedders, ensemble, features, metrics, model_selection, networks

# Attributes that the fit of scikit-learn's containers sets. `scorer_`, a function, is made anew.
_SEARCH = (
    "best_estimator_",
    "best_index_",
    "best_params_",
    "best_score_",
    "cv_results_",
    "feature_names_in_",
    "multimetric_",
    "n_splits_",
    "refit_time_",
)
CONTAINERS = {
    sklearn.pipeline.Pipeline: (),
    sklearn.pipeline.FeatureUnion: (),
    sklearn.frozen.FrozenEstimator: (),
    sklearn.model_selection.GridSearchCV: _SEARCH,
    sklearn.model_selection.RandomizedSearchCV: _SEARCH,
}
# Their search trees are built again from the training data; a threshold may have been set since.
REFITTED = {
    sklearn.neighbors.NearestNeighbors: "_fit_X",
    sklearn.neighbors.LocalOutlierFactor: "_fit_X",
}
TREES = {cls.__name__: cls for cls in (sklearn.neighbors.KDTree, sklearn.neighbors.BallTree)}
METRICS = {
    f"{name.capitalize()}Distance64": name for name in ("euclidean", "manhattan", "chebyshev")
}
# Made from their parameters alone. Other callbacks look up functions by name when training starts.
_CALLBACKS = ("EarlyStopping", "EpochTimer", "GradientNormClipping")
_SCORERS = ("dcase_score", "dcase_scorer")
# Parameters that are places on one machine. What lies there could run: no model may say where.
PLACES = frozenset({"cache_dir", "checkpoint", "memory"})


def _public(module, base=object):
    """Public classes of a module by name."""
    return {
        f"{module.__name__}.{name}": value
        for name, value in vars(module).items()
        if name in module.__all__ and inspect.isclass(value) and issubclass(value, base)
    }


@functools.cache
def made():
    """Classes that are called with the parameters in a file, by public name."""
    table = {}
    for room in (detectors, embedders, ensemble, features):
        table |= _public(room, BaseEstimator)
    table |= _public(model_selection)
    table |= _public(sklearn.model_selection, BaseCrossValidator | BaseShuffleSplit)
    for cls in (*CONTAINERS, *REFITTED):
        table |= {name: c for name, c in _public(_module_of(cls)).items() if c is cls}
    table |= {f"skorch.callbacks.{name}": getattr(skorch.callbacks, name) for name in _CALLBACKS}
    table["sk_asd.networks.SpecAugment"] = networks.SpecAugment
    return table


@functools.cache
def named():
    """Classes and functions that a file may hold as values, by public name; none is called."""
    return {
        **{f"sk_asd.metrics.{name}": getattr(metrics, name) for name in _SCORERS},
        **_public(networks, torch.nn.Module),
        **_public(torch.optim, torch.optim.Optimizer),
    }


def qualified(cls):
    """Name of a class of the user's own."""
    return f"{cls.__module__}.{cls.__qualname__}"


def _module_of(cls):
    modules = (sklearn.pipeline, sklearn.frozen, sklearn.model_selection, sklearn.neighbors)
    return next(m for m in modules if getattr(m, cls.__name__, None) is cls)
