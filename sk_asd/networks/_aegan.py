"""AEGAN: a convolutional autoencoder as generator, and its discriminator."""

import torch
import torch.nn.functional as F
from torch import nn

from sk_asd.networks._common import as_image, check_positive, scaled_channels

_CHANNELS = (32, 64, 128, 256, 512)
NORMS = ("layer", "batch", "instance")


class AEGANEncoder(nn.Module):
    """Five convolutions that halve a window, and one over what remains.

    Parameters
    ----------
    size : tuple of int (bins, frames), default=(128, 128)
        Size of the windows.
    latent_dim : int, default=256
        Width of the latent vector.
    width : float, default=1.0
        Multiplier of the channel numbers 32, 64, 128, 256 and 512, which are rounded to a multiple
        of 8 and at least 8.
    norm : {"layer", "batch", "instance"}, default="layer"
        Normalisation after every convolution: over channels and places of a window, over the batch,
        or over the places of a channel.
    first_norm : bool, default=True
        Whether the first convolution has it as well.

    Raises
    ------
    ValueError
        If a parameter is out of range, or an input has another size.

    Notes
    -----
    5,390,848 parameters, 5,128,704 without the first normalisation.

    Examples
    --------
    >>> import torch
    >>> from sk_asd.networks._aegan import AEGANEncoder
    >>> AEGANEncoder(width=0.25)(torch.zeros(4, 128, 128)).shape
    torch.Size([4, 256])
    """

    def __init__(
        self, size=(128, 128), latent_dim=256, *, width=1.0, norm="layer", first_norm=True
    ):
        super().__init__()
        check_positive(latent_dim=latent_dim)
        self.size = _size(size)
        self.blocks, channels, rest = _halving_blocks(self.size, width, norm, first_norm)
        self.project = nn.Conv2d(channels, latent_dim, rest, bias=False)
        _initialise(self)

    def forward(self, x):
        """Encode windows.

        Parameters
        ----------
        x : Tensor of shape (batch, bins, frames) or (batch, 1, bins, frames)
            Windows of a spectrogram.

        Returns
        -------
        Tensor of shape (batch, latent_dim)
            Latent vectors.
        """
        return self.project(self.blocks(_window_image(x, self.size))).flatten(1)


class AEGANDecoder(nn.Module):
    """The encoder backwards: transposed convolutions from a latent vector to a window.

    Parameters
    ----------
    size : tuple of int (bins, frames), default=(128, 128)
        Size of the windows.
    latent_dim : int, default=256
        Width of the latent vector.
    width : float, default=1.0
        Multiplier of the channel numbers.
    norm : {"layer", "batch", "instance"}, default="layer"
        Normalisation after every convolution but the last.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Notes
    -----
    5,390,848 parameters.

    Examples
    --------
    >>> import torch
    >>> from sk_asd.networks._aegan import AEGANDecoder
    >>> AEGANDecoder(width=0.25)(torch.zeros(4, 256)).shape
    torch.Size([4, 128, 128])
    """

    def __init__(self, size=(128, 128), latent_dim=256, *, width=1.0, norm="layer"):
        super().__init__()
        check_positive(latent_dim=latent_dim)
        maps = _maps(_size(size))
        channels = [scaled_channels(c, width) for c in reversed(_CHANNELS)]
        layers = [
            nn.ConvTranspose2d(latent_dim, channels[0], maps[-1], bias=False),
            _norm(norm, channels[0], maps[-1]),
            nn.ReLU(),
        ]
        # From small to large; halving an odd axis drops a place, which is padded here.
        for c_in, c_out, large in zip(channels, [*channels[1:], 1], maps[-2::-1]):
            odd = tuple(n % 2 if n > 1 else 0 for n in large)
            layers.append(
                nn.ConvTranspose2d(c_in, c_out, **_halving(large), output_padding=odd, bias=False)
            )
            if c_out > 1:
                layers += [_norm(norm, c_out, large), nn.ReLU()]
        self.blocks = nn.Sequential(*layers, nn.Tanh())
        _initialise(self)

    def forward(self, z):
        """Decode latent vectors.

        Parameters
        ----------
        z : Tensor of shape (batch, latent_dim)
            Latent vectors.

        Returns
        -------
        Tensor of shape (batch, bins, frames)
            Windows with values between −1 and 1.
        """
        return self.blocks(z[:, :, None, None])[:, 0]


