"""A few clips more for a fitted system, without its networks."""

import warnings
from copy import deepcopy
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from sk_asd.detectors._bank import known_clips
from sk_asd.detectors._base import BaseDetector
from sk_asd.detectors._metrics import MetricDetector
from sk_asd.domains._domain_normalized import DomainNormalizedDetector
from sk_asd.ensemble._by_columns import group_name, one_group, rows_by_group
from sk_asd.ensemble._grouped import GroupedDetector, most_normal
from sk_asd.ensemble._score_ensemble import ScoreEnsemble
from sk_asd.utils._containers import column_of, plain, take_clips
from sk_asd.utils._labels import normal_clips
from sk_asd.utils._learning import why_not_learn
from sk_asd.utils._normal_threshold import normal_threshold
from sk_asd.utils._sklearn import HasMethods, StrOptions, _num_samples, validate_params
from sk_asd.utils._system import detector_of, is_frozen, offset_of, scores_of

# Relative distance of what a network makes of the same clip in another batch.
_SAME = 1e-5


class _How(NamedTuple):
    """What the caller allows, and the new groups that were met."""

    new: list
    scores_only: bool | str
    found: set

    def learns(self, detector, reason):
        """Whether a detector is to learn, given the reason why it cannot, or None."""
        if self.scores_only is True:
            return False
        if reason is not None and self.scores_only is False:
            raise ValueError(
                f"{type(detector).__name__} cannot be adapted: {reason}. With scores_only='auto' "
                "it stays as it is, and its scores of the new clips count for standardisation and "
                "threshold."
            )
        return reason is None


@validate_params(
    {
        "detector": [HasMethods(["fit"])],
        "new": [list, tuple, str],
        "scores_only": ["boolean", StrOptions({"auto"})],
        "copy": ["boolean"],
    },
    prefer_skip_nested_validation=True,
)
def adapt(detector, clips, *, new=(), scores_only=False, copy=True):
    """Let a fitted system learn a few normal clips, such as those of a new operating condition.

    Outlier detectors learn the clips by ``partial_fit``; statistics that scores are standardised by
    and thresholds are computed anew. Whatever stands before the last step of a Pipeline, and every
    other network, stays as it is.

    Parameters
    ----------
    detector : outlier detector
        Fitted; a Pipeline, a :class:`~sk_asd.ensemble.GroupedDetector`, a
        :class:`~sk_asd.ensemble.ScoreEnsemble` or the best one of a
        :class:`~sk_asd.ensemble.ScoreEnsembleCV`, a
        :class:`~sk_asd.domains.DomainNormalizedDetector`, or a detector with ``partial_fit``, and
        what is made of these.
    clips : clip table, DataArray or array-like
        Normal clips, as `detector` was fitted to, with all labels that it was fitted with.
    new : sequence or str, default=()
        Groups that may be new, as the parameter `by` makes them: ``["03"]`` for
        ``by="section"``, ``[("fan", "03")]`` for ``by=["machine", "section"]``. Other groups must
        be known, so that a wrong label does not make a machine of its own.
    scores_only : bool or "auto", default=False
        False refuses detectors that cannot learn, such as networks. With True none learns, and
        only the scores of the clips count, beside those of the training clips, for statistics and
        thresholds. ``"auto"`` lets those learn that can.
    copy : bool, default=True
        Return a deep copy and leave `detector` as it is, or change it in place.

    Returns
    -------
    outlier detector
        The adapted system.

    Raises
    ------
    ValueError
        If a clip is known already, or is of a group that is neither known nor in `new`; if all are
        labelled as anomalies; or if a detector cannot learn, with the reason. Nothing is changed
        then.

    Warns
    -----
    UserWarning
        If clips are labelled as anomalies, which are left out; or if the threshold was set after
        the fit: it is that of the parameters again.

    See Also
    --------
    set_threshold : Change the threshold after that.

    Notes
    -----
    **What ten clips can do.** The new clips are one another's neighbours: their leave-one-out
    scores come from nine, those of clips to come from ten. Clips to come lie further from the
    nearest of ten than those of old conditions from the nearest of hundreds, and the threshold,
    a quantile of all training scores, hardly moves for ten of them. So many of them are still
    called abnormal with distances as they are, fewer by detectors that measure in local units,
    :class:`~sk_asd.detectors.KNNDetector` with `density_neighbors` or
    :class:`~sk_asd.detectors.LOFDetector`; which may take slight faults of the new condition for
    its spread. Figures are in the user guide.

    **What they cannot.** Means and covariances move by the new clips' share alone: ten beside a
    thousand change nothing. There the new condition is to be one of its own, a new group or, with
    ``over="domain"``, a new value of that column. Ten scores show no share of false alarms below a
    tenth. With `scores_only` a detector finds the new condition as strange as before, and no more
    than means, deviations and threshold move: enough for a new section that it can score, little
    for a new condition of a known one. And what a network does not tell from a fault stays so.

    Domain classifiers are networks: clips to come are of the domain that they say.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_asd.detectors import KNNDetector
    >>> from sk_asd.decisions import adapt
    >>> rng = np.random.default_rng(0)
    >>> detector = KNNDetector(metric="euclidean", density_neighbors=4)
    >>> detector = detector.fit(rng.normal(size=(100, 8)))
    >>> elsewhere = 9 + rng.normal(size=(60, 8))
    >>> adapted = adapt(detector, elsewhere[:10])
    >>> [int((d.predict(elsewhere[10:]) == -1).sum()) for d in (detector, adapted)]
    [50, 16]
    """
    check_is_fitted(detector)
    clips, _ = normal_clips(clips)
    new = [group_name(group) for group in ([new] if isinstance(new, str) else new)]
    how = _How(new, scores_only, set())
    adapted, _ = _adapted(detector, clips, how)
    unused = [group for group in new if group not in how.found]
    if unused:
        raise ValueError(f"new={unused}: there are no clips of such a group, or it is known.")
    _warn_of_threshold(detector_of(detector), detector_of(adapted))
    if copy:
        return deepcopy(adapted)
    vars(detector).update(vars(adapted))
    return detector


