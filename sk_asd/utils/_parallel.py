"""Tasks for joblib that outlive the loss of a worker of a cluster."""

from joblib import delayed, parallel_config
from joblib.parallel import get_active_backend


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


def _call(bundle):
    function, args = bundle
    backend, _ = get_active_backend()
    if backend.default_n_jobs == 1:
        return function(*args)
    # On a cluster every inner Parallel would spread over all workers again, arrays and all.
    with parallel_config("threading", n_jobs=1):
        return function(*args)
