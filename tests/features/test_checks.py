"""The checks of scikit-learn, and a system from sound to scores."""

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM
from sklearn.utils.estimator_checks import parametrize_with_checks

from sk_asd.features import KeepLabels, LogMel, TimePooling


@parametrize_with_checks(
    [
        TimePooling(statistics=("mean", "std", "max", "gwrp"), r=0.5),
        KeepLabels(StandardScaler()),
        KeepLabels(PCA(n_components=1)),
    ]
)
def test_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.parametrize("memory", [False, True])
def test_pipeline(tmp_path, memory):
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(40, 8000)).astype(np.float32)
    noise[36:] += 3 * np.sin(2 * np.pi * 1000.0 * np.arange(8000) / 16000)
    clips = pd.DataFrame({"audio": list(noise), "sr": 16000, "section": "00"})
    pipeline = make_pipeline(
        LogMel(n_fft=512, hop_length=256, n_mels=32),
        TimePooling(),
        KeepLabels(StandardScaler()),
        OneClassSVM(nu=0.1),
        memory=str(tmp_path) if memory else None,
    )
    scores = pipeline.fit(clips[:30]).score_samples(clips)
    assert scores[36:].max() < scores[:36].min()
    np.testing.assert_array_equal(pipeline.score_samples(clips[7:9]), scores[7:9])