def _check_groups(detector, groups, known, how):
    for group in dict.fromkeys(groups):
        if group in known:
            continue
        if group not in how.new:
            raise ValueError(
                f"{detector.describe(group)} was not seen in training; known are {list(known)}. "
                f"To learn it, name it: new=[{group!r}]."
            )
        how.found.add(group)


def _check_unknown(known, clips, X, rows):
    """Refuse clips that a detector knows: leave-one-out would find each beside itself."""
    distance = NearestNeighbors(n_neighbors=1).fit(known).kneighbors(clips)[0][:, 0]
    same = np.flatnonzero(distance <= _SAME * np.linalg.norm(clips, axis=1))
    if len(same):
        first = _name(X, rows[same[0]])
        raise ValueError(
            f"{len(same)} of {len(clips)} clips are known already, the first {first}: learnt twice "
            "they would vouch for themselves. Leave them out."
        )


def _name(X, row):
    path = column_of(X, "path")
    return f"at position {row}" if path is None else path[row]


def _adapted(detector, X, how, kept=None):
    """An adapted detector, and scores of its training clips and then of the new ones.

    The detector given stays as it is; what does not change is shared with it.

    Parameters
    ----------
    detector : outlier detector
        Fitted.
    X : container
        New clips.
    how : _How
        What is allowed.
    kept : ndarray, default=None
        Scores of the training clips, where who asks knows them.

    Returns
    -------
    adapted : outlier detector
        Another one, or `detector` itself where nothing has changed.
    scores : ndarray
        Training scores.
    """
    if isinstance(detector, Pipeline):
        X = detector[:-1].transform(X) if len(detector) > 1 else X
        last, scores = _adapted(detector[-1], X, how, kept)
        steps = [*detector.steps[:-1], (detector.steps[-1][0], last)]
        return _like(detector, steps=steps), scores
    if hasattr(detector, "best_estimator_"):
        best, scores = _adapted(detector.best_estimator_, X, how, kept)
        return _like(detector, best_estimator_=best), scores
    for kind, function in _KINDS.items():
        if isinstance(detector, kind):
            return function(detector, X, how, kept)
    return _single(detector, X, how, kept)


def _like(detector, **changes):
    """A shallow copy with other attributes."""
    other = object.__new__(type(detector))
    vars(other).update(vars(detector))
    vars(other).update(changes)
    return other


def _single(detector, X, how, kept):
    frozen = is_frozen(detector)
    reason = "it is frozen" if frozen else why_not_learn(detector)
    if how.learns(detector, reason):
        clips = detector._validate(X, reset=False)
        _check_unknown(known_clips(detector), clips, X, range(len(clips)))
        adapted = _like(detector).partial_fit(X)
        return adapted, adapted.training_scores_
    adapted = detector
    if isinstance(detector, MetricDetector):
        metrics = [detector.training_metrics_, detector.score_metrics(X)]
        adapted = _like(detector, training_metrics_=pd.concat(metrics, ignore_index=True))
        adapted.metric_offsets_ = {
            name: normal_threshold(column.to_numpy(), detector.contamination, detector.threshold)
            for name, column in adapted.training_metrics_.items()
        }
        scores = adapted.training_scores_[-_num_samples(X) :]
    else:
        scores = scores_of(detector, X)
        if isinstance(detector, BaseDetector):
            every = np.concatenate([detector.training_scores_, scores])
            offset = normal_threshold(every, detector.contamination, detector.threshold)
            adapted = _like(detector, training_scores_=every, offset_=offset)
        elif kept is None:
            raise ValueError(
                f"{type(detector).__name__} cannot be adapted: it keeps no scores of its training "
                "clips that others could be added to."
            )
    kept = detector.training_scores_ if kept is None else kept
    return adapted, np.concatenate([kept, scores])


