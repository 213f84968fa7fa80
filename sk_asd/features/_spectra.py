"""Short-time Fourier transforms: fast, and as a layer of a graph."""

import math

import numpy as np
import torch
from torch import nn

# Frames transformed at once: few enough that frames and spectra stay in the cache of a core.
_TILE_VALUES = 160 * 2048
# A layer cuts out frames by this many slices of the waveform at most, else by an index.
_MAX_SLICES = 32


class Spectra:
    """Power spectra of a waveform, some frames at a time, in the scratch memory of one thread.

    Sizes depend on the length of the waveform alone, never on other waveforms, and all arrays are
    aligned: so the same waveform gives the same bits.

    Parameters
    ----------
    window : ndarray of shape (n_fft,), float32
        Window, padded to the length of a frame.
    hop_length, n_samples : int
        Samples between frames and of a waveform.
    center : bool
        Whether half a frame of zeros is put before and after the waveform.
    """

    def __init__(self, window, hop_length, n_samples, center):
        n_fft = len(window)
        self.pad = n_fft // 2 if center else 0
        self.n_samples = n_samples
        real = {"dtype": torch.float32, "device": "cpu"}
        signal = torch.zeros(n_samples + 2 * self.pad, **real)
        self.signal = signal.numpy()
        self.window = torch.from_numpy(window).clone()
        self.frames = signal.unfold(0, n_fft, hop_length)
        n_tiles = -(-len(self.frames) * n_fft // _TILE_VALUES)
        self.tile = -(-len(self.frames) // n_tiles)
        self.windowed = torch.empty(self.tile, n_fft, **real)
        self.power = torch.empty(self.tile, n_fft // 2 + 1, **real)

    def __call__(self, wave):
        """Yield slices of frames and their spectra of shape (n_frames, n_bins), to be used at once.

        Parameters
        ----------
        wave : ndarray of shape (n_samples,), float32
            The waveform.
        """
        self.signal[self.pad : self.pad + self.n_samples] = wave
        for start in range(0, len(self.frames), self.tile):
            frames = self.frames[start : start + self.tile]
            n = len(frames)
            windowed = torch.mul(frames, self.window, out=self.windowed[:n])
            spectrum = torch.view_as_real(torch.fft.rfft(windowed))
            # |z|² of complex tensors takes eight times as long as these two steps.
            spectrum = torch.mul(spectrum, spectrum, out=spectrum)
            power = torch.add(spectrum[..., 0], spectrum[..., 1], out=self.power[:n])
            yield slice(start, start + n), power


def power_to_(power, exponent):
    """Turn power spectra into magnitudes to the `exponent`, in place."""
    if exponent == 1:
        power.sqrt_()
    elif exponent != 2:
        power.pow_(exponent / 2)
    return power


class SpectrogramLayer(nn.Module):
    """Magnitudes to the exponent `power`, out of operations that every runtime has.

    The Fourier transform is two products with fixed matrices. A frame's first half and the mirrored
    second half are added for the cosines and subtracted for the sines, which halves the work.

    Parameters
    ----------
    extractor : Spectrogram
        The fitted extractor.
    bins : slice
        Bins of the Fourier transform that are computed.
    """

    def __init__(self, extractor, bins):
        super().__init__()
        self.n_fft = extractor.n_fft
        self.hop_length = extractor.hop_length
        self.exponent = extractor.power
        self.n_frames = extractor.n_frames_
        self.register_buffer("window", torch.from_numpy(extractor.window_).clone())
        self.pad = extractor.n_fft // 2 if extractor.center else 0
        cosines, sines = _fourier(self.n_fft, bins)
        self.register_buffer("cosines", cosines)
        self.register_buffer("sines", sines)

    def forward(self, waveform):
        """Compute features (batch, bins, frames) of waveforms (batch, n_samples)."""
        return self._spectra(waveform).transpose(1, 2)

    def _spectra(self, waveform):
        if self.pad:
            waveform = nn.functional.pad(waveform, (self.pad, self.pad))
        frames = self._frames(waveform) * self.window
        n_pairs = (self.n_fft - 1) // 2
        first = frames[..., 1 : n_pairs + 1]
        mirrored = frames[..., self.n_fft - n_pairs :].flip(-1)
        single = frames[..., n_pairs + 1 : self.n_fft - n_pairs]  # the middle of an even number
        even = torch.cat([frames[..., :1], first + mirrored, single], dim=-1)
        real, imaginary = even @ self.cosines, (first - mirrored) @ self.sines
        return power_to_(real * real + imaginary * imaginary, self.exponent)

    def _frames(self, signal):
        step = math.gcd(self.n_fft, self.hop_length)
        n_slices, every = self.n_fft // step, self.hop_length // step
        if n_slices > _MAX_SLICES:
            return signal.unfold(1, self.n_fft, self.hop_length)
        n_blocks = (self.n_frames - 1) * every + n_slices
        blocks = signal[:, : n_blocks * step].unflatten(1, (n_blocks, step))
        last = n_blocks - n_slices + 1
        return torch.cat([blocks[:, i : i + last : every] for i in range(n_slices)], dim=2)


def _fourier(n_fft, bins):
    """Cosines of the folded frame's sums and sines of its differences, one column a bin."""
    n_pairs = (n_fft - 1) // 2
    frequency = np.arange(n_fft // 2 + 1)[bins]
    # The product modulo n_fft keeps the angle small, and its cosine exact.
    angle = 2 * np.pi / n_fft * (np.outer(np.arange(n_fft // 2 + 1), frequency) % n_fft)
    cosines, sines = np.cos(angle), np.sin(angle[1 : n_pairs + 1])
    return (torch.from_numpy(a.astype(np.float32)) for a in (cosines, sines))
