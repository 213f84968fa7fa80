"""Networks that a file describes may not take more than the weights it holds."""

import math

import torch
from torch.utils._python_dispatch import TorchDispatchMode

# Initial values are drawn, masks and offsets computed: some tensors beside every parameter.
_SHARE = 24
_SOME = 1 << 24
_BYTES = 4  # of a number, as a rule
_CALLS = 32
_COUNTED = {"arange", "linspace", "randperm", "tril_indices", "triu_indices"}


class Bounded(TorchDispatchMode):
    """Refuse operations of torch whose results are together far above what a file holds.

    Results are estimated before they are computed, so that nothing large is ever allocated.

    Parameters
    ----------
    arrays : sequence of ndarray
        The arrays of the file.
    """

    def __init__(self, arrays):
        super().__init__()
        self.room = _SHARE * sum(array.nbytes for array in arrays) + _SOME
        self.calls = _CALLS * (sum(array.size > 0 for array in arrays) + 100)

    @classmethod
    def _should_skip_dynamo(cls):
        # Nothing is compiled here, and torch's compiler takes seconds to load.
        return False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Run an operation if there is room for its result."""
        kwargs = kwargs or {}
        self.calls -= 1
        self.room -= _BYTES * _estimate(func, [*args, *kwargs.values()])
        if self.calls < 0 or self.room < 0:
            raise ValueError("its networks are larger than the weights it holds")
        return func(*args, **kwargs)


def _estimate(func, args):
    """Numbers that an operation's result has, at the most."""
    name = func._schema.name.removeprefix("aten::")
    shapes = [tuple(a.shape) for a in args if isinstance(a, torch.Tensor)]
    lists = [a for a in args if isinstance(a, (list, tuple)) and all(type(i) is int for i in a)]
    sizes = [math.prod(map(abs, a)) for a in lists]
    if name in _COUNTED:
        sizes += [abs(a) for a in args if type(a) in (int, float)]
    if name == "eye":
        sizes.append(math.prod(abs(a) for a in args if type(a) is int) ** 2)
    if "conv" in name or "bmm" in name:
        raise ValueError(f"no network is built by {name}")
    if name in ("mm", "addmm", "outer", "dot"):
        sizes.append(math.prod(max(shape, default=1) for shape in shapes))
    else:
        # As if none of the dimensions were shared: broadcasting gives no more than the largest.
        ndim = max(map(len, shapes), default=0)
        padded = [(1,) * (ndim - len(shape)) + shape for shape in shapes]
        sizes.append(math.prod(map(max, zip(*padded))) if padded else 1)
    if name in ("cat", "stack"):
        sizes.append(sum(t.numel() for a in args if isinstance(a, (list, tuple)) for t in a))
    return max(sizes, default=1)
