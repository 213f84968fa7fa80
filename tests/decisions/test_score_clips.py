"""Scores and decisions on any number of clips."""

import numpy as np
import pandas as pd
import pytest
from pyod.models import knn as pyod_knn
from sklearn.ensemble import IsolationForest
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KernelDensity, LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sk_asd.datasets import make_machine_sounds
from sk_asd.decisions import score_clips, set_threshold
from sk_asd.detectors import KNNDetector, MahalanobisDetector
from sk_asd.ensemble import GroupedDetector, ScoreEnsemble, ScoreEnsembleCV
from sk_asd.features import LogMel
from sk_asd.systems import make_pooling

RNG = np.random.default_rng(0)
X, NEW = RNG.normal(size=(60, 2)), 2 * RNG.normal(size=(40, 2))


def labelled(values, **labels):
    section = np.where(np.arange(len(values)) % 2, "01", "00")
    return pd.DataFrame(values, columns=["a", "b"]).assign(section=section, **labels)


def first_score(estimator, X, y=None):
    return estimator.score_samples(X)[0]


@pytest.fixture(scope="module")
def sounds():
    made = make_machine_sounds(("fan", "valve"), n_train=12, n_test=8, duration=1.0, random_state=0)
    return made[made["split"] == "train"], made[made["split"] == "test"]


def check(system, clips, chunk_size=256):
    found = score_clips(system, clips, chunk_size=chunk_size)
    assert found.columns.tolist() == ["score", "threshold", "decision", "group"]
    np.testing.assert_array_equal(found["score"], system.score_samples(clips))
    np.testing.assert_array_equal(found["decision"], system.predict(clips))
    assert set(found["decision"]) == {1, -1}
    return found


def knn():
    return KNNDetector(metric="euclidean")


def ensemble():
    return ScoreEnsemble([("knn", knn()), ("spread", MahalanobisDetector())], by=None)


@pytest.mark.parametrize("chunk_size", [256, 7, 1])
@pytest.mark.parametrize(
    "system",
    [
        knn(),
        make_pipeline(StandardScaler(), knn()),
        make_pipeline(make_pipeline(StandardScaler(), "passthrough"), make_pipeline(knn())),
        ensemble(),
        LocalOutlierFactor(n_neighbors=5, novelty=True),
        IsolationForest(n_estimators=5, random_state=0),
        GridSearchCV(knn(), {"n_neighbors": [1, 2]}, scoring=first_score, cv=2),
    ],
    ids=["one", "pipeline", "nested", "ensemble", "lof", "forest", "search"],
)
def test_equal_to_the_estimators_own_answers(system, chunk_size):
    system.fit(X)
    frozen = FrozenEstimator(system)
    for each in (system, frozen, make_pipeline(frozen)):
        found = check(each, NEW, chunk_size)
        assert len(set(found["threshold"])) == 1
        assert found["group"].isna().all()
        assert found.index.tolist() == list(range(40))


@pytest.mark.parametrize("by", ["section", ("machine", "section")])
def test_groups_with_thresholds_of_their_own(by):
    labels = {} if by == "section" else {"machine": "fan"}
    train, new = labelled(X, **labels), labelled(NEW, **labels).set_axis(range(100, 140))
    set_threshold(system := GroupedDetector(knn(), by=by).fit(train), contamination=0.3)
    found = check(system, new, 7)
    assert found.index.tolist() == new.index.tolist()
    groups = list(zip(new["machine"], new["section"])) if labels else list(new["section"])
    assert found["group"].tolist() == groups
    assert found["threshold"].tolist() == [system.offsets_[group] for group in groups]


def test_unseen_groups():
    new = labelled(NEW).assign(section="07")
    with pytest.raises(ValueError, match="section='07' was not seen"):
        score_clips(GroupedDetector(knn(), by="section").fit(labelled(X)), new)
    system = GroupedDetector(knn(), by="section", unseen="pool").fit(labelled(X))
    assert set(check(system, new)["threshold"]) == {system.pooled_offset_}
    set_threshold(system, threshold=-0.1)
    assert set(check(system, new)["threshold"]) == {-0.1}


@pytest.mark.filterwarnings("ignore:No column")
def test_groups_that_no_label_reached():
    assert check(GroupedDetector(knn()).fit(X), NEW)["group"].isna().all()


def test_pyod():
    system = pyod_knn.KNN().fit(X)
    found = score_clips(system, NEW, chunk_size=7)
    np.testing.assert_array_equal(found["score"], -system.decision_function(NEW))
    np.testing.assert_array_equal(found["decision"] == -1, system.predict(NEW) == 1)


def test_without_threshold_nothing_is_read():
    system = make_pipeline(Counting(), KernelDensity()).fit(X)
    before = list(system[0].seen)
    with pytest.raises(TypeError, match="KernelDensity has no threshold on its scores"):
        score_clips(system, NEW)
    assert system[0].seen == before


def test_bad_input():
    system = knn().fit(X)
    with pytest.raises(ValueError, match="'chunk_size' parameter of score_clips"):
        score_clips(system, NEW, chunk_size=0)
    with pytest.raises(ValueError, match="0 clips"):
        score_clips(system, NEW[:0])
    with pytest.raises(ValueError, match="not fitted"):
        score_clips(knn(), NEW)


class Counting(StandardScaler):
    """Notes how many clips it is given at a time."""

    seen = ()

    def transform(self, X):
        self.seen = [*self.seen, len(X)]
        return super().transform(X)


def test_one_pass_in_chunks():
    system = make_pipeline(Counting(), knn()).fit(X)
    system[0].seen = []
    score_clips(system, NEW, chunk_size=16)
    assert system[0].seen == [16, 16, 8]


def test_every_recording_is_read_once(sounds, monkeypatch):
    train, test = sounds
    pooling = make_pooling().fit(train)
    both = ScoreEnsemble(
        [("a", FrozenEstimator(pooling)), ("b", FrozenEstimator(make_pooling().fit(train)))]
    ).fit(train)
    whole = GroupedDetector(make_pooling(), by="machine").fit(train)
    read = []
    load = LogMel._load

    def count(self, source, row):
        read.append(len(source))
        return load(self, source, row)

    monkeypatch.setattr(LogMel, "_load", count)
    for system in (pooling, FrozenEstimator(pooling), both, whole):
        read.clear()
        score_clips(system, test, chunk_size=5)
        assert len(read) == len(test)
        assert max(read) <= 5


def test_systems_of_sounds(sounds):
    train, test = sounds
    found = check(make_pooling().fit(train), test)
    assert found["group"].tolist() == list(zip(test["machine"], test["section"]))
    assert found.index.equals(test.index)
    pair = [("a", make_pooling()), ("b", make_pooling(detector=MahalanobisDetector()))]
    search = ScoreEnsembleCV(pair, step=0.5).fit(pd.concat(sounds))
    assert len(set(check(search, test)["threshold"])) == 1
