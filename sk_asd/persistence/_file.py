"""Saving and loading of estimators as plain data."""

import hashlib
import json
import os
import pathlib
import stat
import warnings

from sk_asd._versions import VersionWarning, differing, mismatch, versions

FORMAT = 2
_KEY, _TREE = "sk_asd", "estimator.json"
_MAX_BYTES = 1 << 31
_MAX_TEXT = 1 << 24  # of JSON, whose lists and dicts take many times their text
_MOST_NAMES = 10


def save(estimator, path):
    """Save an estimator to a file that holds plain data and nothing that could run.

    Parameters
    ----------
    estimator : estimator
        Estimator or Pipeline of this package or of scikit-learn, fitted or not, with whatever such
        estimators it holds.
    path : str or path-like
        The file to write, by custom ``*.skasd``. It appears under its name only when it is
        complete.

    Raises
    ------
    TypeError
        If it is no estimator.
    ValueError
        If it holds something that is no plain data, such as a function or a network given as an
        instance; the message says where.
    OSError
        If the file cannot be written.

    Warns
    -----
    UserWarning
        If it holds classes that :func:`load` must be told of.

    See Also
    --------
    load : Load it again.

    Notes
    -----
    The file is one of safetensors: arrays, and a description in JSON. For every estimator it has
    the public name of its class, its parameters and its fitted attributes. Networks are built again
    from their sizes and get their weights back, search trees from their data.

    Parameters that name places on one machine, ``memory``, ``cache_dir``, ``checkpoint`` and the
    file in ``model``, are saved as None. The history of a training is kept by epoch, without its
    batches.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> import sk_asd
    >>> from sk_asd.detectors import KNNDetector
    >>> X = np.random.default_rng(0).normal(size=(20, 3))
    >>> detector = KNNDetector().fit(X)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = os.path.join(folder, "detector.skasd")
    ...     sk_asd.save(detector, file)
    ...     loaded = sk_asd.load(file)
    >>> bool((loaded.score_samples(X) == detector.score_samples(X)).all())
    True
    """
    write(estimator, path)


def load(path, trusted=(), *, max_bytes=_MAX_BYTES):
    """Load an estimator that :func:`save` has written; nothing in the file can run.

    Parameters
    ----------
    path : str or path-like
        The file.
    trusted : sequence of type, default=()
        Classes of your own, or of other libraries, that may be in the file beside those of this
        package and some of scikit-learn. They are made from parameters and attributes in the file.
    max_bytes : int, default=2**31
        Most bytes that the file, and what is packed in it, may take.

    Returns
    -------
    estimator
        The estimator, with its networks on the CPU.

    Raises
    ------
    OSError
        If the file cannot be opened.
    TypeError
        If `trusted` holds anything but classes.
    ValueError
        If it was not written by :func:`save`, is damaged, is of an older format, takes more than
        `max_bytes`, holds a class that is not trusted, or cannot be loaded with the versions there
        are; the message says what was found.

    Warns
    -----
    UserWarning
        If it was written with other versions of the package or its libraries.

    See Also
    --------
    save : Write such a file; has an example.
    """
    return read(path, trusted, max_bytes)[0]


def write(estimator, path, about=None, trusted=()):
    """Write a file.

    Parameters
    ----------
    estimator : estimator
        As for :func:`save`.
    path : str or path-like
        The file.
    about : dict, default=None
        Further entries of the header, as JSON has them.
    trusted : sequence of type, default=()
        Classes that whoever loads the file will name without being told.
    """
    import numpy as np
    import safetensors.numpy
    from sklearn.base import BaseEstimator

    from sk_asd.persistence._encode import Encoder
    from sk_asd.persistence._registry import qualified
    from sk_asd.utils._files import replacing

    if not isinstance(estimator, BaseEstimator):
        raise TypeError(f"Only estimators can be saved, got {type(estimator).__name__}.")
    path = pathlib.Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"Cannot write {path}: its folder does not exist.")
    encoder = Encoder()
    root = encoder.encode(estimator, "")
    known = {qualified(cls) for cls in trusted}
    foreign = {name: place for name, place in encoder.foreign.items() if name not in known}
    if foreign:
        warnings.warn(
            f"{path} holds {listed(foreign)}, which sk_asd.load does not know: it will "
            "have to be called with trusted=[...] and these classes.",
            stacklevel=3,
        )
    tree = {"root": root, "objects": encoder.objects, "places": encoder.foreign}
    text = json.dumps(tree, separators=(",", ":")).encode()
    arrays = {_TREE: np.frombuffer(text, dtype=np.uint8), **encoder.arrays}
    header = {
        "format": FORMAT,
        "versions": versions(),
        "estimator": _outline(estimator),
        "sha256": _digest(arrays),
        **(about or {}),
    }
    content = safetensors.numpy.save(arrays, {_KEY: json.dumps(header)})
    with replacing(path) as temporary:
        pathlib.Path(temporary).write_bytes(content)


def read(path, trusted=(), max_bytes=_MAX_BYTES):
    """Read a file: the estimator, and the header as :func:`read_header` gives it."""
    if isinstance(trusted, (str, type)) or not all(isinstance(t, type) for t in trusted):
        raise TypeError(f"trusted must be a sequence of classes, got {trusted!r}.")
    with _opened(path) as file:
        header, size = _header(file, path)
        if size > max_bytes:
            raise ValueError(f"{path} has {size} bytes, more than max_bytes={max_bytes}.")
        file.seek(0)
        content = file.read(size)
    found = differing(header["versions"])
    # Whatever a damaged or forged file may cause is one error that names the file.
    try:
        estimator, unknown, places = _decoded(content, header, trusted, max_bytes)
    except Exception as error:
        reason = f"it was written with {found}" if found else "it is truncated or damaged"
        said = shown(f"{type(error).__name__}: {error}", 300)
        raise ValueError(f"Cannot load {path}: {reason} ({size} bytes; {said}).") from error
    if unknown:
        raise ValueError(_refusal(path, unknown, places, found))
    if found:
        warnings.warn(mismatch(str(path), found), VersionWarning, stacklevel=3)
    return estimator, header


