"""Scores in units of the training scores of their group."""

import warnings

import numpy as np

from sk_asd.ensemble._by_columns import rows_by_group

# Relative to their mean; what varies less is constant up to the rounding of float32.
_CONSTANT = 1e-7


def group_statistics(raw, groups):
    """Mean and standard deviation of every column by group.

    Parameters
    ----------
    raw : ndarray of shape (n_clips, n_columns)
        Training scores.
    groups : ndarray of shape (n_clips,)
        Group of every clip.

    Returns
    -------
    means, scales : dict of ndarray of shape (n_columns,)
        By group, of scores that are finite; NaN where none is. In place of a deviation of 0 stands
        the root mean square of the deviations of the other groups in that column, or 1 where all
        are 0.
    constant : list of tuple
        Group and column of every deviation that was 0 for more than one clip.
    """
    rows = rows_by_group(groups)
    finite = np.isfinite(raw)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice|Degrees of freedom|invalid value")
        means = {g: raw[r].mean(axis=0, where=finite[r]) for g, r in rows.items()}
        scales = {g: raw[r].std(axis=0, where=finite[r]) for g, r in rows.items()}
    flat = {group: scales[group] <= _CONSTANT * np.abs(means[group]) for group in rows}
    constant = []
    for j in range(raw.shape[1]):
        spread = [scales[group][j] for group in rows if not flat[group][j]]
        fallback = np.sqrt(np.mean(np.square(spread))) if spread else 1.0
        for group, r in rows.items():
            if flat[group][j]:
                scales[group][j] = fallback
                constant += [(group, j)] if len(r) > 1 else []
    return means, scales, constant


def standardized(raw, groups, means, scales, unseen):
    """Scores minus the mean of their group, divided by its deviation.

    Parameters
    ----------
    raw : ndarray of shape (n_clips, n_columns)
        Scores.
    groups : ndarray of shape (n_clips,)
        Group of every clip.
    means, scales : dict
        As :func:`group_statistics` gives them.
    unseen : callable
        Gives mean and deviation for a group that is not among them.

    Returns
    -------
    ndarray of shape (n_clips, n_columns)
        Standardised scores.
    """
    matrix = np.empty_like(raw)
    for group, rows in rows_by_group(groups).items():
        mean, scale = (means[group], scales[group]) if group in means else unseen(group)
        matrix[rows] = (raw[rows] - mean) / scale
    return matrix
