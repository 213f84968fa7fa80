"""MobileFaceNet: a light convolutional embedding network for spectrograms."""

import math

import torch
from torch import nn

from sk_asd.networks._common import as_image, check_positive, scaled_channels
from sk_asd.networks._prelu import PReLU

# Rows (t, c, n, s): expansion, output channels, repeats, stride of the first repeat.
SETTINGS = {
    "aithu": ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 2), (4, 128, 1, 2), (2, 128, 2, 1)),
    "paper": ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1)),
    "cqupt": ((2, 128, 2, 2), (4, 128, 2, 2), (4, 128, 2, 2)),
}
_STEM_CHANNELS = 64
_LAST_CHANNELS = 512


def _conv_bn(in_channels, out_channels, kernel, *, stride=1, depthwise=False, act=True):
    """Convolution without bias, batch normalisation and, unless `act` is False, PReLU."""
    padding = 1 if kernel == 3 else 0
    groups = in_channels if depthwise else 1
    layers = [
        nn.Conv2d(in_channels, out_channels, kernel, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels),
    ]
    if act:
        layers.append(PReLU(out_channels))
    return nn.Sequential(*layers)


class _SqueezeExcitation(nn.Module):
    """Scale every channel by a gate computed from the means of all (Hu et al. 2018)."""

    def __init__(self, channels, reduction):
        super().__init__()
        hidden = max(1, channels // reduction)
        self.gate = nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels), nn.Sigmoid()
        )

    def forward(self, x):
        return x * self.gate(x.mean(dim=(2, 3)))[:, :, None, None]


class _Bottleneck(nn.Module):
    """Inverted residual: 1x1 expansion, 3x3 depthwise, linear 1x1 projection."""

    def __init__(self, in_channels, out_channels, *, expansion, stride, se, se_reduction):
        super().__init__()
        hidden = in_channels * expansion
        layers = [
            _conv_bn(in_channels, hidden, 1),
            _conv_bn(hidden, hidden, 3, stride=stride, depthwise=True),
            _conv_bn(hidden, out_channels, 1, act=False),
        ]
        if se == "depthwise":
            layers.insert(2, _SqueezeExcitation(hidden, se_reduction))
        elif se == "output":
            layers.append(_SqueezeExcitation(out_channels, se_reduction))
        self.layers = nn.Sequential(*layers)
        self.skip = stride == 1 and in_channels == out_channels

    def forward(self, x):
        y = self.layers(x)
        return x + y if self.skip else y


