"""Reproducible draws from torch, with the user's global generator left alone."""

import threading
from contextlib import contextmanager

import torch

# torch's layers (initialisation, dropout) know no generator but the global one, so whoever borrows
# it must be alone.
_LOCK = threading.RLock()


class RandomStream:
    """A random stream of one's own behind torch's global generator.

    Within ``active()`` the global generators of the CPU and of `device` continue this stream;
    before and after they are the user's. Two streams with the same seed draw the same numbers,
    whatever happens between their activations, in other threads too.

    Parameters
    ----------
    seed : int
        Seed of the stream.
    device : torch.device, default=None
        A CUDA device whose generator belongs to the stream as well.
    """

    def __init__(self, seed, device=None):
        self._cuda = device if device is not None and device.type == "cuda" else None
        self._cpu_state = torch.Generator().manual_seed(seed).get_state()
        self._cuda_state = None
        if self._cuda is not None:
            self._cuda_state = torch.Generator(self._cuda).manual_seed(seed).get_state()

    @contextmanager
    def active(self):
        """Let torch's global generators continue this stream."""
        devices = [] if self._cuda is None else [self._cuda]
        with _LOCK, torch.random.fork_rng(devices=devices):
            torch.set_rng_state(self._cpu_state)
            if self._cuda is not None:
                torch.cuda.set_rng_state(self._cuda_state, self._cuda)
            yield
            self._cpu_state = torch.get_rng_state()
            if self._cuda is not None:
                self._cuda_state = torch.cuda.get_rng_state(self._cuda)
