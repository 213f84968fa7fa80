"""Parts of a run on the workers of a dask cluster."""

import asyncio
import concurrent.futures
import contextlib
import platform
import socket

from joblib import Parallel, effective_n_jobs, parallel_config

from sk_asd._versions import differing, versions
from sk_asd.cli._common import Progress
from sk_asd.cli._run_parts import train_part
from sk_asd.utils._parallel import task

TIMEOUT = 10  # seconds for a scheduler to answer, and for a first worker to come
_AHEAD = 256  # parts handed over at least, for workers that come later


@contextlib.contextmanager
def connected(address):
    """Connect to a scheduler.

    Parameters
    ----------
    address : str
        Such as ``tcp://host:8786``.

    Yields
    ------
    distributed.Client
        The connection.

    Raises
    ------
    ImportError
        If the extra is not installed.
    OSError
        If no scheduler answers.
    ValueError
        If that is no address.
    """
    try:
        from distributed import Client
        from distributed.comm import get_address_host_port, parse_address
    except ImportError as error:
        raise ImportError(
            f'--scheduler: {error}. Install the extra: pip install "sk_asd[distributed]"'
        ) from error
    try:
        parse_address(address, strict=True)
        place = get_address_host_port(address)
    except ValueError as error:
        raise ValueError(
            f"--scheduler {address}: expected an address such as tcp://host:8786 ({error})."
        ) from error

    try:
        # A Client that finds nobody says so at length, on stderr, and where some other server
        # listens it may wait for ever.
        socket.create_connection(place, TIMEOUT).close()
        found = asyncio.run(asyncio.wait_for(_kind(address), TIMEOUT))
        if found != "Scheduler":
            raise OSError(f"it is a {found.lower()}")
        client = Client(address, timeout=TIMEOUT, set_as_default=False)
    except (OSError, ValueError, MemoryError) as error:  # the latter two of other servers
        reason = getattr(error, "strerror", None) or str(error) or f"in {TIMEOUT} s"
        raise OSError(f"--scheduler {address}: no scheduler answers ({reason}).") from error
    with client:
        yield client


async def _kind(address):
    """What listens there, of the servers that dask has."""
    from distributed.core import rpc

    async with rpc(address) as server:
        return (await server.identity())["type"]


def train_on_cluster(client, folder, tasks, run, progress):
    """Train parts, each by one of the workers, and wait for all.

    A part of a worker that is lost is given to another one. All else that a worker must know are
    file names, which must be the same for all.

    Parameters
    ----------
    client : distributed.Client
        The connection to the scheduler.
    folder : RunFolder
        Where models and scores are written, on storage that all share.
    tasks : list of tuple
        Machine, name, part and clips, as :func:`~sk_asd.cli._run_parts.train_part` takes them.
    run : Namespace
        ``system``, ``protocol``, ``root`` and ``options``; paths in it must be absolute.
    progress : Progress
        Where progress is shown.

    Raises
    ------
    OSError
        If there is no worker, or the work on a part has cost several.
    ValueError
        As ``train_part`` raises it, or if a worker has other versions.
    """
    from distributed import KilledWorker

    progress(f"{len(tasks)} parts for the workers of {client.scheduler.address}")
    expected = versions()
    try:
        with parallel_config(_backend(client)):
            workers = Parallel(
                batch_size=1,  # what is lost with a worker
                pre_dispatch=max(_AHEAD, 2 * effective_n_jobs()),
                return_as="generator_unordered",
            )
            done = workers(task(_train, expected, folder, *one, run) for one in tasks)
            for k, (machine, name) in enumerate(done, 1):
                progress(f"{machine}: {name} is done ({k} of {len(tasks)})")
    except TimeoutError as error:
        raise OSError(f"{client.scheduler.address} has no worker after {TIMEOUT} s.") from error
    except KilledWorker as error:
        raise OSError(
            "Several workers were lost, one after the other, at the same part: too little memory? "
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


def _train(expected, folder, machine, name, part, clips, run):
    """Train a part, on a worker."""
    from sk_asd.cli import _keep_freed_memory

    host = platform.node()
    if not folder.path.is_dir():
        raise OSError(
            f"The worker on {host} does not see {folder.path}: all must share that storage."
        )
    found = differing(expected)
    if found:
        raise ValueError(f"The worker on {host} has other versions: expected {found}.")
    _keep_freed_memory()
    train_part(folder, machine, name, part, clips, run, Progress(quiet=True))
    return machine, name
