"""Convex weights: checking them, applying them, and all of them on a grid."""

import itertools
import math
from numbers import Integral, Real

import numpy as np

from sk_asd.utils._sklearn import Interval, validate_params


@validate_params(
    {
        "n_members": [Interval(Integral, 1, None, closed="left")],
        "step": [Interval(Real, 0, 1, closed="right")],
    },
    prefer_skip_nested_validation=True,
)
def simplex_grid(n_members, step=0.1):
    r"""All convex weights on a grid, from the most uniform to single members.

    Parameters
    ----------
    n_members : int
        Number of weights in a setting.
    step : float, default=0.1
        Distance of the grid; a whole number of steps must make 1.

    Returns
    -------
    list of tuple of float
        Settings whose weights sum to 1, for ``GridSearchCV(ensemble, {"weights": ...})``. They are
        sorted by the sum of squared weights, so that a search that takes the first of equally good
        settings takes the most uniform one. Of equally uniform ones those that weigh the first
        members most come first.

    Raises
    ------
    ValueError
        If 1 is no whole number of steps.

    See Also
    --------
    ScoreEnsembleCV : Searches a whole grid at once.

    Notes
    -----
    With :math:`k` steps and :math:`n` members there are :math:`\binom{n + k - 1}{k}` settings:
    3,003 for six members and a step of 0.1, 53,130 for a step of 0.05.

    Examples
    --------
    >>> from sk_asd.ensemble import simplex_grid
    >>> simplex_grid(2, 0.5)
    [(0.5, 0.5), (1.0, 0.0), (0.0, 1.0)]
    >>> len(simplex_grid(6, 0.1))
    3003
    """
    return list(map(tuple, grid_weights(n_members, step).tolist()))


def grid_weights(n_members, step):
    """The settings of :func:`simplex_grid` as an array of shape (n_settings, n_members)."""
    units = round(1 / step)
    if abs(units * step - 1) > 1e-9:
        raise ValueError(f"step={step} does not divide 1: 1 / step is {1 / step:.6g}.")
    # A setting is a row of units and bars between members; counts are the gaps between bars.
    places = units + n_members - 1
    n_settings = math.comb(places, n_members - 1)
    bars = itertools.chain.from_iterable(itertools.combinations(range(places), n_members - 1))
    bars = np.fromiter(bars, dtype=np.int64).reshape(n_settings, n_members - 1)
    edges = np.pad(bars, ((0, 0), (1, 1)), constant_values=((0, 0), (-1, places)))
    counts = np.diff(edges, axis=1) - 1
    # The last key is the first to sort by.
    order = np.lexsort([*-counts.T[::-1], (counts**2).sum(axis=1)])
    return counts[order] / units


def convex(weights, used):
    """Weights of the members that are used, scaled to a sum of 1.

    Parameters
    ----------
    weights : array-like of shape (n_members,), or None
        One weight for every member; None for uniform weights.
    used : ndarray of bool of shape (n_members,)
        Which members are not dropped.

    Returns
    -------
    ndarray of shape (n_used,)
        The weights.

    Raises
    ------
    ValueError
        If there are not as many as members, or one that is used is negative or not finite, or all
        that are used are 0.
    """
    if weights is None:
        return normalized(np.ones(used.sum()))
    try:
        given = np.asarray(weights, dtype=float)
    except (TypeError, ValueError):
        raise ValueError(f"The parameter 'weights' must hold numbers, got {weights!r}.") from None
    if given.shape != used.shape:
        raise ValueError(
            f"The parameter 'weights' must hold one weight for each of the {len(used)} members, "
            f"dropped ones included; got shape {given.shape}."
        )
    given = given[used]
    if not np.isfinite(given).all() or (given < 0).any() or not given.any():
        raise ValueError(
            "The parameter 'weights' must hold finite weights, none negative and not all 0, got "
            f"{given.tolist()} for the members that are not dropped."
        )
    return normalized(given)


def normalized(weights):
    """Weights scaled to a sum of 1, in the last axis."""
    return weights / weights.sum(axis=-1, keepdims=True)


def combine(matrix, weights):
    """Weighted sums of scores, always added in the order of the members.

    A matrix product may round equal rows differently, and what was a tie is none any more.

    Parameters
    ----------
    matrix : ndarray of shape (n_clips, n_members)
        Standardised scores.
    weights : ndarray of shape (n_members,) or (n_settings, n_members)
        Weights.

    Returns
    -------
    ndarray of shape (n_clips,) or (n_settings, n_clips)
        Scores of the ensemble; −inf where that of a member is whose weight is not 0.
    """
    lowest = np.isneginf(matrix)
    if lowest.any():
        total = combine(np.where(lowest, 0.0, matrix), weights)
        total[weights @ lowest.T > 0] = -np.inf
        return total
    total = weights[..., :1] * matrix[:, 0]
    part = np.empty_like(total)
    for j in range(1, matrix.shape[1]):
        total += np.multiply(weights[..., j : j + 1], matrix[:, j], out=part)
    return total
