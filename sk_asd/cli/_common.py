"""What the commands share: options, checks at the door, tables and progress.

Nothing heavy is imported at module level, so that ``--help`` answers at once.
"""

import argparse
import contextlib
import io
import math
import sys
import warnings
from pathlib import Path

from sk_asd.utils._clip_tables import names
from sk_asd.utils._text import composed, printable


def add_command(commands, name, run, summary, description=None):
    """Add a sub-command with the options that all commands have, and return its parser."""
    parser = commands.add_parser(
        name,
        help=summary,
        description=description or summary,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    parser.add_argument("--quiet", action="store_true", help="print results only, no progress")
    parser.add_argument("--debug", action="store_true", help=argparse.SUPPRESS)
    return parser


def add_n_jobs(parser):
    """Add ``--n-jobs``."""
    parser.add_argument(
        "--n-jobs", type=nonzero_int, metavar="N", help="parallel workers; -1 takes all cores"
    )


def add_machine(parser):
    """Add ``--machine``."""
    parser.add_argument(
        "--machine", nargs="+", metavar="M", help="only these machines (default: all found)"
    )


def positive_int(text):
    """Argument type: an integer of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected an integer of at least 1, found {text}")
    return value


def not_negative_int(text):
    """Argument type: an integer from 0 on."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"expected an integer from 0 on, found {text}")
    return value


def nonzero_int(text):
    """Argument type: any integer but 0."""
    value = int(text)
    if value == 0:
        raise argparse.ArgumentTypeError("expected an integer other than 0")
    return value


def one_line(message):
    """Text without line breaks, nor anything else that moves the cursor."""
    return printable(" ".join(str(message).split()))


@contextlib.contextmanager
def plain_warnings():
    """Warnings as one line for a reader who did not write the code, and names on any terminal."""
    shown = set()

    def show(message, category, filename, lineno, file=None, line=None):
        if str(message) not in shown:  # what a check has said, the work need not say again
            print(f"sk-asd: warning: {one_line(message)}", file=sys.stderr)
        shown.add(str(message))

    with warnings.catch_warnings(), _names_printed():
        warnings.showwarning = show
        yield


@contextlib.contextmanager
def _names_printed():
    r"""Print ``\x`` in the place of what the encoding of stdout lacks, as stderr does anyway.

    Work that is done must not fail at its last line.
    """
    stdout = sys.stdout
    if not isinstance(stdout, io.TextIOWrapper):
        yield
        return
    errors = stdout.errors
    stdout.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        stdout.reconfigure(errors=errors)


def check_output(path, option="--out"):
    """Check before any work that a file can be written; remove what killed commands left of it.

    Raises
    ------
    OSError
        If its folder is missing, or the name is that of a folder, pipe or device.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{option} {path}: the folder {path.parent} does not exist.")
    if path.is_dir():
        raise IsADirectoryError(f"{option} {path} is a folder, expected the name of a file.")
    if path.exists() and not path.is_file():
        raise OSError(f"{option} {path} is a pipe or device, expected the name of a file.")
    from sk_asd.utils._files import remove_left_over

    remove_left_over(path)


def check_report(option="--report"):
    """Check before any work that a report can be written."""
    try:
        from sk_asd.inspection._report import require_extra

        require_extra()
    except ImportError as error:
        raise ImportError(f"{option}: {error}") from error


def check_device(device):
    """Refuse a device that is not there, before features are computed."""
    import torch

    if device == "auto":
        return
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n")[0]
        raise ValueError(f"--device {device}: {reason}") from error


def load_table(root, *, machines=None, split=None, **options):
    """Load the clips of a folder and keep some of them.

    Parameters
    ----------
    root : str
        The folder.
    machines : list of str, optional
        Machines to keep.
    split : str, optional
        Split to keep; None keeps all.
    **options
        For :func:`~sk_asd.datasets.load_clips`.

    Returns
    -------
    DataFrame
        The clip table with a fresh index.

    Raises
    ------
    OSError, ValueError
        If the folder cannot be read, or nothing is left; the message says what was found.
    """
    from sk_asd.datasets import load_clips

    clips = load_clips(root, **options)
    clips = keep_machines(clips, machines, root)
    if split is not None:
        counts = clips["split"].value_counts(dropna=False)
        clips = clips[clips["split"] == split]
        if len(clips) == 0:
            found = ", ".join(
                f"{n} of {f'split {name}' if isinstance(name, str) else 'no split'}"
                for name, n in counts.items()
            )
            raise ValueError(f"No clips of split {split} in {root}; found {found}.")
    return clips.reset_index(drop=True)


def keep_machines(clips, machines, root):
    """Clips of some machines; None keeps all.

    Raises
    ------
    ValueError
        If there is no such machine; the message says which there are.
    """
    if machines is None:
        return clips
    found = names(clips["machine"])
    machines = [composed(machine) for machine in machines]
    unknown = [machine for machine in machines if machine not in found]
    if unknown:
        raise ValueError(
            f"--machine {' '.join(unknown)}: not in {root}; found {', '.join(found) or 'none'}."
        )
    return clips[clips["machine"].isin(machines)]


def format_table(columns, rows):
    """Text table: numbers to the right, ``-`` for what is missing.

    Parameters
    ----------
    columns : sequence of str
        Headers.
    rows : sequence of sequences
        Cells: text, or float printed with two decimals.

    Returns
    -------
    str
        The table, without a newline at the end.
    """
    lines = [list(columns), *([_text(cell) for cell in row] for row in rows)]
    numeric = [any(isinstance(row[i], (int, float)) for row in rows) for i in range(len(columns))]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric)
        ).rstrip()
        for line in lines
    )


def _text(cell):
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return "-"
    return f"{cell:.2f}" if isinstance(cell, float) else printable(str(cell))
