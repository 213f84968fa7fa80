"""GroupedDetector: labels find their detector, and a lost label is never silent."""

import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from pyod.models.knn import KNN as PyODKNN  # noqa: N811
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM

from sk_asd.detectors import CosineDetector, KNNDetector, MahalanobisDetector
from sk_asd.ensemble import GroupedDetector


@pytest.fixture
def X():
    """Two sections far apart, the second also in two domains."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(40, 4))
    values[20:] += 20
    values[35:] += 5
    coords = {
        "section": ("clip", np.repeat(["00", "01"], 20).astype(object)),
        "machine": ("clip", np.array(["fan", "valve"] * 20, dtype=object)),
        "domain": ("clip", np.array(["source"] * 35 + ["target"] * 5, dtype=object)),
    }
    return xr.DataArray(values, dims=("clip", "embedding"), coords=coords)


def test_each_section_has_its_own_detector(X):
    detector = GroupedDetector(MahalanobisDetector(), by="section").fit(X)
    first = MahalanobisDetector().fit(X.values[:20])
    second = MahalanobisDetector().fit(X.values[20:])
    np.testing.assert_allclose(detector.score_samples(X)[:20], first.score_samples(X.values[:20]))
    np.testing.assert_allclose(detector.score_samples(X)[20:], second.score_samples(X.values[20:]))
    np.testing.assert_allclose(
        detector.training_scores_, np.r_[first.training_scores_, second.training_scores_]
    )
    assert detector.offsets_ == {"00": first.offset_, "01": second.offset_}
    decision = np.r_[
        first.decision_function(X.values[:20]), second.decision_function(X.values[20:])
    ]
    np.testing.assert_allclose(detector.decision_function(X), decision)
    # A normal clip of one section is an anomaly of the other.
    swapped = X.assign_coords(section=("clip", X.section.values[::-1]))
    assert (detector.predict(swapped) == -1).all()


def test_rows_in_any_order(X):
    detector = GroupedDetector(by="section").fit(X)
    order = np.random.default_rng(0).permutation(len(X))
    np.testing.assert_allclose(
        detector.score_samples(X[order]), detector.score_samples(X)[order], atol=1e-12
    )


def test_several_columns(X):
    detector = GroupedDetector(by=["machine", "section"]).fit(X)
    assert set(detector.detectors_) == {(m, s) for m in ("fan", "valve") for s in ("00", "01")}
    with pytest.raises(ValueError, match=r"only \['machine'\] are there"):
        detector.fit(X.drop_vars("section"))


def test_columns_of_a_frame_are_no_features(X):
    frame = pd.DataFrame(X.values, columns=list("abcd")).assign(
        section=X.section.values, domain=X.domain.values
    )
    detector = GroupedDetector(CosineDetector(), over="domain", by="section").fit(frame)
    assert detector.n_features_in_ == 4
    np.testing.assert_allclose(
        detector.score_samples(frame.drop(columns="domain")),
        GroupedDetector(CosineDetector(), over="domain", by="section").fit(X).score_samples(X),
    )


def test_groups_by_default(X):
    """Machine and section, those of them that are there."""
    detector = GroupedDetector().fit(X)
    assert set(detector.detectors_) == {(m, s) for m in ("fan", "valve") for s in ("00", "01")}
    with pytest.raises(ValueError, match=r"by=\['machine', 'section'\] only \['section'\] are"):
        detector.score_samples(X.drop_vars("machine"))
    for missing, values in (("machine", {"00", "01"}), ("section", {"fan", "valve"})):
        detector = GroupedDetector().fit(X.drop_vars(missing))
        assert set(detector.detectors_) == values
        scores = detector.score_samples(X.drop_vars(missing))
        np.testing.assert_array_equal(detector.score_samples(X), scores)
        (by,) = {"machine", "section"} - {missing}
        np.testing.assert_array_equal(GroupedDetector(by=by).fit(X).score_samples(X), scores)
    with pytest.warns(UserWarning, match="all clips make one group"):
        assert set(GroupedDetector().fit(X.drop_vars(["machine", "section"])).detectors_) == {None}
    for by in (["machine", "section"], ("section", "place"), ("section", "machine")):
        with pytest.raises(ValueError, match=r"only \['section'\] are there"):
            GroupedDetector(by=by).fit(X.drop_vars("machine"))


def test_refit_finds_the_columns_anew(X):
    detector = GroupedDetector().fit(X.drop_vars("machine"))
    assert len(detector.fit(X).detectors_) == 4
    assert set(detector.set_params(by="machine").fit(X).detectors_) == {"fan", "valve"}


def test_over_takes_the_most_normal_answer(X):
    detector = GroupedDetector(MahalanobisDetector(), over="domain", by="section").fit(X)
    assert set(detector.detectors_["01"]) == {"source", "target"}
    source = MahalanobisDetector().fit(X.values[20:35])
    target = MahalanobisDetector().fit(X.values[35:])
    new = X.values[20:] + 0.1
    expected = np.maximum(source.score_samples(new), target.score_samples(new))
    # The domain is not needed to score.
    labelled = X[20:].copy(data=new).drop_vars("domain")
    np.testing.assert_allclose(detector.score_samples(labelled), expected)
    own = np.maximum(source.training_scores_, target.score_samples(X.values[20:35]))
    np.testing.assert_allclose(detector.training_scores_[20:35], own)


def test_nearest_neighbour_over_domains_is_nearest_of_all(X):
    """The minimum of two minima; a case with a known answer."""
    pooled = GroupedDetector(KNNDetector(metric="euclidean"), by="section").fit(X)
    split = GroupedDetector(KNNDetector(metric="euclidean"), over="domain", by="section").fit(X)
    new = X.copy(data=X.values + 0.3)
    np.testing.assert_allclose(pooled.score_samples(new), split.score_samples(new))


def test_unseen_section(X):
    new = X.assign_coords(section=("clip", np.full(40, "07", dtype=object)))
    with pytest.raises(ValueError, match=r"section='07' was not seen.*\['00', '01'\]"):
        GroupedDetector(by="section").fit(X).score_samples(new)
    detector = GroupedDetector(MahalanobisDetector(), unseen="pool", by="section").fit(X)
    pooled = MahalanobisDetector().fit(X.values)
    np.testing.assert_allclose(detector.score_samples(new), pooled.score_samples(X.values))
    np.testing.assert_allclose(detector.decision_function(new), pooled.decision_function(X.values))


def test_lost_labels_are_never_silent(X):
    with pytest.warns(UserWarning, match=r"No column \['section'\] among .* ndarray.*KeepLabels"):
        detector = GroupedDetector(by="section").fit(X.values)
    assert list(detector.detectors_) == [None]
    expected = KNNDetector().fit(X.values).score_samples(X.values)
    np.testing.assert_allclose(detector.score_samples(X.values), expected, atol=1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted = GroupedDetector(by="section").fit(X)
        with pytest.raises(ValueError, match=r"No column .* was fitted with it.* in .*KeepLabels"):
            fitted.score_samples(X.values)
        with pytest.raises(ValueError, match=r"was fitted with it\. Give a clip table that has it"):
            fitted.score_samples(X.drop_vars("section"))


def test_missing_label(X):
    section = X.section.values.copy()
    section[3] = None
    with pytest.raises(ValueError, match=r"'section' has no value for 1 of 40 .* position 3"):
        GroupedDetector(by="section").fit(X.assign_coords(section=("clip", section)))


def test_error_names_the_group(X):
    with pytest.raises(ValueError, match=r"Group section='01' \(target\): n_neighbors=6"):
        GroupedDetector(KNNDetector(6), over="domain", by="section").fit(X[20:])


@pytest.mark.parametrize(
    "detector",
    [
        make_pipeline(PCA(2), LocalOutlierFactor(4, novelty=True)),
        make_pipeline(StandardScaler(), KNNDetector(metric="euclidean")),
        IsolationForest(random_state=0),
        OneClassSVM(),
        PyODKNN(contamination=0.1),
    ],
    ids=lambda d: type(d).__name__,
)
def test_any_outlier_detector(X, detector):
    grouped = GroupedDetector(detector, by="section").fit(X)
    normal, anomaly = X[20:], X[20:].copy(data=X.values[20:] + [30, -30, 0, 0])
    assert grouped.score_samples(normal).mean() > grouped.score_samples(anomaly).mean()
    assert (grouped.predict(anomaly) == -1).all()
    assert (grouped.predict(normal) == 1).mean() > 0.4
    assert grouped.training_scores_.shape == (40,)


def test_pyod_in_a_pipeline_keeps_its_sign(X):
    grouped = GroupedDetector(make_pipeline(StandardScaler(), PyODKNN()), by="section").fit(X)
    bare = GroupedDetector(PyODKNN(), by="section").fit(X)
    anomaly = X.copy(data=X.values * 3)
    nested = GroupedDetector(
        make_pipeline(PCA(), make_pipeline(StandardScaler(), PyODKNN())), by="section"
    )
    for detector in (grouped, bare, nested.fit(X)):
        assert detector.score_samples(X).mean() > detector.score_samples(anomaly).mean()
        assert detector.training_scores_.mean() < 0


def test_lof_training_scores_are_those_of_inliers(X):
    grouped = GroupedDetector(LocalOutlierFactor(4, novelty=True), by="section").fit(X)
    expected = LocalOutlierFactor(4).fit(X.values[:20]).negative_outlier_factor_
    np.testing.assert_array_equal(grouped.training_scores_[:20], expected)


@pytest.mark.slow
def test_parallel_fit_is_the_same(X):
    a = GroupedDetector(MahalanobisDetector(), by="section").fit(X)
    b = GroupedDetector(MahalanobisDetector(), n_jobs=2, by="section").fit(X)
    np.testing.assert_array_equal(a.score_samples(X), b.score_samples(X))


def test_nested_parameters(X):
    grouped = GroupedDetector(KNNDetector(), by="section").set_params(detector__n_neighbors=3)
    assert grouped.fit(X).detectors_["00"].n_neighbors == 3


def test_offset_of_several_groups(X):
    with pytest.raises(AttributeError, match="offsets_"):
        _ = GroupedDetector(by="section").fit(X).offset_


def test_anomalies_among_the_training_clips(X):
    label = np.array(["normal"] * 37 + ["anomaly"] * 3, dtype=object)
    with pytest.warns(UserWarning, match="3 of 40 training clips are labelled as anomalies"):
        GroupedDetector(by="section").fit(X.assign_coords(label=("clip", label)))


def test_groups_within_groups(X):
    inner = GroupedDetector(by="machine")
    with pytest.raises(ValueError, match="with several groups cannot stand inside another"):
        GroupedDetector(inner, by="section").fit(X)


@pytest.mark.filterwarnings("ignore:No column:UserWarning")
def test_over_without_groups(X):
    detector = GroupedDetector(MahalanobisDetector(), by="place", over="domain").fit(X)
    assert set(detector.detectors_[None]) == {"source", "target"}