class MobileFaceNet(nn.Module):
    """MobileFaceNet: spectrogram windows in, embeddings out.

    Inverted residual bottlenecks between a 3x3 stem and a global depthwise convolution, which
    learns a weight for every place of the last map instead of averaging over it. Its kernel is
    that map, so it needs to know the size of the input.

    Parameters
    ----------
    embedding_dim : int, default=128
        Width of the embedding.
    setting : {"aithu", "paper", "cqupt"} or sequence of (t, c, n, s), default="aithu"
        Rows of bottlenecks: expansion, output channels, repeats, stride of the first repeat.
        ``"paper"`` is the original, ``"aithu"`` strides once more in the third row and costs half,
        ``"cqupt"`` has six wide bottlenecks.
    input_size : tuple of int (bins, frames), default=None
        Size of the inputs, which fixes the kernel of the global depthwise convolution. With None
        the network takes inputs of any and varying size: an average over the last map and a 1x1
        depthwise convolution stand in.
    width : float, default=1.0
        Multiplier of all channel numbers, which are rounded to a multiple of 8 and at least 8.
    squeeze_excitation : {None, "output", "depthwise"}, default=None
        Where the bottlenecks have squeeze-and-excitation: nowhere, on their output before the
        residual sum, or after the depthwise convolution.
    se_reduction : int, default=16
        Divisor of the channels inside squeeze-and-excitation.
    in_channels : int, default=1
        Channels of the input.

    Raises
    ------
    ValueError
        If a parameter is out of range, or an input has another shape than announced.

    See Also
    --------
    MFNSE : The same network with squeeze-and-excitation.

    Notes
    -----
    ========  =============================  ====================  ===================
    setting   input (channels, bins,         all parameters        with
              frames)                                              squeeze-excitation
    ========  =============================  ====================  ===================
    paper     (3, 112, 96)                   999,552
    paper     (1, 1025, 192)                 1,376,256             1,400,996
    paper     (1, 128, 192)                  1,026,048             1,050,788
    cqupt     (1, 1025, 192)                 1,187,200             1,200,304
    cqupt     (1, 128, 192)                  836,992               850,096
    aithu     (1, 1025, 192)                 1,078,272             1,103,012
    aithu     (1, 128, 192)                  989,184               1,013,924
    ========  =============================  ====================  ===================

    Counted is every trainable parameter (convolutions, affine batch normalisation, PReLU) up to and
    with the 128-dimensional embedding, without a classification head.

    In training mode a batch of one clip raises ValueError, since batch normalisation has no
    variance to estimate from a 1x1 map; use ``drop_last`` or call ``eval()``.

    References
    ----------
    Chen et al., "MobileFaceNets: Efficient CNNs for accurate real-time face verification on mobile
    devices", CCBR 2018, table 1. Rows ``"aithu"``: DCASE-AITHU/classify_ad_23; rows ``"cqupt"``:
    Liu et al., "Anomalous sound detection using spectral-temporal information fusion", ICASSP 2022.

    Examples
    --------
    >>> import torch
    >>> from sk_asd.networks import MobileFaceNet
    >>> net = MobileFaceNet(input_size=(128, 192), width=0.25).eval()
    >>> net(torch.zeros(4, 128, 192)).shape
    torch.Size([4, 128])
    """

    def __init__(
        self,
        embedding_dim=128,
        setting="aithu",
        *,
        input_size=None,
        width=1.0,
        squeeze_excitation=None,
        se_reduction=16,
        in_channels=1,
    ):
        super().__init__()
        check_positive(
            embedding_dim=embedding_dim,
            width=width,
            se_reduction=se_reduction,
            in_channels=in_channels,
        )
        if squeeze_excitation not in (None, "output", "depthwise"):
            raise ValueError(
                "squeeze_excitation must be None, 'output' or 'depthwise', "
                f"got {squeeze_excitation!r}."
            )
        rows = _rows(setting)
        self.in_channels = in_channels
        self.input_size = None if input_size is None else _size(input_size)

        channels = scaled_channels(_STEM_CHANNELS, width)
        last = scaled_channels(_LAST_CHANNELS, width)
        self.stem = nn.Sequential(
            _conv_bn(in_channels, channels, 3, stride=2),
            _conv_bn(channels, channels, 3, depthwise=True),
        )
        blocks, total_stride = [], 2
        for expansion, out, repeats, stride in rows:
            out = scaled_channels(out, width)
            for i in range(repeats):
                blocks.append(
                    _Bottleneck(
                        channels,
                        out,
                        expansion=expansion,
                        stride=stride if i == 0 else 1,
                        se=squeeze_excitation,
                        se_reduction=se_reduction,
                    )
                )
                channels = out
            total_stride *= stride
        self.blocks = nn.Sequential(*blocks)
        self.expand = _conv_bn(channels, last, 1)
        if self.input_size is None:
            self.pool, kernel = nn.AdaptiveAvgPool2d(1), 1
        else:
            # Every stride s maps n to ceil(n / s), and ceilings of divisions compose.
            self.pool = nn.Identity()
            kernel = tuple(math.ceil(n / total_stride) for n in self.input_size)
        self.global_depthwise = nn.Sequential(
            nn.Conv2d(last, last, kernel, groups=last, bias=False), nn.BatchNorm2d(last)
        )
        self.embed = _conv_bn(last, embedding_dim, 1, act=False)
        self._initialise()
        # On a CPU a training step is a third faster with channels as the last axis in memory.
        self.to(memory_format=torch.channels_last)

    def _initialise(self):
        """Draw convolutions from N(0, 2 / (kernel area x output channels)), as the original."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                area = math.prod(module.kernel_size)
                nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / (area * module.out_channels)))

    def forward(self, x):
        """Embed spectrogram windows.

        Parameters
        ----------
        x : Tensor of shape (batch, bins, frames) or (batch, channels, bins, frames)
            Windows of a spectrogram.

        Returns
        -------
        Tensor of shape (batch, embedding_dim)
            Embeddings, not normalised.
        """
        return self.embed(self._last_map(x)).flatten(1)

    def penultimate(self, x):
        """Output of the layer before the last one.

        Parameters
        ----------
        x : Tensor of shape (batch, bins, frames) or (batch, channels, bins, frames)
            Windows of a spectrogram.

        Returns
        -------
        Tensor of shape (batch, d)
            Channels of the global depthwise convolution; 512 at width 1.
        """
        return self._last_map(x).flatten(1)

    def _last_map(self, x):
        x = as_image(x, self.in_channels)
        if self.input_size is not None and tuple(x.shape[2:]) != self.input_size:
            raise ValueError(
                f"The network was built for input_size={self.input_size}, got inputs of "
                f"{tuple(x.shape[2:])} (bins, frames); input_size=None takes any size."
            )
        x = self.expand(self.blocks(self.stem(x)))
        return self.global_depthwise(self.pool(x))


class MFNSE(MobileFaceNet):
    """MobileFaceNet with squeeze-and-excitation on the output of every bottleneck.

    Parameters
    ----------
    embedding_dim : int, default=128
        Width of the embedding.
    setting : {"aithu", "paper", "cqupt"} or sequence of (t, c, n, s), default="aithu"
        Rows of bottlenecks, see :class:`MobileFaceNet`.
    squeeze_excitation : {"output", "depthwise"}, default="output"
        Where the bottlenecks have squeeze-and-excitation.
    **params
        Other parameters of :class:`MobileFaceNet`.

    See Also
    --------
    MobileFaceNet : The network, its shapes and parameter counts.

    References
    ----------
    Hu et al., "Squeeze-and-excitation networks", CVPR 2018.

    Examples
    --------
    >>> import torch
    >>> from sk_asd.networks import MFNSE
    >>> MFNSE(width=0.25).eval()(torch.zeros(4, 128, 192)).shape
    torch.Size([4, 128])
    """

    def __init__(
        self, embedding_dim=128, setting="aithu", *, squeeze_excitation="output", **params
    ):
        super().__init__(embedding_dim, setting, squeeze_excitation=squeeze_excitation, **params)


def _rows(setting):
    """Rows of a named or given setting, checked."""
    if isinstance(setting, str):
        if setting not in SETTINGS:
            raise ValueError(
                f"setting must be one of {sorted(SETTINGS)} or rows (t, c, n, s), got {setting!r}."
            )
        return SETTINGS[setting]
    try:
        rows = tuple(tuple(int(v) for v in row) for row in setting)
    except TypeError:
        rows = ()
    if not rows or any(len(row) != 4 or min(row) < 1 for row in rows):
        raise ValueError(
            f"setting must hold rows of 4 integers >= 1 (t, c, n, s), got {setting!r}."
        )
    return rows


def _size(input_size):
    """Check `input_size` and return it as a tuple of two integers."""
    size = tuple(int(n) for n in input_size)
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"input_size must be (bins, frames), both >= 1, got {input_size!r}.")
    return size
