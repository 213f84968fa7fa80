"""Layers of what combines detectors, and of steps of scikit-learn."""

import torch
from torch import nn

from sk_asd.detectors._layers import double


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
        self.register_buffer("means", double(means))
        self.register_buffer("scales", double(scales))
        self.register_buffer("weights", double(weights))

    def forward(self, x, group=None):
        """Scores (batch,)."""
        scores = torch.stack([member(x, group) for member in self.members], dim=1)
        one = len(self.means) == 1
        means, scales = (t if one else t[group] for t in (self.means, self.scales))
        return ((scores - means) / scales * self.weights).sum(dim=1)


class AffineLayer(nn.Module):
    """What a fitted scaler or `PCA` of scikit-learn computes: a shift, a product or a quotient.

    Parameters
    ----------
    shift : array-like of shape (n_features,) or None
        What is subtracted.
    matrix : array-like of shape (n_features, n_features_out) or None
        What is multiplied with.
    scale : array-like of shape (n_features_out,) or None
        What is divided by, at last.
    """

    def __init__(self, shift, matrix, scale):
        super().__init__()
        for name, value in (("shift", shift), ("matrix", matrix), ("scale", scale)):
            self.register_buffer(name, None if value is None else double(value))

    def forward(self, x):
        """Transform vectors (batch, n_features); the result is in float64."""
        x = x.double()
        x = x if self.shift is None else x - self.shift
        x = x if self.matrix is None else x @ self.matrix
        return x if self.scale is None else x / self.scale
