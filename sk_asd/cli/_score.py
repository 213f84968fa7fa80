"""``sk-asd score``: how normal is every recording?"""

from sk_asd.cli._common import (
    add_cache,
    add_command,
    add_machine,
    add_n_jobs,
    add_split,
    check_device,
    check_output,
    load_table,
)
from sk_asd.cli._models import TRUST, add_trust, open_model
from sk_asd.utils._clip_tables import relative_paths
from sk_asd.utils._progress import Progress

_DESCRIPTION = f"""\
Score the recordings of a folder with a trained model and write a csv file with the columns

  path       of the recording, relative to DIR
  machine, section, domain, label
             as far as they are known
  score      high = normal
  threshold  of the recording's machine and section, from normal training recordings
  decision   1 normal (score >= threshold), -1 anomaly

{TRUST}"""


def add_parser(commands):
    """Add the command."""
    parser = add_command(commands, "score", run, "score recordings with a model", _DESCRIPTION)
    parser.add_argument("model", metavar="MODEL", help="file that `sk-asd train` wrote")
    parser.add_argument("dir", metavar="DIR", help="folder of recordings")
    parser.add_argument("--out", required=True, metavar="FILE", help="csv file to write")
    add_split(parser, "test", "recordings to score (default: test)")
    add_machine(parser)
    add_computing(parser)
    parser.add_argument(
        "--dcase",
        metavar="FOLDER",
        help="also write the csv files of the DCASE challenge (high = anomalous; 1 = anomaly)",
    )
    add_trust(parser)


def run(args):
    """Run the command."""
    check_output(args.out)
    if args.dcase and args.split != "test":
        raise ValueError(f"--dcase writes test results; it does not go with --split {args.split}.")
    progress = Progress(args.quiet)
    system, _ = open_model(args, progress)
    configure(system, args)
    split = None if args.split == "all" else args.split
    clips = load_table(args.dir, machines=args.machine, split=split)
    progress(f"scoring {len(clips)} clips")
    table = score_table(system, clips, args.dir, progress)
    from sk_asd.datasets._csv import write_table

    write_table(table, args.out)
    if args.dcase:
        from sk_asd.metrics import write_submission

        write_submission(clips, table["score"].to_numpy(), table["decision"], args.dcase)
    anomalies = int((table["decision"] == -1).sum())
    print(f"{len(table)} clips scored, {anomalies} called anomalous: {args.out}")
    return 0


def add_computing(parser):
    """Add what :func:`configure` sets."""
    add_n_jobs(parser)
    parser.add_argument(
        "--device", metavar="DEVICE", help="for a network: auto (default), cpu, cuda, ..."
    )
    add_cache(parser)


def configure(system, args):
    """Set where and how a loaded system computes."""
    from sk_asd.utils._system import extractors, networks

    if args.device is not None:
        if not networks(system):
            raise ValueError(f"--device {args.device}: the model has no network.")
        check_device(args.device)
        for estimator in networks(system):
            estimator.set_params(device=args.device)
    for extractor in extractors(system):
        extractor.set_params(n_jobs=args.n_jobs, cache_dir=args.cache_dir)


def score_table(system, clips, root, progress):
    """Scores and decisions, one row a clip, with paths relative to a folder."""
    import pandas as pd

    from sk_asd.decisions import score_clips
    from sk_asd.utils._system import chunks

    found = []
    with progress.bar(len(clips), "clip") as bar:
        for part in chunks(clips):
            found.append(score_clips(system, part))
            bar.update(len(part))
    table = clips[["machine", "section", "domain", "label"]].copy()
    table.insert(0, "path", relative_paths(clips, root))
    scored = pd.concat(found)
    for column in ("score", "threshold", "decision"):
        table[column] = scored[column].to_numpy()
    return table
