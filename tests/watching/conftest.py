"""A machine that hums, and a small system that knows its sound."""

import numpy as np
import pandas as pd
import pytest
from sklearn.pipeline import make_pipeline

from sk_asd.detectors import MahalanobisDetector
from sk_asd.features import LogMel, TimePooling

SR = 2000


def hum(seconds, rng, *, fault=False):
    """Sound of the machine; its fault is a whistle."""
    time = np.arange(round(seconds * SR)) / SR
    y = 0.1 * np.sin(2 * np.pi * 100 * time + rng.uniform(0, 6)) + 0.02 * rng.normal(size=len(time))
    if fault:
        y += 0.05 * np.sin(2 * np.pi * 700 * time)
    return y.astype(np.float32)


@pytest.fixture(scope="session")
def pipeline():
    """Fitted to clips of a second."""
    rng = np.random.default_rng(0)
    clips = pd.DataFrame({"audio": [hum(1.0, rng) for _ in range(60)], "sr": SR})
    return make_pipeline(
        LogMel(sr=SR, n_fft=256, hop_length=128, n_mels=12, n_jobs=1),
        TimePooling(("mean", "std")),
        MahalanobisDetector(contamination=0.02, threshold="gamma"),
    ).fit(clips)
