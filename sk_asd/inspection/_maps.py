"""Anomaly maps: which frequencies at which times make a clip abnormal."""

from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from sklearn.utils.validation import check_is_fitted

from sk_asd.inspection._steps import (
    is_features,
    labelled_features,
    member_of,
    steps_of,
    unwrapped,
)
from sk_asd.utils._containers import as_clips, is_clip_table, take_clips
from sk_asd.utils._system import is_ensemble, is_grouped, scores_of


def anomaly_map(estimator, X, *, member=None, patches=(6, 12)):
    r"""Tell which frequencies at which times make clips abnormal.

    Parameters
    ----------
    estimator : Pipeline or outlier detector
        Fitted. A detector alone takes features. Of a :class:`~sk_asd.ensemble.ScoreEnsemble` one
        member is asked; of a :class:`~sk_asd.ensemble.GroupedDetector` that of each clip's group,
        with ``over`` the one that finds the clip most normal.
    X : DataFrame, DataArray or array-like
        Clips, as the estimator takes them.
    member : str, default=None
        Member of an ensemble; None is the one that speaks the loudest against the clips, all taken
        together.
    patches : tuple of int, default=(6, 12)
        Number of bands of bins, and of stretches of time, into which a clip is cut for a map by
        occlusion. The time it takes grows with their product, and with the length of clips where
        the sound is occluded.

    Returns
    -------
    DataArray of shape (n_clips, n_bins, n_frames)
        Map of every clip, high = abnormal, with the dimensions of the features: ``clip``, ``mel``
        or ``frequency`` in hertz (``channel`` behind Wav2Vec and TimePooling, or a detector with a
        ``score_map``), and ``frame`` in seconds. NaN where there is no answer. ``attrs``
        has the ``method``, the ``unit`` and, for ensembles, the ``member``.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If the estimator is not fitted.
    ValueError
        If there are no features ``(clip, bin, frame)`` in the estimator, no such member, or a
        group that was not seen in training.

    See Also
    --------
    AnomalyMapDisplay : Plots one.

    Notes
    -----
    ``attrs["method"]`` is one of

    ``"score_map"``
        of detectors with a ``score_map``: IMDN, AEGAN-AD and the autoencoder. WSP-NFCDEE gives a
        contribution per bin; it is spread over the frames that bring its pooled value away from
        that of the training clips.
    ``"distance"``
        of :class:`~sk_asd.detectors.MahalanobisDetector`,
        :class:`~sk_asd.detectors.GaussianMixtureDetector` and
        :class:`~sk_asd.detectors.KNNDetector` right behind
        :class:`~sk_asd.features.TimePooling`. With pooled features :math:`p`, those expected
        :math:`\mu` and the precision :math:`P` the squared distance is :math:`\sum_i g_i d_i`,
        :math:`d = p - \mu`, :math:`g = P d`, and each :math:`d_i` is a sum over frames: a share
        for every bin and frame, whose sum is the squared distance. Shares may be negative.
    ``"occlusion"``
        of everything else, embedders with any detector among them: the change of the score when a
        patch is hidden ([1]_), that is, when cells in it, and up to a quarter of a patch beside it,
        are lowered to the median of their bin over the clip (the mean over the training clips for
        embedders that do not subtract the mean of the clip). What is missing in a clip, such as a
        click, is not found so. Behind :class:`~sk_asd.features.Wav2Vec`, whose features have
        channels and no frequencies, the cells are those of the sound's short-time Fourier transform
        of 1024 samples every 256; the sound is put together and scored again. The map is over
        ``frequency`` and ``frame``.

    References
    ----------
    .. [1] Zeiler, M. D., Fergus, R. "Visualizing and understanding convolutional networks", ECCV
       2014.

    Examples
    --------
    >>> from sk_asd.datasets import make_machine_sounds
    >>> from sk_asd.inspection import anomaly_map
    >>> from sk_asd.systems import make_pooling
    >>> clips = make_machine_sounds("fan", n_train=20, n_test=4, duration=1.0, random_state=0)
    >>> pipeline = make_pooling().fit(clips[clips.split == "train"])
    >>> maps = anomaly_map(pipeline, clips[clips.split == "test"])
    >>> maps.dims, maps.attrs["method"]
    (('clip', 'mel', 'frame'), 'distance')
    """
    estimator, X = unwrapped(estimator), as_clips(X)
    check_is_fitted(estimator)
    name = None
    if is_ensemble(estimator):
        name, estimator = member_of(estimator, X, member)
    elif member is not None:
        raise ValueError(f"member={member!r} is for ensembles, not {type(estimator).__name__}.")
    if len(patches) != 2 or min(patches) < 1:
        raise ValueError(f"patches must be two numbers of at least 1, got {patches!r}.")
    maps = _explain(steps_of(estimator), _Clips(X, tuple(patches)))
    return maps if name is None else maps.assign_attrs(member=name)


