"""Tasks for joblib: workers that are lost, and workers whose master is."""

import os
import threading
import time

from joblib import delayed, parallel_config
from joblib.parallel import get_active_backend

_LOOK = 0.5  # seconds
_watching = threading.Lock()


def end_with_parent(process):
    """Let this process, a worker, end soon after the one that started it.

    Parameters
    ----------
    process : int
        Number of the process that started it. On Windows, where nothing tells that it has gone,
        nothing is done.
    """

    def watch():
        while os.getppid() == process:
            time.sleep(_LOOK)
        os._exit(1)

    if os.name != "nt" and _watching.acquire(blocking=False):  # once a process
        threading.Thread(target=watch, daemon=True).start()


def task(function, *args):
    """As ``delayed(function)(*args)``, with all arguments in one.

    joblib's dask backend sends a large argument to one worker, as data of its own, and the task
    after it. When that worker is lost the task can be repeated elsewhere, its argument cannot. A
    tuple stays with the task.

    Parameters
    ----------
    function : callable
        What to call.
    *args : object
        Its arguments.

    Returns
    -------
    tuple
        What :class:`joblib.Parallel` takes.

    Examples
    --------
    >>> from joblib import Parallel
    >>> Parallel()(task(divmod, n, 3) for n in (5, 6))
    [(1, 2), (2, 0)]
    """
    return delayed(_call)((function, args))


def on_cluster():
    """Whether tasks go to other machines now."""
    backend, _ = get_active_backend()
    return any(kind.__name__ == "DaskDistributedBackend" for kind in type(backend).__mro__)


def _call(bundle):
    function, args = bundle
    backend, _ = get_active_backend()
    if backend.default_n_jobs == 1:
        return function(*args)
    # On a cluster every inner Parallel would spread over all workers again, arrays and all.
    with parallel_config("threading", n_jobs=1):
        return function(*args)
