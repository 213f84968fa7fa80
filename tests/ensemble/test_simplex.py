"""Convex weights on a grid: all of them, once, the most uniform first."""

import itertools
from math import comb

import numpy as np
import pytest

from sk_asd.ensemble import simplex_grid
from sk_asd.ensemble._simplex import combine, grid_weights, normalized


def test_small_grid_by_hand():
    assert simplex_grid(2, 0.25) == [
        (0.5, 0.5),
        (0.75, 0.25),
        (0.25, 0.75),
        (1.0, 0.0),
        (0.0, 1.0),
    ]
    assert simplex_grid(1) == [(1.0,)]


@pytest.mark.parametrize(("n_members", "step"), [(3, 0.25), (3, 1 / 3), (4, 0.2), (2, 1)])
def test_equals_plain_enumeration(n_members, step):
    units = round(1 / step)
    expected = {
        counts
        for counts in itertools.product(range(units + 1), repeat=n_members)
        if sum(counts) == units
    }
    found = [
        tuple(np.round(np.multiply(w, units)).astype(int)) for w in simplex_grid(n_members, step)
    ]
    assert len(found) == len(expected)
    assert set(found) == expected


@pytest.mark.parametrize(("step", "n"), [(0.1, 3003), (0.05, 53130)])
def test_sizes_of_the_issue(step, n):
    weights = grid_weights(6, step)
    assert weights.shape == (n, 6)
    assert comb(round(1 / step) + 5, 5) == n
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-12)
    squares = np.round((weights**2).sum(axis=1), 12)
    assert (np.diff(squares) >= 0).all()
    assert len(np.unique(weights, axis=0)) == n


@pytest.mark.parametrize("step", [0.3, 0.15, 0.099])
def test_step_must_divide_one(step):
    with pytest.raises(ValueError, match=f"step={step} does not divide 1"):
        simplex_grid(3, step)


def test_wrong_parameters():
    with pytest.raises(ValueError, match="'n_members' parameter"):
        simplex_grid(0)
    with pytest.raises(ValueError, match="'step' parameter"):
        simplex_grid(3, 0.0)


def test_combination_is_the_same_bit_for_bit_alone_and_in_a_grid():
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(60, 9))
    matrix[30:] = matrix[:30]
    given = rng.random((50, 9))
    weights = normalized(given)
    together = combine(matrix, weights)
    np.testing.assert_allclose(together, weights @ matrix.T, atol=1e-12)
    for row, w in zip(together, given):
        np.testing.assert_array_equal(row, combine(matrix, normalized(w)))
    # Equal clips stay ties, which a matrix product does not promise.
    np.testing.assert_array_equal(together[:, :30], together[:, 30:])
