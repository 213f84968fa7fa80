"""Maps by occlusion: how much more normal a clip becomes when a patch of it is hidden."""

import itertools

import numpy as np
import torch
import torch.nn.functional as F

from sk_asd.embedders._base import BaseEmbedder, _pool
from sk_asd.networks._standardize import BinStandardizer
from sk_asd.utils._containers import is_labelled, take_clips, wrap
from sk_asd.utils._neural import on_device, resolve_device
from sk_asd.utils._windows import check_length, window_starts

BATCH = 32  # windows, or clips, with something hidden at a time


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
    embed = isinstance(steps[0], BaseEmbedder)
    maps = np.empty(features.shape)
    for position, clip in enumerate(features):
        # What the steps see of the labels, whatever the values are.
        like = take_clips(X, [position])[:, :1, :1] if is_labelled(X) else None
        if embed:
            hidden = _embeddings(steps[0], clip, boxes)
            scores = _scores(steps[1:], hidden, like, ("embedding",), score)
        else:
            scores = np.concatenate(
                [
                    _scores(steps, values, like, X.dims[1:] if is_labelled(X) else (), score)
                    for values in _with_holes(clip, boxes)
                ]
            )
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


def _hide(values, box, fill):
    """Lower what is louder in a box, in place."""
    values[box] = np.minimum(values[box], fill[box[0]])


def _scores(steps, values, like, dims, score):
    """Scores of variants of one clip by the last steps."""
    if like is not None:
        values = wrap(values, take_clips(like, [0] * len(values)), dims)
    for step in steps[:-1]:
        values = step.transform(values)
    return score(steps[-1], values)


def _with_holes(clip, boxes):
    """The clip, then copies of it with one box after the other hidden, some at a time."""
    fill = np.median(clip, axis=1, keepdims=True)
    for start in range(0, len(boxes) + 1, BATCH):
        chosen = [None, *boxes][start : start + BATCH]
        values = np.repeat(clip[np.newaxis], len(chosen), axis=0)
        for value, box in zip(values, chosen):
            if box is not None:
                _hide(value, box, fill)
        yield values


def _embeddings(embedder, clip, boxes):
    """Embeddings of the clip and of what is left of it with one box after the other hidden."""
    n_frames = check_length(clip[np.newaxis], embedder.n_frames)
    # Windows that overlap by half are enough to compare with.
    hop = max(embedder.window_hop, n_frames // 2)
    starts = window_starts(clip.shape[1], n_frames, hop)
    module = embedder.net_.module_
    fill = np.median(clip, axis=1, keepdims=True)
    if isinstance(module[0], BinStandardizer) and not embedder.subtract_mean:
        fill = module[0].mean.cpu().numpy()

    def windows():
        """Number of the variant and of the window, and the window, where the box changes it."""
        for number, box in enumerate([None, *boxes]):
            values = clip.copy()
            if box is not None:
                _hide(values, box, fill)
            if embedder.subtract_mean:  # without what is hidden
                values -= values.mean(axis=1, keepdims=True)
            for window, start in enumerate(starts):
                stop = start + n_frames
                touched = box is None or (start < box[1].stop and box[1].start < stop)
                if touched or embedder.subtract_mean:
                    yield number, window, values[:, start:stop]

    device = resolve_device(embedder.device, fitted=True)
    module = on_device(module, device)
    variants = None
    jobs = windows()
    with torch.inference_mode():
        while batch := list(itertools.islice(jobs, BATCH)):
            numbers, positions, values = zip(*batch)
            found = F.normalize(module(torch.from_numpy(np.stack(values)).to(device))).cpu()
            if variants is None:
                variants = torch.full((len(boxes) + 1, len(starts), found.shape[1]), torch.nan)
            variants[numbers, positions] = found
    # Windows that a box does not touch are as they were.
    variants = torch.where(variants.isnan(), variants[:1], variants)
    return torch.stack([_pool(found, embedder.pooling) for found in variants]).numpy()
