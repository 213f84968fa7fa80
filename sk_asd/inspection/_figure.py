"""What the plots share: axes, colours, the picture of time and frequency, data URIs."""

import base64
import io

import numpy as np

# Colours of Okabe and Ito, which colour-blind readers can tell apart.
COLOURS = {
    "normal": "#0072b2",
    "normal, source": "#0072b2",
    "normal, target": "#56b4e9",
    "anomaly": "#d55e00",
    "unknown": "#777777",
    "all": "#333333",
}
PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#000000")


def new_axes(ax=None, figsize=None):
    """Axes to draw on, and their figure.

    Raises
    ------
    ImportError
        If matplotlib is not installed, with the command that installs it.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f'plots need {error.name}, which is not installed: pip install "sk_asd[report]"',
            name=error.name,
        ) from error
    if ax is None:
        import matplotlib.pyplot as plt

        _, ax = plt.subplots(figsize=figsize, layout="constrained")
    return ax, ax.figure


def bare_figure(width=4.4, height=3.1):
    """Figure without pyplot, so that no global state is touched and no display is needed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def clip_name(values):
    """File name of the clip that labelled values are from, None where it is not known."""
    path = values.coords["path"].item() if "path" in values.coords else None
    return None if path is None else str(path).replace("\\", "/").split("/")[-1]


def kinds_of(labels, domains):
    """Kind of every clip: ``anomaly``, ``unknown``, or ``normal`` with the domain where known."""
    kinds = [
        label
        if label == "anomaly"
        else "unknown"
        if label != "normal"
        else f"normal, {domain}"
        if isinstance(domain, str) and domain
        else "normal"
        for label, domain in zip(labels, domains)
    ]
    return np.array(kinds, dtype=object)


def draw_time_frequency(ax, values, *, cmap, label, limits=None, extend="neither"):
    """Draw values over time and frequency, with a colour bar.

    Bins are equally high, whatever their width in hertz: a mel spectrogram keeps its scale.

    Parameters
    ----------
    ax : matplotlib axes
        Where to draw.
    values : DataArray of shape (n_bins, n_frames)
        Coordinates along ``mel`` or ``frequency`` are hertz, along ``frame`` seconds; without
        them axes count bins and frames.
    cmap : str
        Colour map.
    label : str
        Text of the colour bar.
    limits : tuple of float, default=None
        Least and greatest value of the colours.
    extend : str, default="neither"
        Ends of the colour bar beyond which there are values.

    Returns
    -------
    image : matplotlib.image.AxesImage
        The picture.
    colour_bar : matplotlib.colorbar.Colorbar
        Its colour bar.
    """
    bins, frames = values.dims
    seconds = values.coords[frames].values if frames in values.coords else None
    n_frames = values.sizes[frames]
    if seconds is None:
        extent, xlabel = (-0.5, n_frames - 0.5), "frame"
    else:
        half = (seconds[1] - seconds[0]) / 2 if n_frames > 1 else 0.5
        extent, xlabel = (seconds[0] - half, seconds[-1] + half), "time (s)"
    low, high = (None, None) if limits is None else limits
    image = ax.imshow(
        values.values,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        extent=(*extent, -0.5, values.sizes[bins] - 0.5),
        cmap=cmap,
        vmin=low,
        vmax=high,
    )
    ax.set(xlabel=xlabel, ylabel=bins)
    if bins in ("mel", "frequency") and bins in values.coords:
        hertz = values.coords[bins].values
        ticks = _nice_hertz(hertz, linear=bins == "frequency")
        ax.set_yticks(np.interp(ticks, hertz, np.arange(len(hertz))), [f"{t:g}" for t in ticks])
        ax.set_ylabel("frequency (Hz)")
    colour_bar = ax.figure.colorbar(image, ax=ax, label=label, extend=extend)
    return image, colour_bar


def _nice_hertz(hertz, linear):
    """Round frequencies within the range, with space between them."""
    from matplotlib.ticker import MaxNLocator

    low, high = hertz[0], hertz[-1]
    if linear:
        ticks = MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(low, high)
    else:
        ticks = np.array([125, 250, 500, 1000, 2000, 4000, 8000, 16000, 32000])
    ticks = ticks[(ticks >= low) & (ticks <= high)]
    apart, kept = len(hertz) / 10, []
    for tick, place in zip(ticks, np.interp(ticks, hertz, np.arange(len(hertz)))):
        if not kept or place - kept[-1][1] >= apart:
            kept.append((tick, place))
    return np.array([tick for tick, _ in kept])


def svg_uri(figure):
    """Data URI of a figure as SVG, the same for the same figure.

    In a data URI the figure is a document of its own: the ids of several figures cannot clash.
    """
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "sk_asd", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def png_uri(figure, dpi=110):
    """Data URI of a figure as PNG of 128 colours, which takes a third of the space."""
    from PIL import Image

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    picture = Image.open(buffer).convert("RGB").quantize(128, dither=Image.Dither.NONE)
    small = io.BytesIO()
    picture.save(small, format="png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(small.getvalue()).decode("ascii")
