"""Unsupervised anomalous sound detection of machines, in the manner of scikit-learn.

Sub-packages are loaded on first use, so that ``import sk_asd`` loads neither torch nor librosa.
"""

import importlib

from sk_asd._version import __version__
from sk_asd.utils._fork import make_forks_safe

_SUBPACKAGES = (
    "datasets",
    "decisions",
    "detectors",
    "domains",
    "embedders",
    "ensemble",
    "evaluation",
    "export",
    "features",
    "inspection",
    "metrics",
    "model_selection",
    "networks",
    "persistence",
    "systems",
    "utils",
    "watching",
)

# Functions of the package itself, and where they are.
_FUNCTIONS = {
    "export_onnx": "sk_asd.export",
    "load": "sk_asd.persistence",
    "save": "sk_asd.persistence",
}

__all__ = ["__version__", *_FUNCTIONS, *_SUBPACKAGES]


def __getattr__(name):
    if name in _SUBPACKAGES:
        return importlib.import_module(f"sk_asd.{name}")
    if name in _FUNCTIONS:
        return getattr(importlib.import_module(_FUNCTIONS[name]), name)
    raise AttributeError(f"module 'sk_asd' has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *__all__})


make_forks_safe()
