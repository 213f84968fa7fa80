"""Forked processes: OpenMP's threads are ended before a fork, since a child cannot wait for them.

The threads that torch and scikit-learn computed with stay in the parent, but a child believes that
they are there, and waits for them for ever in its first parallel loop. So they are ended just
before a fork; parent and child start new ones when they need some. Nothing heavy is imported.
"""

import os
import sys

_PAUSE_HARD = 2  # omp_pause_hard of OpenMP 5.0

# Libraries whose threads were ended for the fork that is under way.
_paused = set()


def _libraries():
    """GNU's OpenMP libraries in this process; those of LLVM and Intel see to forks themselves."""
    if "torch" not in sys.modules and "sklearn" not in sys.modules:
        return []
    from threadpoolctl import ThreadpoolController

    found = ThreadpoolController().select(user_api="openmp").lib_controllers
    return [library for library in found if library.prefix == "libgomp"]


def _end_threads():
    _paused.clear()
    for library in _libraries():
        pause = getattr(library.dynlib, "omp_pause_resource_all", None)
        if pause is not None and pause(_PAUSE_HARD) == 0:
            _paused.add(library.filepath)


def _limit_threads():
    """In the child: one thread for what could not be ended, as where a server forks by itself."""
    stuck = [library for library in _libraries() if library.filepath not in _paused]
    _paused.clear()
    for library in stuck:
        library.set_num_threads(1)
    if stuck and "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)  # MKL, too


def make_forks_safe():
    """See to it that children forked from now on do not hang; called once, on import."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=_end_threads, after_in_parent=_paused.clear, after_in_child=_limit_threads
        )
