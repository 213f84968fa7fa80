"""Interpolation networks: the frames around one in, a vector that describes that one out."""

from torch import nn

from sk_asd.networks._common import check_positive


def check_window(n_bins, n_frames, n_outputs):
    """Check the sizes of an interpolation network."""
    check_positive(n_bins=n_bins, n_outputs=n_outputs)
    if n_frames < 2:
        raise ValueError(
            f"n_frames must be at least 2, one frame to predict and one to predict it from, got "
            f"{n_frames!r}."
        )


def check_context(x, n_bins, n_frames):
    """Check the frames around the one to predict, (batch, n_bins, n_frames - 1)."""
    if x.ndim != 3 or x.shape[1:] != (n_bins, n_frames - 1):
        raise ValueError(
            f"The network was built for n_bins={n_bins} and n_frames={n_frames}: expected inputs "
            f"of shape (batch, {n_bins}, {n_frames - 1}), without the frame to predict, got "
            f"{tuple(x.shape)}."
        )


class IGNN(nn.Module):
    """IGNN of the AITHU report (Table 6): recurrent layers over the frames around one.

    A fully connected layer on every frame; three GRU layers; fully connected layers to 32 and back;
    three GRU layers; a fully connected layer on the outputs of all frames together. The report
    names no activations: ReLU follows the three small fully connected layers.

    Parameters
    ----------
    n_bins : int
        Number of frequency bins of the inputs (nMels in the report).
    n_frames : int
        Frames of a window (nF), that to predict included, at least 2.
    n_outputs : int
        Numbers that describe the frame to predict; ``2 * n_components * n_bins`` in the report,
        the means and scales of a Gaussian mixture.
    hidden : int, default=128
        Width of the frames inside.
    bottleneck : int, default=32
        Width between the recurrent layers.
    n_layers : int, default=3
        Layers of each of the two GRUs, which run forward in time.

    Raises
    ------
    ValueError
        If a parameter is out of range, or an input has another shape than announced.

    See Also
    --------
    LRCGNN : With a convolution after the first layer.
    DFNet : A U-net for more complex data.

    Notes
    -----
    With three components, as many outputs as ``6 * n_bins``:

    ======  ========  ==========
    n_bins  n_frames  parameters
    ======  ========  ==========
    128     100       10,352,160
    128     60        6,420,000
    64      100       5,477,536
    64      30        2,036,896
    ======  ========  ==========

    Nearly all are in the last layer, which has a weight for every output, frame and hidden number.

    References
    ----------
    AITHU report for DCASE 2022 task 2, section 3.2 and Table 6.

    Examples
    --------
    >>> import torch
    >>> from sk_asd.networks import IGNN
    >>> IGNN(n_bins=64, n_frames=30, n_outputs=2 * 3 * 64)(torch.zeros(4, 64, 29)).shape
    torch.Size([4, 384])
    """

    def __init__(self, n_bins, n_frames, n_outputs, *, hidden=128, bottleneck=32, n_layers=3):
        super().__init__()
        check_window(n_bins, n_frames, n_outputs)
        check_positive(hidden=hidden, bottleneck=bottleneck, n_layers=n_layers)
        self.n_bins = n_bins
        self.n_frames = n_frames
        self.inlet = nn.Sequential(nn.Linear(n_bins, hidden), nn.ReLU())
        self.before = nn.GRU(hidden, hidden, n_layers, batch_first=True)
        self.squeeze = nn.Sequential(
            nn.Linear(hidden, bottleneck), nn.ReLU(), nn.Linear(bottleneck, hidden), nn.ReLU()
        )
        self.after = nn.GRU(hidden, hidden, n_layers, batch_first=True)
        self.head = nn.Linear((n_frames - 1) * hidden, n_outputs)

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
        x = self._embed(x.transpose(1, 2))
        x = self.squeeze(self.before(x)[0])
        return self.head(self.after(x)[0].flatten(1))

    def _embed(self, x):
        """Frames (batch, n_frames - 1, n_bins) at their width inside the network."""
        return self.inlet(x)