def _grouped(detector, X, how, kept):
    features, groups = detector.split_groups(X)
    _check_groups(detector, groups, detector.detectors_, how)
    rows = rows_by_group(groups)
    if how.scores_only is not True and why_not_learn(detector) is None:
        adapted = _like(detector).partial_fit(X)  # first, for what it has to say about `X`
        for name in rows.keys() & detector.detectors_.keys():
            clips = plain(features)[rows[name]]
            _check_unknown(detector.known_clips(name), clips, X, rows[name])
        return adapted, adapted.training_scores_

    n_before = len(detector.training_scores_)
    before = rows_by_group(detector.training_groups_)
    detectors, offsets = dict(detector.detectors_), dict(detector.offsets_)
    scores = np.concatenate([detector.training_scores_, np.empty(len(groups))])
    for name, r in rows.items():
        clips, old = take_clips(features, r), detector.training_scores_[before.get(name, [])]
        try:
            detectors[name], found = _group(detector, name, clips, how, old)
        except ValueError as error:
            raise ValueError(f"{detector.describe(name)}: {error}") from error
        offsets[name] = _new_offset(detectors[name], offsets[name], old, found, clips)
        scores[[*before[name], *(n_before + np.array(r))]] = found
    adapted = _like(
        detector,
        detectors_=detectors,
        offsets_=offsets,
        _own_offsets={**detector._own_offsets, **{name: offsets[name] for name in rows}},
        training_scores_=scores,
        training_groups_=np.concatenate([detector.training_groups_, groups]),
    )
    if detector._over is not None:
        adapted._over = np.concatenate([detector._over, one_group(groups)])
    if hasattr(detector, "pooled_"):
        old = detector.pooled_
        adapted.pooled_, found = _adapted(old, features, how, detector.training_scores_)
        if _finds_offset(old):
            adapted.pooled_offset_ = offset_of(adapted.pooled_, features)
    if how.scores_only is True and kept is not None:
        scores = np.concatenate([kept, scores[n_before:]])
    return adapted, scores


def _group(grouped, name, clips, how, kept):
    """Detectors of one group whose clips cannot be fitted again, and its training scores."""
    members = grouped.detectors_.get(name)
    if members is None:
        raise ValueError(
            "a detector of its own would have to be fitted, which is no matter of a few clips: "
            "fit anew."
        )
    if not isinstance(members, dict):
        return _adapted(members, clips, how, kept)
    how.learns(grouped, f"over={grouped.over!r} compares the clips of all its detectors, not kept")
    return members, np.concatenate([kept, most_normal(members, clips)])


def _new_offset(members, offset, before, found, clips):
    """Threshold of a group: that of its detector, else the same share of clips below it."""
    if not isinstance(members, dict) and _finds_offset(members):
        return offset_of(members, clips)
    share = np.mean(before < offset)
    return normal_threshold(found, share) if share else offset


def _finds_offset(detector):
    """Whether an adapted detector has found its threshold anew."""
    return isinstance(detector_of(detector), BaseDetector) and not is_frozen(detector)


def _ensemble(detector, X, how, kept):
    X, groups = detector.split_groups(X)
    _check_groups(detector, groups, detector.means_, how)
    if detector.crossfit is not None:
        reason = f"crossfit={detector.crossfit!r} scores training clips by copies that are not kept"
        how.learns(detector, reason)
        how = how._replace(scores_only=True)
    members, scores = [], []
    for name, member, old in zip(detector._names, detector.estimators_, detector._raw.T):
        try:
            member, found = _adapted(member, X, how, old)
        except ValueError as error:
            raise ValueError(f"Member {name!r}: {error}") from error
        members.append(member)
        scores.append(found)
    adapted = _like(detector)
    adapted._extend(X, groups, members, scores)
    return adapted, adapted.training_scores_


def _normalized(detector, X, how, kept):
    X, groups = detector.split_groups(X)
    _check_groups(detector, groups, detector.means_, how)
    labels = column_of(X, detector.over)
    labels = pd.Series(one_group(X) if labels is None else labels, dtype=object)
    codes = pd.Index(detector.domains_, dtype=object).get_indexer(labels)
    unknown = labels[(codes < 0) & labels.notna()]
    if len(unknown):
        raise ValueError(
            f"Column {detector.over!r} has {unknown.iloc[0]!r}, expected one of "
            f"{detector.domains_.tolist()}."
        )
    inner, scores = _adapted(detector.detector_, X, how, detector._raw)
    adapted = _like(detector, detector_=inner)
    adapted._learn(
        scores,
        np.concatenate([detector._groups, groups]),
        np.concatenate([detector._codes, codes]),
        np.concatenate([detector.training_probability_, detector._probability(X)]),
    )
    return adapted, adapted.training_scores_


def _warn_of_threshold(before, after):
    if isinstance(before, GroupedDetector):
        was_set = any(
            offset != before._own_offsets[name] and offset != after.offsets_[name]
            for name, offset in before.offsets_.items()
        )
    else:
        own = normal_threshold(before.training_scores_, before.contamination, before.threshold)
        was_set = not np.isclose(before.offset_, own, rtol=1e-9)
    if was_set:
        warnings.warn(
            "The threshold was set after the fit. It is that of the parameters contamination and "
            "threshold again: see sk_asd.decisions.set_threshold.",
            UserWarning,
            stacklevel=4,
        )


_KINDS = {
    GroupedDetector: _grouped,
    ScoreEnsemble: _ensemble,
    DomainNormalizedDetector: _normalized,
}
