"""The module that interpolation detectors train: windows in, likelihoods of centre frames out."""

import torch
from torch import nn

from sk_asd.networks._dfnet import DFNet
from sk_asd.networks._ignn import IGNN, LRCGNN, InterpolationMLP

NETWORKS = {"ignn": IGNN, "lrcgnn": LRCGNN, "dfnet": DFNet, "mlp": InterpolationMLP}


class Marginal(nn.Module):
    """Stands in for the network of windows of a single frame, which has no others to look at."""

    def __init__(self, n_outputs):
        super().__init__()
        self.raw = nn.Parameter(torch.zeros(n_outputs))

    def forward(self, x):
        """The same parameters for all frames."""
        return self.raw.expand(len(x), -1)


class InterpolationDensity(nn.Module):
    """Density of the centre frame of a window given the others.

    The centre frame of an even number has one more frame before it than after it.

    Parameters
    ----------
    network : nn.Module
        From the other frames (batch, n_bins, n_frames - 1) to the raw parameters of `density`.
    density : GaussianMixtureDensity
        Density of the centre frame.
    n_frames : int
        Length of a window.
    standardizer : nn.Module
        Acts on windows first.
    """

    def __init__(self, network, density, n_frames, standardizer):
        super().__init__()
        self.network = network
        self.density = density
        self.n_frames = n_frames
        self.standardizer = standardizer

    @property
    def centre(self):
        """Position of the frame to predict."""
        return self.n_frames // 2

    def forward(self, windows):
        """Negative log-likelihood per bin of the centre frames, (batch,)."""
        return self.density(*self._predict(windows)) / self.density.n_bins

    def by_bin(self, windows):
        """Every bin's negative log-likelihood in the centre frames, (batch, n_bins)."""
        return self.density.by_bin(*self._predict(windows))

    def _predict(self, windows):
        windows = self.standardizer(windows)
        before, frame, after = windows.tensor_split([self.centre, self.centre + 1], dim=2)
        return self.network(torch.cat([before, after], dim=2)), frame.squeeze(2)


class MeanLoss(nn.Module):
    """Mean over a batch of what the module returns; there is nothing to compare it with."""

    def forward(self, losses, target):
        """Mean loss; `target` is ignored."""
        return losses.mean()
