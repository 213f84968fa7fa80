"""Anomalies planted in the sound of a synthetic machine are found, and at their place."""

import numpy as np
import pandas as pd
import pytest
from scipy import signal
from sklearn.base import clone
from sklearn.metrics import roc_auc_score

from sk_asd.datasets import make_machine_sounds
from sk_asd.detectors import AEGANDetector, AutoEncoderDetector, IMDNDetector
from sk_asd.features import LogMel

SR = 16000
HOP = 1280  # 80 ms; the valve opens every 1.1 s, so that 31 frames hold two openings
MARGIN = 1.6  # seconds at both ends where nothing is planted: more than half a window
N_TRAIN, N_TEST = 100, 20


def valve_sounds(seed, **params):
    """Clips of one valve, which opens every 1.1 s, for 0.35 s, with a click at either end."""
    defaults = {"n_train": 280, "n_test": 0, "n_target_train": 0, "snr": 6.0, "duration": 6.0}
    clips = make_machine_sounds("valve", **{**defaults, **params}, random_state=seed)
    return clips[clips["pat"] == 0]


# --- what is planted -----------------------------------------------------------------------------


def click_times(y):
    """Seconds of the clicks, which stand out of the noise above 2.5 kHz."""
    step = SR // 200
    y = signal.sosfilt(signal.butter(4, 2500, "highpass", fs=SR, output="sos"), y)
    power = 10 * np.log10(np.square(y[: len(y) // step * step]).reshape(-1, step).mean(axis=1))
    peaks, _ = signal.find_peaks(power, np.median(power) + 6, prominence=6, distance=20)
    return peaks * step / SR


def choose_opening(y, rng):
    """Seconds of one opening, and of the closing before it."""
    times = click_times(y)
    gaps = np.diff(times)
    opens = 1 + np.flatnonzero((abs(gaps[:-1] - 0.75) < 0.05) & (abs(gaps[1:] - 0.35) < 0.05))
    opens = opens[(times[opens] > MARGIN) & (times[opens] < len(y) / SR - MARGIN)]
    chosen = rng.choice(opens)
    return times[chosen], times[chosen - 1]


def cut(y, start, seconds):
    start = round(start * SR)
    return y[start : start + round(seconds * SR)]


def replaced(y, start, piece):
    """`y` with another piece of sound from `start` on, cross-faded within 5 ms."""
    y, start, n = y.copy(), round(start * SR), len(piece)
    ramp = np.minimum(1, np.minimum(np.arange(n), np.arange(n)[::-1]) / 80).astype(y.dtype)
    y[start : start + n] += ramp * (piece - y[start : start + n])
    return y


def extra_tone(y, rng):
    """A tone of 0.2 s, which at its peak is as strong as all of the clip on average."""
    time, hz = rng.uniform(MARGIN, len(y) / SR - MARGIN), 1000 * 5 ** rng.uniform()
    n = SR // 5
    tone = np.hanning(n) * np.sin(2 * np.pi * hz * np.arange(n) / SR)
    start = round(time * SR) - n // 2
    y = y.copy()
    y[start : start + n] += (np.sqrt(2 * np.square(y).mean()) * tone).astype(y.dtype)
    return y


def missing_click(y, rng):
    """An opening without its click, where the closed valve is heard instead."""
    opening, closing = choose_opening(y, rng)
    return replaced(y, opening - 0.02, cut(y, closing + 0.3, 0.1))


def changed_rhythm(y, rng):
    """An opening 0.2 s late."""
    opening, closing = choose_opening(y, rng)
    late = [cut(y, closing + 0.3, 0.2), cut(y, opening - 0.02, 0.1)]
    return replaced(y, opening - 0.02, np.concatenate(late))


KINDS = {plant.__name__: plant for plant in (extra_tone, missing_click, changed_rhythm)}
FAULTS = ("missing_click", "late_click")  # of the machine model, at about 60 % of openings


class Data:
    """Features of normal clips, of the test clips with something planted, and of faults."""

    def __init__(self, seed=0):
        mel = LogMel(sr=SR, hop_length=HOP, n_mels=16)
        clips = valve_sounds(seed)[: N_TRAIN + N_TEST]
        X = mel.fit_transform(clips)
        self.train, self.test = X[N_TEST:], X[:N_TEST]
        self.planted = {}
        for kind, plant in KINDS.items():
            rng = np.random.default_rng(seed)
            audio = [plant(y, rng) for y in clips["audio"][:N_TEST]]
            self.planted[kind] = mel.transform(clips[:N_TEST].assign(audio=audio))
        faults = valve_sounds(seed, n_train=0, n_test=200, anomalies=FAULTS)
        self.faults = mel.transform(faults[faults["label"] == "anomaly"])


@pytest.fixture(scope="module")
def data():
    return Data()


# --- detectors -----------------------------------------------------------------------------------


def fit_imdn(detector, data, seed):
    detector.set_params(n_frames=31, window_hop=1, batch_size=64, random_state=seed)
    return detector.fit(data.train[np.tile(np.arange(N_TRAIN), 5)])  # 5 windows of a clip an epoch


def imdn(data, seed=0):
    """A network of the report, and a single Gaussian."""
    detector = IMDNDetector("ignn", n_components=1, module__hidden=32, module__n_layers=1)
    return fit_imdn(detector.set_params(max_epochs=60, lr=1e-2), data, seed)


def imdn_of_three(data, seed=0):
    """Three Gaussians: it takes longer until none of them waits for a click that may not come."""
    detector = IMDNDetector("mlp", n_components=3, module__hidden=(128, 64))
    return fit_imdn(detector.set_params(max_epochs=200, lr=3e-3), data, seed)


def aegan(data, seed=0, adversarial=False):
    detector = AEGANDetector(n_frames=32, window_hop=4, module__width=0.1, module__norm="batch")
    detector.set_params(
        module__latent_dim=16, adversarial=adversarial, max_epochs=18, lr=2e-3, batch_size=32
    )
    return detector.set_params(random_state=seed).fit(data.train)


def adversarial_aegan(data, seed=0):
    return aegan(data, seed, adversarial=True)


def autoencoder(data, seed=0):
    """Its five frames of the challenge hold no rhythm; these do."""
    detector = AutoEncoderDetector("mahalanobis", n_frames=31, window_hop=2, random_state=seed)
    return detector.set_params(max_epochs=20, batch_size=64).fit(data.train)


DETECTORS = {f.__name__: f for f in (imdn, imdn_of_three, aegan, adversarial_aegan, autoencoder)}
SLOW = ("imdn", "imdn_of_three", "aegan", "adversarial_aegan")


@pytest.fixture(
    scope="module",
    params=[pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in DETECTORS],
)
def detector(request, data):
    return DETECTORS[request.param](data)


# --- tests ---------------------------------------------------------------------------------------


def cells_of_greatest_change(X, X_planted, maps):
    change = np.where(np.isfinite(maps), abs(X_planted - X), 0)
    return [np.unravel_index(c.argmax(), c.shape) for c in change]


def share_above(scores, cell):
    """Share of a map that is above one of its cells."""
    return (scores[np.isfinite(scores)] > scores[cell]).mean()


def roc_auc(normal, odd):
    return roc_auc_score([1] * len(normal) + [-1] * len(odd), np.concatenate([normal, odd]))


@pytest.mark.parametrize("kind", KINDS)
def test_planted_anomalies_are_found(detector, data, kind):
    """Clips score lower than before, and most of them lower than other normal clips."""
    normal, planted = (detector.score_samples(X) for X in (data.test, data.planted[kind]))
    assert (planted < normal).mean() >= 0.9
    assert roc_auc(normal, planted) > (0.65 if kind == "extra_tone" else 0.85)


@pytest.mark.parametrize("kind", KINDS)
def test_map_peaks_at_the_planted_place(detector, data, kind):
    X, X_planted = data.test.values, data.planted[kind].values
    maps = detector.score_map(X_planted)
    cells = cells_of_greatest_change(X, X_planted, maps)
    shares = [share_above(scores, cell) for scores, cell in zip(maps, cells)]
    assert np.mean(shares) < 0.05


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_the_machine_are_found(detector, data, fault):
    faulty = detector.score_samples(data.faults[data.faults.anomaly == fault])
    assert roc_auc(detector.score_samples(data.test), faulty) > 0.8


def test_error_falls(detector, data):
    """In training, and for other normal clips as well."""
    history = detector.net_.history
    name = "reconstruction_loss" if "reconstruction_loss" in history[0] else "train_loss"
    first, last = history[0][name], history[-1][name]
    new = np.nanmean(detector.score_map(data.test))
    # Nats per bin, or squared errors.
    limit = first - 0.7 if isinstance(detector, IMDNDetector) else 0.5 * first
    assert max(last, new) < limit


NOISE_DETECTORS = {
    "imdn_5": IMDNDetector("mlp", n_frames=5, n_components=1),
    "imdn_6": IMDNDetector("mlp", n_frames=6),
    "ignn_15": IMDNDetector("ignn", n_frames=15, module__hidden=16, module__n_layers=1),
    "ignn_16": IMDNDetector("ignn", n_frames=16, module__hidden=16, module__n_layers=1),
    "dfnet_6": IMDNDetector("dfnet", n_frames=6, module__hidden=16),
    "aegan": AEGANDetector(n_frames=16, adversarial=False, module__width=0.1, module__latent_dim=4),
    "autoencoder": AutoEncoderDetector(),
}


@pytest.mark.parametrize("name", NOISE_DETECTORS)
def test_a_burst_in_one_frame_of_noise_is_in_that_frame_of_the_map(name):
    """A burst of 16 ms, 10 dB above the noise, in the middle of a frame of 64 ms."""
    rng = np.random.default_rng(0)
    hop, n_hops = 512, 50
    audio = rng.normal(size=(60, n_hops * hop)).astype("float32")
    frames = rng.integers(10, n_hops - 10, size=20)
    for y, frame in zip(audio[:20], frames):
        y[frame * hop - 128 : frame * hop + 128] *= 10 ** (10 / 20)
    clips = pd.DataFrame({"audio": list(audio), "sr": SR})
    X = LogMel(sr=SR, n_fft=1024, hop_length=hop, n_mels=16).fit_transform(clips)
    detector = clone(NOISE_DETECTORS[name]).set_params(max_epochs=5, lr=3e-3, random_state=0)
    maps = detector.fit(X[20:]).score_map(X[:20])
    peaks = maps.mean("mel").idxmax("frame")
    np.testing.assert_allclose(peaks, frames * hop / SR)
