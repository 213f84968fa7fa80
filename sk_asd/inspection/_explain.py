"""What there is to see and to hear of the most abnormal clips."""

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.utils import check_consistent_length

from sk_asd.datasets._audio import read_audio
from sk_asd.datasets._samples import as_samples
from sk_asd.inspection._anomaly_map import AnomalyMapDisplay
from sk_asd.inspection._contribution import ContributionDisplay
from sk_asd.inspection._maps import anomaly_map
from sk_asd.inspection._nearest import _groups, nearest_normal
from sk_asd.inspection._spectrogram import SpectrogramDisplay, _features_of
from sk_asd.inspection._steps import steps_of, unwrapped
from sk_asd.utils._checked_scores import checked_scores
from sk_asd.utils._containers import check_clip_table
from sk_asd.utils._labels import is_anomaly
from sk_asd.utils._system import is_ensemble, score_samples_of

N_CLIPS = 5


def explain_clips(
    estimator,
    clips,
    train=None,
    *,
    scores=None,
    thresholds=None,
    n_clips=N_CLIPS,
    max_train=300,
    patches=(6, 12),
):
    """Gather what explains the most abnormal clips, for :func:`write_report`.

    Parameters
    ----------
    estimator : Pipeline or outlier detector
        Fitted.
    clips : DataFrame
        Clip table to choose from.
    train : DataFrame, default=None
        Clip table of normal training clips to compare with; None compares with none.
    scores : array-like of shape (n_clips,), default=None
        Scores of `clips`, high = normal; None lets the estimator score them.
    thresholds : array-like of shape (n_clips,), default=None
        Score below which a clip is called abnormal, where it is known.
    n_clips : int, default=5
        How many of the clips with the lowest scores are explained.
    max_train : int, default=300
        Most training clips of a group that are compared with; they are drawn at random, always the
        same. Embedding them takes longer than all the rest.
    patches : tuple of int, default=(6, 12)
        Bands and stretches of time of maps by occlusion.

    Returns
    -------
    list of dict
        From the lowest score up. ``machine``, ``section``, ``domain``, ``label`` (None where not
        known), ``name``, ``score``, ``threshold`` (None where not known), ``sound`` (samples and
        sample rate), ``spectrogram`` (:class:`SpectrogramDisplay`), ``map``
        (:class:`AnomalyMapDisplay`), ``contributions`` (:class:`ContributionDisplay`, or None where
        the estimator is no ensemble) and ``nearest``: None, or a dict with ``name``, ``distance``,
        ``n_compared``, ``sound`` and ``spectrogram``. None of the displays is plotted yet.

    Raises
    ------
    TypeError, ValueError
        If `clips` is no clip table, lengths differ, or a clip cannot be explained.

    Examples
    --------
    >>> from sk_asd.datasets import make_machine_sounds
    >>> from sk_asd.inspection import explain_clips
    >>> from sk_asd.systems import make_pooling
    >>> clips = make_machine_sounds("fan", n_train=20, n_test=4, duration=1.0, random_state=0)
    >>> train, test = clips[clips.split == "train"], clips[clips.split == "test"]
    >>> found = explain_clips(make_pooling().fit(train), test, train, n_clips=2)
    >>> [clip["machine"] for clip in found]
    ['fan', 'fan']
    """
    clips = check_clip_table(clips)
    if scores is None:
        scores = score_samples_of(estimator, clips)
    check_consistent_length(clips, scores)
    scores = checked_scores(scores, "explain_clips was given")
    if thresholds is not None:
        check_consistent_length(clips, thresholds)
        thresholds = np.asarray(thresholds, dtype=float)
    nearest = None
    explained = []
    order = np.argsort(scores, kind="stable")[:n_clips]
    if train is not None and len(order):
        chosen = clips.iloc[order]
        some = _some_of_each_group(estimator, chosen, train, max_train)
        nearest = nearest_normal(estimator, chosen, some)
        counts = Counter(_groups(estimator, some))
        compared = [counts[group] for group in _groups(estimator, chosen)]
    for i, position in enumerate(order):
        clip = clips.iloc[[position]]
        found = {name: _value(clip, name) for name in ("machine", "section", "domain", "label")}
        maps = anomaly_map(estimator, clip, patches=patches)
        asked = _asked(estimator, maps.attrs.get("member"))
        found |= _to_see_and_hear(asked, clip)
        found |= {
            "score": float(scores[position]),
            "threshold": None if thresholds is None else float(thresholds[position]),
            "map": AnomalyMapDisplay(maps[0]),
            "contributions": _contributions(estimator, clip),
            "nearest": None,
        }
        if nearest is not None:
            other = some.loc[[nearest["index"].iloc[i]]]
            found["nearest"] = _to_see_and_hear(asked, other)
            found["nearest"] |= {
                "distance": float(nearest["distance"].iloc[i]),
                "n_compared": compared[i],
            }
        explained.append(found)
    return explained


def _to_see_and_hear(estimator, clip):
    """Name, sound and spectrogram of the only clip of a table."""
    features, power = _features_of(estimator, clip)
    spectrogram = SpectrogramDisplay._of_features(features[0], power)
    channel = getattr(steps_of(estimator)[0], "channel", 0)
    return {"name": name_of(clip), "sound": _sound(clip, channel), "spectrogram": spectrogram}


def name_of(clip):
    """File name of the only clip of a table, or its index."""
    path = _value(clip, "path")
    return str(clip.index[0]) if path is None else Path(path).name


def _asked(estimator, member):
    """The member of an ensemble that gave the map, whose features are shown with it."""
    estimator = unwrapped(estimator)
    return estimator.named_estimators_[member] if member is not None else estimator


def _some_of_each_group(estimator, clips, train, n_most):
    """Normal training clips of the groups of `clips`, with an index of their own."""
    if "label" in train:
        train = train[~is_anomaly(train)]
    train = train.reset_index(drop=True)
    groups = _groups(estimator, train)
    rng = np.random.default_rng(0)
    rows = []
    for wanted in dict.fromkeys(_groups(estimator, clips)):
        found = [i for i, group in enumerate(groups) if group == wanted]
        rows += sorted(rng.permutation(found)[:n_most].astype(int))
    return train.iloc[rows]


def _value(clip, name):
    """Value of a column of the only clip, None where it is missing."""
    if name not in clip.columns:
        return None
    value = clip[name].iloc[0]
    return None if pd.isna(value) else value


def _sound(clip, channel):
    """Samples and sample rate of the only clip, of the channel that the system hears."""
    if "audio" in clip.columns:
        sr = _value(clip, "sr")
        samples = as_samples(clip["audio"].iloc[0], f"{name_of(clip)}, column 'audio'")
        return samples, 16000 if sr is None else int(sr)
    return read_audio(clip["path"].iloc[0], channel=channel)


def _contributions(estimator, clip):
    ensemble = unwrapped(estimator)
    if not is_ensemble(ensemble):
        return None
    values = np.asarray(ensemble.contributions(clip))[0]
    return ContributionDisplay(pd.Series(values, ensemble.get_feature_names_out()))