class LRCGNN(IGNN):
    """LRCGNN of the AITHU report: IGNN with a convolution after its first layer.

    The report says no more about the convolution than that. Here it is followed by ReLU and keeps
    the shape.

    Parameters
    ----------
    n_bins : int
        Number of frequency bins of the inputs.
    n_frames : int
        Frames of a window, that to predict included, at least 2.
    n_outputs : int
        Numbers that describe the frame to predict.
    hidden : int, default=128
        Width of the frames inside.
    bottleneck : int, default=32
        Width between the recurrent layers.
    n_layers : int, default=3
        Layers of each of the two GRUs.
    kernel_size : int, default=3
        Width of the convolution, odd.
    conv_axis : {"time", "freq"}, default="time"
        The convolution runs along the frames, with the `hidden` numbers as channels; or along those
        numbers, with the frames as channels, which is what a ``Conv1d`` does to the report's axes.

    Raises
    ------
    ValueError
        If a parameter is out of range, or an input has another shape than announced.

    See Also
    --------
    IGNN : Without the convolution.

    Notes
    -----
    The convolution adds ``kernel_size * hidden ** 2 + hidden`` parameters to those of
    :class:`IGNN`, 49,280 by default; along the frequencies, with ``n_frames - 1`` in place of
    ``hidden``, 29,502 of them at ``n_frames=100``.

    References
    ----------
    AITHU report for DCASE 2022 task 2, section 3.2.

    Examples
    --------
    >>> import torch
    >>> from sk_asd.networks import LRCGNN
    >>> LRCGNN(n_bins=64, n_frames=30, n_outputs=2 * 3 * 64)(torch.zeros(4, 64, 29)).shape
    torch.Size([4, 384])
    """

    def __init__(
        self,
        n_bins,
        n_frames,
        n_outputs,
        *,
        hidden=128,
        bottleneck=32,
        n_layers=3,
        kernel_size=3,
        conv_axis="time",
    ):
        super().__init__(
            n_bins, n_frames, n_outputs, hidden=hidden, bottleneck=bottleneck, n_layers=n_layers
        )
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd and at least 1, got {kernel_size!r}.")
        if conv_axis not in ("time", "freq"):
            raise ValueError(f"conv_axis must be 'time' or 'freq', got {conv_axis!r}.")
        self.conv_axis = conv_axis
        channels = hidden if conv_axis == "time" else n_frames - 1
        self.conv = nn.Sequential(
            nn.Conv1d(channels, channels, kernel_size, padding=kernel_size // 2), nn.ReLU()
        )

    def _embed(self, x):
        x = self.inlet(x)
        if self.conv_axis == "freq":
            return self.conv(x)
        return self.conv(x.transpose(1, 2)).transpose(1, 2)


class InterpolationMLP(nn.Module):
    """Fully connected network of IDNN: the frames around one as a single long vector.

    Parameters
    ----------
    n_bins : int
        Number of frequency bins of the inputs.
    n_frames : int
        Frames of a window, that to predict included, at least 2.
    n_outputs : int
        Numbers that describe the frame to predict; `n_bins` for the frame itself.
    hidden : sequence of int, default=(64, 32, 16, 32, 64)
        Widths of the hidden layers, each followed by ReLU.

    Raises
    ------
    ValueError
        If a parameter is out of range, or an input has another shape than announced.

    See Also
    --------
    IGNN : Recurrent over the frames.

    Notes
    -----
    25,872 parameters for a window of 5 frames of 64 bins and 64 outputs.

    References
    ----------
    Suefusa et al., "Anomalous sound detection based on interpolation deep neural network", ICASSP
    2020.

    Examples
    --------
    >>> import torch
    >>> from sk_asd.networks import InterpolationMLP
    >>> InterpolationMLP(n_bins=64, n_frames=5, n_outputs=64)(torch.zeros(8, 64, 4)).shape
    torch.Size([8, 64])
    """

    def __init__(self, n_bins, n_frames, n_outputs, *, hidden=(64, 32, 16, 32, 64)):
        super().__init__()
        check_window(n_bins, n_frames, n_outputs)
        if not all(width > 0 for width in hidden):
            raise ValueError(f"hidden must be widths above 0, got {hidden!r}.")
        self.n_bins = n_bins
        self.n_frames = n_frames
        widths = [(n_frames - 1) * n_bins, *hidden]
        layers = []
        for width, out in zip(widths, hidden):
            layers += [nn.Linear(width, out), nn.ReLU()]
        self.hidden = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1], n_outputs)

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
        return self.head(self.hidden(x.flatten(1)))
