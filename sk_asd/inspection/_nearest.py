"""The nearest normal training clip, and the space it is nearest in."""

import numpy as np
import pandas as pd
from sklearn.metrics import pairwise_distances
from sklearn.preprocessing import StandardScaler

from sk_asd.inspection._steps import (
    is_features,
    member_of,
    steps_of,
    unwrapped,
)
from sk_asd.utils._containers import as_clips, column_of, is_clip_table, take_clips
from sk_asd.utils._labels import is_anomaly
from sk_asd.utils._system import is_ensemble, is_grouped

_GROUPS = ("machine", "section")


def nearest_normal(estimator, clips, train=None, *, member=None):
    """Find the nearest normal training clip of every clip, to listen to both.

    Clips are compared within their group: the columns `by` of the
    :class:`~sk_asd.ensemble.GroupedDetector`, or machine and section where there is none.

    Parameters
    ----------
    estimator : Pipeline
        Fitted; all its steps but the detector embed. Features of several frames, where there is no
        embedder, are averaged over time.
    clips : DataFrame, DataArray or array-like
        Clips, as the estimator takes them.
    train : DataFrame, DataArray or array-like, default=None
        Training clips to choose from; those whose ``label`` is "anomaly" are left out, and a clip
        is not compared with its own ``path``. None takes the embeddings that the detector has kept,
        of all clips that it was fitted to; no clip is embedded again.
    member : str, default=None
        Member of an ensemble; None is the one with the largest weight, of those with an embedder
        where there are such.

    Returns
    -------
    DataFrame
        One row a clip, with the index of `clips` where it has one: ``index`` of the nearest clip in
        `train` (its position among the training clips where `train` is None or has no index), its
        ``path`` (None where not known), and the ``distance``.

    Raises
    ------
    ValueError
        If a group has no normal training clip, there is no such member, or `train` is None and the
        detector keeps no training clips.

    See Also
    --------
    EmbeddingDisplay : All clips in the plane.

    Notes
    -----
    The distance is that of the detector where it has one of clips: Mahalanobis with its precision,
    the metric of k-NN and LOF, cosine behind embedders. Otherwise it is Euclidean, every feature in
    units of its standard deviation over the training clips.

    Examples
    --------
    >>> from sk_asd.datasets import make_machine_sounds
    >>> from sk_asd.inspection import nearest_normal
    >>> from sk_asd.systems import make_pooling
    >>> clips = make_machine_sounds("fan", n_train=20, n_test=4, duration=1.0, random_state=0)
    >>> train, test = clips[clips.split == "train"], clips[clips.split == "test"]
    >>> nearest = nearest_normal(make_pooling().fit(train), test, train)
    >>> nearest["index"].isin(train.index).all()
    np.True_
    """
    clips, train = as_clips(clips), as_clips(train)
    estimator = _chosen(estimator, member, clips)
    if train is None:
        return _among_kept(steps_of(estimator), clips)
    anomalous = is_anomaly(train)
    candidates = np.flatnonzero(~anomalous) if anomalous.any() else np.arange(len(train))
    of_train, of_clips = _groups(estimator, train), _groups(estimator, clips)
    paths = _paths(train)
    own = _paths(clips)
    found = np.empty(len(clips), dtype=int)
    distance = np.empty(len(clips))
    for group in dict.fromkeys(of_clips):
        rows = np.array([i for i, g in enumerate(of_clips) if g == group])
        others = np.array([i for i in candidates if of_train[i] == group], dtype=int)
        if not len(others):
            raise ValueError(f"There is no normal training clip of the group {group!r}.")
        distances = _distances(estimator, take_clips(clips, rows), take_clips(train, others))
        for i, row in enumerate(rows):
            if own[row] is not None:
                distances[i, paths[others] == own[row]] = np.inf
        best = distances.argmin(axis=1)
        found[rows], distance[rows] = others[best], distances[np.arange(len(rows)), best]
    index = train.index[found] if hasattr(train, "index") else found
    table = {"index": index, "path": paths[found], "distance": distance}
    return pd.DataFrame(table, index=getattr(clips, "index", None))


def _among_kept(steps, clips):
    """Nearest of the training clips that the detectors have kept."""
    from sk_asd.ensemble._by_columns import one_group, rows_by_group

    X, last = clips, steps[-1]
    for step in steps[:-1]:
        X = step.transform(X)
    groups, positions, detectors = one_group(X), {}, {None: last}
    if is_grouped(last):
        X, groups = last.split_groups(X)
        positions, detectors = rows_by_group(last.training_groups_), last.detectors_
    found = np.empty(len(groups), dtype=int)
    distance = np.empty(len(groups))
    for group, rows in rows_by_group(groups).items():
        if group not in detectors:
            raise ValueError(f"There is no normal training clip of the group {group!r}.")
        inner, kept = _kept(last, detectors[group], group)
        distances = _with_metric(
            inner[-1],
            _embedded(inner, take_clips(X, rows)),
            kept,
            embeds=_embeds([*steps, *inner]),
        )
        best = distances.argmin(axis=1)
        found[rows] = np.asarray(positions.get(group, range(len(kept))))[best]
        distance[rows] = distances[np.arange(len(rows)), best]
    table = {"index": found, "path": None, "distance": distance}
    return pd.DataFrame(table, index=getattr(clips, "index", None))


