"""``sk-asd watch``: listen to machines as they run."""

import argparse
import contextlib
import math
import signal
import sys
import time
from pathlib import Path

from sk_asd.cli._common import add_command, check_output, positive_int
from sk_asd.cli._models import TRUST, add_trust, load_model
from sk_asd.cli._watch_lines import emit
from sk_asd.utils._progress import Progress
from sk_asd.utils._text import composed

_BYTES = 2  # of a sample of raw PCM
_READ = 65536

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
        type=_positive,
        metavar="SECONDS",
        help="window that is scored (default: length of the clips of training)",
    )
    parser.add_argument(
        "--hop", type=_positive, metavar="SECONDS", help="from window to window (default: window)"
    )
    parser.add_argument(
        "--k-of-n",
        nargs=2,
        type=positive_int,
        default=(3, 5),
        metavar=("K", "N"),
        help="alarm when K of the last N windows are abnormal (default: 3 5)",
    )
    parser.add_argument(
        "--hysteresis",
        type=_not_negative,
        default=0.0,
        metavar="X",
        help="clear an alarm by windows that score X above the threshold (default: 0)",
    )
    parser.add_argument("--threshold", type=_finite, metavar="X", help="instead of the model's")
    parser.add_argument(
        "--drift",
        type=positive_int,
        metavar="N",
        help="compare every N scores with those of training; not for detectors that know these by "
        "heart, such as networks",
    )
    parser.add_argument(
        "--silence",
        type=_level,
        default="auto",
        metavar="DB",
        help="level below which the line is silent, in dB of an amplitude of 1, or none (default: "
        "-80, or 20 below the quiet parts of training)",
    )
    parser.add_argument(
        "--clipping",
        type=_magnitude,
        default="auto",
        metavar="LEVEL",
        help="magnitude of clipped samples, or none (default: 0.999; flat tops where training goes "
        "beyond 1)",
    )
    parser.add_argument("--channel", type=int, default=0, metavar="C", help="from 0 (default: 0)")
    pcm = parser.add_argument_group("standard input")
    pcm.add_argument(
        "--sr", type=positive_int, metavar="HZ", help="sample rate (default: the model's)"
    )
    pcm.add_argument(
        "--channels", type=positive_int, default=1, metavar="N", help="channels (default: 1)"
    )
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
            type=_not_negative,
            default=seconds,
            metavar="SECONDS",
            help=f"{text} (default: {seconds:g})",
        )
    add_trust(parser)


def _finite(text):
    value = float(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"expected a finite number, found {text}")
    return value


def _level(text):
    return text if text == "auto" else None if text == "none" else _finite(text)


def _magnitude(text):
    return text if text == "auto" else None if text == "none" else _positive(text)


def _positive(text):
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above 0, found {text}")
    return value


def _not_negative(text):
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number of at least 0, found {text}")
    return value


def run(args):
    """Run the command."""
    check_args(args)
    progress = Progress(args.quiet)
    progress(f"loading {args.model}")
    system, header = load_model(args.model, trust=args.trust)
    with Stopper() as stopper, contextlib.suppress(Stopped):
        scorers = Scorers(system, header["sections"], args)
        if args.source == "-":
            watch_pcm(scorers, args, stopper, progress)
        else:
            from sk_asd.cli._watch_folder import watch_folder

            watch_folder(scorers, args, stopper, progress)
    return 0


def check_args(args):
    """Check before any work what can be checked.

    Raises
    ------
    ValueError, OSError
        If options do not go together, or the folder is not there.
    """
    if args.channel < 0:
        raise ValueError(f"--channel {args.channel}: channels are counted from 0.")
    if args.drift == 1:
        raise ValueError("--drift 1: expected at least 2 scores to compare.")
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
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._stop)
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _stop(self, number, frame):
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


class Scorers:
    """A StreamingScorer for every machine and section.

    Parameters
    ----------
    system : Pipeline or outlier detector
        The model.
    sections : dict of str to list of str
        Sections of each machine that it knows.
    args : Namespace
        Options.
    """

    def __init__(self, system, sections, args):
        from sk_asd.utils._system import extractors

        self.system = system
        # As the names of folders are compared.
        self.sections = {composed(machine): known for machine, known in sections.items()}
        self._args = args
        first = next(iter(extractors(system)), None)
        self.sr = args.sr or getattr(first, "sr", None)
        if self.sr is None:
            raise ValueError(f"{args.model} does not say its sample rate: give --sr.")
        self.window = args.window
        if self.window is None:
            if not hasattr(first, "n_samples_"):
                raise ValueError(f"{args.model} does not say the length of clips: give --window.")
            self.window = first.n_samples_ / first.sr
        k, n = args.k_of_n
        if k > n:
            raise ValueError(f"--k-of-n {k} {n}: expected K of at most N.")
        self._known = {}

    def place(self, machine=None, section=None):
        """Machine and section that the model knows by what options, or else names, say.

        Raises
        ------
        ValueError
            If that does not tell.
        """
        if not self.sections:  # sk_asd.save does not note them
            return self._args.machine, self._args.section
        machine = self._one_of("machine", machine, self.sections)
        return machine, self._one_of("section", section, self.sections[machine])

    def _one_of(self, kind, value, known):
        from sk_asd.datasets._names import section_name

        given = getattr(self._args, kind)
        name = value if given is None else given
        normal = section_name if kind == "section" else composed
        name = None if name is None else normal(name)
        spelt = {normal(one): one for one in known}
        if name in spelt:
            return spelt[name]
        if name is None and len(known) == 1:
            return next(iter(known))
        known = ", ".join(known)
        if given is not None:
            raise ValueError(f"--{kind} {given}: the model knows {known}.")
        found = f"no {kind} is known" if name is None else f"{kind} {name} is not known"
        raise ValueError(f"{found}; give --{kind}, one of {known}.")

    def __call__(self, place):
        """Scorer of a machine and section."""
        if place not in self._known:
            from sk_asd.watching import StreamingScorer

            machine, section = place
            self._known[place] = StreamingScorer(
                self.system,
                self.window,
                self._args.hop,
                k_of_n=tuple(self._args.k_of_n),
                hysteresis=self._args.hysteresis,
                threshold=self._args.threshold,
                sr=self.sr,
                machine=machine,
                section=section,
                labels=dict.fromkeys(("domain", "split", "label")),
                drift=self._drift(place),
                silence=self._args.silence,
                clipping=self._args.clipping,
            )
        return self._known[place]

    def _drift(self, place):
        if self._args.drift is None:
            return None
        from sk_asd.ensemble._by_columns import rows_by_group
        from sk_asd.utils._system import System
        from sk_asd.watching import DriftMonitor

        system = System(self.system)
        scores, groups = system.known()
        names = dict(zip(("machine", "section"), place))
        group = tuple(names.get(column) for column in system.columns)
        rows = rows_by_group(groups).get(group[0] if len(group) == 1 else group)
        scores = scores if rows is None else scores[rows]
        return DriftMonitor(scores, n_recent=self._args.drift, random_state=0)


def watch_pcm(scorers, args, stopper, progress):
    """Score standard input."""
    import numpy as np

    place = scorers.place()
    scorer = scorers(place)
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
                emit(place, event)
    finally:
        for event in scorer.finish():
            emit(place, event)
    if rest:
        emit(place, message=f"the last {len(rest)} bytes are no whole frame of {frame} bytes")
