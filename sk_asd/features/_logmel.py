"""Log-mel spectrogram."""

import math
from numbers import Integral, Real

import numpy as np
import torch

from sk_asd.features._spectra import SpectrogramLayer, power_to_
from sk_asd.features._stft import Spectrogram
from sk_asd.utils._sklearn import Interval, StrOptions

# Filters multiplied together: neighbours share most of their bins, and each such block is
# multiplied with its own bins alone.
_BLOCK = 32


class LogMel(Spectrogram):
    """Log-mel spectrogram.

    The values are those of ``librosa.power_to_db(librosa.feature.melspectrogram(y=y, ...))`` to
    float32 accuracy, computed with torch in several threads, clip by clip. Sound files are read in
    the same threads, so that nothing but the features is held in memory, or nothing at all with
    `cache_dir`.

    Parameters
    ----------
    sr : int, default=16000
        Sample rate in Hz.
    n_fft : int, default=2048
        Samples of a frame.
    hop_length : int, default=512
        Samples from one frame to the next.
    win_length : int, default=None
        Samples of the window, which is padded with zeros to `n_fft`; None is `n_fft`.
    window : str, tuple, float, callable or array-like of shape (win_length,), default="hann"
        Window, as for :func:`scipy.signal.get_window`; a callable takes the length.
    center : bool, default=True
        Whether frame ``i`` is centred at sample ``i * hop_length``, the clip being continued with
        zeros at both ends, or starts there.
    power : float, default=2.0
        Exponent of the magnitudes that the mel filters are applied to. The logarithm takes the
        result for a power whatever the exponent, as ``librosa.power_to_db`` does.
    n_mels : int, default=128
        Number of mel bins.
    fmin : float, default=0.0
        Lowest frequency of the mel filters in Hz.
    fmax : float, default=None
        Highest frequency of the mel filters in Hz; None is ``sr / 2``.
    htk : bool, default=False
        Whether the mel scale is that of HTK, else Slaney's.
    norm : "slaney", float or None, default="slaney"
        "slaney" divides every filter by its width in Hz, a number scales it to that norm, None
        leaves its peak at 1; see ``librosa.filters.mel``.
    amin : float, default=1e-10
        Smallest power; less is raised to it. Recordings in physical units may need less.
    top_db : float, default=80.0
        Values more than this below the largest value of their clip are raised to it; None leaves
        them.
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
    mel_basis_ : ndarray of shape (n_mels, 1 + n_fft // 2)
        Mel filters.
    frequencies_ : ndarray of shape (n_mels,)
        Centre frequencies of the mel filters in Hz.
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
    STFT : Magnitudes of the short-time Fourier transform.
    TimePooling : From spectrograms to one vector a clip.

    Notes
    -----
    A clip table has its sound in the column ``path``, or in ``audio`` (1-D arrays, which go before
    ``path``) with their rates in ``sr``; clips without a rate are taken to be at `sr`. The result
    is a DataArray of dimensions ``("clip", "mel", "frame")`` with centre frequencies in Hz and the
    seconds of the middle of the frames as coordinates, beside the other columns of the table.

    librosa makes the filters in `fit`; `transform` does not import it.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_asd.features import LogMel
    >>> X = np.random.default_rng(0).normal(size=(2, 16000)).astype("float32")
    >>> LogMel(n_mels=64).fit_transform(X).shape
    (2, 64, 32)
    """

    _parameter_constraints: dict = {
        **Spectrogram._parameter_constraints,
        "n_mels": [Interval(Integral, 1, None, closed="left")],
        "htk": ["boolean"],
        "norm": [StrOptions({"slaney"}), Interval(Real, 0, None, closed="neither"), None],
        "amin": [Interval(Real, 0, None, closed="neither")],
        "top_db": [Interval(Real, 0, None, closed="left"), None],
    }
    _state = ("mel_basis_", "frequencies_")

    def __init__(
        self,
        sr=16000,
        n_fft=2048,
        hop_length=512,
        *,
        win_length=None,
        window="hann",
        center=True,
        power=2.0,
        n_mels=128,
        fmin=0.0,
        fmax=None,
        htk=False,
        norm="slaney",
        amin=1e-10,
        top_db=80.0,
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
        self.n_mels = n_mels
        self.fmin = fmin
        self.fmax = fmax
        self.htk = htk
        self.norm = norm
        self.amin = amin
        self.top_db = top_db
        self.duration = duration
        self.on_length = on_length
        self.on_rate = on_rate
        self.channel = channel
        self.cache_dir = cache_dir
        self.n_jobs = n_jobs

    def _setup_bins(self, fmax):
        # librosa is heavy, and a fitted extractor does without.
        import librosa

        scale = {"fmin": self.fmin, "fmax": fmax, "htk": self.htk}
        self.mel_basis_ = librosa.filters.mel(
            sr=self.sr, n_fft=self.n_fft, n_mels=self.n_mels, norm=self.norm, **scale
        )
        self.frequencies_ = librosa.mel_frequencies(self.n_mels + 2, **scale)[1:-1]

    def _labels(self):
        coords = {"mel": self.frequencies_, "frame": self._frame_seconds()}
        return ("mel", "frame"), coords

    def _kernel(self):
        spectra = self._spectra()
        mel_tile = torch.empty(spectra.tile, self.n_mels, dtype=torch.float32, device="cpu")
        blocks = _banded(self.mel_basis_)

        def kernel(wave, out):
            for frames, spectrum in spectra(wave):
                power_to_(spectrum, self.power)
                mel = mel_tile[: len(spectrum)]
                for filters, bins, weights in blocks:
                    torch.mm(spectrum[:, bins], weights, out=mel[:, filters])
                out[:, frames] = mel.numpy().T
            self._to_db(out)

        return kernel

    def _to_db(self, mel):
        """Convert one clip from power to decibels, in place."""
        # torch's logarithm is vectorised on every processor.
        torch.from_numpy(mel).clamp_(min=self.amin).log10_().mul_(10.0)
        if self.top_db is not None:
            np.maximum(mel, mel.max() - np.float32(self.top_db), out=mel)

    def _exported(self):
        return _LogMelLayer(self)


class _LogMelLayer(SpectrogramLayer):
    def __init__(self, extractor):
        used = np.flatnonzero(extractor.mel_basis_.any(axis=0))
        bins = slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, 1)
        super().__init__(extractor, bins)
        basis = torch.from_numpy(extractor.mel_basis_[:, bins].T.copy())
        self.register_buffer("basis", basis)
        self.amin, self.top_db = extractor.amin, extractor.top_db

    def forward(self, waveform):
        mel = (self._spectra(waveform) @ self.basis).transpose(1, 2)
        decibels = torch.log(mel.clamp(min=self.amin)) * (10.0 / math.log(10.0))
        if self.top_db is None:
            return decibels
        loudest = decibels.amax(dim=(1, 2), keepdim=True)
        return torch.maximum(decibels, loudest - self.top_db)


def _banded(basis):
    """Split filters into blocks of neighbours: (filters, bins, weights) with weights transposed."""
    blocks = []
    for start in range(0, len(basis), _BLOCK):
        filters = slice(start, min(start + _BLOCK, len(basis)))
        used = np.flatnonzero(basis[filters].any(axis=0))
        bins = slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, 0)
        # A copy of torch's is aligned, so that every thread's product has the same bits.
        weights = torch.from_numpy(basis[filters, bins].T).clone(
            memory_format=torch.contiguous_format
        )
        blocks.append((filters, bins, weights))
    return blocks
