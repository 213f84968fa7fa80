"""What WSPFlowDetector trains: the module, its items and its loss."""

import numpy as np
import torch
from skorch.callbacks import Callback
from torch import nn
from torch.utils.data import Dataset

from sk_asd.features._time_pooling import _pool, _ranking_weights, parts_over_time
from sk_asd.utils._windows import RandomWindowSampler

STATISTICS = {
    "wsp": ("mean", "std"),
    "mean": ("mean",),
    "std": ("std",),
    "gwrp": ("gwrp",),
    "none": (),
}


class PooledFlow(nn.Module):
    """Weights the statistics of windows, standardises the result and gives its density.

    Parameters
    ----------
    mean : Tensor of shape (n_statistics, n_bins)
        Mean of the statistics over the training windows.
    covariance : Tensor of shape (n_statistics, n_statistics, n_bins)
        Their covariance in every bin.
    flow : GroupedFlow
        Density of the bins that vary.
    pooling : WeightedStatisticPooling, default=None
        Weights of two statistics; None for a single one.
    literal : bool, default=False
        Scale by the standard deviation at the first weights instead of the present ones.
    """

    def __init__(self, mean, covariance, flow, pooling=None, *, literal=False):
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("covariance", covariance)
        self.flow = flow
        self.pooling = pooling
        self.register_buffer("scale", None)
        varies = varying(mean, covariance)
        self.register_buffer("varying", varies.nonzero()[:, 0])
        if literal:
            self.scale = self._std(self._weights()).detach()

    def forward(self, statistics, context=None):
        """Compute contributions ``(n, n_bins)`` to the log-density; 0 for constant bins."""
        weights = self._weights()
        centred = torch.einsum("s,nsb->nb", weights, statistics - self.mean)
        scale = self._std(weights) if self.scale is None else self.scale
        density = torch.zeros_like(centred)
        standard = centred[:, self.varying] / scale[self.varying]
        density[:, self.varying] = self.flow(standard, context)
        return density

    def _weights(self):
        return self.mean.new_ones(1) if self.pooling is None else self.pooling.weights()

    def _std(self, weights):
        # Exact for the whole training data at any weights, unlike the moments of a batch.
        variance = torch.einsum("s,t,stb->b", weights, weights, self.covariance)
        return variance.clamp(min=torch.finfo(variance.dtype).tiny).sqrt()


def varying(mean, covariance):
    """Tell which bins vary; constant up to rounding is constant."""
    std = torch.einsum("ssb->sb", covariance).sqrt()
    return (std > 1e-6 * mean.abs()).any(dim=0)


class NegativeLogLikelihood(nn.Module):
    """Mean over items and bins of the negative of contributions to a log-density."""

    def forward(self, density, target):
        """Compute the loss; `target` is there for skorch alone."""
        return -density.mean()


class StatisticsDataset(Dataset):
    """Statistics over the frames of windows, and the context of their clips.

    Items are indexed by (clip, first frame). Statistics of whole clips are computed once.

    Parameters
    ----------
    X : ndarray of shape (n_clips, n_bins, n_frames)
        Features, possibly memory-mapped.
    context : Tensor of shape (n_clips, n_context), default=None
        What else the density depends on.
    n_frames : int
        Length of a window.
    pooling : {"wsp", "mean", "std", "gwrp", "none"}
        Which statistics.
    r : float
        Decay of "gwrp".
    """

    def __init__(self, X, context, n_frames, pooling, r):
        self.X = X
        self.context = context
        self.n_frames = n_frames
        self.names = STATISTICS[pooling]
        self.ranking = _ranking_weights(r, n_frames).astype(X.dtype)
        self.pooled = None
        if n_frames == X.shape[2]:
            self.pooled = np.concatenate([self.statistics(clip, [0]) for clip in range(len(X))])

    def __len__(self):
        return len(self.X)

    def __getitem__(self, index):
        clip, start = index
        item = {"statistics": torch.from_numpy(self.statistics(clip, [start])[0])}
        if self.context is not None:
            item["context"] = self.context[clip]
        return item, torch.zeros(())

    def statistics(self, clip, starts):
        """Statistics ``(n_windows, n_statistics, n_bins)`` of windows of a clip."""
        if self.pooled is not None:
            return self.pooled[clip : clip + 1]
        if not self.names:
            return np.ascontiguousarray(self.X[clip][:, starts].T)[:, np.newaxis]
        windows = np.stack([self.X[clip][:, s : s + self.n_frames] for s in starts])
        return np.stack([_pool(name, windows, self.ranking) for name in self.names], axis=1)


def moments(dataset, clips, starts):
    """Mean and covariance of the statistics of every bin over windows of clips."""
    total = square = count = 0.0
    # The first clip as origin keeps the sum of squares from cancelling.
    origin = dataset.statistics(clips[0], starts).mean(axis=0, dtype=np.float64)
    for clip in clips:
        centred = dataset.statistics(clip, starts) - origin
        count += len(centred)
        total = total + centred.sum(axis=0)
        square = square + np.einsum("nsb,ntb->stb", centred, centred)
    mean = total / count
    covariance = square / count - np.einsum("sb,tb->stb", mean, mean)
    diagonal = np.einsum("ssb->sb", covariance)
    np.maximum(diagonal, 0, out=diagonal)
    return (torch.tensor(v, dtype=torch.float32) for v in (mean + origin, covariance))


def over_frames(bins, clip, module, pooling, r):
    """Spread the contributions of a clip's bins over the frames.

    Where a bin is above what training clips have, its contribution goes to the frames that raise
    it, otherwise to those that lower it; a contribution that is not positive to all alike.

    Parameters
    ----------
    bins : ndarray of shape (n_bins,)
        Contributions.
    clip : ndarray of shape (n_bins, n_frames)
        Features of the clip.
    module : PooledFlow
        Knows what training clips have, and how much each statistic counts.
    pooling : str
        Which statistics.
    r : float
        Decay of "gwrp".

    Returns
    -------
    ndarray of shape (n_bins, n_frames)
        The mean over a bin's frames is its contribution.
    """
    factors, expected = module._weights().detach().cpu().numpy(), module.mean.cpu().numpy()
    deviation = np.zeros(clip.shape)
    for name, factor, mean in zip(STATISTICS[pooling], factors, expected):
        parts, weights = parts_over_time(name, clip, r)
        deviation += factor * (parts - mean[:, np.newaxis] * weights)
    bins, n_frames = bins[:, np.newaxis], clip.shape[1]
    share = np.maximum(np.sign(deviation.sum(axis=1, keepdims=True)) * deviation, 0)
    total = share.sum(axis=1, keepdims=True)
    told = (total > 0) & (bins > 0)
    share = np.divide(share, total, out=np.full(clip.shape, 1 / n_frames), where=told)
    return bins * share * n_frames


class WindowsOf(RandomWindowSampler):
    """Random windows of some of the clips, as (clip, first frame).

    Parameters
    ----------
    clips : ndarray of int
        The clips.
    n_starts, generator : int, torch.Generator
        As of the base.
    """

    def __init__(self, clips, n_starts, generator):
        super().__init__(len(clips), n_starts, generator)
        self.clips = clips

    def __iter__(self):
        for position, start in super().__iter__():
            yield self.clips[position], start


class RecordAlpha(Callback):
    """Writes the weight of the mean into the history."""

    def on_epoch_end(self, net, **kwargs):
        """Record the weight at the end of an epoch."""
        net.history.record("alpha", net.module_.pooling.weights()[0].item())
