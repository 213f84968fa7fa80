"""``sk-asd score``: how normal is every recording?"""

from pathlib import Path

from sk_asd.cli._common import (
    Progress,
    add_command,
    add_machine,
    add_n_jobs,
    check_device,
    check_output,
    listed,
    load_table,
    relative_paths,
    write_csv,
)
from sk_asd.cli._models import TRUST, load_model, networks

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


def run(args):
    """Run the command."""
    check_output(args.out)
    if args.dcase and args.split != "test":
        raise ValueError(f"--dcase writes test results; it does not go with --split {args.split}.")
    progress = Progress(args.quiet)
    progress(f"loading {args.model}")
    pipeline, _ = load_model(args.model)
    configure(pipeline, args)
    split = None if args.split == "all" else args.split
    clips = load_table(args.dir, machines=args.machine, split=split)
    progress(f"scoring {len(clips)} clips")
    table = score_table(pipeline, clips, args.dir, progress)
    write_csv(table, args.out)
    if args.dcase:
        write_dcase(table, args.dcase)
    anomalies = int((table["decision"] == -1).sum())
    print(f"{len(table)} clips scored, {anomalies} called anomalous: {args.out}")
    return 0


def configure(pipeline, args):
    """Set where and how a loaded system computes.

    Raises
    ------
    ValueError
        If the device is not there, or there is no network to put on it.
    """
    changes = {"feature__n_jobs": args.n_jobs, "feature__cache_dir": args.cache_dir}
    if args.device is not None:
        if not networks(pipeline):
            raise ValueError(f"--device {args.device}: the model has no network.")
        check_device(args.device)
        for estimator in networks(pipeline):
            estimator.set_params(device=args.device)
    pipeline.set_params(**changes)


def score_table(pipeline, clips, root, progress):
    """Scores and decisions as ``sk-asd score`` writes them.

    Parameters
    ----------
    pipeline : Pipeline
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

    front, detector = pipeline[:-1], pipeline[-1]
    scores, margins = [], []
    with progress.bar(len(clips), "clip") as bar:
        for start in range(0, len(clips), _CHUNK):
            embeddings = front.transform(clips.iloc[start : start + _CHUNK])
            scores.append(detector.score_samples(embeddings))
            margins.append(detector.decision_function(embeddings))
            bar.update(len(embeddings))
    scores, margins = np.concatenate(scores), np.concatenate(margins)
    table = clips[["machine", "section", "domain", "label"]].copy()
    table.insert(0, "path", relative_paths(clips, root))
    table["score"] = scores
    table["threshold"] = scores - margins
    table["decision"] = np.where(margins >= 0, 1, -1)
    return table


def write_dcase(table, folder):
    """Write the two csv files per machine and section that DCASE asks for.

    ``anomaly_score_<machine>_section_<dd>_test.csv`` holds file names and scores, high = anomalous;
    ``decision_result_<machine>_section_<dd>_test.csv`` file names and 1 for an anomaly, else 0.
    Neither has a header.

    Raises
    ------
    ValueError
        If the machine or section of a recording is unknown.
    """
    unknown = table["machine"].isna() | table["section"].isna()
    if unknown.any():
        raise ValueError(
            "--dcase needs the machine and section of every recording; unknown for "
            f"{listed(table['path'][unknown])}."
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    table = table.assign(name=[Path(path).name for path in table["path"]]).sort_values("name")
    for (machine, section), rows in table.groupby(["machine", "section"]):
        tail = f"{machine}_section_{section}_test.csv"
        scores = rows[["name"]].assign(value=-rows["score"])
        decisions = rows[["name"]].assign(value=(rows["decision"] == -1).astype(int))
        write_csv(scores, folder / f"anomaly_score_{tail}", header=False)
        write_csv(decisions, folder / f"decision_result_{tail}", header=False)
