"""``sk-asd run``: a whole evaluation, machine by machine, as the challenge does it."""

import argparse
import os

from sk_asd.cli._common import (
    Progress,
    add_command,
    add_machine,
    add_n_jobs,
    check_device,
    not_negative_int,
)
from sk_asd.cli._models import TRUST
from sk_asd.cli._run_folder import RunFolder, make_manifest
from sk_asd.cli._run_parts import check_run_options
from sk_asd.cli._run_protocols import PROTOCOLS
from sk_asd.cli._train import add_system_options, given_options
from sk_asd.systems._registry import BUILDERS, ENSEMBLES, SINGLE

_NO_MATTER = ("device", "cache_dir", "n_jobs")  # options that no score depends on

_DESCRIPTION = f"""\
Train a system for every machine of DIR, score the test recordings, decide, evaluate and report.

DIR has the folder dev_data and, where it is there, eval_data; without dev_data all of DIR is taken
for it. One model a machine is trained on the training recordings of both. RUN then has

  scores.csv       score (high = normal), threshold and decision of every test recording
  metrics.csv      official metrics per section, machine and in total, where labels are known
  choices.csv      weights of an ensemble, or what the protocol has chosen
  comparison.csv   figures of the AITHU report, where DIR looks like DCASE 2022
  challenge/       the csv files that the challenge asks for, in dev_data and eval_data
  models/          one file a machine, for `sk-asd score`, and of ensembles one a member
  report.html      tables, histograms and ROC curves, for a browser
  manifest.json    what all this depends on

A run that was interrupted goes on where it stopped when the same command is given again.

Protocols: B takes fixed settings. A is an oracle: it chooses the detector, metric or weights of
every machine by the labels of the test recordings that it reports, as the AITHU report did. C
chooses by those of sections 00 to 02 and reports sections 03 to 05 only.

{TRUST}"""


def add_parser(commands):
    """Add the command."""
    parser = add_command(
        commands, "run", run, "train, score and evaluate, machine by machine", _DESCRIPTION
    )
    parser.add_argument("dir", metavar="DIR", help="folder with dev_data and perhaps eval_data")
    parser.add_argument(
        "--system",
        choices=tuple(BUILDERS),
        required=True,
        metavar="NAME",
        help=f"{', '.join(SINGLE)}; or an ensemble: {', '.join(ENSEMBLES)}",
    )
    parser.add_argument("--out", required=True, metavar="RUN", help="folder to write")
    parser.add_argument(
        "--protocol",
        choices=tuple(PROTOCOLS),
        default="B",
        help="which labels a choice may see; see above (default: B)",
    )
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
    add_machine(parser)
    add_n_jobs(parser)
    parser.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="train on the workers of this dask scheduler, such as tcp://host:8786; DIR and RUN "
        "must be on storage that all of them share",
    )
    parser.add_argument(
        "--explain",
        type=not_negative_int,
        default=5,
        metavar="N",
        help="show the N most abnormal recordings of every machine in the report, with pictures "
        "and sound (default: 5)",
    )
    add_system_options(parser, seed=0)


def run(args):
    """Run the command."""
    options = given_options(args)
    options.pop("n_jobs", None)
    check_run_options(args.system, args.protocol, options)
    if args.scheduler is None:
        return _run(args, options)
    if args.n_jobs is not None:
        raise ValueError("--n-jobs applies to this machine; with --scheduler every worker counts.")
    from sk_asd.cli._run_cluster import connected

    with connected(args.scheduler) as client:
        return _run(args, options, client)


def with_absolute_paths(options):
    """Options whose file names hold in every working directory.

    Parameters
    ----------
    options : dict
        Options that were given.

    Returns
    -------
    dict
        A copy.
    """
    found = {name: options[name] for name in ("cache_dir", "wav2vec") if name in options}
    # A model of wav2vec 2.0 may be given by a name, too.
    paths = {k: v for k, v in found.items() if k == "cache_dir" or os.path.exists(v)}
    return options | {name: os.path.abspath(path) for name, path in paths.items()}


def _run(args, options, client=None):
    """Run the command, on a cluster where there is a client of one."""
    from sk_asd.cli._run_all import check_run, load_run, run_all

    progress = Progress(args.quiet)
    progress(f"loading {args.dir}")
    clips = load_run(args.dir, args.machine, args.ground_truth)
    settings = argparse.Namespace(
        system=args.system,
        protocol=args.protocol,
        rules=args.rules,
        root=args.dir if client is None else os.path.abspath(args.dir),
        options=options if client is None else with_absolute_paths(options),
        explain=args.explain,
    )
    check_run(clips, settings)
    check_device(options.get("device", "auto"))
    parameters = {
        **{name: getattr(args, name) for name in ("system", "protocol")},
        "rules": args.rules or "2022",
        **{name: value for name, value in options.items() if name not in _NO_MATTER},
    }
    manifest = make_manifest(parameters, clips, args.dir, choosing=args.protocol != "B")
    folder = RunFolder(args.out if client is None else os.path.abspath(args.out))
    with folder.open(manifest):
        print(run_all(folder, clips, settings, args.n_jobs, progress, client))
    print(f"\nRun: {folder.path}")
    return 0
