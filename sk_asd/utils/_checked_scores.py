"""What a score may be, the same in all parts of the package."""

import numpy as np


def checked_scores(scores, source):
    """Scores that mean something: numbers, or −inf for a clip that is as abnormal as can be.

    Densities are 0, and their logarithm −inf, far from all training clips: such a clip ranks below
    all others and is below every threshold. NaN says nothing, and +inf would hide whatever a clip
    sounds like, so that both are errors.

    Parameters
    ----------
    scores : array-like of shape (n_clips,)
        Scores, high = normal.
    source : str or estimator
        Where they are from, for the message.

    Returns
    -------
    ndarray of shape (n_clips,)
        The scores in float64.

    Raises
    ------
    ValueError
        If a score is NaN or +inf.
    """
    scores = np.asarray(scores, dtype=np.float64)
    bad = ~(scores < np.inf)
    if bad.any():
        found = "NaN" if np.isnan(scores).any() else "+inf"
        source = source if isinstance(source, str) else f"{type(source).__name__} gives"
        raise ValueError(
            f"{source} {found} as the score of {bad.sum()} of {len(scores)} clips, the first at "
            f"position {int(np.argmax(bad))}: a score must be a number, or -inf for a clip that is "
            "as abnormal as can be."
        )
    return scores
