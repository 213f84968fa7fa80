"""Saving and loading of estimators without pickle."""

import hashlib
import io
import json
import pathlib
import warnings
import zipfile

from sk_asd._versions import VersionWarning, differing, mismatch, versions

# Files of another major number are refused; a minor number adds what older readers may ignore.
_FORMAT = (1, 0)
_HEADER, _ESTIMATOR, _WEIGHTS = "header.json", "estimator.skops", "weights.safetensors"
SIGNATURE = b"PK\x03\x04"


class _FileError(ValueError):
    """The file is not what was expected; the message is complete."""


def save(estimator, path):
    """Save an estimator to a file that runs nothing when it is loaded.

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
        If it holds something that cannot be saved without running code, such as a lambda function;
        the message says where.
    OSError
        If the file cannot be written.

    Warns
    -----
    UserWarning
        If it holds classes or functions that :func:`load` will not know by itself.

    See Also
    --------
    load : Load it again.

    Notes
    -----
    The file is a zip of a header (what is inside, versions of the libraries, a digest of every
    member), the estimator in the format of skops, and the weights of networks in that of
    safetensors, on the CPU whatever they were trained on. A ``joblib.Memory`` is saved as its
    folder.

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
    write(estimator, path, {})


def load(path, trusted=()):
    """Load an estimator that :func:`save` has written; nothing in the file is run.

    Parameters
    ----------
    path : str or path-like
        The file.
    trusted : sequence of str or type, default=()
        Classes and functions that may be in the file beside those of this package, scikit-learn,
        NumPy, SciPy, torch and skorch that estimators hold. Loading imports their modules; name
        only what you know.

    Returns
    -------
    estimator
        The estimator, with its networks on the CPU.

    Raises
    ------
    OSError
        If the file cannot be opened.
    ValueError
        If it was not written by :func:`save`, is damaged, has a format of another major number,
        holds something that is not trusted, or cannot be loaded with the versions there are; the
        message says what was found, and for an unknown type where.

    Warns
    -----
    UserWarning
        If it was written with other versions of the package or its libraries.

    See Also
    --------
    save : Write such a file; has an example.
    """
    return read(path, trusted)[0]


def write(estimator, path, extra):
    """Write a file with further entries in its header.

    Parameters
    ----------
    estimator : estimator
        The estimator.
    path : str or path-like
        The file.
    extra : dict
        Entries of the header, as JSON has them.
    """
    import safetensors.torch
    import skops.io
    from sklearn.base import BaseEstimator

    from sk_asd._description import Describer
    from sk_asd.datasets._audio import replacing

    if not isinstance(estimator, BaseEstimator):
        raise TypeError(f"Only estimators can be saved, got {type(estimator).__name__}.")
    path = pathlib.Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"Cannot write {path}: its folder does not exist.")
    describer = Describer()
    described = describer.describe(estimator)
    try:
        members = {_ESTIMATOR: skops.io.dumps(described)}
        unknown, _ = _unknown(members[_ESTIMATOR])
    except Exception as error:
        raise ValueError(
            f"This {type(estimator).__name__} cannot be saved ({type(error).__name__}: {error})."
        ) from error
    if unknown:
        warnings.warn(
            f"{path} holds {_listed(unknown)}, which sk_asd.load does not know: it will have to be "
            f"called with trusted={list(unknown)}.",
            stacklevel=3,
        )
    if describer.weights:
        members[_WEIGHTS] = safetensors.torch.save(describer.weights)
    header = {
        "package": "sk_asd",
        "format": "{}.{}".format(*_FORMAT),
        "versions": versions(),
        "estimator": _outline(estimator),
        "members": {name: _facts(content) for name, content in members.items()},
        **extra,
    }
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        # The header comes first, for whoever looks at the file. Weights do not get smaller.
        archive.writestr(_member(_HEADER), json.dumps(header, indent=1), zipfile.ZIP_DEFLATED)
        for name, content in members.items():
            method = zipfile.ZIP_STORED if name == _WEIGHTS else zipfile.ZIP_DEFLATED
            archive.writestr(_member(name), content, method)


def read(path, trusted=()):
    """Read a file.

    Parameters
    ----------
    path : str or path-like
        The file.
    trusted : sequence of str or type, default=()
        As in :func:`load`.

    Returns
    -------
    estimator : estimator
        The estimator.
    header : dict
        As :func:`read_header` gives it.

    Raises
    ------
    OSError, ValueError
        As in :func:`load`.
    """
    if isinstance(trusted, str):
        raise TypeError(f"trusted must be a sequence of names, got the text {trusted!r}.")
    header, members = _members(path)
    found = differing(header["versions"])
    # Whatever a damaged or forged file may cause is one error that names the file.
    try:
        unknown, names = _unknown(members[_ESTIMATOR], trusted)
    except Exception as error:
        raise _unreadable(path, found, error) from error
    if unknown:
        raise ValueError(
            f"{path} is refused, and nothing in it was run: it holds {_listed(unknown)}, which "
            "sk_asd does not know. If you know what that is and trust it, load the file with "
            f"trusted={list(unknown)}." + (f" It was written with {found}." if found else "")
        )
    try:
        estimator = _construct(members, names)
    except Exception as error:
        raise _unreadable(path, found, error) from error
    if found:
        warnings.warn(mismatch(str(path), found), VersionWarning, stacklevel=3)
    return estimator, header


def read_header(path):
    """Read what a file says about itself.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    dict
        With ``format``, ``versions``, ``estimator`` and ``members``.

    Raises
    ------
    OSError, ValueError
        As in :func:`load`.
    """
    return _members(path, [])[0]


def _members(path, wanted=None):
    """The header, and the wanted members, or all, if they are what the header says."""
    with open(path, "rb") as file:
        start = file.read(4)
        if start != SIGNATURE:
            raise _FileError(f"{path} was not written by sk_asd.save: {_kind(start)}")
        try:
            with zipfile.ZipFile(file) as archive:
                names = archive.namelist()
                if _HEADER not in names:
                    raise _FileError(
                        f"{path} was not written by sk_asd.save: it is a zip without {_HEADER!r}, "
                        f"of {names[:3]}."
                    )
                header = _checked_header(path, archive.read(_HEADER), names)
                wanted = header["members"] if wanted is None else wanted
                return header, {n: _checked(path, archive, n, header) for n in wanted}
        except _FileError:
            raise
        except Exception as error:  # whatever zipfile may stumble over
            size = pathlib.Path(path).stat().st_size
            raise _FileError(f"{path} is truncated or damaged ({size} bytes): {error}.") from error


def _checked_header(path, content, names):
    try:
        header = json.loads(content)
        major = int(header["format"].split(".")[0]) if header["package"] == "sk_asd" else None
        entries, _ = dict(header["members"]), dict(header["versions"])
        facts = all({"bytes", "sha256"} <= dict(entry).keys() for entry in entries.values())
    except (ValueError, KeyError, TypeError, AttributeError):
        major = None
    if major is None:
        raise _FileError(f"{path} was not written by sk_asd.save: its {_HEADER!r} is another one.")
    if major != _FORMAT[0]:
        raise _FileError(
            f"{path} has format {header['format']} of sk_asd {header['versions'].get('sk_asd')}; "
            f"this is sk_asd {versions()['sk_asd']}, which reads format {_FORMAT[0]}."
        )
    if not facts or sorted(names) != sorted([_HEADER, *entries]) or _ESTIMATOR not in entries:
        raise _FileError(
            f"{path} is damaged: its header tells of {sorted(entries)}, it holds {sorted(names)}."
        )
    return header


def _checked(path, archive, name, header):
    content = archive.read(name)
    expected, found = header["members"][name], _facts(content)
    for fact in ("bytes", "sha256"):
        if found[fact] != expected[fact]:
            raise _FileError(
                f"{path} is damaged or was changed: {name!r} has {fact} {found[fact]}, its header "
                f"says {expected[fact]}."
            )
    return content


def _facts(content):
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _unknown(content, trusted=()):
    """Places of what in a file of skops is not trusted, by name, and all that skops asks about."""
    import skops.io

    from sk_asd._trust import refused

    trusted = {t if isinstance(t, str) else f"{t.__module__}.{t.__name__}" for t in trusted}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        schema = json.loads(archive.read("schema.json"))
    names = skops.io.get_untrusted_types(data=content)
    return refused(schema, names, trusted), names


def _construct(members, trusted):
    """The estimator, when all names in it are trusted; of some of them skops must be told."""
    import safetensors.torch
    import skops.io
    from sklearn.exceptions import InconsistentVersionWarning

    from sk_asd._restoring import restore

    content = members[_ESTIMATOR]
    weights = safetensors.torch.load(members[_WEIGHTS]) if _WEIGHTS in members else {}
    with warnings.catch_warnings():
        # One line about versions instead of one per estimator.
        warnings.simplefilter("ignore", InconsistentVersionWarning)
        warnings.simplefilter("ignore", VersionWarning)
        return restore(skops.io.loads(content, trusted=trusted), weights)


def _unreadable(path, found, error):
    reason = f"it was written with {found}" if found else "it is damaged"
    return ValueError(f"Cannot load {path}: {reason} ({type(error).__name__}: {error}).")


def _listed(unknown):
    """The names with their places, for people."""
    return ", ".join(f"{name} at {place}" if place else name for name, place in unknown.items())


def _kind(start):
    """What a file that is no zip seems to be, by its first bytes."""
    if not start:
        return "it is empty."
    if start[:1] == b"\x80" or start[:1] == b"x":
        return (
            "it seems to be a pickle, as joblib writes them. joblib.load reads it and runs what "
            "is in it: trust is needed."
        )
    return f"it begins with {start!r}."


def _outline(estimator):
    """Class of an estimator, and of the steps of a Pipeline."""
    cls = type(estimator)
    outline = {"class": f"{cls.__module__}.{cls.__qualname__}"}
    if hasattr(estimator, "steps"):
        outline["steps"] = {name: type(step).__name__ for name, step in estimator.steps}
    return outline


def _member(name):
    """Entry of the archive, without a date: the same estimator makes the same file."""
    return zipfile.ZipInfo(name)
