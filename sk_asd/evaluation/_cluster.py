"""Units of an evaluation on the workers of a dask cluster."""

import concurrent.futures
import platform

from joblib import Parallel, effective_n_jobs, parallel_config

from sk_asd._versions import differing, versions
from sk_asd.evaluation._units import work
from sk_asd.utils._freed_memory import keep_freed_memory
from sk_asd.utils._parallel import task
from sk_asd.utils._progress import Progress

TIMEOUT = 10  # seconds for a first worker to come
_AHEAD = 256  # parts handed over at least, for workers that come later


def work_on_cluster(client, folder, tasks, progress):
    """Work on units, each on one of the workers, and wait for all.

    A unit of a worker that is lost is given to another one. All that a worker must know else are
    file names, which must be the same for all.

    Parameters
    ----------
    client : distributed.Client
        The connection to the scheduler.
    folder : EvaluationFolder
        Where models and scores are written, on storage that all share.
    tasks : list of tuple
        Units and their clips.
    progress : Progress
        Where progress is shown.

    Raises
    ------
    OSError
        If there is no worker, or the work on a unit has cost several.
    ValueError
        As :func:`~sk_asd.evaluation._units.work` raises it, or if a worker has other versions.
    """
    from distributed import KilledWorker

    progress(f"{len(tasks)} units for the workers of {client.scheduler.address}")
    expected = versions()
    try:
        with parallel_config(_backend(client)):
            workers = Parallel(
                batch_size=1,  # what is lost with a worker
                pre_dispatch=max(_AHEAD, 2 * effective_n_jobs()),
                return_as="generator_unordered",
            )
            done = workers(task(_work, expected, folder, *one) for one in tasks)
            for k, unit in enumerate(done, 1):
                progress(f"{unit}: done ({k} of {len(tasks)})")
    except TimeoutError as error:
        raise OSError(f"{client.scheduler.address} has no worker after {TIMEOUT} s.") from error
    except KilledWorker as error:
        raise OSError(
            "Several workers were lost, one after the other, at the same unit: too little memory? "
            "What is finished is kept: the same command goes on from there."
        ) from error
    except concurrent.futures.CancelledError as error:
        raise OSError(
            f"The scheduler {client.scheduler.address} has gone. What is finished is kept: the "
            "same command goes on from there."
        ) from error


def _backend(client):
    """Dask backend of joblib, which would work here, not there, while it knows one worker only."""
    from joblib._dask import DaskDistributedBackend

    class Backend(DaskDistributedBackend):
        def effective_n_jobs(self, n_jobs):
            return max(2, super().effective_n_jobs(n_jobs))

    return Backend(client=client, wait_for_workers_timeout=TIMEOUT)


def _work(expected, folder, unit, clips):
    """Work on a unit, on a worker."""
    host = platform.node()
    if not folder.path.is_dir():
        raise OSError(
            f"The worker on {host} does not see {folder.path}: all must share that storage."
        )
    found = differing(expected)
    if found:
        raise ValueError(f"The worker on {host} has other versions: expected {found}.")
    keep_freed_memory()
    work(unit, clips, folder, Progress(quiet=True))
    return str(unit)
