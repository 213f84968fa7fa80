"""The nearest normal training clip."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from sklearn.ensemble import IsolationForest
from sklearn.pipeline import make_pipeline

from sk_asd.detectors import CosineDetector, KNNDetector, MahalanobisDetector
from sk_asd.ensemble import GroupedDetector, ScoreEnsemble
from sk_asd.features import LogMel, TimePooling
from sk_asd.inspection import nearest_normal
from sk_asd.inspection._nearest import embed_clips


def labelled(values, section, **coords):
    labels = {name: ("clip", value) for name, value in {"section": section, **coords}.items()}
    return xr.DataArray(np.array(values, float), dims=("clip", "embedding"), coords=labels)


TRAIN = [[0.0, 0.0], [4.0, 0.0], [0.0, 9.0], [1.0, 0.0], [5.0, 1.0], [9.0, 9.0]]
SECTIONS = ["00", "00", "00", "01", "01", "01"]


def fitted(detector, train):
    return make_pipeline(GroupedDetector(detector, by="section")).fit(train)


def test_by_hand():
    train = labelled(TRAIN, SECTIONS)
    # The nearest of all is in the other section.
    new = labelled([[1.1, 0.0], [4.0, 0.0]], ["00", "01"])
    found = nearest_normal(fitted(KNNDetector(metric="euclidean"), train), new, train)
    assert found["index"].tolist() == [0, 4]
    np.testing.assert_allclose(found["distance"], [1.1, np.sqrt(2)])
    assert found["path"].tolist() == [None, None]


def test_the_metric_is_that_of_the_detector():
    train = labelled(TRAIN, SECTIONS)
    new = labelled([[0.3, 3.0]], ["00"])
    found = nearest_normal(fitted(KNNDetector(metric="cosine"), train), new, train)
    assert found["index"].tolist() == [2]  # the same direction
    pipeline = fitted(MahalanobisDetector(), train)
    found = nearest_normal(pipeline, new, train)
    precision = pipeline[-1].detectors_["00"].precision_
    deviations = np.array(TRAIN[:3]) - [0.3, 3.0]
    distances = np.sqrt(np.einsum("ni,ij,nj->n", deviations, precision, deviations))
    assert found["index"].tolist() == [distances.argmin()]
    np.testing.assert_allclose(found["distance"], distances.min())
    # Without a metric of its own: in units of the deviation.
    found = nearest_normal(fitted(CosineDetector(), train), new, train)
    scaled = deviations / np.std(TRAIN[:3], axis=0)
    np.testing.assert_allclose(found["distance"], np.linalg.norm(scaled, axis=1).min())


def test_anomalies_and_the_clip_itself_are_no_neighbours():
    label = ["anomaly", *["normal"] * 5]
    train = labelled(TRAIN, SECTIONS, label=label, path=list("abcdef"))
    pipeline = fitted(KNNDetector(metric="euclidean"), train)
    found = nearest_normal(pipeline, train[[0, 1, 4]], train)
    assert found["path"].tolist() == ["b", "c", "d"]
    with pytest.raises(ValueError, match=r"no normal training clip of the group \('01',\)"):
        nearest_normal(pipeline, train[[4]], train[:3])


@pytest.mark.parametrize("over", [None, "domain"])
def test_among_the_clips_that_the_detector_has_kept(over):
    domain = ["source", "target", "source", "target", "source", "target"]
    train = labelled(TRAIN, SECTIONS, domain=domain)
    grouped = GroupedDetector(KNNDetector(metric="euclidean", n_neighbors=1), "section", over)
    if over:
        train = xr.concat([train, train + 0.25], "clip")  # two of each, to leave one out
    pipeline = make_pipeline(grouped).fit(train)
    new = labelled([[4.0, 0.1], [1.1, 0.0], [9.0, 9.0]], ["01", "00", "01"])
    found = nearest_normal(pipeline, new)
    pd.testing.assert_frame_equal(found, nearest_normal(pipeline, new, train))
    assert found["index"].tolist() == [4, 6 if over else 0, 5]
    with pytest.raises(ValueError, match="no normal training clip of the group '07'"):
        nearest_normal(pipeline, new.assign_coords(section=("clip", ["00", "07", "00"])))


def test_of_detectors_of_whole_pipelines(train, test):
    inner = make_pipeline(LogMel(n_mels=8), TimePooling(("mean",)), MahalanobisDetector())
    grouped = GroupedDetector(inner, by=["machine", "section"]).fit(train)
    found, expected = nearest_normal(grouped, test), nearest_normal(grouped, test, train)
    assert train.index[found["index"]].tolist() == expected["index"].tolist()
    np.testing.assert_allclose(found["distance"], expected["distance"], rtol=1e-4)


def test_detectors_that_keep_no_clips():
    X = np.random.default_rng(0).normal(size=(20, 2))
    forest = IsolationForest(n_estimators=2, random_state=0).fit(X)
    with pytest.raises(ValueError, match="IsolationForest keeps no training clips: give"):
        nearest_normal(forest, X)
    plain = KNNDetector(metric="euclidean").fit(X)
    assert nearest_normal(plain, X + 1e-3)["index"].tolist() == list(range(20))


def test_tables_keep_their_index(train, test, pooling):
    train = train.assign(path=[f"{i}.wav" for i in range(len(train))])
    train.index = train.index + 1000
    some = test.iloc[::4]
    found = nearest_normal(pooling, some, train)
    assert found.index.equals(some.index)
    rows = train.loc[found["index"]]
    assert rows["path"].tolist() == found["path"].tolist()
    for column in ("machine", "section"):
        assert rows[column].tolist() == some[column].tolist()


def test_of_an_ensemble_one_member_is_asked(features):
    members = [
        ("mean", make_pipeline(TimePooling(("mean",)), KNNDetector(metric="euclidean"))),
        ("max", make_pipeline(TimePooling(("max",)), KNNDetector(metric="euclidean"))),
    ]
    ensemble = ScoreEnsemble(members, weights=(0.7, 0.3), by="section").fit(features)
    X = features[:2] + 0.1
    heaviest = nearest_normal(ensemble, X, features)
    pd.testing.assert_frame_equal(heaviest, nearest_normal(ensemble, X, features, member="mean"))
    own = X.values.max(axis=2)[:, None] - features.values.max(axis=2)[:6][None]
    found = nearest_normal(ensemble, X, features, member="max")
    np.testing.assert_allclose(found["distance"], np.linalg.norm(own, axis=2).min(axis=1), 1e-5)
    np.testing.assert_allclose(embed_clips(ensemble, X, member="max"), X.values.max(axis=2))
    with pytest.raises(ValueError, match="is none of the ensemble's"):
        nearest_normal(ensemble, X, features, member="min")


def test_without_an_embedder_features_are_averaged_over_time(features):
    from sk_asd.detectors import AutoEncoderDetector

    detector = AutoEncoderDetector(max_epochs=1, random_state=0).fit(features)
    embedded = embed_clips(detector, features)
    np.testing.assert_allclose(embedded, features.mean("frame"), rtol=1e-6, atol=1e-6)