def _decoded(content, header, trusted, max_bytes):
    """The estimator in a file, names that nobody trusts, in which case it is None, and places."""
    import safetensors.numpy
    from sklearn.base import BaseEstimator

    from sk_asd.persistence._bounds import Bounded
    from sk_asd.persistence._decode import Decoder, unknown_names

    arrays = safetensors.numpy.load(content)
    if _digest(arrays) != header["sha256"]:
        raise ValueError("its digest is another one")
    text = arrays.pop(_TREE)
    if text.nbytes > _MAX_TEXT:
        raise ValueError(f"its description has {text.nbytes} bytes, {_MAX_TEXT} are allowed")
    tree = json.loads(text.tobytes())
    unknown = unknown_names(tree["objects"], trusted)
    if unknown:
        return None, unknown, tree["places"]
    decoder = Decoder(arrays, trusted, len(content), max_bytes)
    with Bounded(arrays.values()):
        for description in tree["objects"]:
            decoder.make(description)
        estimator = decoder.decode(tree["root"])
    if not isinstance(estimator, BaseEstimator):
        raise TypeError(f"it holds a {type(estimator).__name__}, which is no estimator")
    return estimator, [], {}


def read_header(path):
    """Read what a file says about itself.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    dict
        With ``format``, ``versions``, ``estimator`` and ``sha256``.

    Raises
    ------
    OSError, ValueError
        As in :func:`load`.
    """
    with _opened(path) as file:
        return _header(file, path)[0]


def _opened(path):
    """Open a regular file; others, such as pipes, may never end."""
    if not stat.S_ISREG(os.stat(path).st_mode) and not os.path.isdir(path):
        raise ValueError(f"{path} is no regular file, but a pipe or device.")
    return open(path, "rb")


def _header(file, path):
    """Header of an open file, and the size of the file."""
    start, size = file.read(8), os.fstat(file.fileno()).st_size
    length = int.from_bytes(start, "little")
    if len(start) < 8 or length > min(size - 8, _MAX_TEXT):
        raise ValueError(f"{path} was not written by sk_asd.save: {_kind(start, size)}")
    try:
        header = json.loads(json.loads(file.read(length))["__metadata__"][_KEY])
        number, there = header["format"], header["versions"]
        texts = type(there) is dict and all(type(v) is str for v in there.values())
        if type(number) is not int or not texts:
            raise TypeError("no format or versions")
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(
            f"{path} was not written by sk_asd.save, or is damaged: it has no header."
        ) from None
    if number != FORMAT:
        raise ValueError(
            f"{path} has format {number} of sk_asd {shown(there.get('sk_asd', '?'))}; this is "
            f"sk_asd {versions()['sk_asd']}, which reads format {FORMAT}."
        )
    header["versions"] = {name: shown(text) for name, text in there.items()}
    return header, size


def is_saved(path):
    """Tell whether a file begins as :func:`save` writes it."""
    with open(path, "rb") as file:
        start = file.read(9)
        length = int.from_bytes(start[:8], "little")
        return start[8:] == b"{" and length <= os.fstat(file.fileno()).st_size


def _digest(arrays):
    """Digest of all arrays, with their names, types and shapes."""
    import numpy as np

    value = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        value.update(f"{name!r} {array.dtype.str} {array.shape}\n".encode())
        value.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
    return value.hexdigest()


def _refusal(path, names, places, found):
    """The sentence for classes that nobody has trusted."""
    places = places if isinstance(places, dict) else {}
    names = names[:_MOST_NAMES]
    holds = listed({name: places.get(name) for name in names})
    return (
        f"{path} is refused, and nothing in it was run: it holds {holds}, which sk_asd does not "
        "know. If you know what that is and trust it, import it and load the file with trusted=["
        + ", ".join(shown(name.rpartition(".")[2]) for name in names)
        + "]."
        + (f" It was written with {found}." if found else "")
    )


def listed(names):
    """Names with their places, for people."""
    pairs = ((shown(name), shown(str(place or ""))) for name, place in names.items())
    return ", ".join(f"{name} at {place}" if place else name for name, place in pairs)


def shown(text, most=100):
    """A text that may be anybody's as a terminal can show it."""
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:most])
    return text if len(text) < most else f"{text}..."


def _kind(start, size):
    """What a file seems to be, by its first bytes."""
    if not size:
        return "it is empty."
    if start[:4] == b"PK\x03\x04":
        return (
            "it is a zip, as an earlier sk_asd wrote them. Models of that format are not read any "
            "more and must be trained again."
        )
    # In a file of ours that was cut off, the first bytes are a small number.
    if start[:1] in (b"\x80", b"x") and start[2:3] > b"\0":
        return (
            "it seems to be a pickle, as joblib writes them. joblib.load reads it and runs what "
            "is in it: trust is needed."
        )
    return f"it begins with {start!r}, or is truncated ({size} bytes)."


def _outline(estimator):
    """Class of an estimator, and of the steps of a Pipeline."""
    outline = {"class": type(estimator).__name__}
    if hasattr(estimator, "steps"):
        outline["steps"] = {name: type(step).__name__ for name, step in estimator.steps}
    return outline
