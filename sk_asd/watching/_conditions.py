"""What can be wrong with the microphone, or the line from it."""

import numpy as np

FINE, GAP, DEAD, CLIPPING, SILENCE = "fine", "gap", "dead", "clipping", "silence"
CONDITIONS = (GAP, SILENCE, CLIPPING, DEAD)
_MOST_CLIPPED = 2  # samples at full scale that may be chance


def conditions(blocks, *, silence, clipping, whole=True):
    """Condition of every block.

    Parameters
    ----------
    blocks : ndarray of shape (n_blocks, n_samples), float32
        Samples.
    silence : float or None
        Largest root mean square of silence, without the mean.
    clipping : float or None
        Least absolute value of a clipped sample.
    whole : bool, default=True
        False for the rest of a stream, which is too short to tell silence.

    Returns
    -------
    list of str
        One of `CONDITIONS`, or "fine".
    """
    low, high = blocks.min(axis=1), blocks.max(axis=1)
    gap = ~(np.isfinite(low) & np.isfinite(high))
    low[gap], high[gap] = np.nan, np.nan
    result = np.full(len(blocks), FINE, dtype=object)
    if silence is not None and whole:
        # The widest range for its deviation has a block with one sample up and one down, all others
        # in the middle: louder blocks need no second pass.
        quiet = np.flatnonzero(high - low <= silence * np.sqrt(2 * blocks.shape[1]))
        result[quiet[np.std(blocks[quiet], axis=1, dtype=np.float64) < silence]] = SILENCE
    if clipping is not None:
        loud = np.flatnonzero(np.maximum(high, -low) >= clipping)
        clipped = np.count_nonzero(np.abs(blocks[loud]) >= clipping, axis=1) > _MOST_CLIPPED
        result[loud[clipped]] = CLIPPING
    if whole:
        result[low == high] = DEAD
    result[gap] = GAP
    return result.tolist()