class AdaptiveLayerNorm(nn.Module):
    """Layer normalisation with a scale and a shift for every section.

    Parameters
    ----------
    n_features : int
        Width of the vectors.
    n_sections : int
        Number of sections.

    Notes
    -----
    A section that was not trained, given as −1, gets the mean scale and shift of the others.

    Examples
    --------
    >>> import torch
    >>> from sk_asd.networks._aegan import AdaptiveLayerNorm
    >>> layer = AdaptiveLayerNorm(2, n_sections=3)
    >>> layer(torch.tensor([[4.0, 6.0]]), torch.tensor([2])).detach()
    tensor([[-1.0000,  1.0000]])
    """

    def __init__(self, n_features, n_sections):
        super().__init__()
        check_positive(n_features=n_features, n_sections=n_sections)
        self.scale = nn.Parameter(torch.ones(n_sections, n_features))
        self.shift = nn.Parameter(torch.zeros(n_sections, n_features))

    def forward(self, z, section=None):
        """Normalise vectors.

        Parameters
        ----------
        z : Tensor of shape (batch, n_features)
            Vectors.
        section : Tensor of int of shape (batch,), default=None
            Section of each, from 0; −1 or None where it is not known.

        Returns
        -------
        Tensor of shape (batch, n_features)
            Normalised, scaled and shifted.
        """
        if section is None:
            section = torch.full((len(z),), -1, device=z.device)
        scale, shift = (
            torch.cat([values, values.mean(0, keepdim=True)])[section]
            for values in (self.scale, self.shift)
        )
        return F.layer_norm(z, z.shape[1:]) * scale + shift


class AEGANGenerator(nn.Module):
    """The autoencoder of AEGAN-AD: spectrogram windows in, their reconstructions out.

    Parameters
    ----------
    size : tuple of int (bins, frames), default=(128, 128)
        Size of the windows.
    latent_dim : int, default=256
        Width of the latent vector.
    width : float, default=1.0
        Multiplier of the channel numbers 32, 64, 128, 256 and 512, which are rounded to a multiple
        of 8 and at least 8.
    norm : {"layer", "batch", "instance"}, default="layer"
        Normalisation after the convolutions: over channels and places of a window, over the batch,
        or over the places of a channel.
    first_norm : bool, default=True
        Whether the first convolution has it as well.
    n_sections : int, default=None
        Sections of an adaptive layer normalisation of the latent vector; None for none.

    Raises
    ------
    ValueError
        If a parameter is out of range, or an input has another size.

    See Also
    --------
    AEGANDiscriminator : What it is trained against.

    Notes
    -----
    =============  ==============  ===============  =================  ============
    encoder        map at 128x128  decoder          map at 128x128     parameters
    =============  ==============  ===============  =================  ============
    conv 4x4 / 2   32, 64, 64      deconv 4x4       512, 4, 4
    conv 4x4 / 2   64, 32, 32      deconv 4x4 x 2   256, 8, 8
    conv 4x4 / 2   128, 16, 16     deconv 4x4 x 2   128, 16, 16
    conv 4x4 / 2   256, 8, 8       deconv 4x4 x 2   64, 32, 32
    conv 4x4 / 2   512, 4, 4       deconv 4x4 x 2   32, 64, 64
    conv 4x4       256             deconv 4x4 x 2   1, 128, 128
    5,390,848                      5,390,848                           10,781,696
    =============  ==============  ===============  =================  ============

    No convolution has a bias. The encoder has leaky ReLU of slope 0.2, the decoder ReLU and a
    hyperbolic tangent at its end. Windows of other sizes are halved as long as an axis has more
    than one place, and the kernel in the middle is what remains.

    References
    ----------
    Jiang, A. et al. "Unsupervised anomaly detection and localization of machine audio: A GAN-based
    approach", ICASSP 2023. AITHU report for DCASE 2022 task 2, section 3.3.

    Examples
    --------
    >>> import torch
    >>> from sk_asd.networks import AEGANGenerator
    >>> net = AEGANGenerator(width=0.25)
    >>> net(torch.zeros(4, 128, 128)).shape
    torch.Size([4, 128, 128])
    """

    def __init__(
        self,
        size=(128, 128),
        latent_dim=256,
        *,
        width=1.0,
        norm="layer",
        first_norm=True,
        n_sections=None,
    ):
        super().__init__()
        self.encoder = AEGANEncoder(size, latent_dim, width=width, norm=norm, first_norm=first_norm)
        self.style = None if n_sections is None else AdaptiveLayerNorm(latent_dim, n_sections)
        self.decoder = AEGANDecoder(size, latent_dim, width=width, norm=norm)

    def encode(self, x):
        """Encode windows.

        Parameters
        ----------
        x : Tensor of shape (batch, bins, frames)
            Windows.

        Returns
        -------
        Tensor of shape (batch, latent_dim)
            Latent vectors, before the adaptive layer normalisation.
        """
        return self.encoder(x)

    def decode(self, z, section=None):
        """Decode latent vectors.

        Parameters
        ----------
        z : Tensor of shape (batch, latent_dim)
            Latent vectors.
        section : Tensor of int of shape (batch,), default=None
            Section of each, for the adaptive layer normalisation; −1 where it is not known.

        Returns
        -------
        Tensor of shape (batch, bins, frames)
            Windows with values between −1 and 1.
        """
        return self.decoder(z if self.style is None else self.style(z, section))

    def forward(self, x, section=None):
        """Reconstruct windows.

        Parameters
        ----------
        x : Tensor of shape (batch, bins, frames)
            Windows.
        section : Tensor of int of shape (batch,), default=None
            Section of each, for the adaptive layer normalisation; −1 where it is not known.

        Returns
        -------
        Tensor of shape (batch, bins, frames)
            Windows with values between −1 and 1.
        """
        return self.decode(self.encode(x), section)


