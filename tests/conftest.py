"""Fixtures for all tests."""

import os
from pathlib import Path

import numpy as np
import pytest

from sk_asd.datasets._audio import write_audio

# Tests that train large networks, or for long, by parts of their names; others stand for them.
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
    ("check_outliers", "AutoEncoderDetector"),
    ("test_output_of_transformers", "SectionEmbedder"),
    ("test_planted_anomalies_are_found", "autoencoder"),
    ("test_finds_broken_correlations", "nsf"),
    ("test_on_where_domains_differ", "cnn6"),
    ("test_networks_of_the_report_learn", "dfnet"),
    ("test_grid_search_over_a_detector", "2"),
    ("test_six_members_serve_several_machines", ""),
    ("test_forked_processes_do_not_hang", "scores"),
    ("test_the_next_command_for_the_same_output", "score"),
    ("test_small_files_do_not_take_much_memory", "width"),
    ("test_sizes_of_chunks", ".caf"),
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
