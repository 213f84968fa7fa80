"""``sk-asd demo``: the whole way on synthetic machines."""

import functools
import json
import shutil
from pathlib import Path

from sk_asd.cli._common import add_command, add_n_jobs, load_table
from sk_asd.cli._run import tables, write_report
from sk_asd.cli._train import build
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
    from sk_asd.datasets import check_clips, make_machine_sounds
    from sk_asd.evaluation import evaluate

    out = prepare(args.out)
    machines = list(dict.fromkeys(args.machines))
    progress = Progress(args.quiet)
    mark = json.dumps({"machines": machines, "seed": args.seed})
    (out / _MARK).write_text(mark, encoding="utf-8")
    data = out / "data"
    progress(f"making sounds of {', '.join(machines)} in {data}")
    common = {"n_jobs": args.n_jobs}
    make_machine_sounds(machines, **_SOUNDS, root=data, random_state=args.seed, **common)

    clips = load_table(data)
    progress(f"checking {inventory(clips)}")
    findings = check_clips(clips, **common)
    print(f"{inventory(clips)}: {len(findings) or 'no'} findings\n")
    common["seed"] = args.seed
    result = evaluate(
        {
            name: functools.partial(build, name, options | common)
            for name, options in _SYSTEMS.items()
        },
        clips,
        scope="all",
        folder=out / "run",
        root=data,
        settings={"Random seed": args.seed},
        verbose=not args.quiet,
    )
    print("\n\n".join(tables(result)), end="\n\n")
    title = "Demo of sk_asd on synthetic machines"
    print(write_report(result, str(out / "report.html"), progress, explain=2, title=title))
    return 0


def prepare(out):
    """Make the folder, or empty that of an earlier demo."""
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    if (out / _MARK).is_file():
        for name in ("data", "run"):
            shutil.rmtree(out / name, ignore_errors=True)
    elif any(out.iterdir()):
        raise ValueError(f"--out {out}: the folder is not empty. Choose another one.")
    return out
