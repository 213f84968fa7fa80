"""What the commands share: options, checks at the door, tables and progress.

Nothing heavy is imported at module level, so that ``--help`` answers at once.
"""

import argparse
import contextlib
import io
import math
import re
import sys
import warnings
from pathlib import Path

from sk_asd.utils._clip_tables import only_machines
from sk_asd.utils._text import one_line, printable


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
        "--n-jobs",
        type=number(int, but=0),
        metavar="N",
        help="parallel workers; -1 takes all cores",
    )


def add_machine(parser):
    """Add ``--machine``."""
    parser.add_argument(
        "--machine", nargs="+", metavar="M", help="only these machines (default: all found)"
    )


def add_split(parser, default, text):
    """Add ``--split``."""
    parser.add_argument("--split", choices=("test", "train", "all"), default=default, help=text)


def add_labels(parser):
    """Add what says how test recordings are evaluated."""
    parser.add_argument(
        "--ground-truth",
        nargs="+",
        metavar="PATH",
        help="csv files, or folders of them, with the labels of an evaluation set",
    )
    parser.add_argument(
        "--rules",
        choices=("2020", "2021", "2022"),
        help="year of the rules (default: 2022, which hold for the years after it, too, but 2020 "
        "where no test clip has a domain)",
    )


def add_cache(parser):
    """Add ``--cache-dir``."""
    parser.add_argument(
        "--cache-dir", metavar="FOLDER", help="keep features there, and read them back next time"
    )


def number(kind, low=-math.inf, high=math.inf, *, but=None):
    """Argument type: a finite int or float from `low` to `high`, but not `but`."""
    if but is not None:
        limits = f" above {low}" if but == low else f" other than {but}"
    elif high < math.inf:
        limits = f" from {low} to {high}"
    else:
        limits = f" of at least {low}" if low > -math.inf else ""
    what = "an integer" if kind is int else "a number" if limits else "a finite number"

    def convert(text):
        value = kind(text)
        if not low <= value <= high or not math.isfinite(value) or value == but:
            raise argparse.ArgumentTypeError(f"expected {what}{limits}, found {text}")
        return value

    convert.__name__ = kind.__name__  # which argparse names where the text is no number
    return convert


count = number(int, 1)
positive = number(float, 0, but=0)
not_negative = number(float, 0)


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
    """Check before any work that a file can be written; remove what killed commands left of it."""
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


@contextlib.contextmanager
def spoken(*parameters, **renamed):
    """Errors of the library in terms of options, which :func:`in_options` says."""
    try:
        yield
    except (ValueError, OSError) as error:
        text = in_options(str(error), *parameters, **renamed)
        if text == str(error):
            raise
        raise (ValueError if isinstance(error, ValueError) else OSError)(text) from error


def in_options(text, *parameters, **renamed):
    """Text with ``--state x`` for ``state=x``, and ``give --state`` for ``give state``.

    Options are called as the parameters that they set, or as these are `renamed`.
    """
    for name, option in (dict(zip(parameters, parameters)) | renamed).items():
        option = f"--{option.replace('_', '-')}"
        text = re.sub(rf"(?<![^\s(]){name}=", f"{option} ", text)
        text = re.sub(rf"\bgive {name}\b", f"give {option}", text)
    return text


def load_table(root, *, machines=None, split=None, **options):
    """Clips of a folder, of some machines and a split; None keeps all.

    `options` are those of :func:`~sk_asd.datasets.load_clips`.
    """
    from sk_asd.datasets import load_clips

    clips = load_clips(root, **options)
    with spoken(machines="machine"):
        clips = only_machines(clips, machines, root)
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


def format_table(columns, rows):
    """Text table: numbers to the right, floats with two decimals, ``-`` for what is missing."""
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
