"""Normal clips made abnormal: moderate changes of a waveform that keep its loudness."""

import numpy as np
import soxr


def add_tone(wave, rng):
    """A tone that was not there, 5 to 15 dB below the clip."""
    time = np.arange(len(wave))
    frequency = 0.5 * np.exp(rng.uniform(np.log(0.02), np.log(0.9)))  # cycles a sample
    tone = np.sin(2 * np.pi * (frequency * time + rng.uniform()))
    return wave + np.sqrt(2) * _level(wave, rng, -15, -5) * tone


def add_band(wave, rng):
    """Noise in a band a third of an octave to an octave wide, 0 to 10 dB below the clip."""
    spectrum = np.fft.rfft(rng.normal(size=len(wave)))
    frequency = np.linspace(0, 1, len(spectrum))
    low = np.exp(rng.uniform(np.log(0.02), np.log(0.7)))
    spectrum[(frequency < low) | (frequency > low * 2 ** rng.uniform(1 / 3, 1))] = 0
    noise = np.fft.irfft(spectrum, len(wave))
    return wave + _level(wave, rng, -10, 0) * noise / (_rms(noise) + np.finfo(float).tiny)


def reverse(wave, rng):
    """The clip backwards: the same spectrum, another course of events."""
    return wave[::-1].copy()


def drop_segments(wave, rng):
    """One to three segments, 3 to 8 % of the clip each, almost silent."""
    wave = wave.copy()
    for _ in range(rng.integers(1, 4)):
        start, length = _segment(wave, rng, 0.03, 0.08)
        fade = np.minimum(np.minimum(np.arange(length), np.arange(length)[::-1]) / 64, 1)
        wave[start : start + length] *= 1 - 0.9 * fade
    return wave


def shift_segment(wave, rng):
    """A segment of 10 to 30 % of the clip moved to another place."""
    start, length = _segment(wave, rng, 0.1, 0.3)
    segment = wave[start : start + length]
    rest = np.delete(wave, np.s_[start : start + length])
    return np.insert(rest, rng.integers(len(rest) + 1), segment)


def change_speed(wave, rng):
    """Faster or slower by 3 to 9 %, and higher or lower with it."""
    factor = (1 + rng.uniform(0.03, 0.09)) ** rng.choice([-1, 1])
    # What is too short goes on from its beginning.
    return np.resize(soxr.resample(wave, factor, 1.0), len(wave))


PERTURBATIONS = (add_tone, add_band, reverse, drop_segments, shift_segment, change_speed)


def perturb(wave, how, rng):
    """Change a waveform.

    Parameters
    ----------
    wave : array-like of shape (n_samples,)
        The clip.
    how : callable
        One of ``PERTURBATIONS``.
    rng : numpy.random.Generator
        Source of the choices.

    Returns
    -------
    ndarray of float32 of shape (n_samples,)
        As long and as loud as `wave`: level alone must not give it away.
    """
    wave = np.asarray(wave, dtype=float)
    changed = how(wave, rng)
    loudness = _rms(changed)
    if loudness > 0:
        changed = changed * (_rms(wave) / loudness)
    return changed.astype(np.float32)


def _rms(wave):
    return np.sqrt(np.mean(wave**2))


def _level(wave, rng, low, high):
    """Root mean square that is `low` to `high` dB above that of the clip."""
    return _rms(wave) * 10 ** (rng.uniform(low, high) / 20)


def _segment(wave, rng, low, high):
    length = max(1, round(rng.uniform(low, high) * len(wave)))
    return rng.integers(len(wave) - length + 1), length
