"""Memory of the process, in the hands of the C library."""

import contextlib
import ctypes


def keep_freed_memory():
    """Let glibc keep large blocks for the next layer; handing them back costs page faults.

    With spectrograms of many bins they take up to 40 % of a training step on a CPU.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter in (-1, -3):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
            mallopt(parameter, 2**28)
