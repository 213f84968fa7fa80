"""``sk-asd evaluate``: the official metrics of a csv file of scores."""

import math
import re
import warnings
from pathlib import Path

from sk_asd.cli._common import (
    Progress,
    add_command,
    add_machine,
    check_output,
    check_report,
    format_table,
    keep_machines,
    listed,
    load_table,
    relative_paths,
)
from sk_asd.utils._text import composed

_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+(?:[eE][+-]?\d+)?")

_DESCRIPTION = """\
Evaluate scores with the official metrics of DCASE Task 2, in percent per machine and section.

SCORES is a csv file with the columns path (relative to DIR) and score (high = normal), as
`sk-asd score` writes it; with a column threshold precision, recall and F1 of the decisions are
given, too. The labels come from DIR."""


def add_parser(commands):
    """Add the command."""
    parser = add_command(commands, "evaluate", run, "official metrics of scores", _DESCRIPTION)
    parser.add_argument("scores", metavar="SCORES", help="csv file of scores")
    parser.add_argument("dir", metavar="DIR", help="folder of recordings")
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
    parser.add_argument("--out", metavar="FILE", help="csv file of the table to write")
    parser.add_argument("--report", metavar="FILE", help="HTML report to write")


def run(args):
    """Run the command."""
    if args.out:
        check_output(args.out)
    if args.report:
        check_output(args.report, "--report")
        check_report()
    progress = Progress(args.quiet)
    scores = read_scores(args.scores)
    clips = load_table(args.dir, ground_truth=args.ground_truth)
    clips, scores = match(clips, scores, args.dir, args.scores, args.machine)
    progress(f"evaluating {len(clips)} clips")
    import numpy as np

    from sk_asd.metrics import dcase_scores
    from sk_asd.metrics._dcase import NO_DOMAIN, rules_for

    rules = args.rules or rules_for(clips)
    known = "threshold" in scores.columns
    decisions = np.where(scores["score"] >= scores["threshold"], 1, -1) if known else None
    table = dcase_scores(clips, scores["score"], decisions, rules=rules)
    if args.out:
        from sk_asd.datasets._csv import write_table

        write_table(table, args.out)
    if args.report:
        from sk_asd.inspection import write_report

        name = Path(args.scores).stem
        write_report(
            args.report,
            clips,
            {name: scores["score"].to_numpy()},
            thresholds={name: scores["threshold"].to_numpy()} if known else None,
            rules=rules,
            settings={"Scores": args.scores, "Recordings": args.dir},
        )
        progress(f"report written: {args.report}")
    if args.rules is None and rules == 2020:
        print(NO_DOMAIN)
    print(percent(table))
    return 0


def read_scores(path):
    """Read and check a csv file of scores.

    Raises
    ------
    OSError, ValueError
        If it cannot be read, lacks a column or a value, or lists a path twice.
    """
    from sk_asd.datasets._csv import read_table

    scores = read_table(path, "scores", ("path", "score"))
    unnamed = scores.index[scores["path"] == ""]
    if len(unnamed):
        raise ValueError(f"{path} has no path in row {listed(unnamed)}.")
    for column in {"score", "threshold"}.intersection(scores.columns):
        scores[column] = [
            # float() reads every digit.
            _number(text, f"{path}: the {column} of {name}")
            for name, text in zip(scores["path"], scores[column])
        ]
    _check_unique(scores, path)
    return scores.reset_index(drop=True)


def _check_unique(scores, source):
    repeated = scores["path"][scores["path"].duplicated()].unique()
    if len(repeated):
        raise ValueError(f"{source} has several rows for {listed(repeated)}.")


def _is_no_text(path):
    """Whether a path has bytes that are no UTF-8."""
    return any("\udc80" <= character <= "\udcff" for character in path)


def _number(text, what):
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        hint = ", expected a decimal point" if _DECIMAL_COMMA.fullmatch(text.strip()) else ""
        raise ValueError(f"{what} is no finite number: {text!r}{hint}.")
    return value


def match(clips, scores, root, source, machines=None):
    """Bring the test clips and their scores into one order.

    Parameters
    ----------
    clips : DataFrame
        Clips of the folder.
    scores : DataFrame
        As :func:`read_scores` returns it.
    root : str
        The folder.
    source : str
        Name of the csv file, for messages.
    machines : list of str, optional
        Machines to keep.

    Returns
    -------
    clips, scores : DataFrame
        The labelled test clips, and their rows of `scores`.

    Raises
    ------
    ValueError
        If a scored path is not in the folder, or a test clip has no score, or none has a label.
    """
    paths = relative_paths(clips, root)
    if len(set(map(composed, paths))) == len(paths):  # else two differ in nothing else
        paths = [composed(path) for path in paths]
        scores = scores.assign(path=scores["path"].map(composed))
        _check_unique(scores, source)
    extra = scores["path"][~scores["path"].isin(paths)]
    if len(extra):
        hint = " (it is not in UTF-8)" if extra.map(_is_no_text).any() else ""
        raise ValueError(f"{source} scores paths that are not in {root}: {listed(extra)}{hint}.")
    clips = keep_machines(clips.assign(name=paths), machines, root)
    # Scored training clips are welcome (`--split all`), but the metrics are about test clips.
    clips = clips[clips["split"] == "test"]
    if len(clips) == 0:
        raise ValueError(f"No test clips in {root}: there is nothing to evaluate.")
    missing = clips["name"][~clips["name"].isin(scores["path"])]
    if len(missing):
        raise ValueError(f"{source} has no score for {listed(missing)}.")
    unlabelled = clips["name"][clips["label"].isna()]
    if len(unlabelled):
        message = f"The label is unknown for {listed(unlabelled)}"
        if len(unlabelled) == len(clips):
            raise ValueError(
                f"{message}: give --ground-truth with the csv files of the organisers."
            )
        warnings.warn(f"{message}: left out.", stacklevel=2)
        clips = clips[clips["label"].notna()]
    scores = scores.set_index("path").loc[clips["name"]].reset_index()
    return clips.drop(columns="name").reset_index(drop=True), scores


def percent(table):
    """Official table as text, in percent, the total at the end, and that of decisions above it."""
    from sk_asd.inspection._report import apart, percent_rows

    parts = reversed(apart(table).values())
    return "\n\n".join(format_table(*percent_rows(part)) for part in parts)
