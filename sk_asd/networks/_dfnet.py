"""DFNet: the U-net of DeepFilterNet, simplified, as an interpolation network."""

from torch import nn

from sk_asd.networks._common import check_positive
from sk_asd.networks._ignn import check_context, check_window

_STRIDE = 4  # of the encoder along the bins
_MULTIPLE = 8  # of the bins, which the original asks for


def _conv(in_channels, out_channels, kernel, *, stride=1, transposed=False):
    """Convolution over (time, bins), batch normalisation and ReLU.

    Several channels are convolved each on its own and then mixed. An output frame sees its own
    input frame and the `kernel` - 1 before it.
    """
    groups = in_channels if in_channels == out_channels else 1
    layer = nn.ConvTranspose2d if transposed else nn.Conv2d
    more = {"output_padding": (0, stride - 1)} if transposed else {}
    return nn.Sequential(
        nn.ZeroPad2d((0, 0, kernel - 1, 0)),
        layer(
            in_channels,
            out_channels,
            (kernel, 3),
            stride=(1, stride),
            padding=(0, 1),
            groups=groups,
            bias=False,
            **more,
        ),
        nn.Identity() if groups == 1 else nn.Conv2d(out_channels, out_channels, 1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )


def _pathway(channels):
    """How the encoder's output of one level reaches the decoder."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()
    )


class DFNet(nn.Module):
    """DFNet of the AITHU report: a U-net over the bins with a recurrent layer at its bottom.

    Four convolutions, the second and third of stride 2 along the bins; beside them two fully
    connected layers on every frame, in place of two convolutions of the original; a GRU over the
    frames on the sum of both; the way back up, each level joined by what the encoder had there; a
    fully connected layer on all frames together. The second stage of the original, a complex filter
    on the spectrum, and its mask have no part in predicting a log-mel frame.

    Parameters
    ----------
    n_bins : int
        Number of frequency bins of the inputs, a multiple of 8, as in the original.
    n_frames : int
        Frames of a window, that to predict included, at least 2.
    n_outputs : int
        Numbers that describe the frame to predict; ``2 * n_components * n_bins`` in the report.
    channels : int, default=16
        Channels of the convolutions.
    hidden : int, default=256
        Width of the GRU and of the first fully connected layer.

    Raises
    ------
    ValueError
        If a parameter is out of range, or an input has another shape than announced.

    See Also
    --------
    IGNN : Recurrent layers alone.

    Notes
    -----
    With three components, as many outputs as ``6 * n_bins``:

    ======  ========  ==========
    n_bins  n_frames  parameters
    ======  ========  ==========
    128     100       10,623,905
    64      100       2,979,873
    64      30        1,259,553
    ======  ========  ==========

    In training mode batch normalisation needs more than one number a channel, which a window of two
    frames has already.

    References
    ----------
    AITHU report for DCASE 2022 task 2, section 3.2. Schröter et al., "DeepFilterNet: A low
    complexity speech enhancement framework for full-band audio based on deep filtering", ICASSP
    2022, and the first version of its code (Rikorose/DeepFilterNet), whose kernels of two frames
    and three bins, separable convolutions and 16 channels these are. What the simplification keeps
    and drops is this package's reading of two sentences.

    Examples
    --------
    >>> import torch
    >>> from sk_asd.networks import DFNet
    >>> DFNet(n_bins=64, n_frames=30, n_outputs=2 * 3 * 64)(torch.zeros(4, 64, 29)).shape
    torch.Size([4, 384])
    """

    def __init__(self, n_bins, n_frames, n_outputs, *, channels=16, hidden=256):
        super().__init__()
        check_window(n_bins, n_frames, n_outputs)
        check_positive(channels=channels, hidden=hidden)
        if n_bins % _MULTIPLE:
            raise ValueError(f"DFNet needs n_bins to be a multiple of {_MULTIPLE}, got {n_bins!r}.")
        self.n_bins = n_bins
        self.n_frames = n_frames
        self.channels = channels
        inner = channels * n_bins // _STRIDE
        self.encoder = nn.ModuleList(
            [
                _conv(1, channels, 2),
                _conv(channels, channels, 2, stride=2),
                _conv(channels, channels, 2, stride=2),
                _conv(channels, channels, 2),
            ]
        )
        self.beside = nn.Sequential(
            nn.Linear(n_bins, hidden), nn.ReLU(), nn.Linear(hidden, inner), nn.ReLU()
        )
        self.gru = nn.GRU(inner, hidden, batch_first=True)
        self.expand = nn.Sequential(nn.Linear(hidden, inner), nn.ReLU())
        self.pathways = nn.ModuleList(_pathway(channels) for _ in range(4))
        self.decoder = nn.ModuleList(
            [
                _conv(channels, channels, 1),
                _conv(channels, channels, 1, stride=2, transposed=True),
                _conv(channels, channels, 1, stride=2, transposed=True),
                nn.Conv2d(channels, 1, (1, 3), padding=(0, 1)),
            ]
        )
        self.head = nn.Linear((n_frames - 1) * n_bins, n_outputs)

    def forward(self, x):
        """Describe the frame to predict.

        Parameters
        ----------
        x : Tensor of shape (batch, n_bins, n_frames - 1)
            The other frames of windows of a spectrogram.

        Returns
        -------
        Tensor of shape (batch, n_outputs)
            Raw outputs.
        """
        check_context(x, self.n_bins, self.n_frames)
        x = x.transpose(1, 2)
        level, levels = x[:, None], []
        for conv in self.encoder:
            level = conv(level)
            levels.append(level)
        bottom = level.transpose(1, 2).flatten(2) + self.beside(x)
        up = self.expand(self.gru(bottom)[0])
        up = up.unflatten(2, (self.channels, -1)).transpose(1, 2)
        for pathway, skip, conv in zip(self.pathways, reversed(levels), self.decoder):
            up = conv(pathway(skip) + up)
        return self.head(up.flatten(1))
