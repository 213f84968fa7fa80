"""``sk-asd evaluate``: the official metrics of a csv file of scores."""

from pathlib import Path

from sk_asd.cli._common import (
    add_command,
    add_labels,
    add_machine,
    check_output,
    check_report,
    format_table,
    load_table,
    spoken,
)
from sk_asd.utils._progress import Progress

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
    add_labels(parser)
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
    import numpy as np

    from sk_asd.metrics import dcase_scores
    from sk_asd.metrics._dcase import NO_DOMAIN, rules_for
    from sk_asd.metrics._score_file import scored_clips

    clips = load_table(args.dir, ground_truth=args.ground_truth)
    with spoken("ground_truth", machines="machine"):
        clips, scores = scored_clips(args.scores, clips, args.dir, args.machine)
    progress(f"evaluating {len(clips)} clips")
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


def percent(table):
    """Official table as text, in percent, the total at the end, and that of decisions above it."""
    from sk_asd.inspection._report import apart, percent_rows

    parts = reversed(apart(table).values())
    return "\n\n".join(format_table(*percent_rows(part)) for part in parts)
