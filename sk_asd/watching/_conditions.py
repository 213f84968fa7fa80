"""What can be wrong with the microphone, or the line from it."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from sk_asd.datasets._samples import is_sample

FINE, GAP, DEAD, CLIPPING, SILENCE = "fine", "gap", "dead", "clipping", "silence"
CONDITIONS = (GAP, SILENCE, CLIPPING, DEAD)
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
        One of `CONDITIONS`, or "fine".
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
    if limits.full_scale is None:
        if blocks.shape[1] <= _MOST_CLIPPED:
            return np.zeros(len(blocks), dtype=bool)
        at_extreme = np.abs(blocks) >= extreme[:, np.newaxis]
        in_a_row = sliding_window_view(at_extreme, _MOST_CLIPPED + 1, axis=1)
        return in_a_row.all(axis=2).any(axis=1)
    count = np.count_nonzero(np.abs(blocks) >= limits.clipping, axis=1)
    # What goes beyond full scale has another one, and is none of its samples.
    return (count > _MOST_CLIPPED) & (extreme <= limits.full_scale)
