"""Front ends as layers: waveforms to spectrograms, and spectrograms to one vector a clip."""

import math

import numpy as np
import torch
from torch import nn

from sk_asd.features import LogMel
from sk_asd.features._pooling import _ranking_weights
from sk_asd.features._stft import power_to_

# Frames are cut out by this many slices of the waveform at most, else by an index.
_MAX_SLICES = 32
# Ranks of less weight than this, relative to the first, change nothing in float32.
_LEAST_WEIGHT = 1e-12


class SpectrogramLayer(nn.Module):
    """What a fitted `STFT` or `LogMel` computes, out of operations that every runtime has.

    The Fourier transform is two products with fixed matrices. A frame's first half and the mirrored
    second half are added for the cosines and subtracted for the sines, which halves the work.

    Parameters
    ----------
    extractor : STFT or LogMel
        The fitted extractor.
    """

    def __init__(self, extractor):
        super().__init__()
        self.n_fft = extractor.n_fft
        self.hop_length = extractor.hop_length
        self.exponent = extractor.power
        self.n_frames = extractor.n_frames_
        self.register_buffer("window", torch.from_numpy(extractor.window_).clone())
        margins = _margins(extractor)
        self.pad_mode = extractor.pad_mode if margins is not None else None
        if margins is not None:
            self.register_buffer("before", margins[0])
            self.register_buffer("after", margins[1])
        self.mel = isinstance(extractor, LogMel)
        if self.mel:
            used = np.flatnonzero(extractor.mel_basis_.any(axis=0))
            bins = slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, 1)
            basis = torch.from_numpy(extractor.mel_basis_[:, bins].T.copy())
            self.register_buffer("basis", basis)
            self.ref, self.amin, self.top_db = extractor.ref, extractor.amin, extractor.top_db
        else:
            bins = extractor._bins
        cosines, sines = _fourier(self.n_fft, bins)
        self.register_buffer("cosines", cosines)
        self.register_buffer("sines", sines)

    def forward(self, waveform):
        """Compute features (batch, bins, frames) of waveforms (batch, n_samples)."""
        frames = self._frames(self._padded(waveform)) * self.window
        n_pairs = (self.n_fft - 1) // 2
        first = frames[..., 1 : n_pairs + 1]
        mirrored = frames[..., self.n_fft - n_pairs :].flip(-1)
        single = frames[..., n_pairs + 1 : self.n_fft - n_pairs]  # the middle of an even number
        even = torch.cat([frames[..., :1], first + mirrored, single], dim=-1)
        real, imaginary = even @ self.cosines, (first - mirrored) @ self.sines
        spectrum = power_to_(real * real + imaginary * imaginary, self.exponent)
        if self.mel:
            spectrum = spectrum @ self.basis
        features = spectrum.transpose(1, 2)
        return self._decibels(features) if self.mel else features

    def _padded(self, waveform):
        if self.pad_mode is None:
            return waveform
        if self.pad_mode == "constant":
            return nn.functional.pad(waveform, (len(self.before), len(self.after)))
        return torch.cat([waveform[:, self.before], waveform, waveform[:, self.after]], dim=1)

    def _frames(self, signal):
        step = math.gcd(self.n_fft, self.hop_length)
        n_slices, every = self.n_fft // step, self.hop_length // step
        if n_slices > _MAX_SLICES:
            return signal.unfold(1, self.n_fft, self.hop_length)
        n_blocks = (self.n_frames - 1) * every + n_slices
        blocks = signal[:, : n_blocks * step].unflatten(1, (n_blocks, step))
        last = n_blocks - n_slices + 1
        return torch.cat([blocks[:, i : i + last : every] for i in range(n_slices)], dim=2)

    def _decibels(self, mel):
        ref = max(self.ref, self.amin) if self.ref != "max" else None
        decibels = _decibels(mel.clamp(min=self.amin))
        if ref is None:
            decibels = decibels - _decibels(mel.amax(dim=(1, 2), keepdim=True).clamp(min=self.amin))
        elif ref != 1.0:
            decibels = decibels - 10.0 * math.log10(ref)
        if self.top_db is None:
            return decibels
        loudest = decibels.amax(dim=(1, 2), keepdim=True)
        return torch.maximum(decibels, loudest - self.top_db)


class PoolingLayer(nn.Module):
    """What a fitted `TimePooling` computes.

    Parameters
    ----------
    pooling : TimePooling
        The fitted transformer.
    n_frames : int
        Frames of a clip.
    """

    def __init__(self, pooling, n_frames):
        super().__init__()
        self.statistics = tuple(pooling.statistics)
        weights = _ranking_weights(pooling.r, n_frames).astype(np.float32)
        weights = weights[weights > _LEAST_WEIGHT * weights[0]]
        self.even = pooling.r == 1
        self.register_buffer("weights", torch.from_numpy(weights))

    def forward(self, features):
        """Pool features (batch, bins, frames)."""
        return torch.cat([getattr(self, f"_{name}")(features) for name in self.statistics], dim=1)

    def _mean(self, features):
        return features.mean(dim=2)

    def _std(self, features):
        return (features - features.mean(dim=2, keepdim=True)).square().mean(dim=2).sqrt()

    def _max(self, features):
        return features.amax(dim=2)

    def _gwrp(self, features):
        if self.even:
            return features.mean(dim=2)
        return torch.topk(features, len(self.weights), dim=2).values @ self.weights


class AffineLayer(nn.Module):
    """What a fitted scaler or `PCA` of scikit-learn computes: a shift, a product or a quotient.

    Parameters
    ----------
    shift : array-like of shape (n_features,) or None
        What is subtracted.
    matrix : array-like of shape (n_features, n_features_out) or None
        What is multiplied with.
    scale : array-like of shape (n_features_out,) or None
        What is divided by, at last.
    """

    def __init__(self, shift, matrix, scale):
        super().__init__()
        for name, value in (("shift", shift), ("matrix", matrix), ("scale", scale)):
            value = None if value is None else torch.from_numpy(np.array(value, dtype=np.float64))
            self.register_buffer(name, value)

    def forward(self, x):
        """Transform vectors (batch, n_features); the result is in float64."""
        x = x.double()
        x = x if self.shift is None else x - self.shift
        x = x if self.matrix is None else x @ self.matrix
        return x if self.scale is None else x / self.scale


def _decibels(power):
    return torch.log(power) * (10.0 / math.log(10.0))


def _margins(extractor):
    """Positions of the samples that a waveform is continued by at both ends, or None."""
    n_samples, pad = extractor.n_samples_, extractor.n_fft // 2
    if not extractor.center or pad == 0:
        return None
    mode = extractor.pad_mode
    if mode == "constant":
        positions = np.zeros(n_samples + 2 * pad, dtype=np.int64)
    else:
        positions = np.pad(np.arange(n_samples), pad, mode=mode)
    return torch.from_numpy(positions[:pad].copy()), torch.from_numpy(positions[-pad:].copy())


def _fourier(n_fft, bins):
    """Cosines of the folded frame's sums and sines of its differences, one column a bin."""
    n_pairs = (n_fft - 1) // 2
    frequency = np.arange(n_fft // 2 + 1)[bins]
    # The product modulo n_fft keeps the angle small, and its cosine exact.
    angle = 2 * np.pi / n_fft * (np.outer(np.arange(n_fft // 2 + 1), frequency) % n_fft)
    cosines, sines = np.cos(angle), np.sin(angle[1 : n_pairs + 1])
    return (torch.from_numpy(a.astype(np.float32)) for a in (cosines, sines))
