"""What has been scored of a folder, and what is remembered of its machines: a SQLite file."""

import contextlib
import json
import os
import sqlite3
import zlib

from sk_asd.utils._files import remove_left_over, temporary_name
from sk_asd.utils._text import one_line

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


def _create(path):
    """Make an empty state, whole at once: an empty file is none."""
    remove_left_over(path)
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
        raise OSError(f"state={path}: {error}") from error
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
    version : str
        Of the system. The scores of another one are not remembered.

    Raises
    ------
    ValueError
        If the file is something else, or damaged. It is left as it is: what it has lost might be
        scored twice.
    OSError
        If it cannot be written, or another process uses it.
    """

    def __init__(self, path, version):
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
                self._open(version)
        except BaseException:
            self._db.close()
            raise

    def _open(self, version):
        if self._path is None:
            self._db.executescript(_SCHEMA)
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        with self._db:
            # Immediately, so that a second process is told at once.
            self._db.execute("BEGIN IMMEDIATE")
            (fault,) = self._db.execute("PRAGMA integrity_check").fetchone()
            if fault != "ok":
                raise ValueError(self._damaged(fault))
            ((found,),) = self._db.execute("PRAGMA user_version")
            if found != _VERSION:
                raise ValueError(f"state={self._path} is no state of this version of sk_asd.")
            self.done = {}
            for name, size, mtime, check in self._db.execute("SELECT * FROM done"):
                if check != _check(name, size, mtime):
                    raise ValueError(self._damaged(f"the entry of {name!r} has been changed"))
                self.done[os.fsdecode(name)] = size, mtime
            for place, state, check in self._db.execute("SELECT * FROM streams"):
                if check != _check(place, state):
                    raise ValueError(self._damaged(f"the entry of {place!r} has been changed"))
            if self._db.execute("SELECT digest FROM model").fetchall() != [(version,)]:
                self._db.execute("DELETE FROM model")
                self._db.execute("DELETE FROM streams")
                self._db.execute("INSERT INTO model VALUES (?)", (version,))

    def _damaged(self, what):
        return (
            f"state={self._path} is damaged: {one_line(what)}. Nothing is scored. Put back a "
            "copy, or move it away: all that is in the folder is then scored again."
        )

    @contextlib.contextmanager
    def _errors(self):
        try:
            yield
        except sqlite3.OperationalError as error:
            raise OSError(f"state={self._path}: {error}") from error
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
                raise ValueError(f"state={self._path} is no state of a watched folder.") from error
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
            self._put("done", os.fsencode(path), *stamp)
            if place is not None:
                self._put("streams", json.dumps(place), json.dumps(state))
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
