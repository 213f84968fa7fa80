"""``sk-asd score``: how normal is every recording?"""

from sk_asd.cli._common import (
    Progress,
    add_command,
    add_machine,
    add_n_jobs,
    check_device,
    check_output,
    load_table,
    relative_paths,
)
from sk_asd.cli._models import TRUST, add_trust, load_model, networks, pipelines

_CHUNK = 256  # clips whose features are in memory at a time

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
    parser.add_argument(
        "--split",
        choices=("test", "train", "all"),
        default="test",
        help="recordings to score (default: test)",
    )
    add_machine(parser)
    add_n_jobs(parser)
    parser.add_argument(
        "--device",
        metavar="DEVICE",
        help="for a network: auto (default), cpu, cuda, ...",
    )
    parser.add_argument(
        "--cache-dir", metavar="FOLDER", help="keep features there, and read them back next time"
    )
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
    progress(f"loading {args.model}")
    system, _ = load_model(args.model, trust=args.trust)
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


def configure(system, args):
    """Set where and how a loaded system computes.

    Raises
    ------
    ValueError
        If the device is not there, or there is no network to put on it.
    """
    if args.device is not None:
        if not networks(system):
            raise ValueError(f"--device {args.device}: the model has no network.")
        check_device(args.device)
        for estimator in networks(system):
            estimator.set_params(device=args.device)
    for pipeline in pipelines(system):
        pipeline.set_params(feature__n_jobs=args.n_jobs, feature__cache_dir=args.cache_dir)


def score_table(system, clips, root, progress):
    """Scores and decisions as ``sk-asd score`` writes them.

    Parameters
    ----------
    system : Pipeline or outlier detector
        A fitted system.
    clips : DataFrame
        The clip table.
    root : str
        Folder that the paths are written relative to.
    progress : Progress
        Where progress is shown.

    Returns
    -------
    DataFrame
        One row a clip.
    """
    import numpy as np

    scores, margins = [], []
    with progress.bar(len(clips), "clip") as bar:
        for part in chunks(clips):
            for values, found in zip((scores, margins), _scores_and_margins(system, part)):
                values.append(found)
            bar.update(len(part))
    scores, margins = np.concatenate(scores), np.concatenate(margins)
    table = clips[["machine", "section", "domain", "label"]].copy()
    table.insert(0, "path", relative_paths(clips, root))
    table["score"] = scores
    table["threshold"] = scores - margins
    table["decision"] = np.where(margins >= 0, 1, -1)
    return table


def chunks(clips):
    """Parts of a clip table whose features fit into memory."""
    for start in range(0, len(clips), _CHUNK):
        yield clips.iloc[start : start + _CHUNK]


def _scores_and_margins(system, clips):
    """Scores, and scores relative to the threshold, from one pass over the sounds."""
    if hasattr(system, "steps"):
        embeddings, detector = system[:-1].transform(clips), system[-1]
        return detector.score_samples(embeddings), detector.decision_function(embeddings)
    scores = system.score_samples(clips)
    return scores, scores - system.offset_
