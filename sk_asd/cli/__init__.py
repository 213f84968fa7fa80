"""The command ``sk-asd``: from a folder of recordings to scores, a table and a report."""

import argparse
import contextlib
import os
import sys

from sk_asd import __version__
from sk_asd.cli import (
    _adapt,
    _check,
    _demo,
    _evaluate,
    _export,
    _fetch,
    _run,
    _score,
    _train,
    _watch,
)
from sk_asd.cli._common import plain_warnings
from sk_asd.utils._freed_memory import keep_freed_memory
from sk_asd.utils._text import one_line

__all__ = ["main"]

_DESCRIPTION = "Unsupervised anomalous sound detection of machines."
_EPILOG = """\
A first round on your own recordings:
  sk-asd check DIR
  sk-asd train DIR --system pooling --out model.skasd
  sk-asd score model.skasd DIR --out scores.csv
  sk-asd evaluate scores.csv DIR --report report.html

All of it at once, machine by machine, as the challenge has it:
  sk-asd run DIR --system submission-2 --out RUN

Exit status: 0 success, 1 findings of "check", 2 wrong usage or input, 130 interrupted.
"""

_COMMANDS = (_demo, _fetch, _check, _train, _score, _evaluate, _run, _adapt, _watch, _export)


def _parser():
    parser = argparse.ArgumentParser(
        prog="sk-asd",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"sk-asd {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in _COMMANDS:
        module.add_parser(commands)
    return parser


def main(argv=None):
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, default=None
        Arguments after the program's name; None takes those of the process.

    Returns
    -------
    int
        Exit status: 0 success, 1 findings of ``check``, 2 wrong input, 130 interrupted, 141 reader
        of the output gone.

    Raises
    ------
    SystemExit
        For ``--help``, ``--version`` (0) and wrong usage (2), as :mod:`argparse` does.
    """
    args = _parser().parse_args(argv)
    # Threads that spin while they wait make training many times slower beside other busy programs.
    # Read once, when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    keep_freed_memory()
    try:
        with plain_warnings():
            status = args.run(args)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        print("sk-asd: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # `sk-asd ... | head` has read enough. The interpreter flushes stdout once more at exit.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (ValueError, OSError, ImportError) as error:
        if args.debug:
            raise
        print(f"sk-asd: error: {one_line(error)}", file=sys.stderr)
        return 2
