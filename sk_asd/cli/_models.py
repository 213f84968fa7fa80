"""Model files: a fitted Pipeline together with what one must know to use it again."""

import json
import pickle
import pickletools
import sys
import warnings
from itertools import islice
from pathlib import Path

from sk_asd._versions import VersionWarning, differing, mismatch, versions
from sk_asd.persistence import _file as file

_FORMAT = "sk_asd model 1"
SUFFIX = ".skasd"
_PICKLES = (".joblib", ".pkl", ".pickle")
_WAV2VEC = (".safetensors", ".pt", ".pth")
TRUST = (
    "A model file (.skasd) holds plain data, and loading it runs nothing. One whose name ends in\n"
    ".joblib is a pickle, and loading it can run any code: load only one whose source you trust."
)


def add_trust(parser):
    """Add the option for models that are pickles."""
    parser.add_argument(
        "--trust",
        action="store_true",
        help="load a .joblib model, which can run code, without a warning",
    )


def model_suffix(options):
    """Suffix of the model files of a system with these options.

    Networks of transformers are made by the code of that library, which only a pickle can name.
    """
    wav2vec = options.get("wav2vec")
    safe = wav2vec is None or wav2vec == "small" or Path(wav2vec).suffix in _WAV2VEC
    return SUFFIX if safe else _PICKLES[0]


def check_model(path, options):
    """Check before any work that a system with these options can be saved to a file.

    Raises
    ------
    ValueError
        If it needs a file of another kind.
    """
    needed = model_suffix(options)
    if needed != SUFFIX and Path(path).suffix not in _PICKLES:
        raise ValueError(
            f"--out {path}: with --wav2vec {options['wav2vec']}, a network of transformers, a "
            f"model can be saved as a pickle only: give a name that ends in {needed}."
        )


def save_model(path, pipeline, *, options, sections, adapted=None, trusted=()):
    """Write a model file; it appears under its name only when it is complete.

    Parameters
    ----------
    path : str or path-like
        The file; a pickle if its name ends in ``.joblib``, else in the format of
        :func:`sk_asd.save`.
    pipeline : Pipeline
        The fitted system.
    options : dict
        Options it was made with.
    sections : dict of str to list of str
        Sections of each machine it was trained on.
    adapted : list of dict, default=None
        What it has learnt since, by ``sk-asd adapt``.
    trusted : sequence of type, default=()
        Classes that :func:`load_model` will be told of.
    """
    about = {"options": options, "sections": sections}
    if adapted:
        about["adapted"] = adapted
    if Path(path).suffix not in _PICKLES:
        file.write(pipeline, path, about, trusted)
        return
    import joblib

    from sk_asd.utils._files import replacing

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
    if not _is_pickle(path):
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


def _is_pickle(path):
    """Whether a file is a pickle by its name, and does not begin as one that runs nothing."""
    return Path(path).suffix in _PICKLES and not file.is_saved(path)


def load_model(path, *, trust=False, trusted=()):
    """Load a model file.

    Parameters
    ----------
    path : str or path-like
        The file.
    trust : bool, default=False
        Load a pickle without a word about what it can do.
    trusted : sequence of type, default=()
        As for :func:`sk_asd.load`.

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
    if not _is_pickle(path):
        pipeline, header = file.read(path, trusted)
        return pipeline, {"options": {}, "sections": {}, **header}
    import joblib
    from sklearn.exceptions import InconsistentVersionWarning

    header = read_header(path)
    if not trust:
        print(
            f"{path} is a pickle: loading it can run code of whoever made it. --trust says that "
            "you know where it comes from.",
            file=sys.stderr,
        )
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
