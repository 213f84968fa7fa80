"""Augmentation of spectrogram windows in training: SpecAugment and mixup.

Everything is drawn from torch's global generator of the CPU, so that the same seed gives the same
windows on any device.
"""

import math

import torch
from torch import nn


class SpecAugment(nn.Module):
    """Mask random bands of frames and of bins, in training mode only.

    Each window has masks of its own. The width of a mask is drawn uniformly from 0 to the largest,
    both included, and then its place from all where it fits. Masks may overlap. In eval mode the
    windows are returned as they are.

    Parameters
    ----------
    n_time_masks : int, default=2
        Number of masks over frames.
    max_time : float or int, default=0.1
        Largest width of a mask over frames: a float in (0, 1] is a fraction of the window, rounded
        down, and an int a number of frames.
    n_frequency_masks : int, default=2
        Number of masks over bins.
    max_frequency : float or int, default=0.1
        Largest width of a mask over bins, as `max_time`.
    fill : "mean" or float, default="mean"
        Value of what is masked: the mean of each window before it is masked, or a given number.

    Raises
    ------
    ValueError
        If a parameter is out of range, or a width in frames or bins is above that of an input.

    See Also
    --------
    mixup : Augmentation by blending windows.

    References
    ----------
    Park et al., "SpecAugment: A simple data augmentation method for automatic speech recognition",
    Interspeech 2019, section 2, without time warping.

    Examples
    --------
    >>> import torch
    >>> from sk_asd.networks import SpecAugment
    >>> _ = torch.manual_seed(3)
    >>> augment = SpecAugment(1, max_time=3, n_frequency_masks=1, max_frequency=1, fill=0.0)
    >>> augment(torch.ones(1, 3, 8))
    tensor([[[1., 1., 1., 1., 1., 0., 0., 1.],
             [1., 1., 1., 1., 1., 0., 0., 1.],
             [0., 0., 0., 0., 0., 0., 0., 0.]]])
    """

    def __init__(
        self,
        n_time_masks=2,
        max_time=0.1,
        n_frequency_masks=2,
        max_frequency=0.1,
        *,
        fill="mean",
    ):
        super().__init__()
        for name, value in (
            ("n_time_masks", n_time_masks),
            ("n_frequency_masks", n_frequency_masks),
        ):
            if not _is_integer(value) or value < 0:
                raise ValueError(f"{name} must be an integer from 0 on, got {value!r}.")
        for name, value in (("max_time", max_time), ("max_frequency", max_frequency)):
            top = math.inf if _is_integer(value) else 1
            if not (hasattr(value, "__float__") and 0 < value <= top):
                raise ValueError(
                    f"{name} must be a float in (0, 1] or an integer from 1 on, got {value!r}."
                )
        if fill != "mean" and not (hasattr(fill, "__float__") and math.isfinite(fill)):
            raise ValueError(f"fill must be 'mean' or a finite number, got {fill!r}.")
        self.n_time_masks = n_time_masks
        self.max_time = max_time
        self.n_frequency_masks = n_frequency_masks
        self.max_frequency = max_frequency
        self.fill = fill

    def forward(self, x):
        """Mask spectrogram windows.

        Parameters
        ----------
        x : Tensor of shape (batch, bins, frames) or (batch, channels, bins, frames)
            Windows of a spectrogram; the channels of a window have the same masks.

        Returns
        -------
        Tensor of the shape of `x`
            Masked windows; `x` itself stays as it is.
        """
        if x.ndim not in (3, 4):
            raise ValueError(
                "Expected inputs of shape (batch, bins, frames) or (batch, channels, bins, "
                f"frames), got {tuple(x.shape)}."
            )
        if not self.training:
            return x
        n, n_bins, n_frames = len(x), *x.shape[-2:]
        largest = _largest("max_time", self.max_time, n_frames, "frames")
        frames = _bands(n, self.n_time_masks, largest, n_frames)
        largest = _largest("max_frequency", self.max_frequency, n_bins, "bins")
        bins = _bands(n, self.n_frequency_masks, largest, n_bins)
        masked = (bins[:, :, None] | frames[:, None, :]).to(x.device)
        if x.ndim == 4:
            masked = masked.unsqueeze(1)
        if self.fill == "mean":
            fill = x.mean(dim=tuple(range(1, x.ndim)), keepdim=True)
        else:
            fill = torch.full_like(x[:1], self.fill)
        return torch.where(masked, fill, x)

    def extra_repr(self):
        """Parameters, as ``print`` shows them.

        Returns
        -------
        str
            Names and values.
        """
        return (
            f"n_time_masks={self.n_time_masks}, max_time={self.max_time}, "
            f"n_frequency_masks={self.n_frequency_masks}, max_frequency={self.max_frequency}, "
            f"fill={self.fill!r}"
        )


