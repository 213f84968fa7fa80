"""Clip tables in words."""

import os
from pathlib import Path

from sk_asd.utils._text import composed


def names(column):
    """Sorted values of a text column, without the missing ones."""
    return sorted(column.dropna().unique())


def relative_paths(clips, root):
    """Paths of the clips relative to the folder, with ``/`` on every system."""
    return [Path(os.path.relpath(path, root)).as_posix() for path in clips["path"]]


def sections_of(clips):
    """Sections of each machine, as lists that JSON can hold."""
    return {str(m): names(rows["section"]) for m, rows in clips.groupby("machine")}


def inventory(clips):
    """One line on what a table holds: ``200 clips, 2 machines, 3 sections``."""
    sections = clips[["machine", "section"]].drop_duplicates()
    parts = [
        (len(clips), "clip"),
        (clips["machine"].nunique(), "machine"),
        (len(sections.dropna(how="all")), "section"),
    ]
    return ", ".join(f"{n} {word}{'' if n == 1 else 's'}" for n, word in parts if n)


def only_machines(clips, machines, root):
    """Clips of some machines; None keeps all.

    Raises
    ------
    ValueError
        If there is no such machine in the folder `root`; the message says which there are.
    """
    if machines is None:
        return clips
    found = names(clips["machine"])
    machines = [composed(machine) for machine in machines]
    unknown = [machine for machine in machines if machine not in found]
    if unknown:
        raise ValueError(
            f"machines={' '.join(unknown)}: not in {root}; found {', '.join(found) or 'none'}."
        )
    return clips[clips["machine"].isin(machines)]
