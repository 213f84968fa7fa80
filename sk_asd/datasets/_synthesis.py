"""Building blocks of machine sounds, the factory around the machines, and microphones.

Three building blocks make all sounds. *Orders*, multiples of a shaft's rotation, are read from one
period in a table, which costs the same for three harmonics and for three hundred. *Strikes*, a
train of impulses at given times, ring resonances. *Coloured noise* is drawn as a spectrum.
"""

import numpy as np
from scipy import fft, signal

_TABLE = 4096  # points of one revolution
_CONTROL = 64  # samples between two points of a slowly varying quantity
_RIPPLE = 1.0  # dB
_PHASORS = np.exp(2j * np.pi * np.arange(256) / 256).astype(np.complex64)


class Sound:
    """Length, sample rate and random numbers of one clip under construction.

    Parameters
    ----------
    rng : numpy.random.Generator
        Random numbers of the clip.
    n : int
        Samples.
    sr : int
        Sample rate in Hz.
    """

    def __init__(self, rng, n, sr):
        self.rng = rng
        self.n = n
        self.sr = sr
        self.seconds = n / sr
        self.n_fft = fft.next_fast_len(n, real=True)
        self.control_times = np.arange(-(-n // _CONTROL) + 1) * (_CONTROL / sr)

    def stretch(self, control):
        """Interpolate values at the control times linearly to all samples, as float32."""
        start, step = control[:-1, None], np.diff(control)[:, None]
        ramp = np.arange(_CONTROL) / _CONTROL
        return (start + step * ramp).ravel()[: self.n].astype(np.float32)

    def wander(self, seconds=1.0):
        """Slow random drift of unit variance at the control times, changing over `seconds`."""
        knots = np.arange(-1, int(self.seconds / seconds) + 3)
        values = self.rng.standard_normal(len(knots))
        phase = self.rng.uniform()
        return np.interp(self.control_times / seconds, knots + phase, values)

    def rotation(self, rate, wander=0.003):
        """Angle of a shaft in revolutions, from a random start.

        Parameters
        ----------
        rate : float or ndarray of the shape of ``control_times``
            Revolutions a second.
        wander : float
            Standard deviation of the relative speed.

        Returns
        -------
        ndarray of shape (n,)
            Revolutions at every sample.
        """
        speed = rate * (1 + wander * self.wander())
        turns = np.cumsum(speed) * (_CONTROL / self.sr) + self.rng.uniform()
        turns -= speed * (_CONTROL / self.sr)
        step = np.diff(turns)[:, None] * (np.arange(_CONTROL) / _CONTROL)
        return (turns[:-1, None] + step).ravel()[: self.n]

    def tones(self, angle, orders, levels, rate=0.0):
        """Sum of sinusoids of random phase at multiples of a rotation.

        Parameters
        ----------
        angle : ndarray of shape (n,)
            Revolutions.
        orders : array-like of int
            Multiples, below half the length of the table.
        levels : array-like of float
            Amplitude of each.
        rate : float
            Fastest rotation in Hz: orders beyond the Nyquist frequency are left out.

        Returns
        -------
        ndarray of shape (n,)
            Samples.
        """
        orders = np.asarray(orders)
        levels = np.broadcast_to(np.asarray(levels, dtype=float), orders.shape)
        phases = self.rng.uniform(0, 2 * np.pi, orders.size)
        kept = orders * rate < 0.48 * self.sr
        spectrum = np.zeros(_TABLE // 2 + 1, dtype=complex)
        np.add.at(spectrum, orders[kept], (levels * np.exp(1j * phases))[kept])
        table = fft.irfft(spectrum * (_TABLE / 2), _TABLE).astype(np.float32)
        place = angle * _TABLE
        whole = place.astype(np.int64)
        part = (place - whole).astype(np.float32)
        whole &= _TABLE - 1
        step = np.append(np.diff(table), table[0] - table[-1])
        return table[whole] + part * step[whole]

    def noise(self, colour):
        """Gaussian noise of unit power whose spectrum follows the amplitude curve ``colour(hz)``.

        No two recordings have quite the same colour: a smooth ripple of about 1 dB is laid over it.
        """
        # Very many tones of random phase are Gaussian noise, and cheaper to draw.
        phases = np.frombuffer(self.rng.bytes(self.n_fft // 2 + 1), dtype=np.uint8)
        spectrum = _PHASORS[phases] * self._curve(colour)
        return unit_power(fft.irfft(spectrum, self.n_fft)[: self.n])

    def _curve(self, colour):
        # Colours are smooth: 1,024 points are enough, and much cheaper than all bins.
        grid = np.linspace(0, self.sr / 2, 1024)
        bins = np.linspace(0, self.sr / 2, self.n_fft // 2 + 1)
        hz = np.maximum(grid, 1.0)
        knots = np.geomspace(40, 24000, 14)
        ripple = np.interp(np.log(hz), np.log(knots), self.rng.normal(0, _RIPPLE, knots.size))
        return np.interp(bins, grid, colour(hz) * decibels(ripple)).astype(np.float32)

    def strikes(self, times, heights, kernel):
        """Ring `kernel` at the given times.

        Parameters
        ----------
        times : array-like
            Seconds; those outside the clip are left out.
        heights : array-like
            Amplitude of each strike.
        kernel : ndarray
            Response to one strike, as :func:`ring` makes it.

        Returns
        -------
        ndarray of shape (n,)
            Samples.
        """
        place = np.asarray(times, dtype=float) * self.sr
        heights = np.broadcast_to(np.asarray(heights, dtype=float), place.shape)
        inside = (place >= 0) & (place < self.n - 1)
        place, heights = place[inside], heights[inside]
        whole = place.astype(np.int64)
        part = place - whole
        if place.size <= 100:  # a convolution costs as much for one strike as for ten thousand
            kernels = np.multiply.outer(heights * (1 - part), np.append(kernel, 0))
            kernels[:, 1:] += np.multiply.outer(heights * part, kernel)
            y = np.zeros(self.n + len(kernel) + 1, dtype=np.float32)
            for start, response in zip(whole, kernels):
                y[start : start + len(response)] += response
            return y[: self.n]
        train = np.bincount(whole, heights * (1 - part), self.n)
        train += np.bincount(whole + 1, heights * part, self.n)
        train = train.astype(np.float32)
        return signal.oaconvolve(train, kernel)[: self.n]

    def clock(self, rate, jitter=0.01):
        """Times of events at `rate` per second, each interval jittered, over the whole clip."""
        n = int(self.seconds * rate * 1.1) + 3
        steps = (1 + jitter * self.rng.standard_normal(n)) / rate
        return np.cumsum(steps) - self.rng.uniform(0, 1 / rate) - 1 / rate


def unit_power(y):
    """Scale `y` to mean square 1; silence stays silent."""
    power = float(np.dot(y, y)) / max(len(y), 1)
    return y / np.float32(np.sqrt(power)) if power > 0 else y


def decibels(level):
    """Amplitude factor of a level in dB."""
    return 10.0 ** (np.asarray(level) / 20)


def add(base, part, level, depth=1.0):
    """Add `part` to `base`, `level` dB over its power; the amplitude grows with `depth`."""
    power = np.sqrt(np.dot(base, base) / len(base))
    return base + unit_power(part) * np.float32(power * decibels(level) * depth)


def ring(modes, sr, seconds=0.06):
    """Response to one strike: a sum of decaying sinusoids.

    Parameters
    ----------
    modes : sequence of (float, float, float)
        Frequency in Hz, quality factor and amplitude. Those beyond the Nyquist frequency are
        left out.
    sr : int
        Sample rate in Hz.
    seconds : float
        Length of the response.

    Returns
    -------
    ndarray
        Samples.
    """
    t = np.arange(max(int(seconds * sr), 8)) / sr
    kernel = np.zeros_like(t)
    for hz, quality, amplitude in modes:
        if hz < 0.48 * sr:
            kernel += amplitude * np.exp(-np.pi * hz / quality * t) * np.sin(2 * np.pi * hz * t)
    return kernel.astype(np.float32)


def slope(corner, octave_db):
    """Colour that is flat up to `corner` Hz and falls by `octave_db` per octave above."""
    order = octave_db / 6.02
    return lambda hz: (1 + (hz / corner) ** 2) ** (-order / 2)


def humps(modes):
    """Colour with a peak of the given amplitude over 1 at every mode (Hz, quality, amplitude)."""

    def colour(hz):
        gain = np.ones_like(hz)
        for centre, quality, amplitude in modes:
            detune = quality * (hz / centre - centre / hz)
            gain += amplitude / np.sqrt(1 + detune**2)
        return gain

    return colour


def product(*colours):
    """Colour that is the product of others."""
    return lambda hz: np.prod([colour(hz) for colour in colours], axis=0)


def draw_modes(rng, n, low, high, quality=(15, 40), amplitude=(0.4, 1.0)):
    """Draw `n` resonances spread over `low` to `high` Hz: (Hz, quality, amplitude) each."""
    edges = np.geomspace(low, high, n + 1)
    hz = rng.uniform(edges[:-1], edges[1:])
    return list(zip(hz, rng.uniform(*quality, n), rng.uniform(*amplitude, n)))


def factory_unit(rng):
    """Colour, hum and impacts of the noise at one place in the factory."""
    return {
        "corner": rng.uniform(90, 260),
        "fall": rng.uniform(3.5, 5.5),
        "modes": draw_modes(rng, 5, 150, 6000, (1.5, 6), (0.3, 1.5)),
        "hum": rng.uniform(24, 70),
        "levels": rng.uniform(0.2, 1, 20) * decibels(-1.2 * np.arange(20)),
        "hum_level": rng.uniform(-10, -3),
        "impacts": rng.uniform(0.1, 0.5),
        "impact": draw_modes(rng, 4, 150, 2500, (6, 20)),
    }


def factory(sound, unit):
    """Factory noise of unit power: coloured noise, the hum of machines and impacts far away."""
    rng = sound.rng
    corner = unit["corner"] * np.exp(0.15 * rng.standard_normal())
    fall = unit["fall"] + rng.normal(0, 0.1)
    y = sound.noise(product(slope(corner, fall), humps(unit["modes"])))
    angle = sound.rotation(unit["hum"] * (1 + 0.01 * rng.standard_normal()))
    hum = sound.tones(angle, np.arange(1, 21), unit["levels"], unit["hum"])
    y = add(y, hum, unit["hum_level"] + rng.normal(0, 1))
    impacts = rng.poisson(unit["impacts"] * sound.seconds)
    if impacts:
        times = rng.uniform(0, sound.seconds, impacts)
        heights = 2.5 * rng.lognormal(0, 0.4, impacts)
        kernel = ring(unit["impact"], sound.sr, 0.15)
        y = y + sound.strikes(times, heights, kernel)
    return unit_power(y)


def microphone(y, sr, corner, presence, gain):
    """Response of a microphone: a low cut at `corner` Hz and `gain` dB around `presence` Hz.

    Second-order sections as in Bristow-Johnson's *Audio EQ Cookbook*.
    """
    cut = signal.butter(1, corner, "highpass", fs=sr, output="sos")
    w = 2 * np.pi * min(presence, 0.4 * sr) / sr
    amplitude, alpha = decibels(gain / 2), np.sin(w) / 2
    peak = np.array(
        [[1 + alpha * amplitude, -2 * np.cos(w), 1 - alpha * amplitude,
          1 + alpha / amplitude, -2 * np.cos(w), 1 - alpha / amplitude]]
    )  # fmt: skip
    sections = np.vstack([cut, peak / peak[0, 3]])
    return signal.sosfilt(sections, y).astype(np.float32)
