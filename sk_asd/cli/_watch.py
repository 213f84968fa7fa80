"""``sk-asd watch``: listen to machines as they run."""

import contextlib
import hashlib
import json
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path

from sk_asd.cli._common import (
    add_command,
    check_output,
    count,
    in_options,
    not_negative,
    number,
    positive,
    spoken,
)
from sk_asd.cli._models import TRUST, add_trust, open_model
from sk_asd.utils._progress import Progress

_BYTES = 2  # of a sample of raw PCM
_READ = 65536
_LARGEST = sys.float_info.max
_FIRST = ("type", "machine", "section", "path", "message")  # keys of a line
_FOR_SCORER = ("hop", "k_of_n", "hysteresis", "threshold", "silence", "clipping")

_DESCRIPTION = f"""\
Score sound as it comes, and raise alarms. SOURCE is a folder in which recordings arrive, or - for
raw PCM on standard input (signed 16 bits, little-endian).

One line of JSON on stdout for everything that happens, with the key "type" and

  score      start, end, score, threshold   a window; abnormal where score < threshold
  alarm      start, end, score, threshold   k of the last n windows are abnormal, since start
  clear      start, end, score, threshold   the alarm is over
  gap, silence, clipping, dead
             start, end                     the line from the microphone; end is null where it
                                            begins. Windows touched by it are not scored
  drift      start, end, p_value, due       sounds are not those of training; due: train anew
  error      message                        a recording that cannot be scored

and machine and section where the model knows them. Times are seconds from the start of the stream.
Of a folder every line has the path of the recording, and times count from its start: alarms and
drift may begin in an earlier one, at a negative time.

A recording is scored when it has stopped growing and can be read, once; one that changes later is
scored again. One that cannot be scored is named in an error, and the next one is taken; the next
start tries it again, unless the recording itself is broken. SIGTERM and SIGINT end the command
with exit status 0, after a whole line.

{TRUST}"""


def add_parser(commands):
    """Add the command."""
    parser = add_command(commands, "watch", run, "score sound as it comes", _DESCRIPTION)
    parser.add_argument("source", metavar="SOURCE", help="folder, or - for standard input")
    parser.add_argument(
        "--model", required=True, metavar="MODEL", help="file that `sk-asd train` wrote"
    )
    parser.add_argument("--machine", metavar="M", help="what is heard (default: folder names)")
    parser.add_argument("--section", metavar="S", help="its section (default: file names)")
    parser.add_argument(
        "--window",
        type=positive,
        metavar="SECONDS",
        help="window that is scored (default: length of the clips of training)",
    )
    parser.add_argument(
        "--hop", type=positive, metavar="SECONDS", help="from window to window (default: window)"
    )
    parser.add_argument(
        "--k-of-n",
        nargs=2,
        type=count,
        default=(3, 5),
        metavar=("K", "N"),
        help="alarm when K of the last N windows are abnormal (default: 3 5)",
    )
    parser.add_argument(
        "--hysteresis",
        type=not_negative,
        default=0.0,
        metavar="X",
        help="clear an alarm by windows that score X above the threshold (default: 0)",
    )
    parser.add_argument(
        "--threshold", type=number(float), metavar="X", help="instead of the model's"
    )
    parser.add_argument(
        "--drift",
        type=number(int, 2),
        metavar="N",
        help="compare every N scores with those of training; not for detectors that know these by "
        "heart, such as networks",
    )
    parser.add_argument(
        "--silence",
        type=_limit(number(float)),
        default="auto",
        metavar="DB",
        help="level below which the line is silent, in dB of an amplitude of 1, or none (default: "
        "-80, or 20 below the quiet parts of training)",
    )
    parser.add_argument(
        "--clipping",
        type=_limit(positive),
        default="auto",
        metavar="LEVEL",
        help="magnitude of clipped samples, or none (default: 0.999; flat tops where training goes "
        "beyond 1)",
    )
    parser.add_argument(
        "--channel", type=number(int, 0), default=0, metavar="C", help="from 0 (default: 0)"
    )
    pcm = parser.add_argument_group("standard input")
    pcm.add_argument("--sr", type=count, metavar="HZ", help="sample rate (default: the model's)")
    pcm.add_argument("--channels", type=count, default=1, metavar="N", help="channels (default: 1)")
    folder = parser.add_argument_group("folder")
    folder.add_argument(
        "--state", metavar="PATH", help="remember there what has been scored, for the next start"
    )
    folder.add_argument("--once", action="store_true", help="end when all that is there is scored")
    for name, seconds, text in (
        ("poll", 1.0, "from look to look"),
        ("settle", 2.0, "without change before a recording is read"),
        ("give-up", 60.0, "without change after which an unreadable one is named"),
    ):
        folder.add_argument(
            f"--{name}",
            type=not_negative,
            default=seconds,
            metavar="SECONDS",
            help=f"{text} (default: {seconds:g})",
        )
    add_trust(parser)


