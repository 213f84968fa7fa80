"""Downloads over a bad line, and archives that are not trusted."""

import contextlib
import errno
import lzma
import shutil
import stat
import struct
import time
import zipfile
import zlib

_TIMEOUT = (15, 60)  # seconds to connect, and between two pieces
_PIECE = 2**16  # what a broken connection loses at most
_LONGEST_WAIT = 120
_FULL = (errno.ENOSPC, errno.EDQUOT)
# What zipfile raises: a version, a method, a name, a depth or a number that makes no sense.
_BROKEN = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError),
    *(NotImplementedError, UnicodeError, OverflowError, RecursionError),
)


def get_json(url, *, n_retries, delay):
    """Read a JSON object; errors as those of :func:`download`."""
    import requests

    def read():
        response = requests.get(url, timeout=_TIMEOUT)
        _check_status(response)
        try:
            found = response.json()
        except requests.exceptions.JSONDecodeError:
            found = None
        if not isinstance(found, dict):
            raise OSError(f"{url} is no JSON object: {response.text[:60]!r}")
        return found

    return _persistently(read, url, lambda: 0, n_retries, delay)


def download(url, part, *, n_retries, delay, bar=False, extra=0):
    """Download a file, or the rest of it.

    Parameters
    ----------
    url : str
        Its address.
    part : pathlib.Path
        File to write. What is in it already is taken for the beginning, and is kept when the
        download fails.
    n_retries : int
        Failures in a row, without one more byte, after which to give up.
    delay : float
        Seconds before the first retry; doubled before each further one.
    bar : bool, default=False
        Whether to show a progress bar if there is a terminal.
    extra : float, default=0
        Space that must be free beyond the file, as a multiple of its size.

    Raises
    ------
    FileNotFoundError
        If the server has no such file.
    ConnectionError
        If the server cannot be reached, fails, or breaks off time and again.
    OSError
        If the server refuses (other status codes), or the disk is too small.
    """
    with naming_folder(part.parent):
        _persistently(
            lambda: _continue(url, part, bar, extra), url, lambda: _size(part), n_retries, delay
        )


def _persistently(action, url, progress, n_retries, delay):
    """Call until it goes well; failures count anew whenever there was progress."""
    import requests
    from requests.exceptions import ChunkedEncodingError

    failures = 0
    while True:
        before = progress()
        try:
            return action()
        except (
            requests.ConnectionError,
            requests.Timeout,
            requests.HTTPError,
            ChunkedEncodingError,
        ) as error:
            failures = 1 if progress() > before else failures + 1
            if failures > n_retries:
                kept = f" {progress():,} bytes are kept; run again to go on." if progress() else ""
                raise ConnectionError(f"Cannot get {url}: {_reason(error)}.{kept}") from error
            time.sleep(_wait(error, delay * 2 ** (failures - 1)))


def _continue(url, part, bar, extra):
    """Get what is missing in one request."""
    import requests
    from tqdm import tqdm

    start = _size(part)
    headers = {"Accept-Encoding": "identity"}  # ranges count the bytes that are sent
    if start:
        headers["Range"] = f"bytes={start}-"
    with requests.get(url, stream=True, headers=headers, timeout=_TIMEOUT) as response:
        if response.status_code == 416 and start:
            if response.headers.get("Content-Range") == f"bytes */{start}":
                return  # nothing is missing
            part.unlink()  # not the beginning of this file
            raise requests.ConnectionError("the server has less than was there already")
        _check_status(response)
        if response.status_code != 206:
            start = 0  # the server sends all of it, whatever was asked
        rest = int(response.headers.get("Content-Length", 0))
        check_space(part.parent, rest + extra * (start + rest), url)
        with (
            open(part, "ab" if start else "wb") as file,
            tqdm(
                desc=url.split("?")[0].rsplit("/", 1)[-1],
                total=start + rest or None,
                initial=start,
                unit="B",
                unit_scale=True,
                leave=False,
                disable=None if bar else True,  # None: unless there is a terminal
            ) as shown,
        ):
            for piece in response.iter_content(_PIECE):
                file.write(piece)
                shown.update(len(piece))


def _check_status(response):
    """Raise on an error status: an HTTPError where trying again may help, else an OSError."""
    status = f"{response.url}: HTTP {response.status_code} {response.reason}"
    if response.status_code in (404, 410):
        raise FileNotFoundError(f"{status}. The file was moved or withdrawn.")
    if response.status_code == 429 or response.status_code >= 500:
        response.raise_for_status()
    elif not response.ok:
        raise OSError(f"{status}. The server refuses.")


def _reason(error):
    response = getattr(error, "response", None)
    if response is not None:
        return f"HTTP {response.status_code} {response.reason}"
    return str(error).rstrip(".") or type(error).__name__


def _wait(error, seconds):
    """Seconds before the next try; the server may ask for more."""
    response = getattr(error, "response", None)
    asked = "" if response is None else response.headers.get("Retry-After", "")
    return min(max(seconds, int(asked) if asked.isdecimal() else 0), _LONGEST_WAIT)


def _size(path):
    return path.stat().st_size if path.exists() else 0


def check_space(folder, needed, what):
    """Raise an OSError unless that many bytes are free in a folder."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            errno.ENOSPC,
            f"Too little space for {what}: {needed:,.0f} bytes needed, {free:,} free",
            str(folder),
        )


@contextlib.contextmanager
def naming_folder(folder):
    """Name the folder and its free space in errors of a full disk, which name nothing."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL or error.filename is not None:
            raise
        free = shutil.disk_usage(folder).free
        raise OSError(error.errno, f"{error.strerror} ({free:,} bytes free)", str(folder)) from None


def unpack(archive, folder):
    """Unpack a zip archive if all of its members stay within the folder.

    Parameters
    ----------
    archive : pathlib.Path
        The archive. A broken one is deleted.
    folder : pathlib.Path
        An empty folder.

    Raises
    ------
    ValueError
        If the archive is broken, or before anything is written, if a member has an absolute path,
        climbs out of the folder, or is neither file nor folder.
    OSError
        If there is too little space.
    """
    try:
        with naming_folder(folder), zipfile.ZipFile(archive) as zipped:
            for member in zipped.infolist():
                fault = _fault(member)
                if fault:
                    raise ValueError(
                        f"{archive} is not unpacked: its member {member.orig_filename!r} {fault}."
                    )
            check_space(folder, sum(member.file_size for member in zipped.infolist()), archive)
            zipped.extractall(folder)
    except (*_BROKEN, OSError) as error:
        # zipfile asks for places that no file has.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        archive.unlink()
        raise ValueError(
            f"{archive} is broken and was deleted: {error}. Run again to download it anew."
        ) from error


def _fault(member):
    """What is wrong with a member of an archive, or None."""
    name = member.orig_filename.replace("\\", "/")
    kind = stat.S_IFMT(member.external_attr >> 16)
    if name.startswith("/") or ":" in name:
        return "has an absolute path"
    if ".." in name.split("/"):
        return "climbs out of the folder"
    if not name or "\0" in name:
        return "has no proper name"
    if kind == stat.S_IFLNK:
        return "is a link"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is neither file nor folder"
    if member.flag_bits & 1:
        return "is encrypted"
    return None
