"""Fitted detectors as layers: vectors in, scores out, high = normal.

They compute in float64 as the detectors do: distances between near neighbours, and precisions of
many features, leave nothing of a float32.
"""

import math

import numpy as np
import torch
from torch import nn

_LEAST_DENSITY = 1e-6  # as in KNNDetector


def _double(values):
    return torch.from_numpy(np.array(values, dtype=np.float64))


def _unit(x):
    """Vectors of length 1; those of length 0 stay, as in scikit-learn."""
    norm = x.square().sum(dim=1, keepdim=True).sqrt()
    return x / torch.where(norm == 0, torch.ones_like(norm), norm)


class MemoryLayer(nn.Module):
    """Distances to training clips.

    Parameters
    ----------
    memory : ndarray of shape (n_clips, n_features)
        The training clips.
    metric : {"cosine", "euclidean"}
        The distance.
    center : ndarray of shape (n_features,)
        What was subtracted from the training clips.
    """

    def __init__(self, memory, metric, center):
        super().__init__()
        memory = _double(memory)
        self.cosine = metric == "cosine"
        memory = _unit(memory) if self.cosine else memory
        self.register_buffer("memory", memory.T.contiguous())
        self.register_buffer("squares", memory.square().sum(dim=1))
        self.register_buffer("center", _double(center))

    def forward(self, x):
        """Distances (batch, n_clips)."""
        if self.cosine:
            return (1 - _unit(x) @ self.memory).clamp(min=0, max=2)
        x = x - self.center
        squares = x.square().sum(dim=1, keepdim=True) - 2 * (x @ self.memory) + self.squares
        return squares.clamp(min=0).sqrt()


class KNNLayer(nn.Module):
    """A `KNNDetector`."""

    def __init__(self, detector, metric):
        super().__init__()
        self.k = detector.n_neighbors
        self.mean = detector.aggregation == "mean"
        self.distances = MemoryLayer(detector.neighbors_._fit_X, metric, detector.center_)
        density = detector.density_
        if density is not None:
            least = _LEAST_DENSITY * np.mean(density)
            density = _double(np.maximum(density + least, np.finfo(float).tiny))
        self.register_buffer("density", density)

    def forward(self, x, group=None):
        """Scores (batch,)."""
        distances = self.distances(x)
        if self.density is not None:
            distances = distances / self.density
        nearest = torch.topk(distances, self.k, dim=1, largest=False).values
        return -(nearest.mean(dim=1) if self.mean else nearest[:, -1])


class LOFLayer(nn.Module):
    """A `LOFDetector`."""

    def __init__(self, detector, metric):
        super().__init__()
        lof = detector.lof_
        self.distances = MemoryLayer(lof._fit_X, metric, detector.center_)
        distances, neighbors = lof.kneighbors()
        self.k = distances.shape[1]
        reach = distances[:, -1]
        density = 1 / (np.maximum(distances, reach[neighbors]).mean(axis=1) + 1e-10)
        self.register_buffer("reach", _double(reach))
        self.register_buffer("density", _double(density))

    def forward(self, x, group=None):
        """Scores (batch,)."""
        distances, neighbors = torch.topk(self.distances(x), self.k, dim=1, largest=False)
        reachable = torch.maximum(distances, self.reach[neighbors])
        own = 1 / (reachable.mean(dim=1, keepdim=True) + 1e-10)
        return -(self.density[neighbors] / own).mean(dim=1)


class CosineLayer(nn.Module):
    """A `CosineDetector`."""

    def __init__(self, detector):
        super().__init__()
        self.register_buffer("mean", _unit(_double(detector.mean_)[None]))

    def forward(self, x, group=None):
        """Scores (batch,)."""
        return -0.5 * (_unit(x) - self.mean).square().sum(dim=1)


class MahalanobisLayer(nn.Module):
    """A `MahalanobisDetector`."""

    def __init__(self, detector):
        super().__init__()
        self.register_buffer("location", _double(detector.location_))
        self.register_buffer("precision", _double(detector.precision_))

    def forward(self, x, group=None):
        """Scores (batch,)."""
        centred = x - self.location
        return -(centred @ self.precision * centred).sum(dim=1).clamp(min=0).sqrt()


