"""What a system was made with, as JSON has it."""

import hashlib

import numpy as np
from sklearn.base import BaseEstimator


def described(value):
    """Say what a value is, the same in every process.

    Parameters
    ----------
    value : object
        An unfitted estimator, or any of its parameters.

    Returns
    -------
    dict, list, str, int, float, bool or None
        An estimator is a dict of its class and parameters, an array a digest.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, BaseEstimator):
        parameters = value.get_params(deep=False).items()
        return {"": type(value).__name__, **{name: described(v) for name, v in parameters}}
    if isinstance(value, dict):
        return {str(name): described(v) for name, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [described(v) for v in value]
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{value.shape} {hashlib.sha256(value.tobytes()).hexdigest()[:16]}"
    if hasattr(value, "__qualname__"):  # a class or function
        return f"{value.__module__}.{value.__qualname__}"
    text = repr(value)
    return type(value).__qualname__ if " at 0x" in text else text
