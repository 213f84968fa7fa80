"""Small helpers of the networks."""

import math


def as_image(x, channels):
    """Return `x` as (batch, channels, bins, frames), with the channel axis added where it lacks.

    Raises
    ------
    ValueError
        If `x` has another number of axes, of channels, or an empty axis.
    """
    image = x.unsqueeze(1) if x.ndim == 3 else x
    if image.ndim != 4 or image.shape[1] != channels or 0 in image.shape[2:]:
        raise ValueError(
            f"Expected inputs of shape (batch, bins, frames) or (batch, {channels}, bins, frames), "
            f"with at least one bin and one frame, got {tuple(x.shape)}."
        )
    return image


def check_positive(**values):
    """Check that every parameter is above zero."""
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name} must be above 0, got {value!r}.")


def scaled_channels(channels, width):
    """Channels times width, as the nearest multiple of 8, at least 8."""
    return max(8, 8 * math.floor(channels * width / 8 + 0.5))