def _is_integer(value):
    """Whether a number is an integer by type, NumPy's included."""
    return hasattr(value, "__index__")


def _largest(name, value, length, unit):
    """Largest width of a mask over an axis, as a number of its places."""
    if not _is_integer(value):
        return int(value * length)
    if value > length:
        raise ValueError(f"{name}={value} is more than the {length} {unit} of the windows.")
    return value


def _bands(n, n_masks, largest, length):
    """Whether a place is masked, of shape (n, length)."""
    widths = torch.randint(largest + 1, (n, n_masks, 1))
    # In double precision a draw below 1 times the number of places stays below that number.
    starts = (torch.rand(n, n_masks, 1, dtype=torch.float64) * (length - widths + 1)).long()
    places = torch.arange(length)
    return ((places >= starts) & (places < starts + widths)).any(dim=1)


def mixup(x, target, alpha=1.0):
    """Blend every window and its target with those of another one of the batch.

    The partner comes from a random permutation, in which a window may meet itself, and the weight
    from the distribution Beta(alpha, alpha), for each window anew.

    Parameters
    ----------
    x : Tensor of shape (n, ...)
        Windows.
    target : Tensor of float of shape (n, n_classes)
        Probabilities of the classes, one-hot for whole classes; any other columns in which a blend
        makes sense will do.
    alpha : float, default=1.0
        Parameter of the distribution: 1 draws weights uniformly from 0 to 1, smaller values closer
        to 0 and 1.

    Returns
    -------
    x : Tensor of shape (n, ...)
        Blended windows.
    target : Tensor of shape (n, n_classes)
        Targets blended with the same weights.

    Raises
    ------
    ValueError
        If `alpha` is not above 0, or `target` has another shape or type.

    See Also
    --------
    SpecAugment : Augmentation by masks.
    ArcFace : A head that takes blended targets.
    SubclusterAdaCos : A head that takes blended targets.

    References
    ----------
    Zhang et al., "mixup: Beyond empirical risk minimization", ICLR 2018, equation 1; their code has
    one weight a batch.

    Examples
    --------
    >>> import torch
    >>> from sk_asd.networks import mixup
    >>> _ = torch.manual_seed(0)
    >>> x, target = mixup(torch.tensor([[1.0], [3.0]]), torch.eye(2))
    >>> bool(torch.allclose(x[:, 0], target @ torch.tensor([1.0, 3.0])))
    True
    """
    if not 0 < alpha < math.inf:
        raise ValueError(f"alpha must be a number above 0, got {alpha!r}.")
    if target.ndim != 2 or len(target) != len(x) or not target.is_floating_point():
        raise ValueError(
            f"target must be probabilities of shape ({len(x)}, n_classes), got {target.dtype} of "
            f"shape {tuple(target.shape)}."
        )
    order = torch.randperm(len(x))
    weight = torch.distributions.Beta(float(alpha), float(alpha)).sample((len(x),))
    return _blend(x, order, weight), _blend(target, order, weight)


def _blend(x, order, weight):
    weight = weight.to(x).reshape(-1, *[1] * (x.ndim - 1))
    return torch.lerp(x[order.to(x.device)], x, weight)
