"""Model files: a fitted Pipeline together with what one must know to use it again."""

import json
import pickle
import pickletools
import warnings
from itertools import islice
from pathlib import Path

from sk_asd import _persistence
from sk_asd._versions import VersionWarning, differing, mismatch, versions

_FORMAT = "sk_asd model 1"
_SAFE = ".skasd"
TRUST = (
    "A model file is a pickle (joblib), and loading one can run any code: load only model files\n"
    "from a source you trust. Not so one whose name ends in .skasd when it is written: it is in\n"
    "the format of sk_asd.save, and loading it runs nothing."
)


def save_model(path, pipeline, *, options, sections, adapted=None):
    """Write a model file; it appears under its name only when it is complete.

    Parameters
    ----------
    path : str or path-like
        The file; with the suffix ``.skasd`` in the format of :func:`sk_asd.save`, else a pickle.
    pipeline : Pipeline
        The fitted system.
    options : dict
        Options it was made with.
    sections : dict of str to list of str
        Sections of each machine it was trained on.
    adapted : list of dict, default=None
        What it has learnt since, by ``sk-asd adapt``.
    """
    about = {"options": options, "sections": sections}
    if adapted:
        about["adapted"] = adapted
    if Path(path).suffix == _SAFE:
        _persistence.write(pipeline, path, about)
        return
    import joblib

    from sk_asd.datasets._audio import replacing

    header = {"format": _FORMAT, "versions": versions(), **about}
    with replacing(path) as temporary:
        # The header comes first and as text, so that it can be read without unpickling.
        joblib.dump({"header": json.dumps(header), "pipeline": pipeline}, temporary)


def read_header(path):
    """Read what a model file says about itself, without loading the model.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    dict
        ``format``, ``versions``, ``options`` and ``sections``; the last two are empty where
        :func:`sk_asd.save` wrote the file. And ``adapted``, if it has learnt since.

    Raises
    ------
    OSError
        If the file cannot be opened.
    ValueError
        If it is no model file.
    """
    if _is_safe(path):
        return {"options": {}, "sections": {}, **_persistence.read_header(path)}
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


def _is_safe(path):
    """Whether a file is, or pretends by its name to be, one that runs nothing."""
    with Path(path).open("rb") as file:
        start = file.read(len(_persistence.SIGNATURE))
    return start == _persistence.SIGNATURE or Path(path).suffix == _SAFE


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
    if _is_safe(path):
        pipeline, header = _persistence.read(path)
        return pipeline, {"options": {}, "sections": {}, **header}
    import joblib
    from sklearn.exceptions import InconsistentVersionWarning

    header = read_header(path)
    found = differing(header["versions"])
    try:
        with warnings.catch_warnings():
            # One line about versions, below, instead of one per estimator.
            warnings.simplefilter("ignore", InconsistentVersionWarning)
            warnings.simplefilter("ignore", VersionWarning)
            pipeline = joblib.load(path)["pipeline"]
    except Exception as error:
        reason = f"it was written with {found}" if found else "the file is damaged"
        raise ValueError(
            f"Cannot load the model {path}: {reason} ({type(error).__name__}: {error})."
        ) from error
    if found:
        warnings.warn(mismatch(path, found), VersionWarning, stacklevel=2)
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
