"""Sounds for a web page: short, small, and within the file."""

import base64
import io

import numpy as np
import soundfile as sf
import soxr

MAX_SECONDS = 10.0
MAX_RATE = 16000
_LOW_RATE = 8000
_ENOUGH_SECONDS = 4.0  # what to keep before the sample rate is halved


def seconds_and_rate(n_bytes):
    """Longest duration and highest sample rate of a sound of so many bytes.

    Parameters
    ----------
    n_bytes : float
        Size at 16 bits a sample.

    Returns
    -------
    seconds : float
        At most 10.
    rate : int
        16000, or 8000 where that would leave less than 4 seconds.
    """
    rate = MAX_RATE if n_bytes >= 2 * MAX_RATE * _ENOUGH_SECONDS else _LOW_RATE
    return min(MAX_SECONDS, n_bytes / (2 * rate)), rate


def excerpt(sound, seconds, rate, centre=0.0):
    """Cut a sound and lower its sample rate.

    Parameters
    ----------
    sound : tuple
        Samples and sample rate.
    seconds : float
        Length that is kept at most.
    rate : int
        Highest sample rate.
    centre : float, default=0.0
        Second that shall be in the middle.

    Returns
    -------
    y : ndarray of shape (n_samples,), float32
        Samples.
    sr : int
        Sample rate.
    start : float
        Second where the excerpt begins.
    """
    y, sr = sound
    n = round(seconds * sr)
    start = int(np.clip(round(centre * sr) - n // 2, 0, max(0, len(y) - n)))
    y = np.asarray(y[start : start + n], dtype=np.float32)
    if sr > rate:
        y, sr = soxr.resample(y, sr, rate), rate
    return y, int(sr), start / sound[1]


def wav_uri(y, sr, gain=1.0):
    """Data URI of a sound, as WAV of 16 bits."""
    buffer = io.BytesIO()
    sf.write(buffer, np.clip(gain * y, -1, 1), sr, format="WAV", subtype="PCM_16")
    return "data:audio/wav;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
