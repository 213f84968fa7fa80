"""ECAPA-TDNN: one-dimensional convolutions over time, and attentive statistics."""

import torch
from torch import nn

from sk_asd.networks._common import as_image, check_positive, scaled_channels

_SCALE = 8
_DILATIONS = (2, 3, 4)
_AGGREGATED = 1536
_SE_CHANNELS = 128
_MIN_VARIANCE = 1e-4


def _conv(in_channels, out_channels, kernel=1, dilation=1):
    """Convolution that keeps the frames, ReLU and batch normalisation, in this order."""
    padding = dilation * (kernel // 2)
    return nn.Sequential(
        nn.Conv1d(in_channels, out_channels, kernel, padding=padding, dilation=dilation),
        nn.ReLU(),
        nn.BatchNorm1d(out_channels),
    )


class _Res2(nn.Module):
    """Convolutions of 8 groups of channels, each fed with the sum of its group and the last output.

    The last group passes as it is (Gao et al. 2019).
    """

    def __init__(self, channels, dilation):
        super().__init__()
        group = channels // _SCALE
        self.convs = nn.ModuleList(
            _conv(group, group, kernel=3, dilation=dilation) for _ in range(_SCALE - 1)
        )

    def forward(self, x):
        *groups, last = x.chunk(_SCALE, dim=1)
        outputs = []
        for group, conv in zip(groups, self.convs):
            outputs.append(conv(group + outputs[-1] if outputs else group))
        return torch.cat([*outputs, last], dim=1)


class _SqueezeExcitation(nn.Module):
    """Scale every channel by a gate computed from the means of all over time."""

    def __init__(self, channels, hidden):
        super().__init__()
        self.gate = nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels), nn.Sigmoid()
        )

    def forward(self, x):
        return x * self.gate(x.mean(dim=2))[:, :, None]


class _Block(nn.Sequential):
    """SE-Res2 block with its residual sum."""

    def __init__(self, channels, dilation, se_channels):
        super().__init__(
            _conv(channels, channels),
            _Res2(channels, dilation),
            _conv(channels, channels),
            _SqueezeExcitation(channels, se_channels),
        )

    def forward(self, x):
        return x + super().forward(x)


class _AttentiveStatistics(nn.Module):
    """Mean and standard deviation over time, with weights for every channel and frame.

    The weights are computed from each frame beside the plain mean and standard deviation.
    """

    def __init__(self, channels, hidden):
        super().__init__()
        self.attention = nn.Sequential(
            _conv(3 * channels, hidden), nn.Tanh(), nn.Conv1d(hidden, channels, 1)
        )

    def forward(self, x):
        even = torch.full_like(x, 1 / x.shape[2])
        context = [s.unsqueeze(2).expand_as(x) for s in _moments(x, even)]
        weights = self.attention(torch.cat([x, *context], dim=1)).softmax(dim=2)
        return torch.cat(_moments(x, weights), dim=1)


def _moments(x, weights):
    """Mean and standard deviation over time under weights, both of shape (batch, channels)."""
    mean = (weights * x).sum(dim=2)
    variance = (weights * (x - mean.unsqueeze(2)) ** 2).sum(dim=2)
    return mean, variance.clamp(min=_MIN_VARIANCE).sqrt()


