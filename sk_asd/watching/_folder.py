"""Recordings that arrive in a folder: which are new and whole, and how they score."""

import contextlib
import os
import time
from dataclasses import asdict, dataclass
from numbers import Integral, Real
from pathlib import Path

from sk_asd.datasets._audio import LyingHeaderError, audio_blocks, audio_info, sound_files
from sk_asd.datasets._load import _read_folders
from sk_asd.datasets._names import parse_name
from sk_asd.utils._sklearn import Interval, validate_params
from sk_asd.utils._text import composed, one_line
from sk_asd.watching._folder_memory import Memory
from sk_asd.watching._scorers import StreamingScorers
from sk_asd.watching._streaming import StreamEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderEvent(StreamEvent):
    """Something that happened in a recording of a folder.

    Parameters
    ----------
    type : str
        As of :class:`StreamEvent`; or ``"error"``: the recording cannot be scored.
    start, end : float or None
        Seconds since the start of the recording; alarms and drift may begin in an earlier one of
        the machine, at a negative time. None of an error.
    score, threshold, p_value, due : float, float, float, bool or None
        As of :class:`StreamEvent`.
    path : str
        The recording, relative to the folder.
    machine, section : str or None
        What is heard, where the system knows it.
    message : str or None
        Of an error, in one line that names the recording.
    """

    path: str
    machine: str | None = None
    section: str | None = None
    message: str | None = None


class _UnreadableError(Exception):
    """A recording that may yet become readable."""


class _BrokenError(_UnreadableError):
    """One that is not whole, or cannot be decoded, which no option changes."""


