"""What a saved model may name: closed tables by public name, filled before any file is read."""

import functools
import inspect

import sklearn
import sklearn.cluster
import sklearn.covariance
import sklearn.decomposition
import sklearn.discriminant_analysis
import sklearn.frozen
import sklearn.linear_model
import sklearn.mixture
import sklearn.model_selection
import sklearn.naive_bayes
import sklearn.neighbors
import sklearn.pipeline
import sklearn.preprocessing
import skorch.callbacks
import torch
from sklearn.base import BaseEstimator
from sklearn.model_selection import BaseCrossValidator, BaseShuffleSplit

from sk_asd import (
    detectors,
    domains,
    embedders,
    ensemble,
    features,
    metrics,
    model_selection,
    networks,
)

# Attributes that the fit of a search sets. `scorer_`, a function, is made anew.
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
    "sklearn.pipeline.Pipeline": (),
    "sklearn.pipeline.FeatureUnion": (),
    "sklearn.frozen.FrozenEstimator": (),
    "sklearn.model_selection.GridSearchCV": _SEARCH,
    "sklearn.model_selection.RandomizedSearchCV": _SEARCH,
}
# Estimators that compute with NumPy, which checks what it is given, and what they give to compiled
# code. Their fitted attributes end in an underscore and are numbers and arrays; these have others.
PLAIN = {
    "sklearn.cluster.KMeans": ("_n_features_out", "_n_threads"),
    "sklearn.covariance.EllipticEnvelope": (),
    "sklearn.decomposition.PCA": ("_fit_svd_solver",),
    "sklearn.decomposition.TruncatedSVD": (),
    "sklearn.discriminant_analysis.LinearDiscriminantAnalysis": (
        "_max_components",
        "_n_features_out",
    ),
    "sklearn.discriminant_analysis.QuadraticDiscriminantAnalysis": (),
    "sklearn.linear_model.LogisticRegression": (),
    "sklearn.mixture.BayesianGaussianMixture": (),
    "sklearn.mixture.GaussianMixture": (),
    "sklearn.naive_bayes.GaussianNB": (),
    "sklearn.preprocessing.MaxAbsScaler": (),
    "sklearn.preprocessing.MinMaxScaler": (),
    "sklearn.preprocessing.Normalizer": (),
    "sklearn.preprocessing.PowerTransformer": ("_scaler",),
    "sklearn.preprocessing.QuantileTransformer": (),
    "sklearn.preprocessing.RobustScaler": (),
    "sklearn.preprocessing.StandardScaler": (),
}
# Their trees are built again from the training data, the first attribute.
NEIGHBOURS = {
    "sklearn.neighbors.NearestNeighbors": ("_fit_X",),
    "sklearn.neighbors.LocalOutlierFactor": (
        "_fit_X",
        "_distances_fit_X_",
        "_lrd",
        "n_neighbors_",
        "negative_outlier_factor_",
        "offset_",
    ),
}
TREES = {cls.__name__: cls for cls in (sklearn.neighbors.KDTree, sklearn.neighbors.BallTree)}
METRICS = {
    f"{name.capitalize()}Distance64": name for name in ("euclidean", "manhattan", "chebyshev")
}
# Made from their parameters alone. Other callbacks look up functions by name when training starts.
_CALLBACKS = ("EarlyStopping", "EpochTimer", "GradientNormClipping")
# Parameters that are places on one machine. What lies there could run: no model may say where.
_PLACES = frozenset({"cache_dir", "checkpoint", "memory"})


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
    for room in (detectors, domains, embedders, ensemble, features):
        table |= _public(room, BaseEstimator)
    table |= _public(model_selection)
    table |= _public(sklearn.model_selection, BaseCrossValidator | BaseShuffleSplit)
    del table["sklearn.model_selection.PredefinedSplit"]  # computes with what it is given
    for name in (*CONTAINERS, *PLAIN, *NEIGHBOURS):
        _, module, cls = name.split(".")
        table[name] = getattr(getattr(sklearn, module), cls)
    table |= {f"skorch.callbacks.{name}": getattr(skorch.callbacks, name) for name in _CALLBACKS}
    return table


@functools.cache
def named():
    """Classes and functions that parameters may hold, by public name for each such parameter."""
    scorers = ("dcase_score", "dcase_scorer")
    return {
        "backbone": _public(networks, torch.nn.Module),
        "optimizer": _public(torch.optim, torch.optim.Optimizer),
        "scoring": {f"sk_asd.metrics.{name}": getattr(metrics, name) for name in scorers},
    }


def role(key):
    """Name of a parameter without the steps before it."""
    return key.rpartition("__")[2] if type(key) is str else None


def is_place(key, value):
    """Whether a parameter, or one of its values in a grid, may name a place."""
    if role(key) == "model":  # "small" comes with the package; others are called so, too
        if type(value) in (list, tuple):
            return any(is_place(key, v) for v in value)
        if value is None or hasattr(value, "get_params") or isinstance(value, torch.nn.Module):
            return False
        return type(value) is not str or value != "small"
    return value is not None and role(key) in _PLACES


def qualified(cls):
    """Name of a class of the user's own."""
    return f"{cls.__module__}.{cls.__qualname__}"


def may_set(cls, name, allowed):
    """Whether an attribute is fitted state: declared, and nothing that the class has."""
    return name in allowed and not hasattr(cls, name) and not name.startswith("__")


def learnt(public, names):
    """Which of the attributes of a class of scikit-learn are fitted state, by its public name."""
    declared = {*CONTAINERS.get(public, ()), *NEIGHBOURS.get(public, ()), *PLAIN.get(public, ())}
    if public in PLAIN:
        declared |= {name for name in names if name.endswith("_") and name[0] != "_"}
    return declared
