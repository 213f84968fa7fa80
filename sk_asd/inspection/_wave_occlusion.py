"""Maps by occlusion of the sound, for features without a frequency axis, as those of Wav2Vec."""

import copy
import itertools

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from sk_asd.features import STFT
from sk_asd.features._wav2vec import WaveformNetwork
from sk_asd.inspection._occlusion import BATCH, boxes_of
from sk_asd.inspection._steps import labelled_features
from sk_asd.utils._containers import is_clip_table, take_clips

_N_FFT, _HOP_LENGTH = 1024, 256
_FRAMES = {"n_fft": _N_FFT, "hop_length": _HOP_LENGTH, "window": torch.hann_window(_N_FFT)}


def lacks_frequencies(step):
    """Tell an extractor of sounds whose features have channels where others have hertz."""
    return isinstance(step, WaveformNetwork)


def spectrogram_of(extractor, X):
    """Spectrogram of clips as an extractor of sounds hears them.

    Parameters
    ----------
    extractor : BaseExtractor
        Fitted.
    X : DataFrame or array-like of shape (n_clips, n_samples)
        Clips, as it takes them.

    Returns
    -------
    DataArray of shape (n_clips, n_bins, n_frames)
        Magnitudes over ``frequency`` and ``frame``.
    """
    check_is_fitted(extractor)
    same = {name: getattr(extractor, name) for name in ("sr", "on_length", "on_rate", "channel")}
    seconds = extractor.n_samples_ / extractor.sr
    stft = STFT(n_fft=_N_FFT, hop_length=_HOP_LENGTH, duration=seconds, **same)
    return labelled_features(stft.fit(X).transform(X), stft)


def wave_occlusion_map(steps, extractor, X, patches, score):
    """Change of the score when a patch of the spectrogram is taken out of the sound.

    What is louder in the patch than the median of its bin over the clip is lowered to that; all
    else, phases included, stays as it is.

    Parameters
    ----------
    steps : list of estimators
        Fitted, the last one a detector.
    extractor : BaseExtractor
        Fitted; what the first of the steps takes is from it.
    X : DataFrame or array-like of shape (n_clips, n_samples)
        Clips, as the extractor takes them.
    patches : tuple of int
        Number of bands and of stretches of time.
    score : callable
        ``score(detector, X)`` gives scores, high = normal.

    Returns
    -------
    ndarray of shape (n_clips, n_bins, n_frames)
        Score without the patch minus that of the whole clip, on the cells of `spectrogram_of`.
    """
    # No variant of a clip will be asked for again.
    extractor = copy.copy(extractor).set_params(cache_dir=None)
    steps = [extractor, *map(_with_fewer_windows, steps)]
    source = extractor._source(X, reset=False)
    maps = []
    for row in range(len(source)):
        wave = torch.from_numpy(extractor._load(source, row))
        spectrum = torch.stft(wave, **_FRAMES, pad_mode="constant", return_complex=True)
        boxes, number = boxes_of(spectrum.shape, patches)
        waves, scores = _with_holes(wave, spectrum, boxes), []
        while batch := list(itertools.islice(waves, BATCH)):
            scores.append(_scores(steps, _like(X, row, batch, extractor.sr), score))
        scores = np.concatenate(scores)
        maps.append((scores[1:] - scores[0])[number])
    return np.stack(maps)


def _with_holes(wave, spectrum, boxes):
    """The wave, then what is left of it without what is loud in one box after the other."""
    level = spectrum.abs().clamp(min=torch.finfo(torch.float32).tiny)
    excess = spectrum * (1 - level.median(1, keepdim=True).values / level).clamp(min=0)
    yield wave.numpy()
    for box in boxes:
        taken = torch.zeros_like(spectrum)
        taken[box] = excess[box]
        yield (wave - torch.istft(taken, **_FRAMES, length=len(wave))).numpy()


def _with_fewer_windows(step):
    return step._with_fewer_windows() if hasattr(step, "_with_fewer_windows") else step


def _like(X, row, waves, sr):
    """Variants of the sound of a clip, as clips."""
    if not is_clip_table(X):
        return np.stack(waves)
    return take_clips(X, [row] * len(waves)).assign(audio=waves, sr=sr)


def _scores(steps, X, score):
    for step in steps[:-1]:
        X = step.transform(X)
    return score(steps[-1], X)
