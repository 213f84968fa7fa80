"""Names of files stand for a clip table, wherever one is taken."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline

from sk_asd.datasets import check_clips, make_machine_sounds
from sk_asd.decisions import adapt, false_alarms_per_day, predict_pvalue, score_clips, set_threshold
from sk_asd.detectors import KNNDetector, MahalanobisDetector
from sk_asd.embedders import SectionEmbedder, Wav2VecPretrainer
from sk_asd.ensemble import GroupedDetector, ScoreEnsemble, ScoreEnsembleCV
from sk_asd.features import STFT, KeepLabels, LogMel, TimePooling, Wav2Vec
from sk_asd.inspection import (
    AnomalyMapDisplay,
    EmbeddingDisplay,
    SpectrogramDisplay,
    anomaly_map,
    explain_clips,
    nearest_normal,
)
from sk_asd.metrics import anomaly_score
from sk_asd.utils._containers import as_clips, check_clip_table


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    root = tmp_path_factory.mktemp("sounds")
    return make_machine_sounds(
        "fan", n_train=12, n_test=0, duration=0.5, root=root, random_state=0
    )[["path"]]


KINDS = {
    "list": list,
    "paths": lambda names: [Path(name) for name in names],
    "tuple": tuple,
    "text": np.array,
    "objects": lambda names: np.array(names, dtype=object),
    "Series": pd.Series,
    "Index": pd.Index,
}


@pytest.fixture(params=KINDS)
def names(request, table):
    return KINDS[request.param](table["path"].tolist())


def system(detector=None):
    return make_pipeline(LogMel(n_mels=8), TimePooling(), detector or MahalanobisDetector())


def test_a_table_with_the_column_path(names, table):
    clips = as_clips(names)
    assert clips.columns.tolist() == ["path"]
    assert clips["path"].tolist() == table["path"].tolist()
    assert all(type(path) in (str, np.str_) for path in clips["path"])
    xr.testing.assert_identical(LogMel().fit_transform(names), LogMel().fit_transform(table))


def test_index_of_a_series(table):
    paths = table["path"].set_axis(range(12, 0, -1))
    assert as_clips(paths).index.tolist() == paths.index.tolist()
    frame = system()[:-1].set_output(transform="pandas").fit_transform(paths)
    assert frame.index.equals(paths.index)
    assert score_clips(system().fit(paths), paths).index.equals(paths.index)


@pytest.mark.parametrize(
    "X",
    [[[0.0, 1.0]], np.zeros(3), np.array(0.0), [], None, np.array([["a", "b"]]), pd.Series([1])],
)
def test_what_is_no_name_stays(X):
    assert as_clips(X) is X


@pytest.mark.parametrize("name", ["a.wav", Path("a.wav"), np.str_("a.wav")])
def test_a_single_name(name):
    for call in (LogMel().fit, GroupedDetector().fit, system().fit, check_clip_table, check_clips):
        with pytest.raises(ValueError, match=r"got the name of one: give a list, \['a.wav'\]"):
            call(name)


def test_messages(table):
    names = [table["path"][0], None]
    with pytest.raises(FileNotFoundError, match="No such sound file: nowhere.wav"):
        LogMel().fit(["nowhere.wav"])
    with pytest.raises(ValueError, match="Row 1, column 'path': expected a file name, found"):
        LogMel().fit(names).transform(names)
    for step in (KNNDetector(), TimePooling(), SectionEmbedder(), KeepLabels(TimePooling())):
        with pytest.raises(ValueError, match="not a clip table: put a feature extractor"):
            step.fit(["a.wav", "b.wav"])


def test_pipelines(names, table):
    expected = system().fit(table)
    found = system().fit(names)
    np.testing.assert_array_equal(found.score_samples(names), expected.score_samples(table))
    np.testing.assert_array_equal(found.predict(names), expected.predict(table))
    np.testing.assert_array_equal(anomaly_score(found, names), anomaly_score(expected, table))
    pd.testing.assert_frame_equal(score_clips(found, names), score_clips(expected, table))
    np.testing.assert_array_equal(predict_pvalue(found, names), predict_pvalue(expected, table))
    xr.testing.assert_identical(anomaly_map(found, names), anomaly_map(expected, table))


@pytest.mark.filterwarnings("ignore:No column:UserWarning")
def test_detectors_that_take_tables(names, table):
    members = [("near", system(KNNDetector())), ("spread", system())]
    for detector in (GroupedDetector(system()), ScoreEnsemble(members)):
        expected = detector.fit(table).score_samples(table)
        decisions = detector.fit_predict(table)
        np.testing.assert_array_equal(detector.fit(names).score_samples(names), expected)
        np.testing.assert_array_equal(detector.fit_predict(names), decisions)
    assert detector.transform(names).dims == detector.contributions(names).dims
    search = ScoreEnsembleCV(
        members, step=0.5, labels="pseudo", pseudo="perturbed", scoring="auc", random_state=0
    )
    assert search.fit(names).score_samples(names).shape == (12,)


@pytest.mark.parametrize("extractor", [STFT(), Wav2Vec()], ids=["STFT", "Wav2Vec"])
def test_extractors(extractor, table):
    expected = extractor.fit_transform(table)
    xr.testing.assert_identical(extractor.fit_transform(table["path"].tolist()), expected)


def test_pretrainer(table):
    pretrainer = Wav2VecPretrainer(max_updates=1, random_state=0, module__channels=4)
    expected = pretrainer.fit_transform(table)
    xr.testing.assert_identical(pretrainer.fit_transform(table["path"].tolist()), expected)


def test_what_is_done_with_a_system(table):
    paths = table["path"].tolist()
    fitted = system(KNNDetector()).fit(paths[:10])
    assert len(cross_val_predict(fitted, paths, [1] * 12, cv=3)) == 12
    set_threshold(fitted, contamination=0.2, calibration=paths)
    assert len(false_alarms_per_day(fitted, 100, calibration=paths)) == 1
    assert len(adapt(fitted, paths[10:])[-1].training_scores_) == 12
    assert nearest_normal(fitted, paths[:2], paths)["path"].isin(paths).all()
    assert len(explain_clips(fitted, paths, n_clips=1)) == 1
    pd.testing.assert_frame_equal(check_clips(paths), check_clips(table))
    for display in (AnomalyMapDisplay, SpectrogramDisplay):
        assert display.from_estimator(fitted, paths, clip=1).ax_ is not None
    assert EmbeddingDisplay.from_estimator(fitted, paths).ax_ is not None
    assert SpectrogramDisplay.from_predictions(paths, clip=1).ax_ is not None
