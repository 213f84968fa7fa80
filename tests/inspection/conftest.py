"""Small machines and systems to look into."""

import numpy as np
import pytest
import xarray as xr
from sklearn.pipeline import make_pipeline

from sk_asd.datasets import make_machine_sounds
from sk_asd.detectors import MahalanobisDetector
from sk_asd.ensemble import GroupedDetector
from sk_asd.features import LogMel, TimePooling

BY = ["machine", "section"]


@pytest.fixture(autouse=True)
def close_figures():
    """Close what a test has plotted."""
    import matplotlib

    matplotlib.use("agg")
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


@pytest.fixture(scope="session")
def clips():
    """Two machines of two sections, in both domains."""
    params = {"sections": 2, "n_train": 16, "n_test": 6, "n_target_train": 4, "duration": 1.0}
    return make_machine_sounds(("fan", "valve"), **params, random_state=0)


@pytest.fixture(scope="session")
def train(clips):
    return clips[clips["split"] == "train"]


@pytest.fixture(scope="session")
def test(clips):
    return clips[clips["split"] == "test"]


def mel(**params):
    return LogMel(**{"n_fft": 512, "hop_length": 512, "n_mels": 16, **params})


@pytest.fixture(scope="session")
def pooling(train):
    """Fitted: log-mel, mean and deviation over time, Mahalanobis per machine and section."""
    detector = GroupedDetector(MahalanobisDetector(), by=BY)
    return make_pipeline(mel(), TimePooling(), detector).fit(train)


@pytest.fixture
def features():
    """Labelled features of 12 clips of two sections: 6 mel bins, 20 frames of 0.1 s."""
    values = np.random.default_rng(0).normal(size=(12, 6, 20)).astype("float32")
    coords = {
        "mel": 100.0 * np.arange(1, 7),
        "frame": 0.1 * np.arange(20),
        "section": ("clip", np.repeat(["00", "01"], 6)),
        "machine": ("clip", np.repeat("fan", 12)),
    }
    return xr.DataArray(values, dims=("clip", "mel", "frame"), coords=coords)