class AEGANDiscriminator(nn.Module):
    """The discriminator of AEGAN-AD: an encoder, a global depthwise convolution and a number.

    Parameters
    ----------
    size : tuple of int (bins, frames), default=(128, 128)
        Size of the windows.
    width : float, default=1.0
        Multiplier of the channel numbers 32, 64, 128, 256 and 512, which are rounded to a multiple
        of 8 and at least 8.
    norm : {"layer", "batch", "instance"}, default="layer"
        Normalisation after the convolutions. A gradient penalty wants one that keeps windows apart,
        which batch normalisation does not.

    Raises
    ------
    ValueError
        If a parameter is out of range, or an input has another size.

    See Also
    --------
    AEGANGenerator : Whose reconstructions it tells from windows; it has the table of layers.

    Notes
    -----
    3,303,425 parameters.

    Examples
    --------
    >>> import torch
    >>> from sk_asd.networks import AEGANDiscriminator
    >>> net = AEGANDiscriminator(width=0.25)
    >>> x = torch.zeros(4, 128, 128)
    >>> net(x).shape, net.embed(x).shape
    (torch.Size([4]), torch.Size([4, 128]))
    """

    def __init__(self, size=(128, 128), *, width=1.0, norm="layer"):
        super().__init__()
        self.size = _size(size)
        self.blocks, channels, rest = _halving_blocks(self.size, width, norm)
        self.global_depthwise = nn.Conv2d(channels, channels, rest, groups=channels, bias=False)
        self.head = nn.Sequential(nn.LayerNorm(channels), nn.LeakyReLU(0.2), nn.Linear(channels, 1))
        _initialise(self)

    def embed(self, x):
        """Embed windows.

        Parameters
        ----------
        x : Tensor of shape (batch, bins, frames)
            Windows.

        Returns
        -------
        Tensor of shape (batch, channels)
            Features that are matched, 512 of them at width 1.
        """
        return self.global_depthwise(self.blocks(_window_image(x, self.size))).flatten(1)

    def forward(self, x):
        """Judge windows.

        Parameters
        ----------
        x : Tensor of shape (batch, bins, frames)
            Windows.

        Returns
        -------
        Tensor of shape (batch,)
            Numbers, high for windows of the training data.
        """
        return self.head(self.embed(x))[:, 0]


def _halving_blocks(size, width, norm, first_norm=True):
    """Convolutions of encoder and discriminator; their last channels and the map that remains."""
    check_positive(width=width)
    maps = _maps(size)
    layers, channels = [], 1
    for i, out in enumerate(_CHANNELS):
        out = scaled_channels(out, width)
        layers.append(nn.Conv2d(channels, out, **_halving(maps[i]), bias=False))
        if i > 0 or first_norm:
            layers.append(_norm(norm, out, maps[i + 1]))
        layers.append(nn.LeakyReLU(0.2))
        channels = out
    return nn.Sequential(*layers), channels, maps[-1]


def _maps(size):
    """Sizes of the window and of the maps after each of the halvings; an axis ends at 1."""
    maps = [size]
    for _ in _CHANNELS:
        maps.append(tuple(max(1, n // 2) for n in maps[-1]))
    return maps


def _halving(size):
    """Parameters of a convolution that halves the axes of a map, or keeps those of one place."""
    return {
        "kernel_size": tuple(4 if n > 1 else 1 for n in size),
        "stride": tuple(2 if n > 1 else 1 for n in size),
        "padding": tuple(1 if n > 1 else 0 for n in size),
    }


def _norm(kind, channels, size):
    if kind == "layer":
        return nn.LayerNorm((channels, *size))
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind != "instance":
        raise ValueError(f"norm must be one of {NORMS}, got {kind!r}.")
    if size == (1, 1):
        raise ValueError(
            "norm='instance' needs maps of several places, and these windows shrink to one: take "
            "larger windows or norm='layer'."
        )
    return nn.InstanceNorm2d(channels, affine=True)


def _initialise(network):
    """Draw weights of convolutions from N(0, 0.02²) and scales of batch norms from N(1, 0.02²)."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(module.weight, 0.0, 0.02)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)


def _size(size):
    size = tuple(int(n) for n in size)
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"size must be (bins, frames), both >= 1, got {size!r}.")
    return size


def _window_image(x, size):
    """Windows with a channel axis, of the size that the network was built for."""
    image = as_image(x, 1)
    if tuple(image.shape[2:]) != size:
        raise ValueError(
            f"The network was built for windows of {size} (bins, frames), got "
            f"{tuple(image.shape[2:])}."
        )
    return image
