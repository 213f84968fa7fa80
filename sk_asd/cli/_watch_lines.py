"""Lines that ``sk-asd watch`` writes: JSON, one an event."""

import json
import sys
from dataclasses import asdict

_LARGEST = sys.float_info.max


def emit(place, event=None, *, begin=0.0, **more):
    """Write one line.

    Parameters
    ----------
    place : tuple of str
        Machine and section.
    event : StreamEvent, default=None
        What happened; None for an error.
    begin : float
        Time that times are counted from.
    **more
        Further keys: the path of the recording, the message of an error.
    """
    line = {"type": "error" if event is None else event.type}
    line |= {k: v for k, v in zip(("machine", "section"), place) if v is not None}
    line |= more
    if event is not None:
        line |= {k: v for k, v in asdict(event).items() if v is not None and k != "type"}
        for key in line.keys() & {"score", "threshold"}:  # JSON has no infinity
            line[key] = max(-_LARGEST, min(line[key], _LARGEST))
        for key in ("start", "end"):
            line[key] = None if line.get(key) is None else round(line[key] - begin, 6)
    # One call, so that no line is ever written in part.
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()