def _limit(kind):
    """Argument type: ``auto``, ``none`` or a number of a kind."""

    def convert(text):
        return {"auto": "auto", "none": None}[text] if text in ("auto", "none") else kind(text)

    return convert


def run(args):
    """Run the command."""
    check_args(args)
    progress = Progress(args.quiet)
    system, header = open_model(args, progress)
    from sk_asd.watching import StreamingScorers

    options = vars(args)
    with Stopper() as stopper, contextlib.suppress(Stopped), spoken(*options):
        scorers = StreamingScorers(
            system,
            args.window,
            sections=header["sections"],
            machine=args.machine,
            section=args.section,
            sr=args.sr,
            n_recent=args.drift,
            **{name: options[name] for name in _FOR_SCORER},
        )
        watch = watch_pcm if args.source == "-" else watch_folder
        watch(scorers, args, stopper, progress)
    return 0


def check_args(args):
    """Check before any work what can be checked."""
    k, n = args.k_of_n
    if k > n:
        raise ValueError(f"--k-of-n {k} {n}: expected K of at most N.")
    if args.source == "-":
        if args.state is not None:
            raise ValueError("--state is for a folder: standard input cannot be read again.")
        if args.channel >= args.channels:
            raise ValueError(f"--channel {args.channel}: there are --channels {args.channels}.")
        return
    if not Path(args.source).exists():
        raise FileNotFoundError(f"No such folder: {args.source}")
    if not Path(args.source).is_dir():
        raise NotADirectoryError(f"Expected a folder of recordings, found a file: {args.source}")
    if args.state is not None:
        check_output(args.state, "--state")


class Stopped(BaseException):
    """SIGTERM or SIGINT has come; no fault of a recording."""


class Stopper:
    """Ends the work at a place of its own choice, never in the middle of a line."""

    def __init__(self):
        self._asked = self._waiting = False
        self._before = {}

    def __enter__(self):
        for code in (signal.SIGTERM, signal.SIGINT):
            self._before[code] = signal.signal(code, self._stop)
        return self

    def __exit__(self, *_):
        for code, handler in self._before.items():
            signal.signal(code, handler)

    def _stop(self, code, frame):
        self._asked = True
        if self._waiting:
            self._waiting = False
            raise Stopped

    def check(self):
        """Raise if a signal has come."""
        if self._asked:
            raise Stopped

    @contextlib.contextmanager
    def waiting(self):
        """Where a signal may interrupt at once."""
        self._waiting = True
        try:
            self.check()
            yield
        finally:
            self._waiting = False

    def sleep(self, seconds):
        """Wait, or raise when a signal comes."""
        with self.waiting():
            time.sleep(seconds)


def watch_folder(scorers, args, stopper, progress):
    """Score recordings as they arrive."""
    from sk_asd.watching import FolderWatcher

    with open(args.model, "rb") as file:
        version = hashlib.file_digest(file, "sha256").hexdigest()
    options = {name: getattr(args, name) for name in ("channel", "settle", "give_up", "state")}

    def tell(event):
        line = asdict(event)
        if event.message is not None:  # names of files are nothing to translate
            parts = event.message.split(event.path)
            line["message"] = event.path.join(in_options(part, *vars(args)) for part in parts)
        emit(**line)

    with FolderWatcher(scorers, args.source, version=version, **options) as watcher:
        progress(f"watching {watcher.folder}, windows of {scorers.window:g} s")
        while watcher.look(tell, stopper.check) or not args.once:
            stopper.sleep(args.poll)


def watch_pcm(scorers, args, stopper, progress):
    """Score standard input."""
    import numpy as np

    place = scorers.place()
    scorer = scorers[place]
    labels = dict(zip(("machine", "section"), place))
    frame = _BYTES * args.channels
    progress(f"listening at {scorers.sr} Hz, windows of {scorers.window:g} s")
    rest = b""
    try:
        while True:
            with stopper.waiting():
                data = sys.stdin.buffer.read1(_READ)
            if not data:
                break
            data = rest + data
            whole = len(data) - len(data) % frame
            rest = data[whole:]
            samples = np.frombuffer(data[:whole], "<i2")[args.channel :: args.channels]
            for event in scorer.feed(samples):
                emit(**labels, **asdict(event))
    finally:
        for event in scorer.finish():
            emit(**labels, **asdict(event))
    if rest:
        message = f"the last {len(rest)} bytes are no whole frame of {frame} bytes"
        emit(type="error", **labels, message=message)


def emit(**known):
    """Write what is known of an event as a line of JSON."""
    line = {name: known[name] for name in _FIRST if known.get(name) is not None}
    if line["type"] != "error":
        for name in ("start", "end"):
            line[name] = None if known[name] is None else round(known[name], 6)
        line |= {k: v for k, v in known.items() if v is not None and k not in line}
    for name in line.keys() & {"score", "threshold"}:  # JSON has no infinity
        line[name] = max(-_LARGEST, min(line[name], _LARGEST))
    # One call, so that no line is ever written in part.
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()
