"""Downloads over a bad line, and archives that are not trusted."""

import contextlib
import errno
import json
import lzma
import shutil
import stat
import struct
import time
import zipfile
import zlib

from sk_asd.utils._text import printable

_TIMEOUT = (15, 60)  # seconds to connect, and between two pieces
_PIECE = 2**16  # what a broken connection loses at most
_LONGEST_WAIT = 120
_LARGEST_JSON = 2**24  # bytes
LARGEST = 2**34  # bytes of an archive; those of the challenge have up to 3 GB
# What an archive may unpack to. Recordings hardly shrink, the most silent ones tenfold.
_MOST_MEMBERS = 200_000
_LARGEST_MEMBER = 2**32
_LARGEST_RATIO = 100
_SMALL = 2**20  # bytes that any archive may unpack to
_DEEPEST = 16  # folders within one another
_N_SHOWN = 80  # characters of a name in a message
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others grow without bound in one step
_FULL = (errno.ENOSPC, errno.EDQUOT)
# Names that cannot stand beside one another, or are too long.
_MISNAMED = (errno.EINVAL, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG)
# What zipfile raises: a version, a method, a name, a depth or a number that makes no sense.
_BROKEN = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError),
    *(NotImplementedError, UnicodeError, OverflowError, RecursionError),
)


def get_json(url, *, n_retries, delay):
    """Read a JSON object; errors as those of :func:`download`."""
    import requests

    def read():
        with requests.get(url, timeout=_TIMEOUT, stream=True) as response:
            _check_status(response)
            content = b""
            for piece in response.iter_content(_PIECE):
                content += piece
                if len(content) > _LARGEST_JSON:
                    raise OSError(f"{url} has more than {_LARGEST_JSON:,} bytes")
        try:
            found = json.loads(content)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise OSError(f"{url} is no JSON object: {content[:60]!r}")
        return found

    return _persistently(read, url, lambda: 0, n_retries, delay)


def download(url, part, *, size=None, n_retries, delay, bar=False, extra=0):
    """Download a file, or the rest of it.

    Parameters
    ----------
    url : str
        Its address.
    part : pathlib.Path
        File to write. What is in it already is taken for the beginning, and is kept when the
        download fails.
    size : int, default=None
        Bytes of the file, where they are known. None: at most `LARGEST`.
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
        If the server refuses (other status codes), redirects without end or sends another size,
        or the disk is too small.
    """
    with naming_folder(part.parent):
        _persistently(
            lambda: _continue(url, part, size, bar, extra),
            url,
            lambda: _size(part),
            n_retries,
            delay,
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
        except (requests.RequestException, ValueError) as error:  # redirects without end, ...
            raise OSError(f"Cannot get {url}: {printable(str(error))}") from error


def _continue(url, part, size, bar, extra):
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
        said = response.headers.get("Content-Length", "")
        rest = int(said) if said.isdecimal() and len(said) < 19 else 0
        _check_size(start + rest, size, url, at_least=rest > 0)
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
            found = start
            for piece in response.iter_content(_PIECE):
                found += len(piece)
                _check_size(found, size, url)
                file.write(piece)
                shown.update(len(piece))


def _check_size(found, size, url, at_least=False):
    """Raise where a file is larger than it may be; or than it must be, where the size is known."""
    if size is not None and (found > size or (at_least and found != size)):
        raise OSError(f"{url} has {found:,} bytes or more, expected {size:,}")
    if found > LARGEST:
        raise OSError(f"{url} has {found:,} bytes or more, expected at most {LARGEST:,}")


def _check_status(response):
    """Raise on an error status: an HTTPError where trying again may help, else an OSError."""
    status = printable(f"{response.url}: HTTP {response.status_code} {response.reason}")
    if response.status_code in (404, 410):
        raise FileNotFoundError(f"{status}. The file was moved or withdrawn.")
    if response.status_code == 429 or response.status_code >= 500:
        response.raise_for_status()
    elif not response.ok:
        raise OSError(f"{status}. The server refuses.")


def _reason(error):
    response = getattr(error, "response", None)
    if response is not None:
        return printable(f"HTTP {response.status_code} {response.reason}")
    return printable(str(error)).rstrip(".") or type(error).__name__


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
        climbs out of the folder, or is neither file nor folder, or if there are too many members,
        or they are too large, alone, together or for the size of the archive.
    OSError
        If there is too little space.
    """
    try:
        with naming_folder(folder), zipfile.ZipFile(archive) as zipped:
            for member in zipped.infolist():
                fault = _fault(member)
                if fault:
                    name = member.orig_filename[:_N_SHOWN]
                    raise ValueError(f"{archive} is not unpacked: its member {name!r} {fault}.")
            total = _check_growth(zipped, archive)
            check_space(folder, total, archive)
            zipped.extractall(folder)  # writes no more of a member than it declares
    except (*_BROKEN, OSError) as error:
        # zipfile asks for places that no file has.
        if isinstance(error, OSError) and error.errno not in (None, *_MISNAMED):
            raise
        archive.unlink()
        raise ValueError(
            f"{archive} is broken and was deleted: {error}. Run again to download it anew."
        ) from error


def _check_growth(zipped, archive):
    """Bytes that the members of an archive declare; raise if that is beyond measure."""
    members, size = zipped.infolist(), archive.stat().st_size
    sizes = [member.file_size for member in members]
    total, largest = sum(sizes), max(sizes, default=0)
    for found, most, what in (
        (len(members), _MOST_MEMBERS, "members"),
        (largest, _LARGEST_MEMBER, "bytes in a member"),
        (total, max(_SMALL, _LARGEST_RATIO * size), f"bytes in an archive of {size:,}"),
    ):
        if found > most:
            raise ValueError(
                f"{archive} is not unpacked: it declares {found:,} {what}, expected at most "
                f"{most:,}."
            )
    return total


def _fault(member):
    """What is wrong with a member of an archive, or None."""
    name = member.orig_filename.replace("\\", "/")
    kind = stat.S_IFMT(member.external_attr >> 16)
    if name.startswith("/") or ":" in name:
        return "has an absolute path"
    if ".." in name.split("/"):
        return "climbs out of the folder"
    if not name or not name.isprintable():
        return "has no proper name"
    if name.count("/") > _DEEPEST:
        return f"lies in more than {_DEEPEST} folders"
    if member.compress_type not in _METHODS:
        return "is compressed in an unusual way"
    if kind == stat.S_IFLNK:
        return "is a link"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is neither file nor folder"
    if member.flag_bits & 1:
        return "is encrypted"
    return None
