"""All windows of clips: batches of them to train on, chunks of them to score."""

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch.utils.data import Dataset

from sk_asd.utils._windows import window_starts

_CHUNK = 64


class AllWindows(Dataset):
    """Windows of the frames of clips, `hop` frames apart, gathered batch by batch.

    Parameters
    ----------
    X : ndarray of shape (n_clips, n_bins, n_frames)
        Features, possibly memory-mapped.
    y : Tensor of shape (n_clips, ...), default=None
        Target of every clip; None makes a window its own target.
    n_frames : int
        Length of a window.
    hop : int
        Frames between windows; the last one is flush with the clip's end.
    """

    def __init__(self, X, y, n_frames, hop):
        self.X = X
        self.y = y
        self.n_frames = n_frames
        self.starts = np.array(window_starts(X.shape[2], n_frames, hop))

    def __len__(self):
        return len(self.X) * len(self.starts)

    def __getitem__(self, index):
        windows, targets = self.__getitems__([index])
        return windows[0], targets[0]

    def __getitems__(self, indices):
        """A batch, which must not be collated any further."""
        clips, starts = np.divmod(indices, len(self.starts))
        views = sliding_window_view(self.X, self.n_frames, axis=2)
        windows = torch.from_numpy(views[clips, :, self.starts[starts]])
        return windows, windows if self.y is None else self.y[clips]


def as_it_is(batch):
    """Collate function of batches that come in one piece."""
    return batch


def chunks_of_windows(clip, n_frames, starts, chunk=_CHUNK):
    """Yield the windows of one clip, no more than `chunk` at a time.

    Parameters
    ----------
    clip : ndarray of shape (n_bins, n_frames)
        Features of the clip.
    n_frames : int
        Length of a window.
    starts : sequence of int
        First frames of the windows.
    chunk : int, default=64
        Most windows at a time.

    Yields
    ------
    Tensor of shape (n_windows, n_bins, n_frames)
        Windows.
    """
    views = sliding_window_view(clip, n_frames, axis=1).transpose(1, 0, 2)
    for first in range(0, len(starts), chunk):
        yield torch.from_numpy(views[starts[first : first + chunk]])


class OverlapMean:
    """Mean over all windows that cover a place of the clip.

    Parameters
    ----------
    n_bins, n_frames : int
        Size of the clip.
    starts : sequence of int
        First frames of the windows to come.
    """

    def __init__(self, n_bins, n_frames, starts):
        self.total = np.zeros((n_bins, n_frames))
        self.count = np.zeros(n_frames)
        self.starts = iter(starts)

    def add(self, windows):
        """Add the next windows (n_windows, n_bins, n_frames)."""
        for window, start in zip(windows, self.starts):
            self.total[:, start : start + window.shape[1]] += window
            self.count[start : start + window.shape[1]] += 1

    def mean(self):
        """The mean, NaN where no window was."""
        return self.total / np.where(self.count, self.count, np.nan)
