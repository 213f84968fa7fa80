"""``sk-asd check``: are the recordings sound?"""

import os
import warnings

from sk_asd.cli._common import (
    add_command,
    add_n_jobs,
    count,
    format_table,
    load_table,
)
from sk_asd.utils._clip_tables import inventory
from sk_asd.utils._progress import Progress

_DESCRIPTION = """\
Read every recording of a folder and list what would spoil a training: unreadable or truncated
files, another sample rate, number of channels or length, NaN, silence, clipping, duplicates, and
names that fit no known grammar.

Exit status: 0 if there are no findings, 1 if there are, 2 for wrong input."""


def add_parser(commands):
    """Add the command."""
    parser = add_command(commands, "check", run, "check the recordings of a folder", _DESCRIPTION)
    parser.add_argument("dir", metavar="DIR", help="folder of recordings")
    parser.add_argument(
        "--sr", type=count, default=16000, help="expected sample rate (default: 16000)"
    )
    add_n_jobs(parser)


def run(args):
    """Run the command."""
    from sk_asd.datasets import check_clips

    progress = Progress(args.quiet)
    progress(f"listing {args.dir}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # listed by name below
        clips = load_table(args.dir, on_unknown="warn")
    progress(f"reading {len(clips)} files")
    found = check_clips(clips, sr=args.sr, n_jobs=args.n_jobs, verbose=progress.bars)
    unknown = clips["path"][clips["machine"].isna()]
    rows = [(path, "unknown_name", "name and folders fit no known layout") for path in unknown]
    rows += found[["path", "problem", "detail"]].itertuples(index=False, name=None)
    rows = [(os.path.relpath(path, args.dir), *rest) for path, *rest in rows]
    if rows:
        print(format_table(["path", "problem", "detail"], rows), end="\n\n")
    total = {0: "no findings", 1: "1 finding"}.get(len(rows), f"{len(rows)} findings")
    print(f"{inventory(clips)}, {hours(clips):.2f} hours: {total}")
    return 1 if rows else 0


def hours(clips):
    """Length of all readable recordings."""
    from sk_asd.datasets._audio import audio_info

    seconds = 0.0
    for path in clips["path"]:
        try:
            info = audio_info(path)
        except (OSError, ValueError):
            continue  # listed among the findings
        seconds += info.frames / info.sr
    return seconds / 3600
