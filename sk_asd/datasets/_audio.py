"""Reading and writing one sound file, with errors that name it."""

import contextlib
import functools
import os
import re
import stat
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile as sf

from sk_asd.utils._files import replacing

# Other spellings of extensions that soundfile.available_formats lists. RAW has no header to read.
_EXTENSIONS = {"aif", "aifc", "oga", "opus"}
_HEADERLESS = {"raw"}

# libsndfile shortens a truncated wav, aiff, … file silently, but tells so in its log.
_SHORT_CHUNK = re.compile(
    r"^ *(?:data|SSND|BODY|riff|Data Size) *: (\d+) \(should be (\d+)\)", re.MULTILINE
)
_SIZE_RF64 = re.compile(r"^ds64 .*?^  Data size : (\d+)", re.MULTILINE | re.DOTALL)
# Writers that stream do not know the size yet and leave the largest one in the header.
_STREAMED = 0x7FFFF000
_ENDLESS = 2**63 - 1  # the same where sizes have 64 bits
_BLOCK = 2**20  # values of a file that are decoded at a time
# Samples a byte of the file that no codec exceeds: silence in flac has less than 5,000. The first
# bytes of a file that is still being written may promise more.
_DENSEST = 2**13
_SMALLEST = 2**13  # bytes
_BYTES = {"PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8}


class LyingHeaderError(ValueError):
    """A header that no file of this size, nor a longer one that it begins, can have."""


class AudioInfo(NamedTuple):
    """What the header of a sound file says.

    Attributes
    ----------
    sr : int
        Sample rate in Hz.
    frames : int
        Samples per channel.
    channels : int
        Number of channels.
    missing : int
        Samples per channel that the header promises beyond the end of the file.
    """

    sr: int
    frames: int
    channels: int
    missing: int


@functools.cache
def audio_suffixes():
    """Return the file suffixes that can be read, in lower case and with the dot.

    Returns
    -------
    frozenset of str
        From :func:`soundfile.available_formats`, such as ``".wav"`` and ``".flac"``.
    """
    known = {name.lower() for name in sf.available_formats()} - _HEADERLESS
    return frozenset(f".{name}" for name in known | _EXTENSIONS)


def sound_files(root):
    """Yield the sound files in a folder and below it, by their suffixes.

    Hidden files and folders are left out. Links are followed, but not in a circle.

    Parameters
    ----------
    root : str or path-like
        The folder.

    Yields
    ------
    str
        Path of a file.
    """
    root = os.fspath(root)
    suffixes = audio_suffixes()
    above = {root: {os.path.realpath(root)}}  # a link to one of these leads round and round
    for folder, subfolders, names in os.walk(root, followlinks=True):
        ways, kept = above.pop(folder), []
        for name in subfolders:
            path = os.path.join(folder, name)
            if not name.startswith(".") and (real := os.path.realpath(path)) not in ways:
                above[path] = ways | {real}
                kept.append(name)
        subfolders[:] = kept
        for name in names:
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in suffixes:
                yield os.path.join(folder, name)


def _missing_frames(file):
    """Samples per channel that the header of an open file promises and the file does not hold."""
    n_bytes = file.channels * _BYTES.get(file.subtype, 1)
    size = _SIZE_RF64.search(file.extra_info) if file.format == "RF64" else None
    if size is not None and int(size[1]) < _ENDLESS:
        return max(0, int(size[1]) // n_bytes - file.frames)
    short = _SHORT_CHUNK.search(file.extra_info)
    if short is None:
        return 0
    promised, found = map(int, short.groups())
    if promised >= _STREAMED or promised <= found:
        return 0
    return -(-(promised - found) // n_bytes)  # rounded up, as the last sample may be cut in half


@contextlib.contextmanager
def open_audio(path):
    """Open a sound file for reading; every failure inside names the file.

    Parameters
    ----------
    path : str or path-like
        The file.

    Yields
    ------
    file : soundfile.SoundFile
        The open file.
    missing : int
        Samples per channel that the header promises beyond the end of the file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    IsADirectoryError
        If `path` is a folder.
    LyingHeaderError
        If the header promises more than the file can hold, or says no sample rate.
    ValueError
        If the file cannot be decoded.
    """
    path = os.fspath(path)
    size = _size_of(path)
    # soundfile encodes text itself, but not names that are no valid UTF-8.
    name = path if os.name == "nt" else os.fsencode(path)
    try:
        with sf.SoundFile(name) as file:
            if file.frames == _ENDLESS:
                raise ValueError(
                    f"The sound file {path} was made as a stream: its header does not say how many "
                    f"samples it holds. Encode it once more, from file to file."
                )
            _check_header(file, path, size)
            yield file, _missing_frames(file)
    except sf.SoundFileError as error:
        if not os.access(path, os.R_OK):
            raise PermissionError(f"No permission to read the sound file: {path}") from None
        reason = getattr(error, "error_string", str(error)).removeprefix("Error : ").rstrip(".")
        raise ValueError(f"Cannot read the sound file {path} ({size} bytes): {reason}.") from error


def _check_header(file, path, size):
    """Raise where the header of an open file is absurd, before anything is made of it."""
    if not 0 <= file.frames <= _DENSEST * max(size, _SMALLEST):
        raise LyingHeaderError(
            f"The sound file {path} is damaged: its header promises {file.frames} samples, more "
            f"than {size} bytes can hold."
        )
    if file.samplerate <= 0:
        raise LyingHeaderError(
            f"The sound file {path} is damaged: its header says a sample rate of "
            f"{file.samplerate} Hz."
        )


def _size_of(path):
    """Size in bytes; raise unless it is a file."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"No such sound file: {path}") from None
    except ValueError as error:
        raise ValueError(f"{path!r} is no name of a sound file: {error}.") from None
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(f"Expected a sound file, found a folder: {path}")
    if not stat.S_ISREG(found.st_mode):
        # Opening a pipe would wait until somebody writes to it.
        raise ValueError(f"Expected a sound file, found a pipe or device: {path}")
    return found.st_size


def audio_info(path):
    """Read the header of a sound file.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    AudioInfo
        Sample rate, samples, channels and the samples that are missing at the end.

    Raises
    ------
    OSError, ValueError
        As :func:`read_audio`, except that a truncated file is reported in ``missing``.
    """
    with open_audio(path) as (file, missing):
        return AudioInfo(file.samplerate, file.frames, file.channels, missing)


def audio_blocks(path):
    """Yield the samples of a sound file, block by block: as many as it holds.

    Parameters
    ----------
    path : str or path-like
        The file.

    Yields
    ------
    ndarray of shape (n_samples, n_channels), float32
        Samples, those of integer formats in [-1, 1]. There is one block at least, if an empty one.

    Raises
    ------
    OSError, ValueError
        As :func:`open_audio`. That there are fewer samples than the header promises is not told.
    """
    with open_audio(path) as (file, _):
        yield from _blocks(file, file.frames)


def _blocks(file, n_frames):
    """Yield what comes next in an open file until it ends."""
    size = max(1, _BLOCK // file.channels)
    while True:
        wanted = min(size, n_frames)
        block = file.read(wanted, dtype="float32", always_2d=True)
        yield block
        n_frames -= len(block)
        if len(block) < wanted or n_frames == 0:
            return


def read_audio(path, *, channel=0, start=0, frames=-1):
    """Read one channel of a sound file.

    Memory is that of the samples that are there, whatever the header promises.

    Parameters
    ----------
    path : str or path-like
        The file, in any format that soundfile reads.
    channel : int, default=0
        The channel, counted from 0.
    start : int, default=0
        First sample to read.
    frames : int or callable, default=-1
        Samples to read, fewer where the file ends before; -1 reads to the end. A callable is given
        the samples and the sample rate that the header says, returns the number, and may raise.

    Returns
    -------
    y : ndarray of shape (n_samples,), float32
        Samples in [-1, 1] for integer formats.
    sr : int
        Sample rate in Hz.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    IsADirectoryError, PermissionError
        If `path` is a folder, or may not be read.
    ValueError
        If the file is corrupt or truncated, or if it lacks the channel or the first sample.
    """
    with open_audio(path) as (file, missing):
        if not 0 <= channel < file.channels:
            raise ValueError(
                f"{path} has {file.channels} channel(s); there is no channel {channel}."
            )
        if not 0 <= start <= file.frames:
            raise ValueError(f"{path} has {file.frames} samples; cannot start at sample {start}.")
        available = file.frames - start
        if missing == 0:
            if callable(frames):
                frames = frames(file.frames, file.samplerate)
            expected = available if frames < 0 else min(frames, available)
            if start:
                file.seek(start)
            y = _joined(_blocks(file, expected), expected, channel)
            missing = expected - len(y)
        if missing:
            raise ValueError(
                f"The sound file {path} is truncated: its header promises {missing} more samples "
                f"than it holds."
            )
        return y, file.samplerate


def _joined(blocks, n_expected, channel):
    """One channel of all blocks. Room is made for what has come, not for what is promised."""
    y, n = np.empty(0, dtype=np.float32), 0
    for block in blocks:
        part = block[:, channel]
        if len(part) == n_expected:
            # A column of several channels is a view with gaps: copy it, and free the others.
            return part if block.shape[1] == 1 else part.copy()
        if n + len(part) > len(y):
            y.resize(min(n_expected, 2 * (n + len(part))), refcheck=False)
        y[n : n + len(part)] = part
        n += len(part)
    y.resize(n, refcheck=False)
    return y


def write_audio(path, y, sr, *, subtype=None):
    """Write a sound file; a half-written one never appears under its name.

    Parameters
    ----------
    path : str or path-like
        The file; its suffix decides the format. Missing folders are made.
    y : array-like of shape (n_samples,) or (n_samples, n_channels)
        Samples in [-1, 1].
    sr : int
        Sample rate in Hz.
    subtype : str, optional
        Sample format, such as ``"PCM_16"`` or ``"FLOAT"``; by default the format's own
        (16 bits for wav and flac).

    Raises
    ------
    ValueError
        If the suffix names no known format.
    """
    path = Path(path)
    if path.suffix.lower() not in audio_suffixes():
        raise ValueError(f"Cannot write {path}: {path.suffix!r} is no suffix of a sound format.")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        sf.write(temporary, np.asarray(y), sr, subtype=subtype)
