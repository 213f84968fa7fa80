"""Windows of features: random ones for training, strided ones for testing."""

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler


class WindowDataset(Dataset):
    """Windows of the frames of clips, indexed by (clip, first frame).

    Parameters
    ----------
    X : ndarray of shape (n_clips, n_bins, n_frames)
        Features, possibly memory-mapped.
    y : Tensor of shape (n_clips, ...)
        Targets of every clip.
    n_frames : int
        Length of a window.
    subtract_mean : bool, default=False
        Subtract the clip's mean over time from every bin.
    """

    def __init__(self, X, y, n_frames, *, subtract_mean=False):
        self.X = X
        self.y = y
        self.n_frames = n_frames
        self.means = X.mean(axis=2) if subtract_mean else None

    def __len__(self):
        return len(self.X)

    def __getitem__(self, index):
        clip, start = index
        window = np.array(self.X[clip, :, start : start + self.n_frames])
        if self.means is not None:
            window -= self.means[clip][:, np.newaxis]
        return torch.from_numpy(window), self.y[clip]


class RandomWindowSampler(Sampler):
    """As many clips as there are an epoch, in random order, each with a random first frame.

    Both are drawn here, in the main process, so that they depend on the seed alone and not on the
    number of loader processes.

    Parameters
    ----------
    n_clips : int
        Number of clips.
    n_starts : int
        Number of possible first frames.
    generator : torch.Generator
        Source of the draws.
    weights : ndarray of shape (n_clips,), default=None
        Clips are drawn with replacement in proportion to these. None: every clip once.
    """

    def __init__(self, n_clips, n_starts, generator, weights=None):
        self.n_clips = n_clips
        self.n_starts = n_starts
        self.generator = generator
        self.weights = None if weights is None else torch.as_tensor(weights)

    def __len__(self):
        return self.n_clips

    def __iter__(self):
        if self.weights is None:
            clips = torch.randperm(self.n_clips, generator=self.generator)
        else:
            clips = torch.multinomial(
                self.weights, self.n_clips, replacement=True, generator=self.generator
            )
        starts = torch.randint(self.n_starts, (self.n_clips,), generator=self.generator)
        return iter(zip(clips.tolist(), starts.tolist()))


def window_starts(n_frames_clip, n_frames, hop):
    """First frames of the test windows: every `hop` frames, and one flush with the clip's end."""
    last = n_frames_clip - n_frames
    return sorted({*range(0, last + 1, hop), last})


def check_length(features, n_frames):
    """Length of a window, that of the clips for None, after a look whether the clips hold one."""
    n_frames_clip = features.shape[2]
    n_frames = n_frames_clip if n_frames is None else n_frames
    if n_frames_clip < n_frames:
        raise ValueError(
            f"The clips have {n_frames_clip} frames, fewer than one window of "
            f"n_frames={n_frames}: lower n_frames or hop_length, or take longer clips."
        )
    return n_frames
