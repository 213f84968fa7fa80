"""Model files: a fitted Pipeline together with what one must know to use it again."""

import json
import pickle
import pickletools
import platform
import warnings
from importlib.metadata import version
from itertools import islice
from pathlib import Path

from sk_asd import __version__

_FORMAT = "sk_asd model 1"
_PACKAGES = ("numpy", "scikit-learn", "torch", "skorch")
TRUST = (
    "A model file is a pickle (joblib), and loading one can run any code: load only model files\n"
    "from a source you trust."
)


def versions():
    """Versions of Python and of the packages that a pickled model depends on."""
    return {
        "sk_asd": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
    }


def save_model(path, pipeline, *, options, sections):
    """Write a model file; it appears under its name only when it is complete.

    Parameters
    ----------
    path : str or path-like
        The file.
    pipeline : Pipeline
        The fitted system.
    options : dict
        Options it was made with.
    sections : dict of str to list of str
        Sections of each machine it was trained on.
    """
    import joblib

    from sk_asd.datasets._audio import replacing

    header = {"format": _FORMAT, "versions": versions(), "options": options, "sections": sections}
    with replacing(path) as temporary:
        # The header comes first and as text, so that it can be read without unpickling.
        joblib.dump({"header": json.dumps(header), "pipeline": pipeline}, temporary)


def read_header(path):
    """Read what a model file says about itself, without unpickling anything.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    dict
        ``format``, ``versions``, ``options`` and ``sections``.

    Raises
    ------
    OSError
        If the file cannot be opened.
    ValueError
        If it is no model file.
    """
    with Path(path).open("rb") as file:
        try:
            texts = (arg for _, arg, _ in islice(pickletools.genops(file), 20))
            key, text = islice((t for t in texts if isinstance(t, str)), 2)
            header = json.loads(text)
            if key == "header" and header["format"] == _FORMAT:
                return header
        except (ValueError, KeyError, TypeError, UnicodeError, pickle.UnpicklingError):
            pass
    raise ValueError(f"{path} is no model file of `sk-asd train`.")


def load_model(path):
    """Load a model file.

    Parameters
    ----------
    path : str or path-like
        The file, from a trusted source.

    Returns
    -------
    pipeline : Pipeline
        The fitted system.
    header : dict
        As :func:`read_header` returns it.

    Raises
    ------
    OSError, ValueError
        If it cannot be read; where versions differ, the message says which.
    """
    import joblib
    from sklearn.exceptions import InconsistentVersionWarning

    header = read_header(path)
    here = versions()
    differing = ", ".join(
        f"{name} {then} (here {here[name]})"
        for name, then in header["versions"].items()
        if here.get(name) != then
    )
    try:
        with warnings.catch_warnings():
            # One line about versions, below, instead of one per estimator.
            warnings.simplefilter("ignore", InconsistentVersionWarning)
            pipeline = joblib.load(path)["pipeline"]
    except Exception as error:
        reason = f"it was written with {differing}" if differing else "the file is damaged"
        raise ValueError(
            f"Cannot load the model {path}: {reason} ({type(error).__name__}: {error})."
        ) from error
    if differing:
        warnings.warn(
            f"{path} was written with {differing}: its scores may differ. Train anew to be sure.",
            stacklevel=2,
        )
    return pipeline, header


def pipelines(system):
    """Pipelines that a system is made of.

    Parameters
    ----------
    system : Pipeline or outlier detector
        A system: a Pipeline, or a fitted ensemble of some.

    Returns
    -------
    list of Pipeline
        The system itself, or its fitted members.
    """
    if hasattr(system, "steps"):
        return [system]
    inner = list(getattr(system, "estimators_", ()))
    inner += [getattr(system, name, None) for name in ("detector_", "domain_classifier_")]
    return [pipeline for member in inner if member is not None for pipeline in pipelines(member)]


def networks(system):
    """Estimators of a system that train a network: the unfitted ones, then the fitted ones.

    Parameters
    ----------
    system : Pipeline or outlier detector
        A system.

    Returns
    -------
    list of estimator
        Steps of its Pipelines, and the detectors inside the last ones.
    """
    estimators = []
    for pipeline in pipelines(system):
        last = pipeline[-1]
        estimators += [step for _, step in pipeline.steps]
        for name in ("detector", "classifier"):
            if hasattr(last, name):
                estimators += [getattr(last, name), *getattr(last, f"{name}s_", {}).values()]
    return [e for e in estimators if {"device", "max_epochs"} <= _parameters(e)]


def _parameters(estimator):
    return set(estimator.get_params(deep=False)) if hasattr(estimator, "get_params") else set()
