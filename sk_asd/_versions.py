"""What a saved estimator was written with, and what is said where that is not what there is here.

Nothing heavy is imported: the command line asks for versions before it knows what to load.
"""

import functools
import platform
from importlib.metadata import version

from sk_asd._version import __version__

_PACKAGES = ("numpy", "scipy", "scikit-learn", "torch", "skorch")


class VersionWarning(UserWarning):
    """What is loaded was written with other versions."""


@functools.cache
def versions():
    """Versions of Python and of the packages that a saved estimator depends on."""
    return {
        "sk_asd": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
    }


def differing(then):
    """Name the packages whose version is not that of `then`.

    Builds for another device (``2.5.1+cpu``) and other bug fixes of Python are not other versions.

    Parameters
    ----------
    then : dict of str to str
        What :func:`versions` was at that time; unknown names do not count.

    Returns
    -------
    str
        ``"torch 2.4.0 (here 2.5.1), ..."``, empty if all are the same.
    """
    here = versions()
    parts = []
    for name, old in then.items():
        new = here.get(name)
        if new is not None and _release(name, str(old)) != _release(name, new):
            parts.append(f"{name} {old} (here {new})")
    return ", ".join(parts)


def mismatch(what, found):
    """The sentence for versions that differ.

    Parameters
    ----------
    what : str
        What was written.
    found : str
        Result of :func:`differing`.

    Returns
    -------
    str
        The sentence.
    """
    return f"{what} was written with {found}: its scores may differ. Train anew to be sure."


def _release(name, text):
    text = text.split("+")[0]
    return text.split(".")[:2] if name == "python" else text
