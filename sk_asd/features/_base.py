"""What all feature extractors share: where waveforms come from, threads, chunks and the cache."""

import ctypes
import functools
import hashlib
import math
import os
import threading
from abc import ABCMeta, abstractmethod
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from numbers import Integral, Real
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import soxr
import torch
from sklearn.utils import check_array, gen_batches
from sklearn.utils.validation import check_is_fitted, validate_data
from threadpoolctl import ThreadpoolController

from sk_asd.datasets._audio import audio_blocks, audio_info, read_audio
from sk_asd.datasets._samples import as_samples, check_range, is_sample
from sk_asd.features._cache import FeatureFile
from sk_asd.utils._base import BaseEstimator
from sk_asd.utils._containers import as_clips, check_clip_table, is_clip_table, plain, wrap
from sk_asd.utils._output import LabelledOutput, bin_names
from sk_asd.utils._progress import advance
from sk_asd.utils._sklearn import Interval, StrOptions, _check_feature_names_in, _fit_context

_BLOCK_BYTES = 8 * 2**20  # features that a thread works on before it hands them over
_N_HEARD = 16  # clips whose loudness `fit` learns
_MOST_HEARD = 2**20  # samples of each
_BLOCK_SECONDS = 0.1
_QUIET = 0.05  # a quantile of their levels
_AHEAD = 4096  # samples more at the rate `sr`, and soxr gives the same bits as from the whole clip
_LEAST_AHEAD = 256  # as many of the clip
_LONG = 2**24  # samples of a clip that is longer than most


def _count(needed, wave, sr):
    """How much of a waveform to take, None for all of it."""
    n = needed(len(wave), sr) if callable(needed) else needed
    return None if n < 0 else n


class _Files:
    """Waveforms of the column ``path``."""

    def __init__(self, X, estimator):
        self.paths = X["path"].tolist()
        self.channel = estimator.channel
        self.keep = False  # clips that `_hear` has read as a whole, for `transform` right after it
        self._kept = {}

    def __len__(self):
        return len(self.paths)

    def name(self, row):
        path = self.paths[row]
        if not isinstance(path, (str, os.PathLike)):
            raise ValueError(f"Row {row}, column 'path': expected a file name, found {path!r}.")
        return os.fspath(path)

    def read(self, row, needed=-1):
        if row in self._kept:
            wave, sr = self._kept.pop(row)
            return wave[: _count(needed, wave, sr)], sr
        return read_audio(self.name(row), channel=self.channel, frames=needed)

    def hear(self, row):
        wave, sr = self.read(row, _MOST_HEARD)
        if self.keep and len(wave) < _MOST_HEARD:
            self._kept[row] = wave, sr
        return wave, sr

    def length(self, row):
        info = audio_info(self.name(row))
        if info.frames > _LONG:  # sizes follow from it: do not take the header's word
            return sum(map(len, audio_blocks(self.name(row)))), info.sr
        return info.frames, info.sr

    def identity(self, row):
        path = self.name(row)
        try:
            stat = os.stat(path)
        except FileNotFoundError:
            raise FileNotFoundError(f"No such sound file: {path}") from None
        return os.path.abspath(path), stat.st_size, stat.st_mtime_ns


class _Arrays:
    """Waveforms in memory: the rows of an array, or the column ``audio``."""

    def __init__(self, waves, rates, column=""):
        self.waves = waves
        self.rates = rates
        self.column = column

    @classmethod
    def from_table(cls, X, estimator):
        rates = np.full(len(X), float(estimator.sr))
        if "sr" in X.columns:
            try:
                known = pd.to_numeric(X["sr"]).to_numpy(dtype=float, na_value=np.nan)
            except (TypeError, ValueError) as error:
                raise ValueError(f"Column 'sr': expected sample rates in Hz: {error}") from None
            rates = np.where(np.isnan(known), rates, known)
        return cls(X["audio"].tolist(), rates, ", column 'audio'")

    def __len__(self):
        return len(self.waves)

    def name(self, row):
        return f"Row {row}{self.column}"

    def read(self, row, needed=-1):
        wave, sr = as_samples(self.waves[row], self.name(row)), self.rates[row]
        return wave[: _count(needed, wave, sr)], sr

    def hear(self, row):
        return self.read(row, _MOST_HEARD)

    def length(self, row):
        wave, sr = self.read(row)
        return len(wave), sr

    def identity(self, row):
        wave, sr = self.read(row)
        digest = hashlib.blake2b(np.ascontiguousarray(wave), digest_size=16).hexdigest()
        return digest, len(wave), float(sr)


