"""Writing files that appear under their names only when they are complete."""

import contextlib
import hashlib
import os
import platform
import uuid
from pathlib import Path


def temporary_name(path):
    """Name beside a file for what will become it; it tells whose it is."""
    path = Path(path)
    return path.with_name(f"{_temporary(path)}{os.getpid()}_{uuid.uuid4().hex[:12]}{path.suffix}")


def _temporary(path):
    """Beginning of the temporary names of a file that are given by processes seen from here."""
    space = "/proc/self/ns/pid"  # containers count processes from 1, each for itself
    here = f"{platform.node()} {os.readlink(space) if os.path.islink(space) else ''}"
    marks = [hashlib.sha256(os.fsencode(text)).hexdigest()[:8] for text in (here, path.name)]
    return ".tmp_{}_{}_".format(*marks)


def remove_left_over(path):
    """Remove the temporary files of a file whose process is no more, as after a power failure.

    Parameters
    ----------
    path : str or path-like
        The file that they would have become.
    """
    if os.name == "nt":  # there is no harmless way to ask for a process
        return
    path = Path(path)
    start = _temporary(path)
    for old in path.parent.glob(f"{start}*"):
        process = old.name.removeprefix(start).split("_")[0]
        try:
            os.kill(int(process), 0)
        except ProcessLookupError:
            old.unlink(missing_ok=True)
        except (PermissionError, ValueError):  # it is there, or the file is none of ours
            pass


@contextlib.contextmanager
def replacing(path):
    """Give a temporary file name beside `path` that becomes `path` when all has gone well.

    Parameters
    ----------
    path : str or path-like
        The file to write. Its folder must exist.

    Yields
    ------
    pathlib.Path
        The temporary name, with the same suffix.

    Raises
    ------
    OSError
        If `path` is a pipe or device, such as ``/dev/null``.
    """
    path = Path(path)
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(f"Expected the name of a file, found a pipe or device: {path}")
    temporary = temporary_name(path)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