class MixtureLayer(nn.Module):
    """A `GaussianMixtureDetector`."""

    def __init__(self, detector):
        super().__init__()
        mixture = detector.mixture_
        means, factors = mixture.means_, mixture.precisions_cholesky_
        n_components, n_features = means.shape
        self.matrix = mixture.covariance_type in ("full", "tied")
        if self.matrix:
            factors = np.broadcast_to(factors, (n_components, n_features, n_features))
            diagonals = np.diagonal(factors, axis1=1, axis2=2)
            shifts = np.einsum("kd,kde->ke", means, factors)
            if mixture.covariance_type == "tied":
                factors = factors[:1]
            self.width = len(factors)
            factors = np.concatenate(list(factors), axis=1)
        else:
            factors = factors if factors.ndim == 2 else factors[:, np.newaxis]
            diagonals = factors = np.broadcast_to(factors, means.shape)
            shifts = means * factors
        constants = np.log(diagonals).sum(axis=1) - 0.5 * n_features * math.log(2 * math.pi)
        self.max_component = detector.density == "max_component"
        if not self.max_component:
            constants = constants + np.log(mixture.weights_)
        self.register_buffer("center", _double(detector.center_))
        self.register_buffer("factors", _double(factors))
        self.register_buffer("shifts", _double(shifts))
        self.register_buffer("constants", _double(constants))

    def forward(self, x, group=None):
        """Scores (batch,)."""
        x = x - self.center
        if self.matrix:
            whitened = (x @ self.factors).unflatten(1, (self.width, x.shape[1]))
        else:
            whitened = x.unsqueeze(1) * self.factors
        logs = self.constants - 0.5 * (whitened - self.shifts).square().sum(dim=2)
        largest = logs.amax(dim=1)
        if self.max_component:
            return largest
        return largest + (logs - largest.unsqueeze(1)).exp().sum(dim=1).log()


class GroupedLayer(nn.Module):
    """A `GroupedDetector`: the most normal answer of the detectors of a clip's group.

    All groups are computed and one is taken, since clips of one batch may be of different groups.

    Parameters
    ----------
    detectors : list of list of nn.Module
        Detectors of every group.
    index : list of int
        Position in `detectors` for every value of the input ``group``.
    """

    def __init__(self, detectors, index):
        super().__init__()
        self.detectors = nn.ModuleList(nn.ModuleList(members) for members in detectors)
        self.register_buffer("index", torch.tensor(index))

    def forward(self, x, group=None):
        """Scores (batch,)."""
        scores = [self._most_normal(members, x, group) for members in self.detectors]
        if len(scores) == 1:
            return scores[0]
        chosen = self.index[group].unsqueeze(1)
        return torch.stack(scores, dim=1).gather(1, chosen).squeeze(1)

    @staticmethod
    def _most_normal(members, x, group):
        scores = [member(x, group) for member in members]
        return scores[0] if len(scores) == 1 else torch.stack(scores, dim=1).amax(dim=1)


class EnsembleLayer(nn.Module):
    """A `ScoreEnsemble`: the weighted sum of its members' scores in units of a clip's group.

    Parameters
    ----------
    members : list of nn.Module
        The members.
    means, scales : ndarray of shape (n_groups, n_members)
        By value of the input ``group``.
    weights : ndarray of shape (n_members,)
        Weights.
    """

    def __init__(self, members, means, scales, weights):
        super().__init__()
        self.members = nn.ModuleList(members)
        self.register_buffer("means", _double(means))
        self.register_buffer("scales", _double(scales))
        self.register_buffer("weights", _double(weights))

    def forward(self, x, group=None):
        """Scores (batch,)."""
        scores = torch.stack([member(x, group) for member in self.members], dim=1)
        one = len(self.means) == 1
        means, scales = (t if one else t[group] for t in (self.means, self.scales))
        return ((scores - means) / scales * self.weights).sum(dim=1)
