"""Clips of one valve, some with a click taken away or moved, for the figures of the user guide."""

import functools

import matplotlib.pyplot as plt
import numpy as np
from scipy import signal

from sk_asd.datasets import make_machine_sounds
from sk_asd.features import LogMel

SR = 16000


@functools.cache
def _valve():
    """Features of normal clips, 80 ms a frame, what makes them, and one more clip."""
    clips = make_machine_sounds(
        "valve", n_train=160, n_test=0, n_target_train=0, snr=6.0, duration=6.0, random_state=0
    )
    # It opens every 1.1 s, for 0.35 s, with a click at either end: 31 frames hold two openings.
    clips = clips[clips["pat"] == 0]
    mel = LogMel(sr=SR, hop_length=1280, n_mels=16).fit(clips)
    return mel.transform(clips[5:]), mel, clips[4:5]


def training_features():
    """Features of normal clips of 6 s."""
    return _valve()[0]


def test_features(*plants):
    """Features of one more clip with something planted, and the places of it in seconds."""
    _, mel, clip = _valve()
    y, places = clip["audio"].iloc[0], []
    for plant in plants:
        y, place = plant(y)
        places.append(place)
    return mel.transform(clip.assign(audio=[y])), places


def _clicks(y):
    """Seconds of the clicks, which stand out of the noise above 2.5 kHz."""
    step = SR // 200
    y = signal.sosfilt(signal.butter(4, 2500, "highpass", fs=SR, output="sos"), y)
    power = 10 * np.log10(np.square(y[: len(y) // step * step]).reshape(-1, step).mean(axis=1))
    peaks, _ = signal.find_peaks(power, np.median(power) + 6, prominence=6, distance=20)
    return peaks / 200


def _opening(y):
    """Seconds of the opening nearest to the middle of the clip, and of the closing before it."""
    times = _clicks(y)
    gaps = np.diff(times)
    opens = 1 + np.flatnonzero((abs(gaps[:-1] - 0.75) < 0.05) & (abs(gaps[1:] - 0.35) < 0.05))
    chosen = opens[abs(times[opens] - len(y) / SR / 2).argmin()]
    return times[chosen], times[chosen - 1]


def _cut(y, start, seconds):
    return y[round(start * SR) :][: round(seconds * SR)]


def _replaced(y, start, piece):
    """Put another piece of sound in from `start` on, cross-faded within 5 ms."""
    y, start, n = y.copy(), round(start * SR), len(piece)
    ramp = np.minimum(1, np.minimum(np.arange(n), np.arange(n)[::-1]) / 80).astype(y.dtype)
    y[start : start + n] += ramp * (piece - y[start : start + n])
    return y


def missing_click(y):
    """Take the click of an opening away; the place of it comes back as well, in seconds."""
    opening, closing = _opening(y)
    return _replaced(y, opening - 0.02, _cut(y, closing + 0.3, 0.1)), opening


def late_click(y):
    """Let an opening come 0.2 s late; when it was due comes back as well, in seconds."""
    opening, closing = _opening(y)
    late = [_cut(y, closing + 0.3, 0.2), _cut(y, opening - 0.02, 0.1)]
    return _replaced(y, opening - 0.02, np.concatenate(late)), opening


def tone(y, seconds=1.5, hz=2000):
    """Add a tone of 0.2 s, at its peak as strong as all of the clip on average."""
    n = SR // 5
    wave = np.hanning(n) * np.sin(2 * np.pi * hz * np.arange(n) / SR)
    y, start = y.copy(), round(seconds * SR) - n // 2
    y[start : start + n] += (np.sqrt(2 * np.square(y).mean()) * wave).astype(y.dtype)
    return y, seconds


def show(maps, titles, labels, limits, notes):
    """Spectrogram and score maps of a clip above each other, marked where something was planted.

    Parameters
    ----------
    maps : list of DataArray of shape (n_bins, n_frames)
        The maps, first of all the spectrogram.
    titles, labels : list of str
        Titles of the maps, and labels of their colours.
    limits : list of tuple of float
        Least and greatest value shown.
    notes : dict of float to str
        What was planted, by its seconds.

    Returns
    -------
    Figure
        The figure.
    """
    figure, axes = plt.subplots(
        len(maps), sharex=True, figsize=(8, 1.9 * len(maps)), layout="constrained"
    )
    for i, (ax, values) in enumerate(zip(axes, maps)):
        mesh = ax.pcolormesh(
            values.frame,
            np.arange(values.mel.size),
            values,
            cmap="cividis" if i == 0 else "magma",
            vmin=limits[i][0],
            vmax=limits[i][1],
        )
        ticks = np.searchsorted(values.mel.values, [300, 1000, 3000])
        ax.set_yticks(ticks, [f"{values.mel.values[t] / 1000:.1f}" for t in ticks])
        ax.set(title=titles[i], ylabel="kHz")
        for place in notes:
            ax.axvline(place, color="white", linestyle=":", linewidth=1)
        figure.colorbar(mesh, ax=ax, label=labels[i], pad=0.01)
    for place, note in notes.items():
        axes[0].text(place + 0.06, maps[0].mel.size - 3, note, color="white")
    axes[-1].set_xlabel("time, s")
    return figure
