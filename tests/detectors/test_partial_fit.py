"""partial_fit: the same as fit on all clips together, wherever there is one."""

import pickle

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.pipeline import make_pipeline

from sk_asd.detectors import (
    AutoEncoderDetector,
    CosineDetector,
    GaussianMixtureDetector,
    KNNDetector,
    LOFDetector,
    MahalanobisDetector,
)
from sk_asd.domains import DomainNormalizedDetector
from sk_asd.ensemble import GroupedDetector, ScoreEnsemble

DETECTORS = [
    KNNDetector(),
    KNNDetector(3, metric="euclidean", aggregation="max", threshold="gamma"),
    KNNDetector(2, density_neighbors=3),
    LOFDetector(),
    CosineDetector(contamination=0.2),
    MahalanobisDetector(),
    MahalanobisDetector(shrinkage="oas"),
    MahalanobisDetector(shrinkage=0.1),
    GaussianMixtureDetector(2, random_state=0),
    GaussianMixtureDetector(2, crossfit=3, random_state=0),
]


def values(n_clips=60, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    # Of very different size, which sums without care would suffer from.
    return (100 + rng.normal(size=(n_clips, 4)) * [1, 3, 0.1, 10]).astype(dtype)


def labelled(X, section, domain=None):
    coords = {"section": ("clip", np.asarray(section, dtype=object))}
    if domain is not None:
        coords["domain"] = ("clip", np.asarray(domain, dtype=object))
    return xr.DataArray(X, dims=("clip", "embedding"), coords=coords)


def same(one, other, new):
    """Two detectors agree in all that they say."""
    close = {"rtol": 0, "atol": 1e-9}
    np.testing.assert_allclose(one.training_scores_, other.training_scores_, **close)
    np.testing.assert_allclose(one.score_samples(new), other.score_samples(new), **close)
    np.testing.assert_allclose(one.decision_function(new), other.decision_function(new), **close)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("detector", DETECTORS, ids=repr)
def test_equals_fit_on_all(detector, dtype):
    X, new = values(dtype=dtype), values(20, seed=1)
    at_once = clone(detector).fit(X)
    in_parts = clone(detector).partial_fit(X[:30]).partial_fit(X[30:31]).partial_fit(X[31:])
    same(in_parts, at_once, new)
    # And not because nothing was learnt.
    assert not np.allclose(
        at_once.score_samples(new), clone(detector).fit(X[:30]).score_samples(new)
    )


@pytest.mark.parametrize("detector", DETECTORS[:8], ids=repr)
def test_order_of_the_parts_does_not_matter(detector):
    X, new = values(), values(20, seed=1)
    forth = clone(detector).fit(X[:30]).partial_fit(X[30:])
    back = clone(detector).fit(X[30:]).partial_fit(X[:30])
    np.testing.assert_allclose(forth.score_samples(new), back.score_samples(new), atol=1e-9)
    assert forth.offset_ == pytest.approx(back.offset_, abs=1e-9)
    np.testing.assert_allclose(
        forth.training_scores_, np.roll(back.training_scores_, 30), atol=1e-9
    )


@pytest.mark.parametrize("detector", DETECTORS, ids=repr)
def test_after_pickle_and_with_a_buffer_that_is_used_again(detector):
    X, new = values(), values(20, seed=1)
    buffer = X[:40].copy()
    fitted = clone(detector).fit(buffer)
    buffer[:] = 0
    loaded = pickle.loads(pickle.dumps(fitted)).partial_fit(X[40:])
    same(loaded, clone(detector).fit(X), new)


def test_by_hand():
    detector = KNNDetector(metric="euclidean").fit([[0.0], [1.0]]).partial_fit([[5.0]])
    np.testing.assert_array_equal(detector.training_scores_, [-1, -1, -4])
    np.testing.assert_array_equal(detector.score_samples([[4.0]]), [-1])


def test_refused_inputs():
    detector = MahalanobisDetector().fit(values())
    before = detector.score_samples(values(5))
    with pytest.raises(
        ValueError, match="X has 3 features, but MahalanobisDetector is expecting 4"
    ):
        detector.partial_fit(values()[:, :3])
    with pytest.raises(ValueError, match="NaN"):
        detector.partial_fit(values() * np.nan)
    with pytest.raises(ValueError, match="found shape"):
        detector.partial_fit(np.zeros((2, 4, 3)))
    np.testing.assert_array_equal(detector.score_samples(values(5)), before)
    with pytest.raises(ValueError, match="n_neighbors=4 needs at least 5"):
        LOFDetector().partial_fit(values(4))


def test_a_model_without_clips_says_so():
    detector = CosineDetector().fit(values())
    del detector._clips
    with pytest.raises(ValueError, match=r"This CosineDetector .* did not keep its training clips"):
        detector.partial_fit(values())


ENSEMBLE = [("knn", KNNDetector()), ("spread", MahalanobisDetector())]


@pytest.mark.parametrize(
    ("detector", "reason"),
    [
        (KNNDetector(metric="precomputed"), "distances to the clips of one fit"),
        (GroupedDetector(IsolationForest()), "its detector cannot, IsolationForest keeps no"),
        (GroupedDetector(make_pipeline(PCA(2), KNNDetector())), "a Pipeline has no partial_fit"),
        (GroupedDetector(AutoEncoderDetector()), "AutoEncoderDetector trains a network"),
        (ScoreEnsemble(ENSEMBLE, crossfit=3), "crossfit=3 scores training clips by copies"),
        (
            ScoreEnsemble([*ENSEMBLE, ("f", GroupedDetector(IsolationForest()))]),
            "its member 'f' cannot, its detector cannot, IsolationForest",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_not_available_elsewhere(detector, reason):
    assert not hasattr(detector, "partial_fit")
    with pytest.raises(AttributeError) as error:
        detector.partial_fit(values())
    assert reason in str(error.value.__cause__)


def test_there_is_none_where_a_network_decides():
    assert not hasattr(AutoEncoderDetector(), "partial_fit")
    assert not hasattr(DomainNormalizedDetector(KNNDetector()), "partial_fit")
    assert hasattr(ScoreEnsemble([*ENSEMBLE, ("f", "drop")]), "partial_fit")


# Groups.

SECTIONS = np.array(["00", "01"] * 30)
DOMAINS = np.where(np.arange(60) % 5 == 0, "target", "source")


@pytest.mark.parametrize(
    "grouped",
    [
        GroupedDetector(),
        GroupedDetector(MahalanobisDetector(), unseen="pool"),
        GroupedDetector(MahalanobisDetector(), over="domain"),
        GroupedDetector(KNNDetector(), over="domain", smote=0.9, random_state=0),
        GroupedDetector(MahalanobisDetector(), by=["machine", "section"]),
    ],
    ids=repr,
)
def test_groups(grouped):
    X = labelled(values(), SECTIONS, DOMAINS)
    X = X.assign_coords(machine=("clip", np.array(["fan"] * 59 + ["valve"], dtype=object)))
    X = X[:59] if grouped.by != "section" else X
    new = X[:20].copy(data=values(20, seed=1))
    at_once = clone(grouped).fit(X)
    in_parts = clone(grouped).fit(X[:35]).partial_fit(X[35:45]).partial_fit(X[45:])
    same(in_parts, at_once, new)
    assert in_parts.offsets_ == pytest.approx(at_once.offsets_, abs=1e-9)
    assert list(in_parts.training_groups_) == list(at_once.training_groups_)
    if grouped.unseen == "pool":
        same(in_parts, at_once, new.assign_coords(section=("clip", ["09"] * 20)))


def test_new_groups_and_domains():
    X = labelled(values(), np.repeat(["00", "01"], 30), np.repeat(["a", "b", "c", "d"], 15))
    grouped = GroupedDetector(CosineDetector(), over="domain")
    at_once = clone(grouped).fit(X)
    in_parts = clone(grouped).fit(X[:15]).partial_fit(X[15:45]).partial_fit(X[45:])
    same(in_parts, at_once, X)
    assert list(in_parts.detectors_) == ["00", "01"]
    assert list(in_parts.detectors_["01"]) == ["c", "d"]


def test_other_groups_stay_as_they_are():
    X = labelled(values(), SECTIONS)
    grouped = GroupedDetector().fit(X)
    kept = grouped.detectors_["01"]
    grouped.offsets_["01"] = -0.5  # set by hand
    grouped.partial_fit(X[::2] + 1)
    assert grouped.detectors_["01"] is kept
    assert grouped.offsets_["01"] == -0.5


@pytest.mark.filterwarnings("ignore:No column:UserWarning")
@pytest.mark.parametrize("frame", [False, True])
def test_groups_without_labels_and_in_frames(frame):
    X = values()
    grouped = GroupedDetector(KNNDetector())
    if frame:
        X = pd.DataFrame(X, columns=list("abcd")).assign(section=SECTIONS)
    at_once = clone(grouped).fit(X)
    same(clone(grouped).partial_fit(X[:30]).partial_fit(X[30:]), at_once, X[:7])


def test_a_group_that_cannot_be_fitted_changes_nothing():
    X = labelled(values(), SECTIONS)
    grouped = GroupedDetector(LOFDetector()).fit(X)
    few = labelled(values(6, seed=2), ["00", "00", "00", "00", "07", "07"])
    before = grouped.score_samples(X)
    with pytest.raises(ValueError, match="Group section='07': n_neighbors=4 needs at least 5"):
        grouped.partial_fit(few)
    np.testing.assert_array_equal(grouped.score_samples(X), before)
    assert len(grouped.training_scores_) == len(grouped.training_groups_) == 60
    with pytest.raises(ValueError, match=r"No column \['section'\].*fitted with it"):
        grouped.partial_fit(values())
    over = GroupedDetector(KNNDetector(), over="domain").fit(labelled(values(), SECTIONS, DOMAINS))
    with pytest.raises(ValueError, match="over needs the column 'domain' among the labels"):
        over.partial_fit(few)


def test_anomalies_are_warned_of():
    X = labelled(values(), SECTIONS)
    grouped = GroupedDetector().fit(X)
    wrong = X[:3].assign_coords(label=("clip", ["normal", "anomaly", "normal"]))
    with pytest.warns(UserWarning, match="1 of 3 training clips are labelled as anomalies"):
        grouped.partial_fit(wrong)


# Ensembles.


@pytest.mark.parametrize("members", [ENSEMBLE, [("groups", GroupedDetector()), *ENSEMBLE]])
def test_ensembles(members):
    X, new = labelled(values(), SECTIONS), labelled(values(20, seed=1), SECTIONS[:20])
    ensemble = ScoreEnsemble(members, weights=np.arange(1, len(members) + 1), threshold="gamma")
    at_once = clone(ensemble).fit(X)
    in_parts = clone(ensemble).fit(X[:40]).partial_fit(X[40:51]).partial_fit(X[51:])
    same(in_parts, at_once, new)
    np.testing.assert_allclose(in_parts.training_matrix_, at_once.training_matrix_, atol=1e-9)
    for name in ("00", "01"):
        np.testing.assert_allclose(in_parts.means_[name], at_once.means_[name], atol=1e-9)
        np.testing.assert_allclose(in_parts.scales_[name], at_once.scales_[name], atol=1e-9)
    assert in_parts.named_estimators_["knn"] is in_parts.estimators_[-2]


def test_ensemble_is_not_answered_from_the_memory_of_before(tmp_path):
    X, new = labelled(values(), SECTIONS), labelled(values(20, seed=1), SECTIONS[:20])
    ensemble = ScoreEnsemble(ENSEMBLE, memory=str(tmp_path)).fit(X[:40])
    before = ensemble.score_samples(new)  # kept there
    ensemble.partial_fit(X[40:])
    assert not np.allclose(ensemble.score_samples(new), before)
    expected = ScoreEnsemble(ENSEMBLE).fit(X).score_samples(new)
    np.testing.assert_allclose(ensemble.score_samples(new), expected, atol=1e-9)


def test_a_member_that_fails_is_named_and_changes_nothing():
    X = labelled(values(), SECTIONS)
    ensemble = ScoreEnsemble(ENSEMBLE).fit(X)
    before = ensemble.score_samples(X)
    with pytest.raises(ValueError, match="Member 'knn': Input X contains NaN"):
        ensemble.partial_fit(X[:3] * np.nan)
    np.testing.assert_array_equal(ensemble.score_samples(X), before)
