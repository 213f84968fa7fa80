"""Cnn6: the small convolutional network of PANNs."""

import torch
import torch.nn.functional as F
from torch import nn

from sk_asd.networks._common import as_image, check_positive, scaled_channels

_CHANNELS = (64, 128, 256, 512)


class Cnn6(nn.Module):
    """Cnn6: spectrogram windows in, embeddings out.

    Batch normalisation of every bin; four times a 5x5 convolution, batch normalisation, ReLU, 2x2
    average pooling and dropout; mean over frequency; maximum plus mean over time; a fully connected
    layer with ReLU.

    Parameters
    ----------
    n_bins : int
        Number of frequency bins of the inputs.
    embedding_dim : int, default=512
        Width of the embedding.
    width : float, default=1.0
        Multiplier of the channel numbers 64, 128, 256 and 512, which are rounded to a multiple of 8
        and at least 8.
    dropout : tuple of float (convolution, embedding), default=(0.2, 0.5)
        Dropout rate after every block, and before the fully connected layer.
    in_channels : int, default=1
        Channels of the input.

    Raises
    ------
    ValueError
        If a parameter is out of range, or an input has another shape than announced.

    See Also
    --------
    MobileFaceNet : A network of a quarter of the parameters.

    Notes
    -----
    4,567,104 trainable parameters at ``n_bins=64``, with everything up to and with the
    512-dimensional embedding and without a classification head; every further bin adds 2.

    A pooling keeps an axis of length 1 as it is, so that inputs as small as one bin and one frame
    pass; from 16 bins and 16 frames on the network is the original. In training mode a batch of a
    single clip works unless the clip is a single frame, from which batch normalisation has no
    variance to estimate.

    The embedding is returned without the dropout that PANNs puts on it when it is read out; its own
    head does not see that dropout either.

    References
    ----------
    Kong et al., "PANNs: Large-scale pretrained audio neural networks for audio pattern
    recognition", IEEE/ACM TASLP 28, 2020.

    Examples
    --------
    >>> import torch
    >>> from sk_asd.networks import Cnn6
    >>> Cnn6(n_bins=64, width=0.25).eval()(torch.zeros(4, 64, 100)).shape
    torch.Size([4, 512])
    """

    def __init__(self, n_bins, embedding_dim=512, *, width=1.0, dropout=(0.2, 0.5), in_channels=1):
        super().__init__()
        check_positive(
            n_bins=n_bins, embedding_dim=embedding_dim, width=width, in_channels=in_channels
        )
        if len(dropout) != 2 or not all(0 <= p < 1 for p in dropout):
            raise ValueError(f"dropout must be two rates in [0, 1), got {dropout!r}.")
        self.n_bins = n_bins
        self.in_channels = in_channels
        self.dropout = tuple(dropout)

        self.normalise = nn.BatchNorm2d(n_bins)
        self.blocks = nn.ModuleList()
        channels = in_channels
        for out in _CHANNELS:
            out = scaled_channels(out, width)
            self.blocks.append(
                nn.Sequential(
                    nn.Conv2d(channels, out, 5, padding=2, bias=False),
                    nn.BatchNorm2d(out),
                    nn.ReLU(inplace=True),
                )
            )
            channels = out
        self.embed = nn.Linear(channels, embedding_dim)

        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(self.embed.bias)

    def forward(self, x):
        """Embed spectrogram windows.

        Parameters
        ----------
        x : Tensor of shape (batch, n_bins, frames) or (batch, channels, n_bins, frames)
            Windows of a spectrogram, with any number of frames.

        Returns
        -------
        Tensor of shape (batch, embedding_dim)
            Embeddings, not negative and not normalised.
        """
        x = F.dropout(self.penultimate(x), self.dropout[1], self.training)
        return torch.relu(self.embed(x))

    def penultimate(self, x):
        """Output of the layer before the last one.

        Parameters
        ----------
        x : Tensor of shape (batch, n_bins, frames) or (batch, channels, n_bins, frames)
            Windows of a spectrogram.

        Returns
        -------
        Tensor of shape (batch, d)
            Channels of the last block, pooled; 512 at width 1.
        """
        x = as_image(x, self.in_channels)
        if x.shape[2] != self.n_bins:
            raise ValueError(
                f"The network was built for n_bins={self.n_bins}, got inputs of {x.shape[2]} bins."
            )
        x = self.normalise(x.transpose(1, 2)).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
            x = F.avg_pool2d(x, [min(2, n) for n in x.shape[2:]])
            x = F.dropout(x, self.dropout[0], self.training)
        x = x.mean(dim=2)
        return x.amax(dim=2) + x.mean(dim=2)