class ECAPATDNN(nn.Module):
    """ECAPA-TDNN: spectrogram windows in, embeddings out.

    The bins are the channels of one-dimensional convolutions over time: one of five frames, three
    SE-Res2 blocks of dilations 2, 3 and 4, each fed with the sum of all outputs before it, and one
    of a single frame over the three blocks' outputs. Then come mean and standard deviation over
    time under learnt weights, and a fully connected layer between two batch normalisations.

    Parameters
    ----------
    n_bins : int
        Number of frequency bins of the inputs.
    embedding_dim : int, default=192
        Width of the embedding.
    channels : int, default=512
        Channels of the blocks, rounded to a multiple of 8; the original has 512 or 1024.
    width : float, default=1.0
        Multiplier of all channel numbers (`channels`, 1536 of the last convolution, 128 of
        squeeze-and-excitation, `attention_channels`), which are rounded to a multiple of 8 and at
        least 8.
    attention_channels : int, default=128
        Channels inside the attention; 256 in the code of TaoRuijie.

    Raises
    ------
    ValueError
        If a parameter is out of range, or an input has another shape than announced.

    See Also
    --------
    MobileFaceNet : A network of a sixth of the parameters.
    Cnn6 : Two-dimensional convolutions.

    Notes
    -----
    ========  ==========  ==================  ==================
    n_bins    channels    attention_channels  all parameters
    ========  ==========  ==================  ==================
    80        512         128                 6,191,360
    80        1024        128                 14,657,728
    64        512         128                 6,150,400
    80        512         256                 6,978,176
    80        1024        256                 15,444,544
    ========  ==========  ==================  ==================

    Counted is everything up to and with the 192-dimensional embedding, without a classification
    head; the paper has 6.2 M and 14.7 M. Every further bin adds ``5 * channels``.

    Any number of frames from 1 on will do: convolutions pad with zeros, and variances are divided
    by the number of frames and not less than 1e-4. In training mode a batch of one clip raises
    ValueError, since batch normalisation has no variance to estimate from one vector of statistics;
    use ``drop_last`` or call ``eval()``.

    References
    ----------
    Desplanques et al., "ECAPA-TDNN: Emphasized channel attention, propagation and aggregation in
    TDNN based speaker verification", Interspeech 2020. The sums between the blocks, the order of
    convolution, ReLU and batch normalisation, and the tanh of the attention: TaoRuijie/ECAPA-TDNN.

    Examples
    --------
    >>> import torch
    >>> from sk_asd.networks import ECAPATDNN
    >>> ECAPATDNN(n_bins=64, width=0.25).eval()(torch.zeros(4, 64, 100)).shape
    torch.Size([4, 192])
    """

    def __init__(
        self, n_bins, embedding_dim=192, *, channels=512, width=1.0, attention_channels=128
    ):
        super().__init__()
        check_positive(
            n_bins=n_bins,
            embedding_dim=embedding_dim,
            channels=channels,
            width=width,
            attention_channels=attention_channels,
        )
        self.n_bins = n_bins

        channels = scaled_channels(channels, width)
        aggregated = scaled_channels(_AGGREGATED, width)
        se_channels = scaled_channels(_SE_CHANNELS, width)
        self.stem = _conv(n_bins, channels, kernel=5)
        self.blocks = nn.ModuleList(_Block(channels, d, se_channels) for d in _DILATIONS)
        self.aggregate = nn.Sequential(nn.Conv1d(3 * channels, aggregated, 1), nn.ReLU())
        self.pool = _AttentiveStatistics(aggregated, scaled_channels(attention_channels, width))
        self.embed = nn.Sequential(
            nn.BatchNorm1d(2 * aggregated),
            nn.Linear(2 * aggregated, embedding_dim),
            nn.BatchNorm1d(embedding_dim),
        )

    def forward(self, x):
        """Embed spectrogram windows.

        Parameters
        ----------
        x : Tensor of shape (batch, n_bins, frames) or (batch, 1, n_bins, frames)
            Windows of a spectrogram, with any number of frames.

        Returns
        -------
        Tensor of shape (batch, embedding_dim)
            Embeddings, not normalised.
        """
        return self.embed(self.penultimate(x))

    def penultimate(self, x):
        """Output of the layer before the last one.

        Parameters
        ----------
        x : Tensor of shape (batch, n_bins, frames) or (batch, 1, n_bins, frames)
            Windows of a spectrogram.

        Returns
        -------
        Tensor of shape (batch, d)
            Attentive statistics over time; 3072 at width 1.
        """
        x = as_image(x, 1).squeeze(1)
        if x.shape[1] != self.n_bins:
            raise ValueError(
                f"The network was built for n_bins={self.n_bins}, got inputs of {x.shape[1]} bins."
            )
        total = self.stem(x)
        outputs = []
        for block in self.blocks:
            outputs.append(block(total))
            total = total + outputs[-1]
        return self.pool(self.aggregate(torch.cat(outputs, dim=1)))
