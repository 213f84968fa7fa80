"""Maps of systems peak where something is planted: pooled features, flows, and embedders.

Those of IMDN, AEGAN-AD and the autoencoder are in ``tests/detectors/test_planted.py``.
"""

import itertools

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from torch import nn

from sk_asd.datasets import make_machine_sounds
from sk_asd.detectors import MahalanobisDetector, WSPFlowDetector
from sk_asd.embedders import MultiHeadEmbedder, SectionEmbedder
from sk_asd.ensemble import GroupedDetector
from sk_asd.features import STFT, LogMel, TimePooling, Wav2Vec
from sk_asd.inspection import anomaly_map

SR, HOP, N_PLANTED = 16000, 1024, 24


def extra_tone(y, rng):
    """A tone of 0.4 s, which at its peak is 6 dB above the average of the clip."""
    n = 2 * SR // 5
    middle, hz = rng.uniform(0.5, len(y) / SR - 0.5), 1000 * 5 ** rng.uniform()
    tone = np.hanning(n) * np.sin(2 * np.pi * hz * np.arange(n) / SR)
    start = round(middle * SR) - n // 2
    y = y.copy()
    y[start : start + n] += (2 * np.sqrt(2 * np.square(y).mean()) * tone).astype(y.dtype)
    return y


class Data:
    """Normal clips of two machines, others of them, and these with a tone planted.

    The place of a tone is the cell of the features that it changes the most.
    """

    def __init__(self, feature, duration):
        params = {"sections": 2, "n_train": 40, "n_test": 0, "n_target_train": 5, "snr": 6.0}
        params |= {"duration": duration, "random_state": 0}
        clips = make_machine_sounds(("fan", "ToyCar"), **params)
        held_out = np.arange(len(clips)) % (len(clips) // N_PLANTED) == 0
        self.test, self.train = clips[held_out][:N_PLANTED], clips[~held_out]
        rng = np.random.default_rng(0)
        self.planted = self.test.assign(audio=[extra_tone(y, rng) for y in self.test["audio"]])
        feature = feature.fit(self.train)
        change = abs(feature.transform(self.planted).values - feature.transform(self.test).values)
        self.cells = [np.unravel_index(c.argmax(), c.shape) for c in change]


def features():
    return LogMel(sr=SR, hop_length=HOP, n_mels=32)


@pytest.fixture(scope="module")
def data():
    return Data(features(), duration=4.0)


def grouped(detector):
    return GroupedDetector(detector, by=["machine", "section"])


class SmallNet(nn.Module):
    """Three convolutions, and a mean over time."""

    def __init__(self, n_bins=32):
        super().__init__()
        widths = (1, 16, 32, 32)
        layers = []
        for wide, wider in itertools.pairwise(widths):
            convolution = nn.Conv2d(wide, wider, 3, stride=2, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(wider), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.linear = nn.Linear(4 * n_bins, 32)

    def forward(self, x):
        return self.linear(self.layers(x.unsqueeze(1)).mean(3).flatten(1))


TRAINING = {
    "n_frames": 32,
    "window_hop": 8,
    "subtract_mean": True,
    "max_epochs": 15,
    "lr": 3e-3,
    "batch_size": 16,
    "random_state": 0,
}


def sc():
    embedder = SectionEmbedder(SmallNet, target="joint", **TRAINING)
    return make_pipeline(features(), embedder, grouped(MahalanobisDetector()))


def mhcr():
    embedder = MultiHeadEmbedder(SmallNet, **TRAINING)
    return make_pipeline(features(), embedder, grouped(MahalanobisDetector()))


def pooled(*statistics):
    pooling = TimePooling(statistics, r=0.9)
    return make_pipeline(features(), pooling, grouped(MahalanobisDetector()))


def wsp():
    # Means and deviations are enough for a flow to learn in seconds.
    flow = WSPFlowDetector(
        max_epochs=30, lr=3e-3, random_state=0, module__transforms=1, module__hidden_features=(32,)
    )
    return make_pipeline(features(), flow)


SYSTEMS = {
    "mean": (lambda: pooled("mean"), "distance"),
    "max": (lambda: pooled("max"), "distance"),
    "gwrp": (lambda: pooled("gwrp"), "distance"),
    "mean_std": (lambda: pooled("mean", "std"), "distance"),
    "wsp": (wsp, "score_map"),
    "sc": (sc, "occlusion"),
    "mhcr": (mhcr, "occlusion"),
}


def share_above_the_planted_place(system, data, **options):
    """Maps of 20 clips with a tone, and the mean share of cells above that of the tone."""
    found = system.score_samples(data.planted) < system.score_samples(data.test)
    assert found.mean() >= 0.9
    # Where the tone does not make the score worse there is nothing to show.
    rows = np.flatnonzero(found)[:20]
    assert len(rows) == 20
    maps = anomaly_map(system, data.planted.iloc[rows], **options)
    shares = [(m > m[data.cells[row]]).mean() for m, row in zip(maps.values, rows)]
    return maps, np.mean(shares)


@pytest.mark.parametrize("name", SYSTEMS)
def test_map_peaks_at_the_planted_place(data, name):
    build, method = SYSTEMS[name]
    maps, share = share_above_the_planted_place(build().fit(data.train), data)
    assert maps.attrs["method"] == method
    assert share < 0.05


@pytest.mark.slow
def test_map_of_wav2vec_peaks_at_the_planted_place():
    """SC-wav2vec, with a network that learns in seconds: hertz, where its features have none."""
    data = Data(STFT(n_fft=1024, hop_length=256), duration=2.0)
    training = TRAINING | {"n_frames": 80, "window_hop": 40, "subtract_mean": False}
    embedder = SectionEmbedder(SmallNet, target="joint", module__n_bins=128, **training)
    system = make_pipeline(Wav2Vec(), embedder, grouped(MahalanobisDetector())).fit(data.train)
    # A stretch is about as long as the tone.
    maps, share = share_above_the_planted_place(system, data, patches=(6, 4))
    assert maps.attrs["method"] == "occlusion"
    assert maps.dims == ("clip", "frequency", "frame")
    assert share < 0.05