@dataclass(frozen=True)
class _Clips:
    """Clips on their way through a system: `X` is what `source` made of `sound`."""

    X: object
    patches: tuple
    source: object = None
    sound: object = None

    def take(self, rows):
        sound = None if self.sound is None else take_clips(self.sound, rows)
        return replace(self, X=take_clips(self.X, rows), sound=sound)


def _explain(steps, clips):
    """Maps by fitted steps, the last one a detector."""
    while not is_features(clips.X):
        step, *rest = steps
        if not rest:
            if is_grouped(step) and is_clip_table(clips.X):
                X, answers = step.answering(clips.X)
                return _by_answer([], replace(clips, X=X), answers)
            raise ValueError(
                "An anomaly map needs features (clip, bin, frame), as LogMel gives them; "
                f"{type(step).__name__} is asked about an array of shape {np.shape(clips.X)}. Ask "
                "the whole Pipeline."
            )
        clips = replace(clips, X=step.transform(clips.X), source=step, sound=clips.X)
        steps = rest
    *front, last = steps
    inputs = clips.X
    for step in front:
        inputs = step.transform(inputs)
    last = unwrapped(last)
    if is_grouped(last):
        return _by_answer(front, clips, last.answering(inputs)[1])
    return _by_detector(front, last, clips, inputs)


def _by_answer(front, clips, answers):
    """Maps clip by clip from the detectors that answer for them."""
    found = [_explain([*front, *steps_of(leaf)], clips.take(rows)) for rows, leaf in answers]
    shapes = sorted({maps.shape[1:] for maps in found})
    if len(shapes) > 1:
        raise ValueError(f"Groups have features of different shapes {shapes}: ask one at a time.")
    maps = xr.concat(found, dim="clip", join="override")
    order = np.argsort(np.concatenate([rows for rows, _ in answers]))
    return maps[order]


def _by_detector(front, detector, clips, inputs):
    """Maps by one detector that is no group, of what it is given and of what that was made of."""
    own_map = getattr(detector, "_map_over_frames", getattr(detector, "score_map", None))
    if own_map is not None and is_features(inputs):
        features = labelled_features(inputs, None if front else clips.source)
        unit = getattr(detector, "_map_unit", "score map")
        return _as_map(own_map(inputs), features, "score_map", unit)
    features = labelled_features(clips.X, clips.source)
    pooling = front[0] if len(front) == 1 else None
    if hasattr(pooling, "_over_frames") and hasattr(detector, "_quadratic_form"):
        form = detector._quadratic_form(np.asarray(inputs, dtype=float))
        if form is not None:
            values = pooling._over_frames(features.values, *form)
            return _as_map(values, features, "distance", "share of squared distance")
    # These load torch, which a report of scores alone does without.
    from sk_asd.inspection._occlusion import occlusion_map
    from sk_asd.inspection._wave_occlusion import (
        lacks_frequencies,
        spectrogram_of,
        wave_occlusion_map,
    )

    steps = [*front, detector]
    if lacks_frequencies(clips.source):
        features = spectrogram_of(clips.source, clips.sound)
        values = wave_occlusion_map(steps, clips.source, clips.sound, clips.patches, scores_of)
    else:
        values = occlusion_map(steps, clips.X, clips.patches, scores_of)
    return _as_map(values, features, "occlusion", "rise of the score when hidden")


def _as_map(values, features, method, unit):
    maps = features.copy(data=np.asarray(values, dtype=np.float32))
    maps.attrs = {"method": method, "unit": unit}
    return maps
