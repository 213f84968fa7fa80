"""``sk-asd adapt``: let a model learn a few recordings more."""

import argparse

from sk_asd.cli._common import (
    add_command,
    add_machine,
    add_split,
    check_output,
    load_table,
)
from sk_asd.cli._models import TRUST, add_trust, open_model
from sk_asd.cli._score import add_computing, configure
from sk_asd.persistence._models import save_model
from sk_asd.utils._clip_tables import inventory, sections_of
from sk_asd.utils._progress import Progress

_DESCRIPTION = f"""\
Let a trained model learn the recordings of a folder, all of them normal: ten of a new speed, of a
microphone that was moved, of a machine after maintenance. Outlier detectors and thresholds
change; networks do not, for which there is `sk-asd train`. MODEL stays as it is, unless NEW is
the same file.

{TRUST}"""


def add_parser(commands):
    """Add the command."""
    parser = add_command(commands, "adapt", run, "learn a few recordings more", _DESCRIPTION)
    parser.add_argument("model", metavar="MODEL", help="file that `sk-asd train` wrote")
    parser.add_argument("dir", metavar="DIR", help="folder of normal recordings")
    parser.add_argument("--out", required=True, metavar="NEW", help="model file to write")
    text = "recordings to learn (default: all; none may be labelled as an anomaly)"
    add_split(parser, "all", text)
    add_machine(parser)
    parser.add_argument(
        "--new",
        nargs="+",
        type=group,
        default=[],
        metavar="MACHINE/SECTION",
        help="machines and sections that the model does not know yet, such as fan/03",
    )
    parser.add_argument(
        "--scores-only",
        choices=("auto", "all"),
        help="let the scores of the recordings count for thresholds, where a detector cannot learn "
        "them (auto) or everywhere (all); default: refuse a model that cannot learn",
    )
    add_computing(parser)
    add_trust(parser)


def group(text):
    """Argument type: machine and section, or what else makes the groups of a model."""
    parts = tuple(text.split("/"))
    if not all(parts):
        raise argparse.ArgumentTypeError(f"expected MACHINE/SECTION, found {text!r}")
    return parts if len(parts) > 1 else text


def run(args):
    """Run the command."""
    from sk_asd.utils._system import extractors, networks

    check_output(args.out)
    progress = Progress(args.quiet)
    system, header = open_model(args, progress)
    split = None if args.split == "all" else args.split
    clips = load_table(args.dir, machines=args.machine, split=split)
    _check_normal(clips, args)
    from sk_asd.decisions import adapt

    n_jobs = [extractor.n_jobs for extractor in extractors(system)]
    devices = [network.device for network in networks(system)]
    configure(system, args)
    progress(f"learning {inventory(clips)}")
    scores_only = {None: False, "auto": "auto", "all": True}[args.scores_only]
    adapt(system, clips, new=args.new, scores_only=scores_only, copy=False)
    # A model travels: cache, device and cores of this machine are not for who loads it.
    for extractor, jobs in zip(extractors(system), n_jobs):
        extractor.set_params(n_jobs=jobs, cache_dir=None)
    for network, device in zip(networks(system), devices):
        network.set_params(device=device)
    save_model(
        args.out,
        system,
        options=header["options"],
        sections=_joined(header["sections"], sections_of(clips)),
        adapted=[*header.get("adapted", []), _entry(clips, scores_only)],
    )
    print(f"{inventory(clips)} learnt: {args.out}")
    return 0


def _check_normal(clips, args):
    """Refuse anomalies before the model reads any recording."""
    wrong = clips[clips["label"] == "anomaly"]
    if len(wrong):
        hint = " Use --split train, or another folder." if args.split != "train" else ""
        raise ValueError(
            f"{len(wrong)} of {len(clips)} recordings in {args.dir} are labelled as anomalies, the "
            f"first {wrong['path'].iloc[0]}: only normal ones can be learnt.{hint}"
        )


def _joined(before, now):
    """Sections of each machine, those from before first."""
    return {
        machine: sorted({*before.get(machine, []), *now.get(machine, [])})
        for machine in [*before, *(m for m in now if m not in before)]
    }


def _entry(clips, scores_only):
    """What the header of the model file says of an adaptation."""
    from datetime import UTC, datetime

    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "clips": len(clips),
        "sections": sections_of(clips),
        "scores_only": scores_only,
    }
