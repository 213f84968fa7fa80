"""Short-time Fourier transform."""

import hashlib
from numbers import Integral, Real

import numpy as np
from scipy.signal import get_window

from sk_asd.features._base import BaseExtractor
from sk_asd.features._spectra import Spectra, SpectrogramLayer, power_to_
from sk_asd.utils._sklearn import Interval


class Spectrogram(BaseExtractor):
    """What extractors that start with a short-time Fourier transform have in common."""

    _parameter_constraints: dict = {
        **BaseExtractor._parameter_constraints,
        "n_fft": [Interval(Integral, 1, None, closed="left")],
        "hop_length": [Interval(Integral, 1, None, closed="left")],
        "win_length": [Interval(Integral, 1, None, closed="left"), None],
        "window": [str, tuple, Interval(Real, 0, None, closed="left"), "array-like", callable],
        "center": ["boolean"],
        "power": [Interval(Real, 0, None, closed="neither")],
        "fmin": [Interval(Real, 0, None, closed="left")],
        "fmax": [Interval(Real, 0, None, closed="neither"), None],
    }
    _state = ("window_", "n_frames_")

    def _setup(self, origin):
        win_length = self.n_fft if self.win_length is None else self.win_length
        if win_length > self.n_fft:
            raise ValueError(f"win_length={win_length} is more than n_fft={self.n_fft}.")
        if not self.center and self.n_samples_ < self.n_fft:
            raise ValueError(
                f"{origin}, shorter than one frame of n_fft={self.n_fft}; set center=True or a "
                "smaller `n_fft`."
            )
        fmax = self.sr / 2 if self.fmax is None else self.fmax
        if not self.fmin < fmax <= self.sr / 2:
            raise ValueError(
                f"Expected fmin < fmax <= sr / 2 = {self.sr / 2:g} Hz, found fmin={self.fmin} and "
                f"fmax={fmax}."
            )
        self.window_ = _window(self.window, win_length, self.n_fft)
        padded = self.n_samples_ + 2 * (self.n_fft // 2 if self.center else 0)
        self.n_frames_ = 1 + (padded - self.n_fft) // self.hop_length
        self._setup_bins(fmax)

    def _shape(self):
        return len(self.frequencies_), self.n_frames_

    def _frame_seconds(self):
        """Time of the middle of every frame."""
        start = 0 if self.center else self.n_fft / 2
        return (start + self.hop_length * np.arange(self.n_frames_)) / self.sr

    def _spectra(self):
        return Spectra(self.window_, self.hop_length, self.n_samples_, self.center)

    def _value_params(self):
        # The values of the window, since a window may be a function or a long array.
        window = hashlib.blake2b(self.window_, digest_size=16).hexdigest()
        return {**super()._value_params(), "window": window}


def _window(window, win_length, n_fft):
    """Values of a window as :func:`librosa.filters.get_window` has them, padded to `n_fft`."""
    if callable(window):
        values = window(win_length)
    elif isinstance(window, (str, tuple, Real)):
        values = get_window(window, win_length, fftbins=True)
    else:
        values = window
    values = np.asarray(values, dtype=np.float32)
    if values.shape != (win_length,):
        raise ValueError(
            f"The window has shape {values.shape}, expected win_length={win_length} values."
        )
    left = (n_fft - win_length) // 2
    return np.pad(values, (left, n_fft - win_length - left))


class STFT(Spectrogram):
    """Magnitudes of the short-time Fourier transform.

    The values are those of ``abs(librosa.stft(y)) ** power`` to float32 accuracy, computed with
    torch in several threads, clip by clip. Sound files are read in the same threads, so that
    nothing but the features is held in memory, or nothing at all with `cache_dir`.

    Parameters
    ----------
    sr : int, default=16000
        Sample rate in Hz.
    n_fft : int, default=2048
        Samples of a frame; the features have ``1 + n_fft // 2`` bins.
    hop_length : int, default=512
        Samples from one frame to the next.
    win_length : int, default=None
        Samples of the window, which is padded with zeros to `n_fft`; None is `n_fft`.
    window : str, tuple, float, callable or array-like of shape (win_length,), default="hann"
        Window, as for :func:`scipy.signal.get_window`; a callable takes the length.
    center : bool, default=True
        Whether frame ``i`` is centred at sample ``i * hop_length``, the clip being continued with
        zeros at both ends, or starts there.
    power : float, default=1.0
        Exponent of the magnitude: 1 for amplitude, 2 for power.
    fmin : float, default=0.0
        Lowest frequency of a bin that is kept, in Hz.
    fmax : float, default=None
        Highest frequency of a bin that is kept, in Hz; None is ``sr / 2``.
    duration : float, default=None
        Length that all clips are brought to, in seconds; None is the length of the first clip in
        `fit`.
    on_length : {"error", "pad", "crop", "tile"}, default="error"
        What to do with clips of another length. All but "error" keep the beginning of a longer
        clip. A shorter one is continued with zeros by "pad" and with its own beginning by "tile";
        for "crop" it is an error.
    on_rate : {"error", "resample"}, default="error"
        What to do with clips of another sample rate than `sr`. Resampling is soxr's, quality HQ.
    channel : int, default=0
        Channel that is read of sound files with several, counted from 0.
    cache_dir : str or path-like, default=None
        Folder for a file of the features, from where they are read back memory-mapped when the same
        clips (path, size and modification time, or the samples) are transformed again with the
        same parameters. A set of clips has one file; nothing deletes it. None keeps the features
        in memory.
    n_jobs : int, default=None
        Number of threads. None is as many as torch is set to use (``torch.get_num_threads()``), but
        no more than the CPUs at hand: all cores in a script, fewer in the workers of a parallel
        search. -1 is all cores.

    Attributes
    ----------
    n_samples_ : int
        Samples of a clip.
    n_frames_ : int
        Frames of a clip.
    frequencies_ : ndarray of shape (n_bins,)
        Frequencies of the bins in Hz.
    window_ : ndarray of shape (n_fft,)
        Window, padded to `n_fft`.
    peak_ : float
        Largest magnitude of the samples of up to 16 clips that `fit` was given.
    quiet_ : float
        Level that 95 % of the tenths of a second of these clips exceed: standard deviation, in
        their unit; 0 if nothing was heard.
    n_features_in_ : int
        Samples of a clip, or the width of the array seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features,)
        Column names of a numeric DataFrame without sound, if `fit` was given one.

    See Also
    --------
    LogMel : Log-mel spectrogram.

    Notes
    -----
    A clip table has its sound in the column ``path``, or in ``audio`` (1-D arrays, which go before
    ``path``) with their rates in ``sr``; clips without a rate are taken to be at `sr`. The result
    is a DataArray of dimensions ``("clip", "frequency", "frame")`` with Hz and the seconds of the
    middle of the frames as coordinates, beside the other columns of the table.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_asd.features import STFT
    >>> X = np.random.default_rng(0).normal(size=(2, 16000)).astype("float32")
    >>> STFT(n_fft=1024, hop_length=512).fit_transform(X).shape
    (2, 513, 32)
    """

    _state = ("frequencies_", "_bins")

    def __init__(
        self,
        sr=16000,
        n_fft=2048,
        hop_length=512,
        *,
        win_length=None,
        window="hann",
        center=True,
        power=1.0,
        fmin=0.0,
        fmax=None,
        duration=None,
        on_length="error",
        on_rate="error",
        channel=0,
        cache_dir=None,
        n_jobs=None,
    ):
        self.sr = sr
        self.n_fft = n_fft
        self.hop_length = hop_length
        self.win_length = win_length
        self.window = window
        self.center = center
        self.power = power
        self.fmin = fmin
        self.fmax = fmax
        self.duration = duration
        self.on_length = on_length
        self.on_rate = on_rate
        self.channel = channel
        self.cache_dir = cache_dir
        self.n_jobs = n_jobs

    def _setup_bins(self, fmax):
        frequencies = np.fft.rfftfreq(self.n_fft, 1 / self.sr)
        first = np.searchsorted(frequencies, self.fmin)
        last = np.searchsorted(frequencies, fmax, side="right")
        if first == last:
            raise ValueError(
                f"No bin lies between fmin={self.fmin} and fmax={fmax} Hz; bins are "
                f"{self.sr / self.n_fft:g} Hz apart."
            )
        self.frequencies_ = frequencies[first:last]
        self._bins = slice(int(first), int(last))

    def _labels(self):
        coords = {"frequency": self.frequencies_, "frame": self._frame_seconds()}
        return ("frequency", "frame"), coords

    def _kernel(self):
        spectra, bins, power = self._spectra(), self._bins, self.power

        def kernel(wave, out):
            for frames, spectrum in spectra(wave):
                out[:, frames] = power_to_(spectrum[:, bins], power).numpy().T

        return kernel

    def _exported(self):
        return SpectrogramLayer(self, self._bins)