def _of_one_type(X):
    """A DataFrame of waveforms in NumPy's types; integers do not become float with others."""
    X = X.astype({c: t.numpy_dtype for c, t in X.dtypes.items() if hasattr(t, "numpy_dtype")})
    types = sorted({str(t) for t in X.dtypes})
    if len(types) > 1 and any(t.kind != "f" for t in X.dtypes):
        raise TypeError(f"X: expected samples of one type, found columns of {', '.join(types)}.")
    return X


class BaseExtractor(LabelledOutput, BaseEstimator, metaclass=ABCMeta):
    """Base of transformers from waveforms to features ``(clip, bin, frame)``.

    A subclass lists its parameters, among them those of `_parameter_constraints` below, and gives

    - ``_setup(origin)``: called by `fit` when ``n_samples_`` is known, `origin` being a text that
      says where from; checks parameters against each other and sets the other fitted attributes;
    - ``_shape()``: shape of the features of one clip;
    - ``_labels()``: names of the dimensions after ``clip``, and their coordinates;
    - ``_kernel()``: a function ``kernel(wave, out)`` with its own scratch memory, called for one
      clip after the other in one thread. It must not look at other clips: the features of a clip
      are the same bit for bit whatever comes with it;
    - ``_exported()``, if it is to be exported: a ``torch.nn.Module`` that computes the features
      ``(batch, bin, frame)`` of waveforms ``(batch, n_samples_)`` in float32, ``n_frames_`` frames.
    """

    _parameter_constraints: dict = {
        "sr": [Interval(Integral, 1, None, closed="left")],
        "duration": [Interval(Real, 0, None, closed="neither"), None],
        "on_length": [StrOptions({"error", "pad", "crop", "tile"})],
        "on_rate": [StrOptions({"error", "resample"})],
        "channel": [Interval(Integral, 0, None, closed="left")],
        "cache_dir": [str, os.PathLike, None],
        "n_jobs": [Integral, None],
    }
    _state = ("n_samples_", "peak_", "quiet_")
    _takes = "waveforms"

    @abstractmethod
    def _setup(self, origin):
        """Set the fitted attributes that follow from parameters and ``n_samples_``."""

    @abstractmethod
    def _shape(self):
        """Shape of the features of one clip."""

    @abstractmethod
    def _labels(self):
        """Names of the dimensions after ``clip`` and a dict of their coordinates."""

    @abstractmethod
    def _kernel(self):
        """Return a function ``kernel(wave, out)``."""

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Record length and loudness of clips, prepare windows and filters; compute no features.

        Parameters
        ----------
        X : DataFrame, sequence of str or path-like, or array-like of shape (n_clips, n_samples)
            Clip table, names of sound files, or waveforms at the rate `sr`. The first clip says
            how long clips are, and 16 of them, evenly spaced, how loud.
        y : Ignored
            Not used, present by convention.

        Returns
        -------
        self : object
            The fitted extractor.
        """
        X = as_clips(X)
        self._fit_to(self._source(X, reset=True), X)
        return self

    def _fit_to(self, source, X, heard=None):
        """Fit to clips, of which another extractor may have heard some already."""
        if self.duration is None:
            self.n_samples_ = self._length_of_first(source)
            origin = f"{source.name(0)}: the clip has {self.n_samples_} samples"
        else:
            self.n_samples_ = max(1, round(self.duration * self.sr))
            origin = f"duration={self.duration} s are {self.n_samples_} samples"
        if is_clip_table(X):
            self.n_features_in_ = self.n_samples_
            vars(self).pop("feature_names_in_", None)
        self._setup(origin)
        self.peak_, self.quiet_ = heard = heard or self._hear(source)
        return heard

    def transform(self, X):
        """Compute the features.

        Parameters
        ----------
        X : DataFrame, sequence of str or path-like, or array-like of shape (n_clips, n_samples)
            Clip table, names of sound files, or waveforms at the rate `sr`.

        Returns
        -------
        DataArray or ndarray of shape (n_clips, n_bins, n_frames), float32
            A DataArray with the metadata of the table as coordinates for a clip table, else an
            ndarray. Read-only and memory-mapped if `cache_dir` is set. They fit into no DataFrame:
            ``set_output`` of a Pipeline is for the steps behind, such as TimePooling.

        Raises
        ------
        FileNotFoundError
            If a sound file does not exist.
        ValueError
            If a clip cannot be read, has NaN or infinite samples, or has another length or rate
            than `on_length` and `on_rate` allow. The message names the clip.
        OSError
            If `cache_dir` cannot be written.
        """
        check_is_fitted(self)
        X = as_clips(X)
        source = self._source(X, reset=False)
        shape = (len(source), *self._shape())
        if self.cache_dir is None:
            features = np.empty(shape, dtype=np.float32)
            for _ in fill([self], source, lambda rows: [features[rows]]):
                pass
        else:
            features = self._cached(source, shape)
        dims, coords = self._labels()
        return self._contained(wrap(features, X, dims, coords), X)

    def get_feature_names_out(self, input_features=None):
        """Names of the bins, such as ``"mel_125Hz"``; those of the frames are left out.

        Parameters
        ----------
        input_features : array-like of str, default=None
            Not used, but checked against what `fit` has seen.

        Returns
        -------
        ndarray of str of shape (n_bins,)
            Names, to which :class:`~sk_asd.features.TimePooling` adds the statistic.
        """
        check_is_fitted(self)
        _check_feature_names_in(self, input_features, generate_names=False)
        (dim, _), coords = self._labels()
        return bin_names(dim, self._shape()[0], coords.get(dim))

    def _source(self, X, *, reset):
        """Tell the kinds of input apart."""
        if is_clip_table(X):
            check_clip_table(X)
            return _Arrays.from_table(X, self) if "audio" in X.columns else _Files(X, self)
        if isinstance(X, pd.DataFrame) and not all(map(pd.api.types.is_numeric_dtype, X.dtypes)):
            check_clip_table(X)  # raises: text without the column 'path' is a table gone wrong
        waves = _of_one_type(X) if isinstance(X, pd.DataFrame) else plain(X)
        # Every waveform is checked when it is used; here a scan of all would be a second pass.
        checks = {"dtype": None, "ensure_all_finite": reset}
        if reset or self.on_length == "error":
            waves = validate_data(self, waves, reset=reset, **checks)
        else:
            waves = check_array(waves, estimator=self, input_name="X", **checks)
        if waves.dtype == object:
            waves = as_samples(waves, "X", ndim=2)
        as_samples(waves[:1], "X", ndim=2)  # raises where the type is that of no samples
        return _Arrays(waves, np.full(len(waves), float(self.sr)))

    def _length_of_first(self, source):
        length, sr = source.length(0)
        if sr != self.sr:
            length = len(self._resampled(*source.read(0), source.name(0)))
        if length == 0:
            raise ValueError(f"{source.name(0)}: the clip has no samples.")
        return length

    def _hear(self, source):
        """Largest magnitude, and level that 95 % of the tenths of a second exceed, of some clips.

        Alike samples tell nothing of the level. What cannot be read is for `transform` to tell.
        """
        peak, levels = 0.0, []
        for row in np.unique(np.linspace(0, len(source) - 1, _N_HEARD).astype(int)):
            try:
                wave, sr = source.hear(row)
            except (OSError, ValueError, TypeError):
                continue
            wave = wave[is_sample(wave)]
            if len(wave) == 0:
                continue
            peak = max(peak, float(np.abs(wave).max()))
            n = max(1, int(min(len(wave), _BLOCK_SECONDS * sr)))
            blocks = wave[: len(wave) // n * n].reshape(-1, n)
            levels.extend(np.std(blocks, axis=1, dtype=np.float64))
        levels = [level for level in levels if level > 0]
        return peak, float(np.quantile(levels, _QUIET)) if levels else 0.0

    def _resampled(self, wave, sr, name):
        if sr == self.sr:
            return wave
        if self.on_rate == "error":
            raise ValueError(
                f"{name}: sample rate {sr:.10g} Hz, expected sr={self.sr} Hz; set `sr` to that of "
                "the clips, or on_rate='resample'."
            )
        if not 0 < sr < math.inf:
            raise ValueError(f"{name}: sample rate {sr:g} Hz, expected a positive number.")
        n = len(wave) * self.sr / sr
        if n > max(_LONG, 64 * len(wave)):
            raise ValueError(
                f"{name}: at a sample rate of {sr:.10g} Hz its {len(wave)} samples would be "
                f"{n:.3g} at sr={self.sr} Hz; the rate cannot be right."
            )
        return soxr.resample(wave, sr, self.sr, quality="HQ")

    def _needed(self, name):
        """Function that says how much of a clip of so many samples at a rate is to be read."""

        def needed(length, sr):
            if not 0 < sr < math.inf or (sr != self.sr and self.on_rate == "error"):
                self._resampled(np.empty(0, np.float32), sr, name)  # raises
            if self.on_length == "error":
                # Rounding is for the real length to tell.
                if length and abs((n := length * self.sr / sr) - self.n_samples_) > 1:
                    raise self._wrong_length(name, round(n))
                return -1
            if sr == self.sr:
                return self.n_samples_
            ratio = sr / self.sr
            return math.ceil(self.n_samples_ * ratio + max(_LEAST_AHEAD, _AHEAD * ratio))

        return needed

    def _wrong_length(self, name, length):
        expected = self.n_samples_
        return ValueError(
            f"{name}: the clip has {length} samples ({length / self.sr:.4g} s at {self.sr} Hz), "
            f"expected {expected} ({expected / self.sr:.4g} s); found with "
            f"on_length={self.on_length!r}, see the parameters `duration` and `on_length`."
        )

    def _load(self, source, row):
        """Read one waveform, as float32 at the rate `sr` and of the length ``n_samples_``."""
        name = source.name(row)
        wave, sr = source.read(row, self._needed(name))
        check_range(wave, name)
        wave = self._resampled(wave, sr, name)
        length, expected = len(wave), self.n_samples_
        if length == 0:
            raise ValueError(f"{name}: the clip has no samples.")
        if length == expected:
            return wave
        if self.on_length == "error" or (self.on_length == "crop" and length < expected):
            raise self._wrong_length(name, length)
        if length > expected:
            return wave[:expected]
        if self.on_length == "tile":
            return np.resize(wave, expected)
        return np.pad(wave, (0, expected - length))

    def _n_threads(self):
        if self.n_jobs is None:
            return min(torch.get_num_threads(), joblib.cpu_count())
        return joblib.effective_n_jobs(self.n_jobs)

    def _value_params(self):
        """Parameters that features depend on, in a form whose ``repr`` tells them apart."""
        params = self.get_params(deep=False)
        return {name: params[name] for name in params if name not in ("cache_dir", "n_jobs")}

    def _cached(self, source, shape):
        with ThreadPoolExecutor(self._n_threads()) as pool:
            identities = list(pool.map(source.identity, range(len(source))))
        contents = (self._value_params(), self.n_samples_, identities)
        file = FeatureFile(self.cache_dir, type(self).__name__, shape, contents)
        features = file.load()
        if features is not None:
            return features

        def allocate(rows):
            return [np.empty((rows.stop - rows.start, *shape[1:]), np.float32)]

        return file.write(block for (block,) in fill([self], source, allocate))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        return tags


def fill(extractors, source, allocate):
    """Compute features block by block, by threads that run ahead a little.

    A thread does all of a clip's work, so that decoding and computing overlap and a waveform stays
    in the cache of its core.

    Parameters
    ----------
    extractors : list of BaseExtractor
        Fitted; all read clips as the first one does.
    source : _Files or _Arrays
        The clips.
    allocate : callable
        ``allocate(rows)`` gives an array for every extractor's features of the rows.

    Yields
    ------
    list of ndarray
        The arrays, filled, in order.
    """
    lead = extractors[0]
    n_threads = min(lead._n_threads(), len(source))
    clip_bytes = 4 * sum(math.prod(extractor._shape()) for extractor in extractors)
    block = max(1, min(16, _BLOCK_BYTES // clip_bytes, len(source) // n_threads))
    scratch = threading.local()

    def compute(rows, arrays):
        if not hasattr(scratch, "kernels"):
            scratch.kernels = [extractor._kernel() for extractor in extractors]
        for i, row in enumerate(range(rows.start, rows.stop)):
            wave = lead._load(source, row)
            for kernel, out in zip(scratch.kernels, arrays):
                kernel(wave, out[i])
        return arrays

    pending = deque()
    with ThreadPoolExecutor(n_threads, "sk_asd", _limit_torch_to_this_thread) as pool:
        for rows in gen_batches(len(source), block):
            pending.append(pool.submit(compute, rows, allocate(rows)))
            if len(pending) > n_threads + 1:
                yield _filled(pending.popleft())
        while pending:
            yield _filled(pending.popleft())


def _filled(block):
    arrays = block.result()
    advance(len(arrays[0]))
    return arrays


@functools.cache
def _thread_settings():
    """Functions that set the number of threads of OpenMP and of MKL for the calling thread."""
    openmp = ThreadpoolController().select(user_api="openmp")
    setters = [lambda n: openmp.limit(limits=n)]
    # torch brings MKL inside its own library, where threadpoolctl does not find it.
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    if library.exists() and torch.backends.mkl.is_available():
        setters.append(ctypes.CDLL(str(library)).MKL_Set_Num_Threads_Local)
    return setters


def _limit_torch_to_this_thread():
    """Make torch's operations called from this thread run in it alone.

    ``torch.set_num_threads`` would also change the number that threads started later begin with, if
    only for a moment; these settings belong to the thread. With one thread the order of additions,
    and so the last bit of a result, is always the same.
    """
    torch.get_num_threads()  # the first call of a thread initialises its number; ours comes after
    for setter in _thread_settings():
        setter(1)
