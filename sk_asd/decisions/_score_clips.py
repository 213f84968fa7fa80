"""Scores and decisions on any number of clips."""

from numbers import Integral

import numpy as np
import pandas as pd

from sk_asd.utils._containers import as_clips
from sk_asd.utils._sklearn import HasMethods, Interval, validate_params
from sk_asd.utils._system import CHUNK_SIZE, System, chunks


@validate_params(
    {
        "system": [HasMethods(["fit"])],
        "chunk_size": [Interval(Integral, 1, None, closed="left")],
    },
    prefer_skip_nested_validation=True,
)
def score_clips(system, clips, *, chunk_size=CHUNK_SIZE):
    """Score clips and decide on each, in bounded memory.

    Parameters
    ----------
    system : outlier detector
        Fitted: a Pipeline, a :class:`~sk_asd.ensemble.GroupedDetector`, an ensemble, any detector
        of this package, of scikit-learn or of PyOD, a search around one, a frozen one.
    clips : clip table, names of sound files, DataArray or array-like
        Clips, as the system takes them.
    chunk_size : int, default=256
        Clips whose features are in memory at a time.

    Returns
    -------
    DataFrame
        One row a clip, with the index of `clips` where it has one. Columns: ``score``, high
        = normal; ``threshold``, that of the clip's group; ``decision``, +1 for normal (`score` is
        at least `threshold`), −1 for abnormal; ``group``, what the columns are in the clip that a
        :class:`~sk_asd.ensemble.GroupedDetector` has thresholds for (a tuple where there are
        several), None for a system with one threshold.

    Raises
    ------
    TypeError
        If the system has no threshold, as a density of scikit-learn.
    ValueError
        If there are no clips, a group was not seen in training, or a score is NaN or +inf.

    See Also
    --------
    set_threshold : Change the threshold first.
    predict_pvalue : How rare a score is.

    Notes
    -----
    Scores are those of ``score_samples``, and decisions those of ``predict``, but for the last
    digit where matrix products of other sizes round otherwise. Both come from one pass: every
    recording is read once.

    A :class:`~sk_asd.ensemble.DomainNormalizedDetector` with ``statistics="transductive"`` takes
    those of a chunk.

    Examples
    --------
    >>> from sk_asd.datasets import make_machine_sounds
    >>> from sk_asd.decisions import score_clips
    >>> from sk_asd.systems import make_pooling
    >>> clips = make_machine_sounds("fan", n_train=20, n_test=4, duration=1.0, random_state=0)
    >>> system = make_pooling().fit(clips[clips.split == "train"])
    >>> score_clips(system, clips[clips.split == "test"])[["decision", "group"]]
       decision      group
    0         1  (fan, 00)
    1         1  (fan, 00)
    2        -1  (fan, 00)
    3         1  (fan, 00)
    """
    system, clips = System(system), as_clips(clips)
    system.thresholds()  # before any sound is read
    found = [
        system.score_and_threshold(system.transform(part)) for part in chunks(clips, chunk_size)
    ]
    if not found:
        raise ValueError("Found 0 clips, expected at least 1.")
    scores, thresholds, groups = map(np.concatenate, zip(*found))
    return pd.DataFrame(
        {
            "score": scores,
            "threshold": thresholds,
            "decision": np.where(scores >= thresholds, 1, -1),
            "group": pd.Series(list(groups), dtype=object),
        }
    ).set_axis(clips.index if isinstance(clips, pd.DataFrame) else pd.RangeIndex(len(scores)))
