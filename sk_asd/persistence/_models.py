"""Model files: a fitted system together with what one must know to use it again."""

import json
import pickle
import pickletools
import warnings
from itertools import islice
from pathlib import Path

from sk_asd._versions import VersionWarning, differing, mismatch, versions
from sk_asd.persistence import _file as file

_FORMAT = "sk_asd model 1"
PICKLES = (".joblib", ".pkl", ".pickle")


def save_model(path, system, *, options, sections, adapted=None):
    """Write a model file; it appears under its name only when it is complete.

    Parameters
    ----------
    path : str or path-like
        The file; a pickle if its name ends in ``.joblib``, else in the format of
        :func:`sk_asd.save`.
    system : outlier detector
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
    if Path(path).suffix not in PICKLES:
        file.write(system, path, about)
        return
    import joblib

    from sk_asd.utils._files import replacing

    header = {"format": _FORMAT, "versions": versions(), **about}
    with replacing(path) as temporary:
        # The header comes first and as text, so that it can be read without unpickling.
        joblib.dump({"header": json.dumps(header), "pipeline": system}, temporary)


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
    if not is_pickle(path):
        return {"options": {}, "sections": {}, **file.read_header(path)}
    with Path(path).open("rb") as opened:
        try:
            texts = (arg for _, arg, _ in islice(pickletools.genops(opened), 20))
            key, text = islice((t for t in texts if isinstance(t, str)), 2)
            header = json.loads(text)
            if key == "header" and header["format"] == _FORMAT:
                return header
        except (ValueError, KeyError, TypeError, UnicodeError, pickle.UnpicklingError):
            pass
    raise ValueError(f"{path} is no model file of `sk-asd train`.")


def is_pickle(path):
    """Whether a file is a pickle by its name, and does not begin as one that runs nothing."""
    return Path(path).suffix in PICKLES and not file.is_saved(path)


def load_model(path):
    """Load a model file; one that is a pickle by its name can run any code.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    system : outlier detector
        The fitted system.
    header : dict
        As :func:`read_header` returns it.

    Raises
    ------
    OSError, ValueError
        If it cannot be read; where versions differ, the message says which.
    """
    if not is_pickle(path):
        system, header = file.read(path)
        return system, {"options": {}, "sections": {}, **header}
    import joblib
    from sklearn.exceptions import InconsistentVersionWarning

    header = read_header(path)
    found = differing(header["versions"])
    try:
        with warnings.catch_warnings():
            # One line about versions, below, instead of one per estimator.
            warnings.simplefilter("ignore", InconsistentVersionWarning)
            warnings.simplefilter("ignore", VersionWarning)
            system = joblib.load(path)["pipeline"]
    except Exception as error:
        reason = f"it was written with {found}" if found else "the file is damaged"
        raise ValueError(
            f"Cannot load the model {path}: {reason} ({type(error).__name__}: {error})."
        ) from error
    if found:
        warnings.warn(mismatch(path, found), VersionWarning, stacklevel=2)
    return system, header