def _kept(last, detector, group):
    """Steps of the detector of a group, and the training clips that it has kept."""
    from sk_asd.detectors._bank import BankDetector, known_clips

    by_value = isinstance(detector, dict)  # with `over`: of one metric
    inner = steps_of(next(iter(detector.values())) if by_value else detector)
    if not isinstance(inner[-1], BankDetector):
        raise ValueError(
            f"{type(inner[-1]).__name__} keeps no training clips: give some as train=."
        )
    kept = last.known_clips(group) if by_value else known_clips(inner[-1])
    return inner, np.asarray(kept, dtype=float)


def embed_clips(estimator, X, *, member=None):
    """Embed clips by all steps of a system but its detector.

    Parameters
    ----------
    estimator : Pipeline or outlier detector
        Fitted.
    X : container
        Clips, as it takes them.
    member : str, default=None
        Member of an ensemble; None as in :func:`nearest_normal`.

    Returns
    -------
    ndarray of shape (n_clips, d)
        Embeddings; means over time where there are features of several frames.
    """
    X = as_clips(X)
    return _embedded(steps_of(_chosen(estimator, member, X)), X)


def _chosen(estimator, member, X):
    estimator = unwrapped(estimator)
    if not is_ensemble(estimator):
        if member is not None:
            raise ValueError(f"member={member!r} is for ensembles.")
        return estimator
    if member is None:
        embeds = [_embeds(steps_of(m)) for m in estimator.estimators_]
        weights = np.asarray(estimator.weights_) + (np.array(embeds) if any(embeds) else 0)
        member = estimator.get_feature_names_out()[int(np.argmax(weights))]
    return unwrapped(member_of(estimator, X, member)[1])


def _groups(estimator, X):
    """Group of every clip, as a tuple."""
    grouped = next((s for s in steps_of(estimator) if is_grouped(s)), None)
    columns = _GROUPS if grouped is None else grouped.group_columns_
    found = [column_of(X, name) for name in columns]
    found = [np.asarray(values).tolist() for values in found if values is not None]
    return list(zip(*found)) if found else [()] * len(X)


def _paths(X):
    paths = column_of(X, "path")
    return np.full(len(X), None) if paths is None else np.asarray(paths, dtype=object)


def _embedded(steps, X):
    if len(steps) == 1 and is_grouped(steps[0]) and is_clip_table(X):
        X, answers = steps[0].answering(X)
        found = [(rows, _embedded(steps_of(leaf), take_clips(X, rows))) for rows, leaf in answers]
        order = np.argsort(np.concatenate([rows for rows, _ in found]))
        return np.concatenate([embedded for _, embedded in found])[order]
    for step in steps[:-1]:
        X = step.transform(X)
    values = np.asarray(X, dtype=float)
    return values.mean(axis=2) if is_features(X) else values


def _distances(estimator, clips, train):
    """Distances of clips of one group to training clips of it."""
    steps = steps_of(estimator)
    while len(steps) == 1 and is_grouped(steps[0]) and is_clip_table(clips):
        _, answers = steps[0].answering(take_clips(clips, [0]))
        steps = steps_of(answers[0][1])
    a, b = (_embedded(steps, X) for X in (clips, train))
    last = steps[-1]
    if is_grouped(last):
        inputs = clips
        for step in steps[:-1]:
            inputs = step.transform(inputs)
        last = last.answering(take_clips(inputs, [0]))[1][0][1]
    return _with_metric(last, a, b, _embeds(steps))


def _embeds(steps):
    return any(hasattr(step, "_embed_variants") for step in steps)


def _with_metric(detector, a, b, embeds):
    """Distances as the detector compares clips, if it says how."""
    if hasattr(detector, "_distances"):
        return detector._distances(a, b)
    if getattr(detector, "precision_", np.empty(0)).shape == (a.shape[1],) * 2:
        return pairwise_distances(a, b, metric="mahalanobis", VI=detector.precision_)
    metric = getattr(detector, "metric", None)
    if hasattr(detector, "n_neighbors") and isinstance(metric, str):
        return pairwise_distances(a, b, metric=metric)
    if embeds:
        return pairwise_distances(a, b, metric="cosine")
    scaler = StandardScaler().fit(b)
    return pairwise_distances(scaler.transform(a), scaler.transform(b))
