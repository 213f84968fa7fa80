"""Statistics of features that do not fit in memory."""

import numpy as np
import torch


def bin_statistics(features, subtract_mean=False, chunk=64):
    """Mean and standard deviation of every bin over clips and frames, chunk by chunk.

    Parameters
    ----------
    features : ndarray of shape (n_clips, n_bins, n_frames)
        Features, possibly memory-mapped.
    subtract_mean : bool, default=False
        Take from every clip its own mean over time first.
    chunk : int, default=64
        Clips at a time.

    Returns
    -------
    mean, std : Tensor of float32 of shape (n_bins,)
        Statistics; the deviation is 0 where it is so up to rounding.
    """
    count = features.shape[0] * features.shape[2]
    total = square = level = 0.0
    # The first clip's mean as origin keeps the sum of squares from cancelling.
    origin = features[:1].mean(axis=2, dtype=np.float64)
    for start in range(0, len(features), chunk):
        part = features[start : start + chunk]
        means = part.mean(axis=2)
        level = np.maximum(level, np.abs(means).max(axis=0))
        centred = part - (means if subtract_mean else origin)[:, :, np.newaxis]
        total = total + centred.sum(axis=(0, 2))
        square = square + np.einsum("ijk,ijk->j", centred, centred)
    mean = total / count
    std = np.sqrt(np.maximum(square / count - mean**2, 0))
    # Constant up to rounding is constant.
    std[std < 1e-6 * level] = 0
    if not subtract_mean:
        mean = mean + origin[0]
    return tuple(torch.tensor(v, dtype=torch.float32) for v in (mean, std))
