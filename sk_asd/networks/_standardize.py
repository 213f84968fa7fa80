"""Standardisation of the bins of a spectrogram as a layer."""

import torch
from torch import nn


class BinStandardizer(nn.Module):
    """Subtract a mean and divide by a scale, each per frequency bin.

    The statistics are those of the training data and are not trained, so that a network carries its
    input scaling with it.

    Parameters
    ----------
    mean : Tensor of shape (n_bins,)
        Mean of every bin.
    std : Tensor of shape (n_bins,)
        Standard deviation of every bin; bins that are constant (zero) are only centred.

    Examples
    --------
    >>> import torch
    >>> from sk_asd.networks._standardize import BinStandardizer
    >>> layer = BinStandardizer(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 0.0]))
    >>> layer(torch.tensor([[[3.0], [4.0]]]))
    tensor([[[1.],
             [2.]]])
    """

    def __init__(self, mean, std):
        super().__init__()
        std = torch.where(std > 0, std, torch.ones_like(std))
        self.register_buffer("mean", mean[:, None])
        self.register_buffer("std", std[:, None])

    def forward(self, x):
        """Standardise windows.

        Parameters
        ----------
        x : Tensor of shape (batch, n_bins, n_frames)
            Windows of a spectrogram.

        Returns
        -------
        Tensor of shape (batch, n_bins, n_frames)
            Standardised windows.
        """
        return (x - self.mean) / self.std
