"""Maps by occlusion: how much more normal a clip becomes when a patch of it is hidden."""

import itertools

import numpy as np

from sk_asd.utils._containers import is_labelled, take_clips, wrap

BATCH = 32  # clips with something hidden at a time


def occlusion_map(steps, X, patches, score):
    """Change of the score when a patch of the features is hidden.

    What is louder in the patch than the median of its bin over the clip is lowered to that; before
    an embedder that does not subtract the mean of the clip, to the mean of the training clips.
    Embedders look at windows that overlap by half at most, and once at those that the patch does
    not change.

    Parameters
    ----------
    steps : list of estimators
        Fitted, the last one a detector.
    X : DataArray or ndarray of shape (n_clips, n_bins, n_frames)
        Features that the first step takes.
    patches : tuple of int
        Number of bands and of stretches of time.
    score : callable
        ``score(detector, X)`` gives scores, high = normal.

    Returns
    -------
    ndarray of shape (n_clips, n_bins, n_frames)
        Score with the patch hidden minus that of the whole clip, the same for all of the patch.
    """
    features = np.asarray(X, dtype=np.float32)
    boxes, number = boxes_of(features.shape[1:], patches)
    embedder = steps[0] if hasattr(steps[0], "_embed_variants") else None
    level = None if embedder is None else embedder._level()
    maps = np.empty(features.shape)
    for position, clip in enumerate(features):
        # What the steps see of the labels, whatever the values are.
        like = take_clips(X, [position])[:, :1, :1] if is_labelled(X) else None
        fill = np.median(clip, axis=1, keepdims=True) if level is None else level
        variants = _with_holes(clip, boxes, fill)
        if embedder is not None:
            frames = [slice(0, clip.shape[1]), *(box[1] for box in boxes)]
            embeddings = embedder._embed_variants(variants, frames)
            scores = _scores(steps[1:], embeddings, like, ("embedding",), score)
        else:
            dims = X.dims[1:] if is_labelled(X) else ()
            scores = []
            while batch := list(itertools.islice(variants, BATCH)):
                scores.append(_scores(steps, np.stack(batch), like, dims, score))
            scores = np.concatenate(scores)
        maps[position] = (scores[1:] - scores[0])[number]
    return maps


def boxes_of(shape, patches):
    """Cut a picture into patches, and widen them to what is hidden.

    A quarter of a patch on every side goes with it: of what lies across a border a part would be
    left otherwise, with an edge, which is as abnormal as the whole.

    Parameters
    ----------
    shape : tuple of int
        Bins and frames.
    patches : tuple of int
        Number of bands and of stretches of time; at most as many as there are.

    Returns
    -------
    boxes : list of tuple of slice
        Bins and frames that are hidden with every patch.
    number : ndarray of shape (n_bins, n_frames)
        Number of the patch that each cell is in.
    """
    n_bands, n_times = np.minimum(patches, shape)
    band = np.arange(shape[0]) * n_bands // shape[0]
    time = np.arange(shape[1]) * n_times // shape[1]
    boxes = [(_extent(band, i), _extent(time, j)) for i in range(n_bands) for j in range(n_times)]
    return boxes, band[:, np.newaxis] * n_times + time


def _extent(patch, i):
    """Slice of the cells of the `i`-th patch along one axis, and of those beside it."""
    start, stop = (int(np.searchsorted(patch, j)) for j in (i, i + 1))
    margin = (stop - start) // 4
    return slice(max(0, start - margin), stop + margin)


def _scores(steps, values, like, dims, score):
    """Scores of variants of one clip by the last steps."""
    if like is not None:
        values = wrap(values, take_clips(like, [0] * len(values)), dims)
    for step in steps[:-1]:
        values = step.transform(values)
    return score(steps[-1], values)


def _with_holes(clip, boxes, fill):
    """The clip, then copies of it in which one box after the other is lowered to what is usual."""
    yield clip
    for box in boxes:
        values = clip.copy()
        values[box] = np.minimum(values[box], fill[box[0]])
        yield values