class FolderWatcher:
    """Score recordings as they arrive in a folder, each machine's as one stream.

    A recording is scored once, when it has stopped growing and can be read; one that changes later
    is scored again. One that cannot be scored is an event, and the next one is taken.

    Parameters
    ----------
    scorers : StreamingScorers
        Scorers by machine and section, which names of folders and files tell.
    folder : str or path-like
        The folder, with all in it.
    channel : int, default=0
        Channel of the recordings that is heard, counted from 0.
    settle : float, default=2.0
        Seconds without change before a recording is read.
    give_up : float, default=60.0
        Seconds without change after which one that is not whole is an error.
    state : str or path-like, default=None
        File, made if it is missing, in which the next watcher finds what has been scored, alarms
        and the last windows. One process uses it at a time. None: nothing is remembered.
    version : str, default=None
        Anything that tells the system of `scorers` from others, such as a checksum of its file:
        what `state` remembers of the scores of another one does not count.

    Attributes
    ----------
    folder : pathlib.Path
        The folder.

    Raises
    ------
    OSError
        If `state` cannot be written, or another process uses it.
    ValueError
        If `state` is something else, or damaged. It is left as it is: what it has lost might be
        scored twice.

    See Also
    --------
    StreamingScorer : Scores one stream.

    Notes
    -----
    What an event reports is remembered after it was handed out: where the process is killed between
    the two, that recording is scored again at the next start, and none is lost. A recording that is
    broken is remembered, too; other errors are forgotten with the process, and those of a disk that
    cannot be read are tried again at every look.

    Examples
    --------
    >>> import os, tempfile
    >>> from sk_asd.datasets import make_machine_sounds
    >>> from sk_asd.systems import make_pooling
    >>> from sk_asd.watching import FolderWatcher, StreamingScorers
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     clips = make_machine_sounds("fan", n_train=20, n_test=1, duration=1.0, root=folder,
    ...                                 random_state=0)
    ...     system = make_pooling().fit(clips[clips["split"] == "train"])
    ...     scorers = StreamingScorers(system, sections={"fan": ["00"]})
    ...     incoming = os.path.dirname(clips["path"][clips["split"] == "test"].iloc[0])
    ...     events = []
    ...     with FolderWatcher(scorers, incoming, settle=0) as watcher:
    ...         waiting = watcher.look(events.append)
    >>> waiting, [(event.type, event.machine, event.section) for event in events]
    (0, [('score', 'fan', '00')])
    """

    @validate_params(
        {
            "scorers": [StreamingScorers],
            "channel": [Interval(Integral, 0, None, closed="left")],
            "settle": [Interval(Real, 0, None, closed="left")],
            "give_up": [Interval(Real, 0, None, closed="left")],
            "state": [str, os.PathLike, None],
            "version": [str, None],
        },
        prefer_skip_nested_validation=True,
    )
    def __init__(
        self, scorers, folder, *, channel=0, settle=2.0, give_up=60.0, state=None, version=None
    ):
        self.folder = Path(os.path.abspath(folder))
        self._scorers = scorers
        self._channel = channel
        self._settle = settle
        self._give_up = give_up
        self._memory = Memory(state, version)
        self._waiting = {}  # path: its stamp, and since when it has that
        self._failed = {}  # path: its stamp, and whether to try again; these are not done
        self._loaded = set()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Close the file of the state."""
        self._memory.close()

    def look(self, on_event, check=None):
        """Score what is new and whole.

        Parameters
        ----------
        on_event : callable
            Called with every :class:`FolderEvent`, in order. Where it raises, the recording is
            scored again by the next watcher.
        check : callable, default=None
            Called without arguments between recordings, and between parts of long ones. It may end
            the work by KeyboardInterrupt, or what else is no Exception: nothing of that recording
            has then happened.

        Returns
        -------
        int
            Recordings that are not yet whole.
        """
        check = check or (lambda: None)
        now = time.monotonic()
        found = self._list()
        self._memory.forget(found.keys(), now)
        new = {
            path: stamp
            for path, stamp in found.items()
            if self._memory.done.get(path) != stamp and self._failed.get(path) != (stamp, False)
        }
        known = {path: self._waiting.get(path) for path in new}
        self._waiting = {
            path: known[path] if known[path] and known[path][0] == stamp else (stamp, now)
            for path, stamp in new.items()
        }
        # In the order in which they were written.
        for path in sorted(new, key=lambda path: (new[path][1], path)):
            check()
            stamp, since = self._waiting[path]
            # What was written long ago need not be waited for.
            age = max(now - since, time.time() - stamp[1] / 1e9)
            if age >= self._settle and self._try(path, on_event, check, age):
                del self._waiting[path]
        return len(self._waiting)

    def _list(self):
        """Recordings by path relative to the folder, with size and time of modification."""
        found = {}
        for path in sound_files(self.folder):
            with contextlib.suppress(OSError):  # it may have gone meanwhile
                stat = os.stat(path)
                found[os.path.relpath(path, self.folder)] = stat.st_size, stat.st_mtime_ns
        return found

    def _try(self, path, on_event, check, age):
        """Score a recording; return False where it is to be tried again."""
        stamp, place = self._waiting[path][0], (None, None)
        try:
            self._check(path)
            place = self._place(path)
            events = self._score(path, place, check)
        except _UnreadableError as error:
            if age < self._give_up and not isinstance(error.__cause__, LyingHeaderError):
                return False
            message = error
        except Exception as error:  # whatever it is, the next recording is scored
            message = error
        else:
            for event in events:
                on_event(event)
            # After its events: rather twice than never, when power fails or the process is killed.
            self._memory.put(path, stamp, place, _get_state(self._scorers[place]))
            return True
        again = isinstance(message, _UnreadableError)
        if self._failed.get(path) != (stamp, again):
            known = {"path": path, "machine": place[0], "section": place[1]}
            on_event(FolderEvent(type="error", start=None, message=_named(message, path), **known))
        if isinstance(message, _BrokenError):
            self._memory.put(path, stamp)
        else:  # an option, or the next start, may help
            self._failed[path] = stamp, again
        return True

    def _check(self, path):
        """Raise where the header says that the recording is not whole, or does not fit."""
        with _reading():
            info = audio_info(self.folder / path)
        if info.frames <= 0:
            raise _BrokenError(f"The sound file {path} holds no samples.")
        if info.missing:
            raise _BrokenError(
                f"The sound file {path} is truncated: it holds {info.frames} samples, and lacks "
                f"{info.missing}."
            )
        if info.sr != self._scorers.sr:
            raise ValueError(f"{path}: sample rate {info.sr} Hz, expected {self._scorers.sr} Hz.")
        if self._channel >= info.channels:
            raise ValueError(
                f"{path} has {info.channels} channel(s); there is no channel {self._channel}."
            )
        seconds = info.frames / info.sr
        if round(self._scorers.window * info.sr) > info.frames:
            raise ValueError(
                f"{path}: {seconds:.4g} s, expected at least a window of "
                f"{self._scorers.window:.4g} s."
            )

    def _place(self, path):
        full = self.folder / path
        said = _read_folders(full.parent.parts, len(self.folder.parts))
        name = parse_name(full.name)
        known = self._scorers.sections
        folders = map(composed, reversed(full.parent.parts))
        machine = next((folder for folder in folders if folder in known), None)
        section = said.get("section") if name is None else name.section
        try:
            return self._scorers.place(machine, section)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def _score(self, path, place, check):
        """Score a recording; return events, with times from its start."""
        scorer = self._scorers[place]
        if place not in self._loaded:
            state = self._memory.state(place)
            if state is not None:
                _set_state(scorer, state)
            self._loaded.add(place)
        before = _get_state(scorer)
        begin, events = scorer.position / scorer.sr, []
        try:
            for samples in self._samples(path):
                check()
                events += scorer.feed(samples)
            events += scorer.finish()
        except BaseException:
            _set_state(scorer, before)
            raise
        known = {"path": path, "machine": place[0], "section": place[1]}
        return [FolderEvent(**_from(begin, event), **known) for event in events]

    def _samples(self, path):
        """Samples of a recording, part by part."""
        n = 0
        with _reading():
            frames = audio_info(self.folder / path).frames
            for block in audio_blocks(self.folder / path):
                n += len(block)
                yield block[:, self._channel]
        if n < frames:
            lacking = frames - n
            raise _BrokenError(f"The sound file {path} is truncated: it lacks {lacking} samples.")


@contextlib.contextmanager
def _reading():
    """Tell faults of a recording from those of the disk, or the network, that it is on."""
    try:
        yield
    except ValueError as error:
        raise _BrokenError(error) from error
    except OSError as error:
        raise _UnreadableError(error) from error


def _named(error, path):
    """Message about a recording, in one line that names it."""
    message = one_line(error) or type(error).__name__
    if not isinstance(error, (_UnreadableError, ValueError, OSError)):
        message = f"{type(error).__name__}: {message}"
    return message if one_line(path) in message else f"{one_line(path)}: {message}"


def _from(begin, event):
    """Fields of an event, its times counted from `begin`."""
    times = {"start": event.start, "end": event.end}
    return asdict(event) | {k: None if t is None else t - begin for k, t in times.items()}


def _get_state(scorer):
    drift = None if scorer.drift is None else scorer.drift.get_state()
    return {"scorer": scorer.get_state(), "drift": drift}


def _set_state(scorer, state):
    scorer.set_state(state["scorer"])
    if scorer.drift is not None and state["drift"] is not None:
        scorer.drift.set_state(state["drift"])
