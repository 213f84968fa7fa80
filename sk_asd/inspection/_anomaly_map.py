"""The anomaly map of a clip."""

import numpy as np
import xarray as xr

from sk_asd.inspection._figure import clip_name, draw_time_frequency, new_axes
from sk_asd.inspection._maps import anomaly_map
from sk_asd.utils._containers import as_clips, take_clips


class AnomalyMapDisplay:
    """Where in time and frequency a system finds a clip abnormal.

    Make one with :meth:`from_estimator` or :meth:`from_predictions`.

    Parameters
    ----------
    values : DataArray of shape (n_bins, n_frames)
        Map of a clip as :func:`anomaly_map` gives it, high = abnormal.
    title : str, default=None
        Title of the plot.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        Axes of the plot.
    figure_ : matplotlib.figure.Figure
        Its figure.
    image_ : matplotlib.image.AxesImage
        The picture.
    colour_bar_ : matplotlib.colorbar.Colorbar
        Its colour bar.

    See Also
    --------
    anomaly_map : The values, and how they come about.
    SpectrogramDisplay : The clip itself.

    Examples
    --------
    >>> from sk_asd.datasets import make_machine_sounds
    >>> from sk_asd.inspection import AnomalyMapDisplay
    >>> from sk_asd.systems import make_pooling
    >>> clips = make_machine_sounds("fan", n_train=20, n_test=4, duration=1.0, random_state=0)
    >>> pipeline = make_pooling().fit(clips[clips.split == "train"])
    >>> display = AnomalyMapDisplay.from_estimator(pipeline, clips[clips.split == "test"], clip=3)
    >>> display.ax_.get_ylabel()
    'frequency (Hz)'
    """

    def __init__(self, values, *, title=None):
        self.values = values
        self.title = title

    @classmethod
    def from_estimator(cls, estimator, X, *, clip=0, member=None, patches=(6, 12), ax=None):
        """Compute and plot the map of a clip.

        Parameters
        ----------
        estimator : Pipeline or outlier detector
            Fitted.
        X : DataFrame, DataArray or array-like
            Clips, as the estimator takes them.
        clip : int, default=0
            Position of the clip among them.
        member : str, default=None
            Member of an ensemble; None is the one that speaks the loudest against the clip.
        patches : tuple of int, default=(6, 12)
            Bands and stretches of time of a map by occlusion.
        ax : matplotlib.axes.Axes, default=None
            Axes to plot on; None makes some.

        Returns
        -------
        AnomalyMapDisplay
            The display, plotted.

        Raises
        ------
        ValueError
            As :func:`anomaly_map`.
        """
        maps = anomaly_map(
            estimator, take_clips(as_clips(X), [clip]), member=member, patches=patches
        )
        return cls.from_predictions(maps, ax=ax)

    @classmethod
    def from_predictions(cls, maps, *, clip=0, ax=None):
        """Plot the map of a clip.

        Parameters
        ----------
        maps : DataArray or array-like of shape (n_clips, n_bins, n_frames) or (n_bins, n_frames)
            As :func:`anomaly_map` gives them, or the ``score_map`` of a detector.
        clip : int, default=0
            Position of the clip, where there are several.
        ax : matplotlib.axes.Axes, default=None
            Axes to plot on; None makes some.

        Returns
        -------
        AnomalyMapDisplay
            The display, plotted.

        Raises
        ------
        ValueError
            If `maps` has another number of dimensions, or no finite value.
        """
        values = maps[clip] if np.ndim(maps) == 3 else maps
        if np.ndim(values) != 2:
            raise ValueError(f"A map has 2 dimensions, found an array of shape {np.shape(maps)}.")
        if not isinstance(values, xr.DataArray):
            values = xr.DataArray(values, dims=("bin", "frame"))
        if not np.isfinite(values.values).any():
            raise ValueError("The map has no finite value: the clip is shorter than a window.")
        member = values.attrs.get("member")
        texts = [clip_name(values), member and f"member: {member}"]
        return cls(values, title=", ".join(filter(None, texts))).plot(ax)

    def plot(self, ax=None, *, cmap="viridis", limits=None):
        """Plot the map.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            Axes to plot on; None makes some.
        cmap : str, default="viridis"
            Colour map.
        limits : tuple of float, default=None
            Values of the darkest and of the brightest colour; None is the median of the map and
            its 99.9th percentile, since what is normal does not matter.

        Returns
        -------
        AnomalyMapDisplay
            The display.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        self.ax_, self.figure_ = new_axes(ax, (6.4, 3.6))
        if limits is None:
            low, high = np.nanquantile(self.values.values, [0.5, 0.999])
            limits = (float(low), float(high if high > low else low + 1))
        self.image_, self.colour_bar_ = draw_time_frequency(
            self.ax_,
            self.values,
            cmap=cmap,
            label=self.values.attrs.get("unit", "abnormality"),
            limits=limits,
            extend="both",
        )
        self.ax_.set_facecolor("#dddddd")  # where there is no answer
        if self.title:
            self.ax_.set_title(self.title, fontsize="medium")
        return self
