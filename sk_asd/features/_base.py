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
from sklearn.base import TransformerMixin
from sklearn.utils import check_array, gen_batches
from sklearn.utils.validation import check_is_fitted, validate_data
from threadpoolctl import ThreadpoolController

from sk_asd.datasets._audio import audio_info, read_audio
from sk_asd.features._cache import FeatureFile
from sk_asd.utils._base import BaseEstimator
from sk_asd.utils._containers import check_clip_table, is_clip_table, plain, wrap
from sk_asd.utils._sklearn import Interval, StrOptions, _fit_context

_BLOCK_BYTES = 8 * 2**20  # features that a thread works on before it hands them over


class _Files:
    """Waveforms of the column ``path``."""

    def __init__(self, X, estimator):
        self.paths = X["path"].tolist()
        self.channel = estimator.channel

    def __len__(self):
        return len(self.paths)

    def name(self, row):
        path = self.paths[row]
        if not isinstance(path, (str, os.PathLike)):
            raise ValueError(f"Row {row}, column 'path': expected a file name, found {path!r}.")
        return os.fspath(path)

    def read(self, row):
        return read_audio(self.name(row), channel=self.channel)

    def length(self, row):
        info = audio_info(self.name(row))
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
            known = pd.to_numeric(X["sr"]).to_numpy(dtype=float, na_value=np.nan)
            rates = np.where(np.isnan(known), rates, known)
        return cls(X["audio"].tolist(), rates, ", column 'audio'")

    def __len__(self):
        return len(self.waves)

    def name(self, row):
        return f"Row {row}{self.column}"

    def read(self, row):
        wave = np.asarray(self.waves[row])
        if wave.ndim != 1 or wave.dtype.kind not in "fiu":
            raise ValueError(
                f"{self.name(row)}: expected a 1-D array of numbers, found shape {wave.shape} and "
                f"dtype {wave.dtype}."
            )
        return wave, self.rates[row]

    def length(self, row):
        wave, sr = self.read(row)
        return len(wave), sr

    def identity(self, row):
        wave, sr = self.read(row)
        digest = hashlib.blake2b(np.ascontiguousarray(wave), digest_size=16).hexdigest()
        return digest, wave.dtype.str, len(wave), float(sr)


