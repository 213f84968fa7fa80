"""What is told while work goes on: lines and bars on stderr."""

import contextlib
import io
import re
import sys
import time
from contextvars import ContextVar

from sk_asd.utils._text import printable

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_EVERY = 20  # seconds between lines, where there is no terminal for a bar
_listener = ContextVar("listener", default=None)


class Progress:
    """Lines about the running work on stderr, or nothing when quiet."""

    def __init__(self, quiet=False):
        self.quiet = quiet
        self._start = time.perf_counter()

    @property
    def seconds(self):
        """Seconds since the start."""
        return time.perf_counter() - self._start

    def __call__(self, text):
        """Print a line with the seconds since the start."""
        if not self.quiet:
            print(f"[{self.seconds:4.0f} s] {printable(text)}", file=sys.stderr, flush=True)

    @property
    def bars(self):
        """Whether there is a terminal to show progress bars on."""
        return not self.quiet and sys.stderr.isatty()

    def bar(self, total, unit):
        """Progress bar, a context manager; advance it by ``bar.update``."""
        from tqdm import tqdm

        return tqdm(total=total, unit=unit, disable=not self.bars, file=sys.stderr, leave=False)

    @contextlib.contextmanager
    def reading(self, what):
        """Tell how many recordings have been read, as :func:`advance` is told in this thread.

        Parameters
        ----------
        what : str
            Beginning of the lines that are printed where there is no terminal for a bar.
        """
        if self.quiet:
            yield
            return
        count, told = 0, time.monotonic()

        def listen(n):
            nonlocal count, told
            count += n
            bar.update(n)
            if not self.bars and time.monotonic() - told > _EVERY:
                told = time.monotonic()
                self(f"{what}: {count:,} recordings read")

        with self.bar(None, " recordings read") as bar:
            token = _listener.set(listen)
            try:
                yield
            finally:
                _listener.reset(token)

    @property
    def stream(self):
        """Where others may print what they do: stderr, in a file without colours."""
        return sys.stderr if sys.stderr.isatty() else _Colourless()


class _Colourless(io.TextIOBase):
    def write(self, text):
        return sys.stderr.write(_COLOUR.sub("", text))

    def flush(self):
        sys.stderr.flush()


def advance(n):
    """Say that `n` more recordings have been read, to whoever wants to know."""
    listener = _listener.get()
    if listener is not None:
        listener(n)
