"""Decision thresholds from the scores of normal training clips."""

import numpy as np
from scipy import stats


def checked_threshold(threshold, detector):
    """Threshold of a detector as a number; one that is not finite decides nothing: an error."""
    threshold = float(np.ravel(threshold)[0])
    if not np.isfinite(threshold):
        raise ValueError(
            f"{type(detector).__name__} has the threshold {threshold}, expected a finite number."
        )
    return threshold


def normal_threshold(scores, contamination, method="quantile"):
    """Score below which a clip is called abnormal.

    Parameters
    ----------
    scores : ndarray of shape (n_clips,)
        Scores of normal training clips, high = normal.
    contamination : float
        Share of normal clips that may be called abnormal.
    method : {"quantile", "gamma"}
        Empirical quantile, or that of a three-parameter gamma distribution fitted to the anomaly
        scores, as in the official baseline of DCASE 2022 task 2; by moments, since maximum
        likelihood runs away on heavy tails.

    Returns
    -------
    float
        The threshold, a finite number: scores of −inf are below every threshold, and where there
        are more of them than the share, only they are below it.

    Raises
    ------
    ValueError
        If all scores are −inf.
    """
    finite = np.isfinite(scores)
    if not finite.any():
        raise ValueError(
            f"All {len(scores)} scores of normal clips are -inf, as abnormal as can be: no "
            "threshold can be taken from them."
        )
    scores = np.maximum(scores, scores[finite].min())
    low, middle, high = np.quantile(-scores, [0.25, 0.5, 0.75])
    if method == "quantile" or low == high:
        return float(np.quantile(scores, contamination))
    # A single odd clip among the normal ones would otherwise decide on the moments.
    anomaly = np.minimum(-scores, middle + 5 * (high - low))
    # Pearson III is the gamma distribution in terms of mean, standard deviation and skewness, and
    # goes on where the skewness is zero or negative.
    fitted = stats.pearson3(stats.skew(anomaly), loc=anomaly.mean(), scale=anomaly.std())
    return float(-fitted.ppf(1 - contamination))
