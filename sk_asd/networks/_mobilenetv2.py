"""MobileNetV2, as Keras has it."""

import torch
import torch.nn.functional as F
from torch import nn

from sk_asd.networks._common import as_image, check_positive

# Rows (t, c, n, s): expansion, output channels, repeats, stride of the first repeat.
_ROWS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_STEM_CHANNELS = 32
_LAST_CHANNELS = 1280


class MobileNetV2(nn.Module):
    """MobileNetV2: spectrogram windows in, logits of classes or embeddings out.

    Parameters
    ----------
    n_classes : int, default=None
        Number of outputs of a last linear layer; None for none, which leaves embeddings of 1280
        values.
    width : float, default=0.5
        Multiplier of the channel numbers, which are rounded to a multiple of 8; that of the last
        convolution, 1280, does not shrink with it.
    in_channels : int, default=1
        Channels of the input. Windows without an axis of channels are repeated, so that 3 takes a
        spectrogram as a grey image.
    momentum : float, default=0.01
        Momentum of batch normalisation. That of Keras, 0.001, leaves the running statistics of a
        training of a few thousand batches where they began, and the outputs constant.

    Raises
    ------
    ValueError
        If a parameter is out of range, or an input has another shape than announced.

    See Also
    --------
    MobileFaceNet : A network of the same blocks.

    Notes
    -----
    With ``width=0.5`` and three channels 687,680 trainable parameters without the last layer, and
    1,968,680 with that of 1000 classes. Keras, which counts the running statistics as well, says
    706,224 and 1,987,224.

    Strided convolutions pad as Keras does, an even axis at its end alone.

    References
    ----------
    Sandler, M. et al. "MobileNetV2: Inverted residuals and linear bottlenecks", CVPR 2018.

    Examples
    --------
    >>> import torch
    >>> from sk_asd.networks import MobileNetV2
    >>> MobileNetV2(n_classes=6).eval()(torch.zeros(4, 128, 64)).shape
    torch.Size([4, 6])
    """

    def __init__(self, n_classes=None, *, width=0.5, in_channels=1, momentum=0.01):
        super().__init__()
        check_positive(width=width, in_channels=in_channels, momentum=momentum)
        self.in_channels = in_channels
        channels = _channels(_STEM_CHANNELS * width)
        layers = [_ConvBN(in_channels, channels, 3, stride=2)]
        for expansion, out, repeats, stride in _ROWS:
            out = _channels(out * width)
            for i in range(repeats):
                layers.append(_Bottleneck(channels, out, expansion, stride if i == 0 else 1))
                channels = out
        last = _channels(_LAST_CHANNELS * max(width, 1.0))
        self.layers = nn.Sequential(*layers, _ConvBN(channels, last, 1))
        self.classify = nn.Identity()
        if n_classes is not None:
            check_positive(n_classes=n_classes)
            self.classify = nn.Linear(last, n_classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.BatchNorm2d):
                module.momentum = momentum
        # On a CPU convolutions are faster with channels as the last axis in memory.
        self.to(memory_format=torch.channels_last)

    def forward(self, x):
        """Classify or embed windows.

        Parameters
        ----------
        x : Tensor of shape (batch, bins, frames) or (batch, channels, bins, frames)
            Windows of a spectrogram, of any size.

        Returns
        -------
        Tensor of shape (batch, n_classes) or (batch, 1280)
            Logits, or means of the last map where there are no classes.
        """
        if x.ndim == 3:
            x = x.unsqueeze(1).expand(-1, self.in_channels, -1, -1)
        x = self.layers(as_image(x, self.in_channels))
        return self.classify(x.mean(dim=(2, 3)))


class _ConvBN(nn.Module):
    """Convolution without bias, batch normalisation and, unless `act` is False, ReLU6."""

    def __init__(self, in_channels, out_channels, kernel, *, stride=1, depthwise=False, act=True):
        super().__init__()
        groups = in_channels if depthwise else 1
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(out_channels, eps=1e-3)
        self.act = nn.ReLU6() if act else nn.Identity()

    def forward(self, x):
        if self.conv.kernel_size[0] == 3:
            height, width = (self._before(n) for n in x.shape[2:])
            x = F.pad(x, (width, 1, height, 1))
        return self.act(self.norm(self.conv(x)))

    def _before(self, n):
        """Padding before an axis: none where a stride of two fits an even length."""
        return int(self.conv.stride[0] == 1 or n % 2)


class _Bottleneck(nn.Module):
    """Inverted residual: 1x1 expansion, 3x3 depthwise, linear 1x1 projection."""

    def __init__(self, in_channels, out_channels, expansion, stride):
        super().__init__()
        hidden = in_channels * expansion
        layers = [] if expansion == 1 else [_ConvBN(in_channels, hidden, 1)]
        self.layers = nn.Sequential(
            *layers,
            _ConvBN(hidden, hidden, 3, stride=stride, depthwise=True),
            _ConvBN(hidden, out_channels, 1, act=False),
        )
        self.skip = stride == 1 and in_channels == out_channels

    def forward(self, x):
        y = self.layers(x)
        return x + y if self.skip else y


def _channels(n):
    """The multiple of 8 nearest to `n`, but no less than nine tenths of it (and at least 8)."""
    rounded = max(8, int(n + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * n else rounded
