"""Connection to the scheduler of a dask cluster."""

import asyncio
import contextlib
import socket

TIMEOUT = 10  # seconds for a scheduler to answer


@contextlib.contextmanager
def connected(address):
    """Connect to a scheduler at an address such as ``tcp://host:8786``."""
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
