"""Clip tables in words."""

import os
from pathlib import Path


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
