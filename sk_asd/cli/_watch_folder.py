"""``sk-asd watch`` of a folder: which recordings are new and whole, and what has been scored."""

import contextlib
import hashlib
import json
import os
import sqlite3
import time
import zlib
from pathlib import Path

from sk_asd.cli._common import one_line
from sk_asd.cli._watch_lines import emit
from sk_asd.datasets._audio import LyingHeaderError, audio_blocks, audio_info, sound_files
from sk_asd.datasets._load import _read_folders
from sk_asd.datasets._names import parse_name
from sk_asd.utils._files import temporary_name
from sk_asd.utils._text import composed

_FORGET = 24 * 3600  # seconds for which a recording must have been away
_VERSION = 2
_SCHEMA = f"""
BEGIN;
CREATE TABLE done (path BLOB PRIMARY KEY, size INTEGER, mtime INTEGER, crc INTEGER);
CREATE TABLE streams (place TEXT PRIMARY KEY, state TEXT, crc INTEGER);
CREATE TABLE model (digest TEXT);
PRAGMA user_version = {_VERSION};
COMMIT;
"""


class Unreadable(Exception):  # noqa: N818
    """A recording that may yet become readable."""


class Broken(Unreadable):
    """One that is not whole, or cannot be decoded, which no option changes."""


def watch_folder(scorers, args, stopper, progress):
    """Score recordings as they arrive.

    Parameters
    ----------
    scorers : Scorers
        Scorers by machine and section.
    args : Namespace
        Options.
    stopper : Stopper
        Tells when to end.
    progress : Progress
        Where progress is shown.
    """
    with open(args.model, "rb") as file:
        model = hashlib.file_digest(file, "sha256").hexdigest()
    root = Path(os.path.abspath(args.source))
    with contextlib.closing(Memory(args.state, model)) as memory:
        progress(f"watching {root}, windows of {scorers.window:g} s")
        watch = Watch(root, scorers, memory, args, stopper)
        while True:
            waiting = watch.look()
            if args.once and not waiting:
                return
            stopper.sleep(args.poll)


