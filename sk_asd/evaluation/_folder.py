"""The folder of an evaluation: its manifest, where all lies in it, files that are never half."""

import contextlib
import hashlib
import json
import os
import uuid
import warnings
from pathlib import Path

from sk_asd._versions import versions
from sk_asd.ensemble._memory import content_key
from sk_asd.utils._clip_tables import relative_paths
from sk_asd.utils._text import composed

_FORMAT = "sk_asd evaluation 1"
_MANIFEST = "manifest.json"
_SEALED = ("models", "parts")


class EvaluationFolder:
    """Folder of a run.

    What a run reads back, models and scores of parts, is sealed: a file beside it has the checksum
    of its content, its name and the manifest. One who opens the folder writes a token into it, and
    nobody with another token writes any more: workers of a run that was killed, on this machine or
    another one, come too late.

    Parameters
    ----------
    path : str or path-like
        The folder; made by :meth:`open` if it is missing.
    """

    def __init__(self, path):
        self.path = Path(path)
        self._token = None

    @contextlib.contextmanager
    def open(self, manifest):
        """Hold the folder for this run alone.

        Parameters
        ----------
        manifest : dict
            As :func:`make_manifest` returns it; written if the folder is new.

        Yields
        ------
        bool
            Whether the folder holds a part of this run already.

        Raises
        ------
        OSError
            If the folder cannot be written to.
        ValueError
            If it holds something else, another run, or another process is at work in it.
        """
        import filelock

        with explained(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        path = self.path / _MANIFEST
        if not path.exists() and any(self.path.glob("[!.]*")):
            raise ValueError(f"folder={self.path}: it is not empty. Choose another one.")
        lock = filelock.FileLock(self.path / ".lock")
        try:
            with explained(self.path):
                lock.acquire(timeout=0)
        except filelock.Timeout:
            raise ValueError(f"folder={self.path}: another evaluation is at work there.") from None
        try:
            with explained(self.path):
                self._token = uuid.uuid4().hex
                self._owner.write_text(self._token)
                for left_over in self.path.rglob(".tmp_*"):  # nobody else is at work here
                    left_over.unlink()
            known = path.exists() and self._check(manifest)
            if not known:
                with self.writing(path) as temporary:
                    temporary.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
            yield known
        finally:
            self._owner.unlink(missing_ok=True)
            lock.release()

    @property
    def _owner(self):
        return self.path / ".owner"

    def _check_owner(self):
        with contextlib.suppress(FileNotFoundError):
            if self._owner.read_text() == self._token:
                return
        raise OSError("another run has taken over")

    def _check(self, manifest):
        """Whether the manifest in the folder is this one; raise where it is that of another run."""
        try:
            found = json.loads((self.path / _MANIFEST).read_text(encoding="utf-8"))
            same = found["format"] == _FORMAT
        except (ValueError, KeyError, TypeError):
            same = False
        if not same:
            raise ValueError(f"{self.path / _MANIFEST} is no manifest of an evaluation.")
        differing = differences(found, json.loads(json.dumps(manifest)))
        if differing:
            if not self._is_begun():
                return False
            raise ValueError(
                f"folder={self.path} holds another evaluation: {_some(differing)}. Choose "
                "another folder, or take back what has changed."
            )
        old, new = found["versions"], manifest["versions"]
        changed = [f"{k} {old.get(k)} (here {new[k]})" for k in new if old.get(k) != new[k]]
        if changed:
            warnings.warn(
                f"{self.path} was begun with {', '.join(changed)}: its parts may differ. Choose "
                "another folder to be sure.",
                stacklevel=2,
            )
        return True

    def _is_begun(self):
        """Whether anything has been trained."""
        return any(any((self.path / name).rglob("*.*")) for name in _SEALED)

    def model(self, unit):
        """Path of the model of a unit."""
        return self.path / "models" / unit.system / f"{unit.name}.skasd"

    def choices(self, unit):
        """Path of what was chosen for a unit."""
        return self.path / "parts" / unit.system / f"{unit.name}.json"

    def scores(self, unit):
        """Path of the scores of a unit; what is there is done."""
        return self.path / "parts" / unit.system / f"{unit.name}.csv"

    def memory(self, unit):
        """Folder for parts of a unit that is not done yet."""
        return self.path / "memory" / unit.system / unit.name

    def discard_damaged(self, path):
        """Remove a model, or the scores of a part, that are not as this run has written them.

        Parameters
        ----------
        path : pathlib.Path
            The file, which need not be there.

        Warns
        -----
        UserWarning
            If it is removed: it is made again.
        """
        seal = _seal_of(path)
        if path.exists() and seal.exists():
            if seal.read_bytes() == self._checksum(path, path):
                return
            warnings.warn(f"{path} is damaged, or of another run: it is made again.", stacklevel=2)
        elif path.exists():
            warnings.warn(f"{path} has lost its {seal.name}: it is made again.", stacklevel=2)
        for file in (path, seal):
            file.unlink(missing_ok=True)

    def _checksum(self, path, content):
        """Checksum of a file that is, or will be, called so, as the bytes of a seal."""
        found = hashlib.sha256((self.path / _MANIFEST).read_bytes())
        found.update(os.fsencode(path.relative_to(self.path).as_posix()))
        with open(content, "rb") as file:
            found.update(hashlib.file_digest(file, "sha256").digest())
        return f"{found.hexdigest()}\n".encode()

    @contextlib.contextmanager
    def writing(self, path):
        """Give a temporary name that becomes `path` when all has gone well.

        Parameters
        ----------
        path : str or path-like
            A file in the folder. Its own folder is made.

        Yields
        ------
        pathlib.Path
            The temporary name.

        Raises
        ------
        OSError
            Naming the file, and what remains to be done.
        """
        from sk_asd.utils._files import replacing

        with explained(path):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary:
                yield temporary
                self._check_owner()
                if path.relative_to(self.path).parts[0] in _SEALED:
                    with replacing(_seal_of(path)) as seal:
                        seal.write_bytes(self._checksum(path, temporary))

    def write_csv(self, table, path):
        """Write a table as csv."""
        from sk_asd.datasets._csv import write_table

        with self.writing(path) as temporary:
            write_table(table, temporary)


@contextlib.contextmanager
def explained(path):
    """Turn an error of the file system into one line for the reader."""
    try:
        yield
    except OSError as error:
        # A lock that is held is none of them.
        if isinstance(error, TimeoutError):
            raise
        raise OSError(
            f"Cannot write {path}: {error.strerror or error}. What is finished is kept: the same "
            "command goes on from there."
        ) from error


def _seal_of(path):
    return path.with_name(f"{path.name}.seal")


def make_manifest(parameters, clips, root, choosing):
    """What a run depends on, as JSON can hold it.

    Parameters
    ----------
    parameters : dict
        Systems, protocol and settings that scores depend on.
    clips : DataFrame
        All clips of the run.
    root : str or None
        The folder of recordings.
    choosing : bool
        Whether labels of test clips are used to choose something: then they count, too.

    Returns
    -------
    dict
        ``format``, ``parameters``, ``data`` by machine, ``versions`` and ``recordings``.
    """
    machines = clips.groupby("machine")
    return {
        "format": _FORMAT,
        "parameters": parameters,
        "data": {str(name): _fingerprint(rows, root, choosing) for name, rows in machines},
        "versions": versions(),
        "recordings": None if root is None else os.path.abspath(root),
    }


def _fingerprint(clips, root, choosing):
    """Digests of the files of a machine (names, sizes, times of modification) and of labels."""
    found = {"clips": len(clips)}
    if "path" in clips:
        stats = [os.stat(path) for path in clips["path"]]
        found["bytes"] = sum(stat.st_size for stat in stats)
        files = [
            f"{composed(path)} {stat.st_size} {stat.st_mtime_ns}"
            for path, stat in zip(relative_paths(clips, root), stats)
        ]
        found["files"] = _digest(files)
    else:
        found["files"] = content_key(clips.drop(columns="label"))
    if choosing:
        found["labels"] = _digest(f"{a} {b}" for a, b in zip(clips["domain"], clips["label"]))
    return found


def _digest(lines):
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def differences(old, new):
    """Say in words where two manifests differ.

    Parameters
    ----------
    old, new : dict
        Manifests.

    Returns
    -------
    list of str
        Differences in parameters and data, the old value first.
    """
    told = [
        f"{name} {_value(old, name)} (here {_value(new, name)})"
        for name in {**old["parameters"], **new["parameters"]}
        if old["parameters"].get(name) != new["parameters"].get(name)
    ]
    for machine in {**old["data"], **new["data"]}:
        then, now = old["data"].get(machine), new["data"].get(machine)
        if then == now:
            continue
        if now is None:
            told.append(f"it has the machine {machine} (not asked for here)")
        elif then is None:
            told.append(f"it lacks the machine {machine}")
        elif then["files"] == now["files"]:
            told.append(f"labels of {machine} have changed")
        elif then["clips"] != now["clips"]:
            told.append(f"{then['clips']} recordings of {machine} (here {now['clips']})")
        else:
            told.append(f"recordings of {machine} have changed")
    return told


def _some(told, most=4):
    more = f"; and {len(told) - most} more" if len(told) > most else ""
    return "; ".join(told[:most]) + more


def _value(manifest, name):
    value = manifest["parameters"].get(name)
    if value is None:
        return "not given"
    return " ".join(map(str, value)) if isinstance(value, list) else value
