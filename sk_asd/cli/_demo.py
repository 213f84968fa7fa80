"""``sk-asd demo``: the whole way on synthetic machines."""

import json
import shutil
from pathlib import Path

from sk_asd.cli._common import (
    Progress,
    add_command,
    add_n_jobs,
    check_report,
    inventory,
    load_table,
)

_MARK = "demo.json"
_MACHINES = ("ToyCar", "ToyTrain", "bearing", "fan", "gearbox", "slider", "valve")
# Small enough for two minutes on two cores, large enough for the figures to mean something.
_SOUNDS = {"sections": 2, "n_train": 100, "n_test": 60, "duration": 6.0}
_SYSTEMS = {
    "pooling": {"pooling": ("mean", "std")},
    "sc": {
        "feature": "logmel",
        "target": ["machine", "section"],
        "n_frames": 64,
        # The faults of a fan are in its hum.
        "subtract_mean": False,
        "mixup": 0.0,
        "epochs": 12,
    },
}

_DESCRIPTION = """\
Make sounds of synthetic machines, check them, train two systems on the normal ones, score the test
recordings, and evaluate the scores. Everything is kept in one folder:

  data/                 recordings under the file names of DCASE 2022 Task 2
  model_SYSTEM.skasd   trained systems, as `sk-asd train` writes them
  scores_SYSTEM.csv     scores, as `sk-asd score` writes them
  report.html           tables, histograms and ROC curves, for a browser"""


def add_parser(commands):
    """Add the command."""
    parser = add_command(commands, "demo", run, "the whole way on synthetic machines", _DESCRIPTION)
    parser.add_argument(
        "--out", default="sk_asd_demo", metavar="DIR", help="folder (default: sk_asd_demo)"
    )
    parser.add_argument(
        "--machines",
        nargs="+",
        choices=_MACHINES,
        default=["fan", "valve"],
        metavar="M",
        help=f"some of {', '.join(_MACHINES)} (default: fan valve)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="random seed (default: 0)")
    add_n_jobs(parser)
    parser.set_defaults(n_jobs=-1)


def run(args):
    """Run the command."""
    out = prepare(args.out)
    machines = list(dict.fromkeys(args.machines))
    progress = Progress(args.quiet)
    run_demo(out, machines, args.seed, args.n_jobs, progress, _SOUNDS, _SYSTEMS)
    return 0


def prepare(out):
    """Make the folder, or empty that of an earlier demo.

    Raises
    ------
    ValueError, OSError
        If the folder cannot be made, or holds something that no demo has put there.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    if (out / _MARK).is_file():
        shutil.rmtree(out / "data", ignore_errors=True)
    elif any(out.iterdir()):
        raise ValueError(f"--out {out}: the folder is not empty. Choose another one.")
    return out


def run_demo(out, machines, seed, n_jobs, progress, sounds, systems):
    """Run all stages.

    Parameters
    ----------
    out : pathlib.Path
        The folder.
    machines : list of str
        Machines to synthesise.
    seed : int
        Seed of everything.
    n_jobs : int
        Parallel workers.
    progress : Progress
        Where progress is shown.
    sounds : dict
        Options of :func:`~sk_asd.datasets.make_machine_sounds`.
    systems : dict of str to dict
        Systems to train, and their options.
    """
    from sk_asd.cli._evaluate import percent
    from sk_asd.cli._models import save_model
    from sk_asd.cli._score import score_table
    from sk_asd.cli._train import build, fit, sections_of, training_clips
    from sk_asd.datasets import check_clips, make_machine_sounds
    from sk_asd.datasets._csv import write_table
    from sk_asd.metrics import dcase_scores

    (out / _MARK).write_text(json.dumps({"machines": machines, "seed": seed}), encoding="utf-8")
    data = out / "data"
    progress(f"making sounds of {', '.join(machines)} in {data}")
    make_machine_sounds(machines, **sounds, root=data, random_state=seed, n_jobs=n_jobs)

    clips = load_table(data)
    progress(f"checking {inventory(clips)}")
    findings = check_clips(clips, n_jobs=n_jobs)
    print(f"{inventory(clips)}: {len(findings) or 'no'} findings")

    train = training_clips(clips[clips["split"] == "train"])
    test = clips[clips["split"] == "test"].reset_index(drop=True)
    scores, thresholds, tables = {}, {}, {}
    for name, options in systems.items():
        progress(f"training {name} on {len(train)} normal clips")
        options = {**options, "seed": seed, "n_jobs": n_jobs}
        pipeline = build(name, options)
        fit(pipeline, train, progress)
        save_model(
            out / f"model_{name}.skasd",
            pipeline,
            options={"system": name, **options},
            sections=sections_of(train),
        )
        progress(f"scoring {len(test)} test clips with {name}")
        table = score_table(pipeline, test, data, progress)
        write_table(table, out / f"scores_{name}.csv")
        scores[name] = table["score"].to_numpy()
        thresholds[name] = table["threshold"].to_numpy()
        tables[name] = percent(dcase_scores(test, scores[name]))

    report = _write_report(out / "report.html", test, scores, thresholds, seed, progress)
    for name, table in tables.items():
        print(f"\n{name}: official metrics in percent\n{table}")
    print(f"\n{report}")


def _write_report(path, clips, scores, thresholds, seed, progress):
    """Write the report where its libraries are installed; return a line that says so."""
    try:
        check_report(str(path))
    except ImportError as error:
        return f"No report: {error}"
    from sk_asd.inspection import write_report

    progress("writing the report")
    write_report(
        path,
        clips,
        scores,
        thresholds=thresholds,
        title="Demo of sk_asd on synthetic machines",
        settings={"Random seed": seed},
    )
    return f"Report: {path}"
