"""``sk-asd demo``: the whole way on synthetic machines."""

import functools
import json
import shutil
from pathlib import Path

from sk_asd.cli._common import add_command, add_n_jobs, check_report, load_table
from sk_asd.utils._clip_tables import inventory
from sk_asd.utils._progress import Progress

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

  data/        recordings under the file names of DCASE 2022 Task 2
  run/         models, scores and figures, as `sk-asd run` writes them
  report.html  tables, histograms and ROC curves, for a browser"""


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
        for name in ("data", "run"):
            shutil.rmtree(out / name, ignore_errors=True)
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
    from sk_asd.cli._run import tables
    from sk_asd.cli._train import build
    from sk_asd.datasets import check_clips, make_machine_sounds
    from sk_asd.evaluation import evaluate

    (out / _MARK).write_text(json.dumps({"machines": machines, "seed": seed}), encoding="utf-8")
    data = out / "data"
    progress(f"making sounds of {', '.join(machines)} in {data}")
    make_machine_sounds(machines, **sounds, root=data, random_state=seed, n_jobs=n_jobs)

    clips = load_table(data)
    progress(f"checking {inventory(clips)}")
    findings = check_clips(clips, n_jobs=n_jobs)
    print(f"{inventory(clips)}: {len(findings) or 'no'} findings\n")
    result = evaluate(
        {
            name: functools.partial(build, name, {**options, "seed": seed, "n_jobs": n_jobs})
            for name, options in systems.items()
        },
        clips,
        scope="all",
        folder=out / "run",
        root=data,
        settings={"Random seed": seed},
        verbose=not progress.quiet,
    )
    print("\n\n".join(tables(result)))
    print(f"\n{_write_report(out / 'report.html', result, progress)}")


def _write_report(path, result, progress):
    """Write the report where its libraries are installed; return a line that says so."""
    try:
        check_report(str(path))
    except ImportError as error:
        return f"No report: {error}"
    progress("writing the report")
    result.report(path, explain=2, title="Demo of sk_asd on synthetic machines")
    return f"Report: {path}"
