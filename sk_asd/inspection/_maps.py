"""Anomaly maps: which frequencies at which times make a clip abnormal."""

import numpy as np
import xarray as xr
from sklearn.utils.validation import check_is_fitted

from sk_asd.inspection._pooled import flow_map, pooled_map
from sk_asd.inspection._steps import (
    is_features,
    labelled_features,
    member_of,
    steps_of,
    unwrapped,
)
from sk_asd.utils._containers import as_clips, is_clip_table, take_clips
from sk_asd.utils._system import is_ensemble, is_grouped, scores_of

# What a cell of a map tells, by the class of the detector that gives it.
_UNITS = {
    "IMDNDetector": "negative log-likelihood (nats)",
    "WSPFlowDetector": "negative log-likelihood (nats)",
    "AEGANDetector": "squared error",
    "AutoEncoderDetector": "squared error",
}


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
    maps = _explain(steps_of(estimator), X, tuple(patches))
    return maps if name is None else maps.assign_attrs(member=name)


def _explain(steps, X, patches, source=None, sound=None):
    """Maps by fitted steps, the last one a detector; `X` is what `source` made of `sound`."""
    while not is_features(X):
        if len(steps) == 1:
            if is_grouped(steps[0]) and is_clip_table(X):
                return _by_answer([], *steps[0].answering(X), patches)
            raise ValueError(
                "An anomaly map needs features (clip, bin, frame), as LogMel gives them; "
                f"{type(steps[0]).__name__} is asked about an array of shape {np.shape(X)}. Ask "
                "the whole Pipeline."
            )
        sound, (source, *steps) = X, steps
        X = source.transform(X)
    inputs = X
    for step in steps[:-1]:
        inputs = step.transform(inputs)
    last = unwrapped(steps[-1])
    if is_grouped(last):
        _, answers = last.answering(inputs)
        return _by_answer(steps[:-1], X, answers, patches, source, sound)
    return _by_detector(steps[:-1], last, X, inputs, patches, source, sound)


def _by_answer(front, X, answers, patches, source=None, sound=None):
    """Maps clip by clip from the detectors that answer for them."""
    found = []
    for rows, leaf in answers:
        heard = None if sound is None else take_clips(sound, rows)
        steps = [*front, *steps_of(leaf)]
        found.append((rows, _explain(steps, take_clips(X, rows), patches, source, heard)))
    if len({maps.shape[1:] for _, maps in found}) > 1:
        shapes = sorted({maps.shape[1:] for _, maps in found})
        raise ValueError(f"Groups have features of different shapes {shapes}: ask one at a time.")
    maps = xr.concat([maps for _, maps in found], dim="clip", join="override")
    order = np.argsort(np.concatenate([rows for rows, _ in found]))
    return maps[order]


def _by_detector(front, detector, X, inputs, patches, source, sound):
    """Maps by one detector that is no group."""
    if hasattr(detector, "score_map") and is_features(inputs):
        features = labelled_features(inputs, None if front else source)
        values, method = np.asarray(detector.score_map(inputs)), "score_map"
        if values.ndim == 2:
            values = flow_map(detector, features.values, values)
        unit = _UNITS.get(type(detector).__name__, "score map")
        return _as_map(values, features, method, unit)
    # features loads torch, which a report of scores alone does without.
    from sk_asd.features import TimePooling

    features = labelled_features(X, source)
    values = None
    if len(front) == 1 and isinstance(front[0], TimePooling):
        values = pooled_map(front[0], detector, features.values)
    if values is not None:
        return _as_map(values, features, "distance", "share of squared distance")
    from sk_asd.inspection._occlusion import occlusion_map
    from sk_asd.inspection._wave_occlusion import (
        lacks_frequencies,
        spectrogram_of,
        wave_occlusion_map,
    )

    steps = [*front, detector]
    if lacks_frequencies(source):
        features = spectrogram_of(source, sound)
        values = wave_occlusion_map(steps, source, sound, patches, scores_of)
    else:
        values = occlusion_map(steps, X, patches, scores_of)
    return _as_map(values, features, "occlusion", "rise of the score when hidden")


def _as_map(values, features, method, unit):
    maps = features.copy(data=np.asarray(values, dtype=np.float32))
    maps.attrs = {"method": method, "unit": unit}
    return maps
