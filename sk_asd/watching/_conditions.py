"""What can be wrong with the microphone, or the line from it."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from sk_asd.datasets._samples import is_sample

FINE, GAP, DEAD, CLIPPING, SILENCE = "fine", "gap", "dead", "clipping", "silence"
_MOST_CLIPPED = 2  # samples at full scale, or in a row at the extreme, that may be chance


def conditions(blocks, limits, *, whole=True):
    """Condition of every block.

    Parameters
    ----------
    blocks : ndarray of shape (n_blocks, n_samples), float32
        Samples.
    limits : Limits
        What counts as silence and as clipping.
    whole : bool, default=True
        False for the rest of a stream, which is too short to tell silence.

    Returns
    -------
    list of str
        Each "gap", "silence", "clipping", "dead" or "fine".
    """
    silence = limits.silence
    low, high = blocks.min(axis=1), blocks.max(axis=1)
    gap = ~(is_sample(low) & is_sample(high))
    low[gap], high[gap] = np.nan, np.nan
    result = np.full(len(blocks), FINE, dtype=object)
    if silence is not None and whole:
        # The widest range for its deviation has a block with one sample up and one down, all others
        # in the middle: louder blocks need no second pass.
        quiet = np.flatnonzero(high - low <= silence * np.sqrt(2 * blocks.shape[1]))
        result[quiet[np.std(blocks[quiet], axis=1, dtype=np.float64) < silence]] = SILENCE
    if limits.clipping is not None:
        extreme = np.maximum(high, -low)
        loud = np.flatnonzero(extreme >= limits.clipping)
        result[loud[_clipped(blocks[loud], extreme[loud], limits)]] = CLIPPING
    if whole:
        result[low == high] = DEAD
    result[gap] = GAP
    return result.tolist()


def _clipped(blocks, extreme, limits):
    """Which of the blocks that reach the limit of clipping stay there."""
    at_level = np.abs(blocks) >= limits.clipping
    clipped = np.count_nonzero(at_level, axis=1) > _MOST_CLIPPED
    beyond = np.flatnonzero(extreme > limits.full_scale)
    clipped[beyond] = _have_flat_tops(blocks[beyond], extreme[beyond])
    return clipped


def _have_flat_tops(blocks, extreme):
    """Which of the blocks stay at their extreme, to the last bit, for some samples in a row."""
    n = _MOST_CLIPPED + 1
    if blocks.shape[1] < n:
        return np.zeros(len(blocks), dtype=bool)
    at_extreme = np.abs(blocks) == extreme[:, np.newaxis]
    return sliding_window_view(at_extreme, n, axis=1).all(axis=2).any(axis=1)
