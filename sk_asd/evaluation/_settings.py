"""What a system was made with, as JSON has it."""

import hashlib

import numpy as np
from sklearn.base import BaseEstimator


def described(estimator):
    """Parameters of an estimator, and of those within it, the same in every process.

    Parameters
    ----------
    estimator : estimator
        Unfitted.

    Returns
    -------
    dict
        Names as ``get_params`` gives them, and values that JSON has: of an estimator its class, of
        an array a digest.
    """
    names = {name: plain(value) for name, value in sorted(estimator.get_params().items())}
    return {"class": type(estimator).__name__, **names}


def plain(value):
    """A parameter as JSON has it."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, BaseEstimator):
        return type(value).__name__
    if isinstance(value, dict):
        return {str(name): plain(v) for name, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{value.shape} {hashlib.sha256(value.tobytes()).hexdigest()[:16]}"
    if hasattr(value, "__qualname__"):  # a class or function
        return f"{value.__module__}.{value.__qualname__}"
    text = repr(value)
    return type(value).__qualname__ if " at 0x" in text else text
