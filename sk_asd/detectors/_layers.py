"""What detectors have in common as layers of a graph: vectors in, scores out, high = normal.

They compute in float64 as the detectors do: distances between near neighbours, and precisions of
many features, leave nothing of a float32.
"""

import numpy as np
import torch
from torch import nn

_METRICS = {
    "cosine": "cosine",
    "euclidean": "euclidean",
    "l2": "euclidean",
    "minkowski": "euclidean",
}


def double(values):
    """A tensor of float64 with values of its own."""
    return torch.from_numpy(np.array(values, dtype=np.float64))


def unit(x):
    """Vectors of length 1; those of length 0 stay, as in scikit-learn."""
    norm = x.square().sum(dim=1, keepdim=True).sqrt()
    return x / torch.where(norm == 0, torch.ones_like(norm), norm)


class MemoryLayer(nn.Module):
    """Distances to training clips.

    Parameters
    ----------
    memory : ndarray of shape (n_clips, n_features)
        The training clips.
    metric : str or callable
        The distance.
    center : ndarray of shape (n_features,)
        What was subtracted from the training clips.

    Raises
    ------
    ValueError
        If the distance is neither cosine nor Euclidean.
    """

    def __init__(self, memory, metric, center):
        super().__init__()
        known = _METRICS.get(metric) if isinstance(metric, str) else None
        if known is None:
            raise ValueError(f"its metric is {metric!r}; 'cosine' and 'euclidean' are exported.")
        memory = double(memory)
        self.cosine = known == "cosine"
        memory = unit(memory) if self.cosine else memory
        self.register_buffer("memory", memory.T.contiguous())
        self.register_buffer("squares", memory.square().sum(dim=1))
        self.register_buffer("center", double(center))

    def forward(self, x):
        """Distances (batch, n_clips)."""
        if self.cosine:
            return (1 - unit(x) @ self.memory).clamp(min=0, max=2)
        x = x - self.center
        squares = x.square().sum(dim=1, keepdim=True) - 2 * (x @ self.memory) + self.squares
        return squares.clamp(min=0).sqrt()
