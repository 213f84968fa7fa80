"""Load forged files one after the other and use what is loaded; say what should not have happened.

``python attacked.py FOLDER FORGERY ...`` prints a line of JSON for every forgery: what was said,
and a list of all that loading, or the use of what was loaded, did beside computing.
"""

import contextlib
import copy
import importlib.util
import json
import os
import re
import resource
import signal
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from sklearn.base import clone

import sk_asd
import sk_asd.persistence._decode
from sk_asd import metrics

HERE = Path(__file__).parent
SECONDS = 120  # after which a forgery hangs
SCRIPT = "<img src=x onerror=run()>"
RUN = {"os.exec", "os.posix_spawn", "os.spawn", "os.system", "pickle.find_class"}
RUN |= {"socket.connect", "subprocess.Popen"}
FILES = {"open", "os.listdir", "os.mkdir", "os.remove", "os.rename", "os.scandir"}

HANDLER = re.compile(r'onclick="copyToClipboard\(\'(.*?)\',', re.DOTALL)

done, listening = [], {"to": None, "loads": False}


def note(text):
    """Keep what has happened, once."""
    if text not in done:
        done.append(text)


def told(function, name):
    """The function, whose calls are noted."""

    def call(*args, **kwargs):
        if listening["to"]:
            note(f"called {name}")
        return function(*args, **kwargs)

    return call


def audit(event, args):
    """Note what runs, and what touches the places beside the file."""
    if not listening["to"]:
        return
    # Later, libraries copy by pickle and ask the system for its cores: what counts is the file's.
    if event in RUN and (listening["loads"] or listening["to"] in str(args)):
        note(event)
    elif event in FILES and listening["to"] in str(args[0]):
        note(f"{event} of a place in the file")


def look(html):
    """Note markup that was not escaped, and code in names that a browser would run."""
    if SCRIPT in html or not all(name.isidentifier() for name in HANDLER.findall(html)):
        note("markup in HTML")


def uses(loaded):
    """Ordinary calls of what was loaded; their errors are nobody's business."""
    rng = np.random.default_rng(0)
    flat, waves = rng.normal(size=(20, 3)), rng.normal(size=(6, 2000)).astype("f4")
    inputs = (flat, rng.normal(size=(6, 8, 40)).astype("f4"), waves)
    yield lambda: look(loaded._repr_html_())
    yield lambda: repr(loaded)
    yield lambda: clone(loaded)
    for X in inputs:
        for name in ("score_samples", "predict", "transform", "decision_function"):
            yield lambda name=name, X=X: getattr(loaded, name)(X)
    for X in inputs:
        yield lambda X=X: copy.deepcopy(loaded).fit(X, np.arange(len(X)) % 2)


def attack(path, marker):
    """Load the file and use what is loaded; return what was said, and the megabytes it took."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    listening.update(to=str(marker), loads=True)
    try:
        loaded = sk_asd.load(path)
    except (ValueError, OSError, TypeError) as error:
        said = f"{type(error).__name__}: {error}"
        if path.name not in said:
            note("an error without the name of the file")
        if not said.isprintable():
            note("control characters")
        loaded = None
    except Exception as error:
        note(f"an error of another kind: {type(error).__name__}")
        said, loaded = str(error), None
    else:
        said = f"loaded {type(loaded).__name__}"
    listening["loads"] = False
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    if loaded is not None:
        for use in uses(loaded):
            try:
                use()
            except Exception:
                continue
    listening["to"] = None
    return said, grown


def all_forgeries():
    """Functions that write forged files, by name."""
    found = {}
    for path in sorted(HERE.glob("forgeries*.py")):
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found |= module.FORGERIES
    return found


def main(folder, names):
    """Attack by the forgeries with these names."""
    forgeries = all_forgeries()
    with contextlib.suppress(ImportError):
        import dask.array  # noqa: F401  (xarray does, and dask unpickles what it has pickled)
    for module, name in ((metrics, "dcase_score"), (torch.optim, "SGD"), (torch.optim, "AdamW")):
        thing = getattr(module, name)
        if isinstance(thing, type):
            thing.__init__ = told(thing.__init__, name)
        else:
            setattr(module, name, told(thing, name))
    sys.addaudithook(audit)
    os.chdir(folder)
    for name in names:
        done.clear()
        path, marker = Path(folder, f"{name}.skasd"), Path(folder, f"marker_{name}")
        forgeries[name](str(path), str(marker))
        there = set(os.listdir(folder))
        signal.alarm(SECONDS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            said, grown = attack(path, marker)
        signal.alarm(0)
        new = sorted(set(os.listdir(folder)) - there)
        if new:
            note(f"made {new}")
        print(json.dumps([name, said, grown, done]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