class BaseExtractor(TransformerMixin, BaseEstimator, metaclass=ABCMeta):
    """Base of transformers from waveforms to features ``(clip, bin, frame)``.

    A subclass lists its parameters, among them those of `_parameter_constraints` below, and gives

    - ``_setup(origin)``: called by `fit` when ``n_samples_`` is known, `origin` being a text that
      says where from; checks parameters against each other and sets the other fitted attributes;
    - ``_shape()``: shape of the features of one clip;
    - ``_labels()``: names of the dimensions after ``clip``, and their coordinates;
    - ``_kernel()``: a function ``kernel(wave, out)`` with its own scratch memory, called for one
      clip after the other in one thread. It must not look at other clips: the features of a clip
      are the same bit for bit whatever comes with it.
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
    _state = ("n_samples_",)

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
        """Record the length of a clip and prepare windows and filters; no features are computed.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_clips, n_samples)
            Clip table, or waveforms at the rate `sr`. Of a table the first clip alone is looked at.
        y : Ignored
            Not used, present by convention.

        Returns
        -------
        self : object
            The fitted extractor.
        """
        source = self._source(X, reset=True)
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
        return self

    def transform(self, X):
        """Compute the features.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_clips, n_samples)
            Clip table, or waveforms at the rate `sr`.

        Returns
        -------
        DataArray or ndarray of shape (n_clips, n_bins, n_frames), float32
            A DataArray with the metadata of the table as coordinates for a clip table, else an
            ndarray. Read-only and memory-mapped if `cache_dir` is set.

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
        source = self._source(X, reset=False)
        shape = (len(source), *self._shape())
        if self.cache_dir is None:
            features = np.empty(shape, dtype=np.float32)
            for _ in self._blocks(source, lambda rows: features[rows]):
                pass
        else:
            features = self._cached(source, shape)
        dims, coords = self._labels()
        return wrap(features, X, dims, coords)

    def _source(self, X, *, reset):
        """Tell the kinds of input apart."""
        if is_clip_table(X):
            check_clip_table(X)
            return _Arrays.from_table(X, self) if "audio" in X.columns else _Files(X, self)
        if isinstance(X, pd.DataFrame) and not all(map(pd.api.types.is_numeric_dtype, X.dtypes)):
            check_clip_table(X)  # raises: text without the column 'path' is a table gone wrong
        waves = plain(X)
        # Every waveform is checked when it is used; here a scan of all would be a second pass.
        checks = {"dtype": [np.float32, np.float64], "ensure_all_finite": reset}
        if reset or self.on_length == "error":
            waves = validate_data(self, waves, reset=reset, **checks)
        else:
            waves = check_array(waves, estimator=self, input_name="X", **checks)
        return _Arrays(waves, np.full(len(waves), float(self.sr)))

    def _length_of_first(self, source):
        length, sr = source.length(0)
        if sr != self.sr:
            length = len(self._resampled(*source.read(0), source.name(0)))
        if length == 0:
            raise ValueError(f"{source.name(0)}: the clip has no samples.")
        return length

    def _resampled(self, wave, sr, name):
        if sr == self.sr:
            return wave
        if self.on_rate == "error":
            raise ValueError(
                f"{name}: sample rate {sr:.10g} Hz, expected sr={self.sr} Hz; set `sr` to that of "
                "the clips, or on_rate='resample'."
            )
        if not sr > 0:
            raise ValueError(f"{name}: sample rate {sr:g} Hz, expected a positive number.")
        return soxr.resample(wave.astype(np.float32, copy=False), sr, self.sr, quality="HQ")

    def _load(self, source, row):
        """Read one waveform, as float32 at the rate `sr` and of the length ``n_samples_``."""
        wave = self._resampled(*source.read(row), source.name(row))
        with np.errstate(over="ignore"):
            wave = wave.astype(np.float32, copy=False)
            # The sum tells in one pass, unless it overflows itself.
            finite = np.isfinite(wave.sum()) or np.isfinite(wave).all()
        if not finite:
            raise ValueError(
                f"{source.name(row)}: the clip contains NaN, infinity or a value too large for "
                "float32."
            )
        length, expected = len(wave), self.n_samples_
        if length == 0:
            raise ValueError(f"{source.name(row)}: the clip has no samples.")
        if length == expected:
            return wave
        if self.on_length == "error" or (self.on_length == "crop" and length < expected):
            raise ValueError(
                f"{source.name(row)}: the clip has {length} samples ({length / self.sr:.4g} s at "
                f"{self.sr} Hz), expected {expected} ({expected / self.sr:.4g} s); found with "
                f"on_length={self.on_length!r}, see the parameters `duration` and `on_length`."
            )
        if length > expected:
            return wave[:expected]
        if self.on_length == "tile":
            return np.resize(wave, expected)
        return np.pad(wave, (0, expected - length))

    def _n_threads(self):
        if self.n_jobs is None:
            return min(torch.get_num_threads(), joblib.cpu_count())
        return joblib.effective_n_jobs(self.n_jobs)

    def _blocks(self, source, allocate):
        """Yield the features block by block, in order, filled by threads that run ahead a little.

        A thread does all of a clip's work, so that decoding and computing overlap and a waveform
        stays in the cache of its core.
        """
        n_threads = min(self._n_threads(), len(source))
        clip_bytes = 4 * math.prod(self._shape())
        block = max(1, min(16, _BLOCK_BYTES // clip_bytes, len(source) // n_threads))
        scratch = threading.local()

        def compute(rows, out):
            if not hasattr(scratch, "kernel"):
                scratch.kernel = self._kernel()
            for row, features in zip(range(rows.start, rows.stop), out):
                scratch.kernel(self._load(source, row), features)
            return out

        pending = deque()
        with ThreadPoolExecutor(n_threads, "sk_asd", _limit_torch_to_this_thread) as pool:
            for rows in gen_batches(len(source), block):
                pending.append(pool.submit(compute, rows, allocate(rows)))
                if len(pending) > n_threads + 1:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()

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
            return np.empty((rows.stop - rows.start, *shape[1:]), np.float32)

        return file.write(self._blocks(source, allocate))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        return tags


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
