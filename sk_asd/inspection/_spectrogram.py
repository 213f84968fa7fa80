"""A clip as a spectrogram."""

import numpy as np
import xarray as xr

from sk_asd.inspection._figure import clip_name, draw_time_frequency, new_axes
from sk_asd.inspection._steps import (
    is_features,
    labelled_features,
    member_of,
    steps_of,
    unwrapped,
)
from sk_asd.utils._containers import as_clips, is_clip_table, take_clips
from sk_asd.utils._system import is_ensemble, is_grouped

_RANGE = 80.0  # decibels below the loudest cell that the colours tell apart


class SpectrogramDisplay:
    """Spectrogram of a clip, in decibels over seconds and hertz.

    Make one with :meth:`from_estimator` or :meth:`from_predictions`.

    Parameters
    ----------
    values : DataArray of shape (n_bins, n_frames)
        What is drawn, with hertz along ``mel`` or ``frequency`` and seconds along ``frame``.
    unit : str, default="level (dB)"
        Text of the colour bar.
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
    AnomalyMapDisplay : Where a system finds a clip abnormal.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_asd.inspection import SpectrogramDisplay
    >>> tone = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000)
    >>> display = SpectrogramDisplay.from_predictions(tone, sr=16000)
    >>> float(display.values.mean("frame").idxmax())
    1000.0
    """

    def __init__(self, values, *, unit="level (dB)", title=None):
        self.values = values
        self.unit = unit
        self.title = title

    @classmethod
    def from_estimator(cls, estimator, X, *, clip=0, ax=None):
        """Spectrogram that an estimator sees of a clip.

        Parameters
        ----------
        estimator : Pipeline, extractor or outlier detector
            Fitted; its first step that gives features ``(clip, bin, frame)`` is taken, of an
            ensemble that of the first member. Where these have no frequencies, as those of
            :class:`~sk_asd.features.Wav2Vec`, it is an STFT of 1024 samples of the same sound.
        X : DataFrame or array-like
            Clips, as the estimator takes them.
        clip : int, default=0
            Position of the clip among them.
        ax : matplotlib.axes.Axes, default=None
            Axes to plot on; None makes some.

        Returns
        -------
        SpectrogramDisplay
            The display, plotted.

        Raises
        ------
        ValueError
            If there are no features ``(clip, bin, frame)`` in the estimator.
        """
        X, power = _features_of(estimator, take_clips(as_clips(X), [clip]))
        return cls._of_features(X[0], power).plot(ax)

    @classmethod
    def from_predictions(cls, X, *, clip=0, sr=16000, power=1.0, ax=None):
        """Spectrogram of a clip, or of features.

        Parameters
        ----------
        X : DataFrame, DataArray or array-like
            A clip table or names of sound files; a waveform ``(n_samples,)``; or features ``(clip,
            bin, frame)`` or ``(bin, frame)``. Sounds become an STFT of 1024 samples.
        clip : int, default=0
            Position of the clip, where `X` has several.
        sr : int, default=16000
            Sample rate of waveforms, in hertz.
        power : float, default=1.0
            Exponent of the magnitudes in features over ``frequency``, as of
            :class:`~sk_asd.features.STFT`. Other features are drawn as they are.
        ax : matplotlib.axes.Axes, default=None
            Axes to plot on; None makes some.

        Returns
        -------
        SpectrogramDisplay
            The display, plotted.

        Raises
        ------
        ValueError
            If `X` is none of these.
        """
        # features loads torch, which a report of scores alone does without.
        from sk_asd.features import STFT

        X = as_clips(X)
        table = is_clip_table(X)
        if table or (np.ndim(X) == 1 and not isinstance(X, xr.DataArray)):
            sound = take_clips(X, [clip]) if table else np.asarray(X, dtype=np.float32)[np.newaxis]
            extractor = STFT(sr=sr, n_fft=1024, hop_length=256, on_rate="resample")
            features = labelled_features(extractor.fit_transform(sound), extractor)[0]
            power = 1.0
        else:
            features = X[clip] if np.ndim(X) == 3 else X
        if np.ndim(features) != 2:
            raise ValueError(
                "Expected a clip table, a waveform, or features (clip, bin, frame) or (bin, "
                f"frame), found an array of shape {np.shape(X)}."
            )
        if not isinstance(features, xr.DataArray):
            features = xr.DataArray(features, dims=("bin", "frame"))
        return cls._of_features(features, power).plot(ax)

    @classmethod
    def _of_features(cls, features, power):
        title = clip_name(features)
        if features.dims[0] == "mel":
            return cls(features, title=title)
        if features.dims[0] != "frequency":
            return cls(features, unit="value", title=title)
        level = np.maximum(features.values.astype(float), np.finfo(np.float32).tiny)
        decibels = 20 / power * np.log10(level)
        return cls(features.copy(data=decibels), title=title)

    def plot(self, ax=None, *, cmap="magma", limits=None):
        """Plot the spectrogram.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            Axes to plot on; None makes some.
        cmap : str, default="magma"
            Colour map.
        limits : tuple of float, default=None
            Values of the darkest and of the brightest colour; None is the loudest cell, and 80 dB
            below it at most.

        Returns
        -------
        SpectrogramDisplay
            The display.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        self.ax_, self.figure_ = new_axes(ax, (6.4, 3.6))
        least, greatest = float(self.values.min()), float(self.values.max())
        if limits is None:
            limits = (least if self.unit == "value" else max(least, greatest - _RANGE), greatest)
        beyond = {(True, True): "both", (True, False): "min", (False, True): "max"}
        extend = beyond.get((least < limits[0], greatest > limits[1]), "neither")
        self.image_, self.colour_bar_ = draw_time_frequency(
            self.ax_, self.values, cmap=cmap, label=self.unit, limits=limits, extend=extend
        )
        if self.title:
            self.ax_.set_title(self.title, fontsize="medium")
        return self


def _features_of(estimator, X):
    """Labelled features that a fitted system takes of clips, and the exponent of magnitudes."""
    from sk_asd.inspection._wave_occlusion import lacks_frequencies, spectrogram_of

    estimator = unwrapped(estimator)
    if is_ensemble(estimator):
        estimator = member_of(estimator, X, estimator.get_feature_names_out()[0])[1]
    steps, source = steps_of(estimator), None
    while not is_features(X):
        step = steps.pop(0) if steps else None
        if is_grouped(step) and is_clip_table(X):
            X, answers = step.answering(X)
            return _features_of(answers[0][1], X)
        if not hasattr(step, "transform"):
            raise ValueError(
                f"{type(estimator).__name__} gives no features (clip, bin, frame) of an array of "
                f"shape {np.shape(X)}."
            )
        if lacks_frequencies(step):
            return spectrogram_of(step, X), 1.0
        source, X = step, step.transform(X)
    return labelled_features(X, source), getattr(source, "power", 1.0)
