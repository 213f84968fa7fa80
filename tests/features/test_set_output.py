"""DataFrames where set_output asks for them, with the names of features and the index of clips."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from sklearn import config_context
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sk_asd.datasets import make_machine_sounds
from sk_asd.detectors import KNNDetector, MahalanobisDetector
from sk_asd.embedders import MultiHeadEmbedder, SectionEmbedder
from sk_asd.ensemble import GroupedDetector, ScoreEnsemble
from sk_asd.features import STFT, KeepLabels, LogMel, TimePooling, Wav2Vec


@pytest.fixture(scope="module")
def clips():
    clips = make_machine_sounds("fan", n_train=8, n_test=0, duration=0.5, random_state=0)
    return clips.set_axis([f"clip {i}" for i in range(8)]).rename_axis("name")


def pooling():
    return make_pipeline(LogMel(n_mels=4), TimePooling(("gwrp", "max"), r=0.5))


NAMES = [f"{s}_mel_{hz}Hz" for s in ("gwrp", "max") for hz in (603, 1237, 2305, 4294)]


def test_a_pipeline_gives_a_frame(clips):
    expected = pooling().fit_transform(clips)
    pipeline = pooling().set_output(transform="pandas")
    frame = pipeline.fit_transform(clips)
    pd.testing.assert_frame_equal(frame, pd.DataFrame(expected.values, clips.index, NAMES))
    pd.testing.assert_frame_equal(pipeline.transform(clips), frame)
    assert pipeline.get_feature_names_out().tolist() == NAMES
    assert expected.feature.values.tolist() == NAMES
    xr.testing.assert_identical(pipeline.set_output(transform="default").transform(clips), expected)


@pytest.mark.parametrize(
    "index",
    [
        pd.RangeIndex(8),
        pd.Index([3, 3, 2, 2, 1, 1, 0, 0]),
        pd.date_range("2022-01-01", periods=8, freq="D"),
        pd.Index(list("abcdefgh"), name="path"),
    ],
    ids=["range", "repeated", "dates", "name of a column"],
)
def test_any_index(clips, index):
    frame = pooling().set_output(transform="pandas").fit_transform(clips.set_axis(index))
    pd.testing.assert_index_equal(frame.index, index, exact="equiv")


def test_several_levels_become_tuples(clips):
    index = pd.MultiIndex.from_product([["a", "b"], range(4)])
    frame = pooling().set_output(transform="pandas").fit_transform(clips.set_axis(index))
    assert frame.index.tolist() == index.tolist()


@pytest.mark.parametrize("set_all", [True, False])
def test_one_frame_for_many_steps(clips, set_all):
    pipeline = pooling()
    pipeline.steps += [("scale", KeepLabels(StandardScaler())), ("pca", KeepLabels(PCA(2)))]
    expected = pipeline.fit_transform(clips)
    (pipeline if set_all else pipeline[-1]).set_output(transform="pandas")
    frame = pipeline.fit_transform(clips)
    assert frame.columns.tolist() == pipeline.get_feature_names_out().tolist() == ["pca0", "pca1"]
    np.testing.assert_array_equal(frame, expected)
    # Without the extractor nobody keeps the index.
    assert frame.index.equals(clips.index if set_all else pd.RangeIndex(8))


@pytest.mark.parametrize("embedder", [SectionEmbedder, MultiHeadEmbedder])
def test_embedders(clips, embedder):
    clips = clips.assign(section=["00", "01"] * 4)
    network = embedder("cnn6", n_frames=None, max_epochs=1, module__embedding_dim=3, random_state=0)
    pipeline = make_pipeline(LogMel(n_mels=16), network)
    expected = pipeline.fit_transform(clips)
    assert "embedding" not in expected.coords
    frame = pipeline.set_output(transform="pandas").transform(clips)
    names = [f"{embedder.__name__.lower()}{i}" for i in range(3)]
    pd.testing.assert_frame_equal(frame, pd.DataFrame(expected.values, clips.index, names))


@pytest.mark.parametrize(
    ("extractor", "names"),
    [
        (LogMel(n_mels=2), ["mel_1006Hz", "mel_2836Hz"]),
        (STFT(fmin=30, fmax=40), ["frequency_31Hz", "frequency_39Hz"]),
        (Wav2Vec(), ["channel0", "channel1"]),
    ],
    ids=["LogMel", "STFT", "Wav2Vec"],
)
def test_three_dimensions_stay(clips, extractor, names):
    features = extractor.set_output(transform="pandas").fit_transform(clips)
    assert features.ndim == 3
    assert features.get_index("clip").tolist() == clips.index.tolist()
    assert extractor.get_feature_names_out().tolist()[:2] == names
    waves = np.stack(clips["audio"])
    assert extractor.fit_transform(waves).shape == features.shape
    extractor.set_output(transform="default")
    assert "clip" not in extractor.transform(clips).coords


def test_the_global_setting_is_for_plain_arrays(clips):
    system = make_pipeline(*(step for _, step in pooling().steps), KeepLabels(PCA(2)))
    detectors = [("near", KNNDetector()), ("spread", MahalanobisDetector())]
    with config_context(transform_output="pandas"):
        assert isinstance(system.fit_transform(clips), xr.DataArray)
        scores = ScoreEnsemble(detectors).fit(clips_ := system.transform(clips)).transform(clips_)
        assert isinstance(scores, xr.DataArray)
        plain = system.fit_transform(np.stack(clips["audio"]))
    assert plain.columns.tolist() == ["pca0", "pca1"]


def test_labels_that_a_frame_has_lost_are_missed(clips):
    system = make_pipeline(*(step for _, step in pooling().steps), GroupedDetector())
    system.set_output(transform="pandas")
    with pytest.warns(UserWarning, match="one group.*KeepLabels. So does set_output"):
        system.fit(clips)