def _create(path):
    """Make an empty state, whole at once: an empty file is none."""
    temporary = temporary_name(path)
    try:
        with contextlib.closing(sqlite3.connect(temporary)) as database:
            database.executescript(_SCHEMA)
        try:
            os.link(temporary, path)
        except FileExistsError:  # another process was faster
            return
        except OSError:  # no links there
            os.replace(temporary, path)
    except sqlite3.Error as error:
        raise OSError(f"--state {path}: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _check(*values):
    return zlib.crc32(repr(values).encode())


class Memory:
    """Which recordings are done, and what is remembered of every machine: a SQLite file.

    What a recording changes is written in one transaction, which takes the same time however many
    there have been. Every row has a checksum.

    Parameters
    ----------
    path : str or None
        The file; None remembers until the end of the process.
    model : str
        Fingerprint of the model. The scores of another one are not remembered.

    Raises
    ------
    ValueError
        If the file is something else, or damaged. It is left as it is: what it has lost might be
        scored twice.
    OSError
        If it cannot be written, or another process uses it.
    """

    def __init__(self, path, model):
        self._path = path
        self._missing = {}
        if path is not None and not os.path.exists(path):
            _create(path)
        elif path is not None and os.path.getsize(path) == 0:
            raise ValueError(self._damaged("it is empty"))
        with self._errors():
            self._db = sqlite3.connect(":memory:" if path is None else path, timeout=1)
        try:
            with self._errors():
                self._open(model)
        except BaseException:
            self._db.close()
            raise

    def _open(self, model):
        if self._path is None:
            self._db.executescript(_SCHEMA)
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        with self._db:
            # Immediately, so that a second process is told at once.
            self._db.execute("BEGIN IMMEDIATE")
            (fault,) = self._db.execute("PRAGMA integrity_check").fetchone()
            if fault != "ok":
                raise ValueError(self._damaged(fault))
            ((version,),) = self._db.execute("PRAGMA user_version")
            if version != _VERSION:
                raise ValueError(f"--state {self._path} is no state of this version of sk_asd.")
            self.done = {}
            for name, size, mtime, check in self._db.execute("SELECT * FROM done"):
                if check != _check(name, size, mtime):
                    raise ValueError(self._damaged(f"the entry of {name!r} has been changed"))
                self.done[os.fsdecode(name)] = size, mtime
            for place, state, check in self._db.execute("SELECT * FROM streams"):
                if check != _check(place, state):
                    raise ValueError(self._damaged(f"the entry of {place!r} has been changed"))
            if self._db.execute("SELECT digest FROM model").fetchall() != [(model,)]:
                self._db.execute("DELETE FROM model")
                self._db.execute("DELETE FROM streams")
                self._db.execute("INSERT INTO model VALUES (?)", (model,))

    def _damaged(self, what):
        return (
            f"--state {self._path} is damaged: {one_line(what)}. Nothing is scored. Put back a "
            "copy, or move it away: all that is in the folder is then scored again."
        )

    @contextlib.contextmanager
    def _errors(self):
        try:
            yield
        except sqlite3.OperationalError as error:
            raise OSError(f"--state {self._path}: {error}") from error
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
                raise ValueError(f"--state {self._path} is no state of `sk-asd watch`.") from error
            raise ValueError(self._damaged(error)) from error

    def close(self):
        """Close the file."""
        self._db.close()

    def state(self, place):
        """What is remembered of a machine and section, or None."""
        key = (json.dumps(place),)
        with self._errors():
            row = self._db.execute("SELECT state FROM streams WHERE place = ?", key).fetchone()
        return None if row is None else json.loads(row[0])

    def put(self, path, stamp, place=None, state=None):
        """Remember that a recording is done, and the state that it left."""
        with self._errors(), self._db:
            row = (os.fsencode(path), *stamp)
            self._db.execute(
                "INSERT OR REPLACE INTO done VALUES (?, ?, ?, ?)", (*row, _check(*row))
            )
            if place is not None:
                row = (json.dumps(place), json.dumps(state))
                self._db.execute(
                    "INSERT OR REPLACE INTO streams VALUES (?, ?, ?)", (*row, _check(*row))
                )
        self.done[path] = stamp

    def _put(self, table, *row):
        marks = ", ".join("?" * (len(row) + 1))
        self._db.execute(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", (*row, _check(*row)))

    def forget(self, found, now):
        """Forget recordings that have been away for long; shares may be away for a while."""
        missing = self.done.keys() - found
        self._missing = {path: self._missing.get(path, now) for path in missing}
        gone = [path for path, since in self._missing.items() if now - since > _FORGET]
        if gone:
            with self._errors(), self._db:
                rows = [(os.fsencode(path),) for path in gone]
                self._db.executemany("DELETE FROM done WHERE path = ?", rows)
            for path in gone:
                del self.done[path]


class Watch:
    """A folder and what is known about its recordings."""

    def __init__(self, root, scorers, memory, args, stopper):
        self._root = root
        self._scorers = scorers
        self._memory = memory
        self._args = args
        self._stopper = stopper
        self._waiting = {}  # path: its stamp, and since when it has that
        self._failed = {}  # path: its stamp, and whether to try again; these are not done
        self._loaded = set()

    def look(self):
        """Score what is new and whole; return the number of recordings that are not yet whole."""
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
            self._stopper.check()
            stamp, since = self._waiting[path]
            # What was written long ago need not be waited for.
            age = max(now - since, time.time() - stamp[1] / 1e9)
            if age >= self._args.settle and self._try(path, stamp, age):
                del self._waiting[path]
        return len(self._waiting)

    def _list(self):
        """Recordings by path relative to the folder, with size and time of modification."""
        found = {}
        for path in sound_files(self._root):
            with contextlib.suppress(OSError):  # it may have gone meanwhile
                stat = os.stat(path)
                found[os.path.relpath(path, self._root)] = stat.st_size, stat.st_mtime_ns
        return found

    def _try(self, path, stamp, age):
        """Score a recording; return False where it is to be tried again."""
        place = None, None
        try:
            self._check(path)
            place = self._place(path)
            begin, events = self._score(path, place)
        except Unreadable as error:
            if age < self._args.give_up and not isinstance(error.__cause__, LyingHeaderError):
                return False
            message = error
        except Exception as error:  # whatever it is, the next recording is scored
            message = error
        else:
            for event in events:
                emit(place, event, begin=begin, path=path)
            # After its lines: rather twice than never, when power fails or the process is killed.
            self._memory.put(path, stamp, place, _get_state(self._scorers(place)))
            return True
        again = isinstance(message, Unreadable)
        if self._failed.get(path) != (stamp, again):
            emit(place, path=path, message=_named(message, path))
        if isinstance(message, Broken):
            self._memory.put(path, stamp)
        else:  # an option, or the next start, may help
            self._failed[path] = stamp, again
        return True

    def _check(self, path):
        """Raise where the header says that the recording is not whole, or does not fit."""
        with _reading():
            info = audio_info(self._root / path)
        if info.frames <= 0:
            raise Broken(f"The sound file {path} holds no samples.")
        if info.missing:
            raise Broken(
                f"The sound file {path} is truncated: it holds {info.frames} samples, and lacks "
                f"{info.missing}."
            )
        if info.sr != self._scorers.sr:
            raise ValueError(f"{path}: sample rate {info.sr} Hz, expected {self._scorers.sr} Hz.")
        if self._args.channel >= info.channels:
            raise ValueError(
                f"{path} has {info.channels} channel(s); there is no channel {self._args.channel}."
            )
        seconds = info.frames / info.sr
        if round(self._scorers.window * info.sr) > info.frames:
            raise ValueError(
                f"{path}: {seconds:.4g} s, expected at least a window of "
                f"{self._scorers.window:.4g} s."
            )

    def _place(self, path):
        full = self._root / path
        said = _read_folders(full.parent.parts, len(self._root.parts))
        name = parse_name(full.name)
        known = self._scorers.sections
        folders = map(composed, reversed(full.parent.parts))
        machine = next((folder for folder in folders if folder in known), None)
        section = said.get("section") if name is None else name.section
        try:
            return self._scorers.place(machine, section)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def _score(self, path, place):
        """Score a recording; return where it begins in the stream of its machine, and events."""
        scorer = self._scorers(place)
        if place not in self._loaded:
            state = self._memory.state(place)
            if state is not None:
                _set_state(scorer, state)
            self._loaded.add(place)
        before = _get_state(scorer)
        begin, events = scorer.position / scorer.sr, []
        try:
            for samples in self._samples(path):
                self._stopper.check()
                events += scorer.feed(samples)
            events += scorer.finish()
        except BaseException:
            _set_state(scorer, before)
            raise
        return begin, events

    def _samples(self, path):
        """Samples of a recording, part by part."""
        n = 0
        with _reading():
            frames = audio_info(self._root / path).frames
            for block in audio_blocks(self._root / path):
                n += len(block)
                yield block[:, self._args.channel]
        if n < frames:
            raise Broken(f"The sound file {path} is truncated: it lacks {frames - n} samples.")


@contextlib.contextmanager
def _reading():
    """Tell faults of a recording from those of the disk, or the network, that it is on."""
    try:
        yield
    except ValueError as error:
        raise Broken(error) from error
    except OSError as error:
        raise Unreadable(error) from error


def _named(error, path):
    """Message about a recording, in one line that names it."""
    message = one_line(error) or type(error).__name__
    if not isinstance(error, (Unreadable, ValueError, OSError)):
        message = f"{type(error).__name__}: {message}"
    return message if one_line(path) in message else f"{one_line(path)}: {message}"


def _get_state(scorer):
    drift = None if scorer.drift is None else scorer.drift.get_state()
    return {"scorer": scorer.get_state(), "drift": drift}


def _set_state(scorer, state):
    scorer.set_state(state["scorer"])
    if scorer.drift is not None and state["drift"] is not None:
        scorer.drift.set_state(state["drift"])
