"""``sk-asd fetch``: download recordings of DCASE Challenge Task 2."""

import contextlib

from sk_asd.cli._common import add_command, format_table
from sk_asd.utils._clip_tables import inventory
from sk_asd.utils._progress import Progress

_DESCRIPTION = """\
Download recordings of DCASE Challenge Task 2 from Zenodo, check and unpack them. What is there is
not downloaded again; what was downloaded in part is resumed.

  sk-asd fetch --list                            what there is
  sk-asd fetch 2022 --machine fan                training clips and labelled test clips
  sk-asd fetch 2022 --machine all --subset all   all of a year, some 15 GB

The data lie in DIR/dcase<YEAR>/, a folder that all other commands take."""


def add_parser(commands):
    """Add the command."""
    parser = add_command(commands, "fetch", run, "download recordings of DCASE", _DESCRIPTION)
    parser.add_argument("year", type=int, nargs="?", metavar="YEAR", help="from 2020 to 2025")
    parser.add_argument("--machine", nargs="+", metavar="M", help="machines, or all")
    parser.add_argument(
        "--subset",
        choices=("dev", "train", "eval", "all"),
        default="dev",
        help="development data (default), additional training data, evaluation data, or all three",
    )
    parser.add_argument(
        "--data-home",
        metavar="DIR",
        help="folder for the data (default: $SK_ASD_DATA_HOME, else the user's cache folder)",
    )
    parser.add_argument(
        "--list", action="store_true", help="show what there is, and what is here already"
    )
    parser.add_argument(
        "--base-url",
        metavar="URL",
        help="mirror of Zenodo (default: https://zenodo.org)",
    )


def run(args):
    """Run the command."""
    if args.list:
        print(overview(args.year, args.machine, args.data_home))
        return 0
    if args.year is None:
        raise ValueError("fetch needs a YEAR, or --list to show what there is.")

    from sk_asd.datasets import fetch_dcase
    from sk_asd.datasets._archives import machines_of
    from sk_asd.datasets._fetch import year_folder

    if args.machine is None:
        known = dict.fromkeys(machines_of(args.year, "dev") + machines_of(args.year, "eval"))
        raise ValueError(f"--machine is missing: all, or some of {', '.join(known)}.")
    options = {} if args.base_url is None else {"base_url": args.base_url}
    progress = Progress(args.quiet)
    home = year_folder(args.year, args.data_home)
    progress(f"fetching into {home}")
    with contextlib.redirect_stdout(progress.stream):
        clips = fetch_dcase(
            args.year,
            args.machine,
            args.subset,
            data_home=args.data_home,
            verbose=not args.quiet,
            **options,
        )
    for archive, licence in clips.attrs["licences"].items():
        print(f"{archive}: licence {licence}")
    print(f"{inventory(clips)}: {home}")
    return 0


def overview(year, machines, data_home):
    """Table of what can be fetched: "yes", or "here" where that has been done; None: all."""
    from sk_asd.datasets._archives import SUBSETS, find_archives, years
    from sk_asd.datasets._fetch import is_present, year_folder

    rows = []
    for one in years() if year is None else [year]:
        home = year_folder(one, data_home)
        found = {}
        for archive in find_archives(one, "all", "all"):
            state = "here" if is_present(home, archive) else "yes"
            found.setdefault(archive.machine, {})[archive.subset] = state
        rows += [
            (str(one), machine, *(states.get(subset) for subset in SUBSETS))
            for machine, states in sorted(found.items())
            if machines is None or machine in machines or "all" in machines
        ]
    if not rows:
        raise ValueError(f"Nothing of {', '.join(machines)}; --list alone shows what there is.")
    return format_table(["year", "machine", *SUBSETS], rows)
