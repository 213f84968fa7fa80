"""Unsupervised anomalous sound detection of machines, in the manner of scikit-learn.

Sub-packages are loaded on first use, so that ``import sk_asd`` loads neither torch nor librosa.
"""

import importlib

from sk_asd._version import __version__

_SUBPACKAGES = (
    "datasets",
    "detectors",
    "embedders",
    "ensemble",
    "features",
    "inspection",
    "metrics",
    "model_selection",
    "networks",
    "systems",
    "utils",
)

__all__ = ["__version__", *_SUBPACKAGES]


def __getattr__(name):
    if name in _SUBPACKAGES:
        return importlib.import_module(f"sk_asd.{name}")
    raise AttributeError(f"module 'sk_asd' has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *__all__})
