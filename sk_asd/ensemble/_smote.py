"""Synthetic clips between those of a domain that has few."""

import numpy as np
from sklearn.base import clone
from sklearn.neighbors import NearestNeighbors
from sklearn.utils import check_random_state

from sk_asd.utils._system import scores_of

_NEIGHBORS = 2


def smote(X, n_more, random_state):
    """Draw clips on the lines between clips and their nearest neighbours.

    Parameters
    ----------
    X : ndarray of shape (n_clips, n_features)
        Clips, at least two.
    n_more : int
        How many to draw.
    random_state : int
        Seed.

    Returns
    -------
    ndarray of shape (n_more, n_features)
        Synthetic clips.

    Notes
    -----
    SMOTE of Chawla et al., JAIR 16, 2002, with 2 neighbours; draws are those of imbalanced-learn.
    """
    k = min(_NEIGHBORS, len(X) - 1)
    neighbors = NearestNeighbors(n_neighbors=k).fit(X).kneighbors(return_distance=False)
    rng = check_random_state(random_state)
    clip, neighbor = np.divmod(rng.randint(0, neighbors.size, n_more), k)
    way = rng.uniform(size=(n_more, 1))
    return X[clip] + way * (X[neighbors[clip, neighbor]] - X[clip])


def fit_with_smote(base, X, n_clips, random_state):
    """Fit a detector to clips and synthetic ones; score the clips without themselves.

    A clip lies between the synthetic clips that come from it, so that it would find itself normal.
    Its score is therefore that of a detector fitted to the others, and to synthetic clips that come
    from the others.

    Parameters
    ----------
    base : outlier detector
        Cloned.
    X : ndarray of shape (n_real, n_features)
        Clips.
    n_clips : int
        How many clips to fit to, with the synthetic ones.
    random_state : int
        Seed.

    Returns
    -------
    detector : outlier detector
        Fitted to all clips.
    every : ndarray of shape (n_clips, n_features)
        What it was fitted to.
    scores : ndarray of shape (n_real,)
        Scores of the clips.

    Raises
    ------
    ValueError
        If there are too few clips to draw between.
    """
    if X.ndim != 2:
        raise ValueError(
            "smote draws between embeddings or pooled features (n_clips, n_features), found shape "
            f"{X.shape}."
        )
    if len(X) < 3:
        raise ValueError(
            f"smote needs at least 3 clips (each is scored without itself), found {len(X)}."
        )

    def fit(real):
        every = np.vstack([real, smote(real, n_clips - len(real), random_state)])
        return clone(base).fit(every), every

    scores = [scores_of(fit(np.delete(X, i, axis=0))[0], X[[i]])[0] for i in range(len(X))]
    return *fit(X), np.array(scores)
