"""``sk-asd run``: a whole evaluation, as the challenge does it."""

import functools
import os

from sk_asd.cli._common import (
    add_command,
    add_labels,
    add_machine,
    add_n_jobs,
    check_device,
    check_report,
    format_table,
    load_table,
    number,
    spoken,
)
from sk_asd.cli._models import TRUST
from sk_asd.cli._train import (
    add_system_options,
    argument_of,
    build,
    check_columns,
    check_options,
    given_options,
)
from sk_asd.systems._registry import BUILDERS, ENSEMBLES, SINGLE
from sk_asd.utils._progress import Progress

_NO_MATTER = ("device", "cache_dir", "n_jobs")  # options that no score depends on

_DESCRIPTION = f"""\
Train a system, score the test recordings, decide, evaluate and report.

DIR has the folder dev_data and, where it is there, eval_data; without dev_data all of DIR is taken
for it. Training recordings of both are learnt. RUN then has

  scores.csv       score (high = normal), threshold and decision of every test recording
  metrics.csv      official metrics per section, machine and in total, where labels are known
  choices.csv      weights of an ensemble, or what the protocol has chosen
  comparison.csv   figures of the AITHU report, where DIR looks like DCASE 2022
  challenge/       the csv files that the challenge asks for, in dev_data and eval_data
  models/SYSTEM/   one file a machine, or all.skasd, for `sk-asd score`
  report.html      tables, histograms and ROC curves, for a browser
  manifest.json    what all this depends on

A run that was interrupted goes on where it stopped when the same command is given again.

Protocols: B takes fixed settings. A is an oracle: it chooses the detector, metric or weights by the
labels of the test recordings that it reports, as the AITHU report did. C chooses by those of
sections 00 to 02 and reports sections 03 to 05 only.

{TRUST}"""


def add_parser(commands):
    """Add the command."""
    parser = add_command(commands, "run", run, "train, score and evaluate", _DESCRIPTION)
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
        "--scope",
        choices=("machine", "all"),
        help="train a system for each machine, or one for all (default: all for "
        f"{', '.join(name for name, b in BUILDERS.items() if b.scope == 'all')}; else machine)",
    )
    parser.add_argument(
        "--protocol",
        choices=("A", "B", "C"),
        default="B",
        help="which labels a choice may see; see above (default: B)",
    )
    add_labels(parser)
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
        type=number(int, 0),
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
    check_options(args.system, options)
    chosen = next((name for name in ("detector", "metric") if argument_of(name, args.system)), None)
    if args.protocol != "B" and chosen in options:
        raise ValueError(f"--{chosen} is what --protocol {args.protocol} chooses: give one only.")
    if args.scheduler is None:
        return _run(args, options)
    if args.n_jobs is not None:
        raise ValueError("--n-jobs applies to this machine; with --scheduler every worker counts.")
    from sk_asd.cli._scheduler import connected

    with connected(args.scheduler) as client:
        return _run(args, with_absolute_paths(options), client)


def with_absolute_paths(options):
    """Options whose file names hold in every working directory."""
    found = {name: options[name] for name in ("cache_dir", "wav2vec") if name in options}
    # A model of wav2vec 2.0 may be given by a name, too.
    paths = {k: v for k, v in found.items() if k == "cache_dir" or os.path.exists(v)}
    return options | {name: os.path.abspath(path) for name, path in paths.items()}


def _run(args, options, client=None):
    """Run the command, on a cluster where there is a client of one."""
    from sk_asd.evaluation import evaluate

    progress = Progress(args.quiet)
    progress(f"loading {args.dir}")
    root, out = (
        (args.dir, args.out) if client is None else map(os.path.abspath, (args.dir, args.out))
    )
    clips = load_table(root, machines=args.machine, ground_truth=args.ground_truth)
    scope = args.scope or BUILDERS[args.system].scope
    for _, rows in clips.groupby("machine") if scope == "machine" else [(None, clips)]:
        check_columns(rows, options)
    check_device(options.get("device", "auto"))
    settings = {k.replace("_", "-"): v for k, v in options.items() if k not in _NO_MATTER}
    with spoken("protocol", "rules", "ground_truth", folder="out"):
        result = evaluate(
            {args.system: functools.partial(build, args.system, options)},
            clips,
            protocol=args.protocol,
            scope=scope,
            rules=args.rules,
            folder=out,
            root=root,
            settings=settings,
            n_jobs=args.n_jobs,
            client=client,
            verbose=not args.quiet,
        )
    print("\n\n".join(tables(result)), end="\n\n")
    if len(result.metrics):
        title = f"{args.system}, protocol {args.protocol} on {args.dir}"
        path = os.path.join(args.out, "report.html")
        print(write_report(result, path, progress, explain=args.explain, title=title), end="\n\n")
    print(f"Run: {args.out}")
    return 0


def tables(result):
    """Tables of an evaluation, as texts."""
    from sk_asd.cli._evaluate import percent
    from sk_asd.evaluation._protocols import DEV, PROTOCOLS
    from sk_asd.evaluation._result import choices_by_machine
    from sk_asd.metrics._dcase import NO_DOMAIN

    protocol = f"protocol {result.protocol}"
    texts = [f"{', '.join(result.systems)}, {protocol} ({PROTOCOLS[result.protocol]})"]
    if len(result.metrics):
        for (name, data), rows in result.metrics.groupby(["system", "data"], sort=False):
            rows = rows.drop(columns=["system", "protocol", "data"])
            heading = f"{name}, {protocol}, {data}: official metrics in percent"
            texts.append(f"{heading}\n{percent(rows)}")
        if "auc" in result.metrics:
            texts.insert(1, NO_DOMAIN)
    else:
        known = result.scores["label"].notna().any()
        reason = "No section has both classes" if known else "No label is known"
        hint = "" if known else " Give --ground-truth."
        texts.append(f"{reason}: no metrics, no report.{hint}")
    more = {}
    for name, rows in result.choices.groupby("system", sort=False):
        kind = rows["choice"].iloc[0].split()[0]
        more[f"{name}, {protocol}: {kind}s"] = choices_by_machine(rows)
    if len(result.comparison):
        heading = f"beside the AITHU report, harmonic means in percent, {DEV}"
        more[f"{', '.join(result.systems)}, {protocol}: {heading}"] = result.comparison
    for name, shown in more.items():
        texts.append(f"{name}\n{format_table(shown.columns, shown.to_numpy().tolist())}")
    return texts


def write_report(result, path, progress, **options):
    """Write the report where its libraries are installed; return a line that says so."""
    try:
        check_report(path)
    except ImportError as error:
        return f"No report: {error}"
    from sk_asd.evaluation._folder import explained

    progress("writing the report")
    with explained(path):
        result.report(path, **options)
    return f"Report: {path}"
