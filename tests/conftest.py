"""Fixtures for all tests."""

import os
from pathlib import Path

import numpy as np
import pytest

from sk_asd.datasets._audio import write_audio

# Common checks that train large networks, or for long; other networks stand for them.
DEAR = (
    ("test_scikit_learn", "Cnn6Classifier"),
    ("test_own", "Cnn6Classifier"),
    ("test_scikit_learn", "MobileNetV2Detector"),
    ("test_own", "MobileNetV2Detector"),
    ("test_scikit_learn", "SectionEmbedder"),
    ("test_scikit_learn", "MultiHeadEmbedder"),
    ("test_output_of_transformers", "MultiHeadEmbedder"),
    ("check_outliers", "AEGANDetector"),
    ("check_outliers", "WSPFlowDetector"),
)


def pytest_configure():
    # Each worker of xdist has a core; the libraries of workers read this when they are loaded.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # scikit-learn's checks of the array API are skipped without it.
    os.environ.setdefault("SCIPY_ARRAY_API", "1")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if any(all(part in item.name for part in parts) for parts in DEAR):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def real_data():
    """Folder of the real recordings, or a skip where they are not at hand."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SK_ASD_DATA", default))
    if not (folder / "dcase_real").is_dir():
        pytest.skip(f"no real recordings in {folder}; set SK_ASD_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def write_tone():
    """Return a function that writes a short sine to a file and returns its path."""

    def write(path, *, frequency=440.0, amplitude=0.5, n_samples=800, sr=16000, n_channels=1):
        time = np.arange(n_samples) / sr
        # Every further channel an octave higher, so that channels can be told apart.
        octaves = 2.0 ** np.arange(n_channels)
        y = amplitude * np.sin(2 * np.pi * frequency * octaves * time[:, None])
        write_audio(path, y, sr)
        return Path(path)

    return write
