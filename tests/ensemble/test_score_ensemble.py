"""ScoreEnsemble: standardised, weighted, and none of it by accident."""

import io

import joblib
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from planted import FromColumn, members, table
from pyod.models.knn import KNN as PyODKNN  # noqa: N811
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import KFold, ShuffleSplit
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM
from sklearn.utils import estimator_html_repr

from sk_asd.decisions import adapt
from sk_asd.detectors import CosineDetector, KNNDetector, LOFDetector, MahalanobisDetector
from sk_asd.ensemble import GroupedDetector, ScoreEnsemble
from sk_asd.utils._normal_threshold import normal_threshold


@pytest.fixture
def clips():
    return table()


@pytest.fixture
def train(clips):
    return clips[clips.split == "train"]


@pytest.fixture
def X():
    return np.random.default_rng(0).normal(size=(40, 3))


def detectors():
    return [("knn", KNNDetector(metric="euclidean")), ("spread", MahalanobisDetector())]


def test_standardised_by_hand():
    train = pd.DataFrame(
        {"path": list("vwxyz"), "section": ["00", "00", "01", "01", "01"], "a": [1, 3, 10, 10, 40]}
    )
    new = pd.DataFrame({"path": list("xy"), "section": ["01", "00"], "a": [20, 2.5]})
    ensemble = ScoreEnsemble([("a", FromColumn("a"))]).fit(train)
    # Section 00: mean 2, deviation 1. Section 01: mean 20, deviation sqrt(200).
    assert ensemble.means_["00"] == [2.0]
    assert ensemble.scales_["01"] == [np.sqrt(200)]
    np.testing.assert_allclose(ensemble.score_samples(new), [0.0, 0.5])
    expected = [-1, 1, -10 / np.sqrt(200), -10 / np.sqrt(200), 20 / np.sqrt(200)]
    np.testing.assert_allclose(ensemble.training_scores_, expected)
    pooled = ScoreEnsemble([("a", FromColumn("a"))], by=None).fit(train)
    np.testing.assert_allclose(
        pooled.score_samples(new), (new["a"] - 12.8) / train["a"].std(ddof=0)
    )


def test_weighted_sum(clips, train):
    ensemble = ScoreEnsemble(members(), weights=(0.5, 0.2, 0.3)).fit(train)
    matrix = ensemble.transform(clips).values
    np.testing.assert_allclose(ensemble.score_samples(clips), matrix @ [0.5, 0.2, 0.3])
    # Training clips of every section have mean 0 and deviation 1.
    rows = ((clips.split == "train") & (clips.section == "01")).to_numpy()
    np.testing.assert_allclose(matrix[rows].mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(matrix[rows].std(axis=0), 1)
    np.testing.assert_allclose(ensemble.training_matrix_, ensemble.transform(train))


def test_uniform_weights(clips, train):
    ensemble = ScoreEnsemble(members()).fit(train)
    np.testing.assert_allclose(ensemble.weights_, 1 / 3)
    same = ScoreEnsemble(members(), weights=[2, 2, 2]).fit(train)
    np.testing.assert_array_equal(ensemble.score_samples(clips), same.score_samples(clips))


def test_all_weight_on_one_member(clips, train):
    """The member alone, up to an increasing line per section."""
    ensemble = ScoreEnsemble(members(), weights=(0, 1, 0)).fit(train)
    for section in ("00", "01"):
        rows = clips.section == section
        scores, alone = ensemble.score_samples(clips[rows]), clips["b"][rows].to_numpy()
        slope, origin = np.polyfit(alone, scores, 1)
        assert slope > 0
        np.testing.assert_allclose(scores, slope * alone + origin)


def test_contributions(clips, train):
    ensemble = ScoreEnsemble(members(), weights=(0.5, 0.5, 0)).fit(train)
    shares = ensemble.contributions(clips)
    assert shares.feature.values.tolist() == ["a", "b", "c"]
    np.testing.assert_allclose(shares.sum("feature"), ensemble.score_samples(clips))
    np.testing.assert_array_equal(shares[:, 2], 0)
    np.testing.assert_allclose(shares[:, 0], ensemble.transform(clips)[:, 0] / 2)


def test_threshold_comes_from_the_training_scores(clips, train):
    ensemble = ScoreEnsemble(members(), contamination=0.2, threshold="gamma").fit(train)
    assert ensemble.offset_ == normal_threshold(ensemble.training_scores_, 0.2, "gamma")
    decision = ensemble.decision_function(clips)
    np.testing.assert_allclose(decision, ensemble.score_samples(clips) - ensemble.offset_)
    np.testing.assert_array_equal(ensemble.predict(clips), np.where(decision >= 0, 1, -1))
    quantile = ScoreEnsemble(members(), contamination=0.25).fit(train)
    assert (quantile.training_scores_ < quantile.offset_).mean() == 0.25
    np.testing.assert_array_equal(
        quantile.fit_predict(train), np.where(quantile.training_scores_ >= quantile.offset_, 1, -1)
    )


def test_leave_one_out_where_a_member_has_it():
    X = np.array([[0.0], [1.0], [3.0]])
    ensemble = ScoreEnsemble([("knn", KNNDetector(metric="euclidean"))], by=None).fit(X)
    # Distances to the nearest other clip are 1, 1 and 2; in-sample they would all be 0.
    deviation = np.std([1, 1, 2])
    np.testing.assert_allclose(ensemble.training_scores_, (4 / 3 - np.array([1, 1, 2])) / deviation)
    np.testing.assert_allclose(
        ensemble.score_samples([[0.0], [5.0]]), (4 / 3 - np.array([0, 2])) / deviation
    )


def test_cross_fitted_training_scores():
    X = np.array([[0.0], [1.0], [10.0], [12.0]])
    knn = ("knn", KNNDetector(metric="euclidean"))
    ensemble = ScoreEnsemble([knn], by=None, crossfit=KFold(2)).fit(X)
    # Each half by the other one.
    raw = -np.array([10.0, 9.0, 9.0, 11.0])
    np.testing.assert_allclose(ensemble.means_[None], raw.mean())
    np.testing.assert_allclose(ensemble.scales_[None], raw.std())
    # New clips are scored by the member that knows all.
    np.testing.assert_allclose(ensemble.score_samples([[11.0]]), (-1 - raw.mean()) / raw.std())
    with pytest.raises(ValueError, match="must hold out every training clip once"):
        ScoreEnsemble([knn], by=None, crossfit=ShuffleSplit(2, random_state=0)).fit(X)


def test_folds_are_stratified(X):
    """Sections in order, and a target domain of eight clips: every fold knows all of them."""
    labelled = xr.DataArray(
        X,
        dims=("clip", "embedding"),
        coords={
            "section": ("clip", np.repeat(["00", "01"], 20)),
            "domain": ("clip", np.where(np.arange(40) % 5 == 0, "target", "source")),
        },
    )
    knn = GroupedDetector(KNNDetector(metric="euclidean"), over="domain")
    ensemble = ScoreEnsemble([("knn", knn)], crossfit=2).fit(labelled)
    assert set(ensemble.estimators_[0].detectors_["01"]) == {"source", "target"}
    assert np.isfinite(ensemble.training_scores_).all()


def test_groups_of_one_clip_and_constant_scores():
    train = pd.DataFrame(
        {
            "path": list("uvwxyz"),
            "section": ["00", "00", "01", "01", "02", "03"],
            "a": [1.0, 3.0, 0.0, 4.0, 7.0, 9.0],
            "b": [2.0, 2.0, 5.0, 5.0, 6.0, 6.0],
        }
    )
    with pytest.warns(UserWarning, match="same score") as caught:
        ensemble = ScoreEnsemble([("a", FromColumn("a")), ("b", FromColumn("b"))]).fit(train)
    assert [str(warning.message) for warning in caught] == [
        f"Group section='{section}': member 'b' gives all training clips the same score; its "
        "deviation is taken to be 1."
        for section in ("00", "01")
    ]
    # Deviations of a are 1 and 2 where there are two clips; their root mean square elsewhere.
    for section, scale in (("00", 1), ("01", 2), ("02", np.sqrt(2.5)), ("03", np.sqrt(2.5))):
        np.testing.assert_allclose(ensemble.scales_[section], [scale, 1])
    new = train.assign(a=train["a"] + 1, b=train["b"] + 1)
    np.testing.assert_allclose(ensemble.transform(new)[:, 1], 1)
    assert np.isfinite(ensemble.score_samples(new)).all()


def test_dropped_member(clips, train):
    ensemble = ScoreEnsemble(members(), weights=(0.25, 0.5, 0.75))
    ensemble.set_params(b="drop").fit(train)
    assert ensemble.get_feature_names_out().tolist() == ["a", "c"]
    assert ensemble.named_estimators_["b"] == "drop"
    np.testing.assert_allclose(ensemble.weights_, [0.25, 0.75])
    two = ScoreEnsemble(members(columns="ac"), weights=(1, 3)).fit(train)
    np.testing.assert_array_equal(ensemble.score_samples(clips), two.score_samples(clips))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ((0.5, 0.5), r"each of the 3 members, dropped ones included; got shape \(2,\)"),
        ((1, -0.5, 0.5), r"none negative .* \[1.0, -0.5, 0.5\]"),
        ((1, np.nan, 0), "finite"),
        ((0, 0, 0), "not all 0"),
        (("a", "b", "c"), "must hold numbers"),
    ],
)
def test_weights_that_are_not_convex(train, weights, message):
    with pytest.raises(ValueError, match=message):
        ScoreEnsemble(members(), weights=weights).fit(train)


@pytest.mark.parametrize(
    ("estimators", "error", "message"),
    [
        ([], ValueError, "non-empty list of pairs"),
        ([KNNDetector()], ValueError, "non-empty list of pairs"),
        ([("a", "drop")], ValueError, r"All members are dropped: \['a'\]"),
        ([("a", KNNDetector()), ("a", KNNDetector())], ValueError, "not unique"),
        ([("weights", KNNDetector())], ValueError, "conflict with constructor arguments"),
        ([("a__b", KNNDetector())], ValueError, "must not contain __"),
        ([("a", StandardScaler())], TypeError, "Member 'a' must be an outlier detector"),
    ],
)
def test_invalid_members(X, estimators, error, message):
    with pytest.raises(error, match=message):
        ScoreEnsemble(estimators, by=None).fit(X)


def test_errors_name_the_member(X, train):
    with pytest.raises(ValueError, match="Member 'far': n_neighbors=50"):
        ScoreEnsemble([("far", KNNDetector(50))], by=None).fit(X)
    bad = train.assign(b=np.where(np.arange(len(train)) == 3, np.nan, 1.0))
    with pytest.raises(
        ValueError, match="Member 'b': FromColumn gives NaN .* 1 of 24 .* position 3"
    ):
        ScoreEnsemble(members()).fit(bad)
    with pytest.raises(ValueError, match="Member 'knn': .* not fitted yet"):
        ScoreEnsemble([("knn", FrozenEstimator(KNNDetector()))], by=None).fit(X)


def test_unseen_section(clips, train):
    new = clips.assign(section="07")
    ensemble = ScoreEnsemble(members()).fit(train)
    with pytest.raises(
        ValueError, match=r"section='07' was not seen in training.*'00'\), .*'01'\)"
    ):
        ensemble.score_samples(new)
    pooled = ScoreEnsemble(members(), unseen="pool").fit(train)
    everything = ScoreEnsemble(members(), by=None).fit(train)
    np.testing.assert_allclose(pooled.score_samples(new), everything.score_samples(new))


def test_lost_labels_are_never_silent(clips, train):
    bare = train.drop(columns=["machine", "section"])
    with pytest.warns(UserWarning, match=r"No column \['machine', 'section'\] among the labels"):
        ensemble = ScoreEnsemble(members()).fit(bare)
    expected = ScoreEnsemble(members(), by=None).fit(train).score_samples(clips)
    np.testing.assert_array_equal(ensemble.score_samples(clips), expected)
    ensemble = ScoreEnsemble(members()).fit(train)
    with pytest.raises(ValueError, match="but the detector was fitted with it"):
        ensemble.score_samples(clips.drop(columns=["machine", "section"]))
    with pytest.raises(ValueError, match=r"only \['section'\] are there"):
        ScoreEnsemble(members(), by=["section", "place"]).fit(train)
    with pytest.warns(UserWarning, match="20 of 64 training clips are labelled as anomalies"):
        ScoreEnsemble(members()).fit(clips)


@pytest.mark.parametrize(
    "member",
    [
        make_pipeline(PCA(2), LocalOutlierFactor(4, novelty=True)),
        make_pipeline(StandardScaler(), KNNDetector(metric="euclidean")),
        IsolationForest(random_state=0),
        OneClassSVM(),
        make_pipeline(StandardScaler(), PyODKNN()),
        ScoreEnsemble(detectors(), by=None),
    ],
    ids=lambda d: type(d).__name__,
)
def test_any_outlier_detector(X, member):
    ensemble = ScoreEnsemble([("member", member), ("cosine", CosineDetector())], by=None).fit(X)
    matrix = ensemble.transform(X + [30.0, -30.0, 0.0])
    assert (matrix[:, 0] < -1).all()
    np.testing.assert_allclose(ensemble.training_matrix_.std(axis=0), 1)


def test_frozen_member_keeps_its_training_scores(X):
    """Of the clips that it knows it is not asked: each would find itself at distance 0."""
    knn = KNNDetector(metric="euclidean").fit(X)
    for frozen in (FrozenEstimator(knn), make_pipeline(FrozenEstimator(knn))):
        ensemble = ScoreEnsemble([("knn", frozen)], by=None).fit(X)
        np.testing.assert_allclose(ensemble.means_[None], knn.training_scores_.mean())
    other = np.random.default_rng(1).normal(size=X.shape)
    ensemble = ScoreEnsemble([("knn", FrozenEstimator(knn))], by=None, crossfit=3).fit(other)
    np.testing.assert_allclose(ensemble.means_[None], knn.score_samples(other).mean())
    assert ensemble.estimators_[0].estimator is knn


@pytest.mark.parametrize("by_group", [False, True])
def test_frozen_factors_are_not_asked_about_clips_they_know(by_group):
    """Scores of clips that a local outlier factor knows are above and below leave-one-out ones."""
    X = np.random.default_rng(0).normal(size=(60, 3))
    table = pd.DataFrame(X, columns=list("abc")).assign(section=["00", "01"] * 30)
    X = table if by_group else X
    lof = LOFDetector(metric="euclidean")
    lof = (GroupedDetector(lof) if by_group else lof).fit(X)
    assert (lof.score_samples(X) < lof.training_scores_).any()
    member = [("lof", FrozenEstimator(lof))]
    ensemble = ScoreEnsemble(member, by=None).fit(X)
    np.testing.assert_allclose(ensemble.means_[None], lof.training_scores_.mean())
    ensemble = ScoreEnsemble(member, by=None).fit(X[::-1])
    np.testing.assert_allclose(ensemble.means_[None], lof.score_samples(X).mean())


def test_frozen_member_that_was_adapted_by_scores_alone(X):
    more = np.random.default_rng(1).normal(size=(10, X.shape[1]))
    knn = adapt(KNNDetector(metric="euclidean").fit(X), more, scores_only=True)
    both = np.concatenate([X, more])
    ensemble = ScoreEnsemble([("knn", FrozenEstimator(knn))], by=None).fit(both)
    np.testing.assert_allclose(ensemble.means_[None], knn.training_scores_.mean())


def test_frozen_member_is_not_refitted(train, tmp_path):
    log = tmp_path / "log"
    member = FromColumn("a", str(log)).fit(train)
    log.unlink()
    ensemble = ScoreEnsemble([("a", FrozenEstimator(member)), ("b", FromColumn("b"))])
    ensemble = clone(ensemble).fit(train)
    assert log.read_text() == "score a\n"


def test_nested_parameters(X):
    ensemble = ScoreEnsemble([("pipe", make_pipeline(PCA(2), KNNDetector()))], by=None)
    ensemble.set_params(pipe__knndetector__n_neighbors=3, pipe__pca=None, contamination=0.2)
    assert ensemble.get_params()["pipe__knndetector__n_neighbors"] == 3
    fitted = clone(ensemble).fit(X).named_estimators_["pipe"]
    assert fitted[-1].n_neighbors == 3
    ensemble.set_params(pipe=KNNDetector(2))
    assert ensemble.named_estimators.pipe.n_neighbors == 2


def test_n_jobs_makes_no_difference(clips, train):
    one = ScoreEnsemble(members()).fit(train)
    two = ScoreEnsemble(members(), n_jobs=2).fit(train)
    np.testing.assert_array_equal(one.score_samples(clips), two.score_samples(clips))


def test_containers(X):
    """An array, a frame with labels and a labelled array with the same values give the same."""
    section = np.repeat(["00", "01"], 20)
    labelled = xr.DataArray(
        X, dims=("clip", "embedding"), coords={"section": ("clip", section.astype(object))}
    )
    frame = pd.DataFrame(X, columns=list("xyz")).assign(section=section)
    named = ScoreEnsemble([*detectors(), ("grouped", GroupedDetector())])
    expected = clone(named).fit(labelled).score_samples(labelled)
    fitted = clone(named).fit(frame)
    np.testing.assert_allclose(fitted.score_samples(frame), expected)
    assert fitted.feature_names_in_.tolist() == ["x", "y", "z"]
    with pytest.raises(ValueError, match="2 features"):
        fitted.score_samples(labelled[:, :2])
    plain = ScoreEnsemble(detectors(), by=None)
    np.testing.assert_allclose(
        clone(plain).fit(X).score_samples(X),
        clone(plain).fit(frame[["x", "y", "z"]]).score_samples(frame[["x", "y", "z"]]),
    )


def test_output_keeps_labels_unless_told_otherwise(clips, train):
    ensemble = ScoreEnsemble(members()).fit(train)
    matrix = ensemble.transform(clips)
    assert matrix.dims == ("clip", "feature")
    assert matrix.section.values.tolist() == clips.section.tolist()
    stacked = make_pipeline(clone(ensemble), GroupedDetector(MahalanobisDetector())).fit(train)
    assert set(stacked[-1].detectors_) == {("fan", "00"), ("fan", "01")}
    frame = ensemble.set_output(transform="pandas").transform(clips)
    assert frame.columns.tolist() == ["a", "b", "c"]
    assert frame.index.equals(clips.index)
    np.testing.assert_array_equal(frame, matrix)


def test_diagram_shows_the_members_side_by_side():
    html = estimator_html_repr(ScoreEnsemble([*detectors(), ("old", "drop")]))
    assert 'class="sk-parallel"' in html
    for text in ("knn", "spread", "KNNDetector", "MahalanobisDetector", "old"):
        assert text in html


def test_pickle(clips, train):
    ensemble = ScoreEnsemble(members()).fit(train)
    file = io.BytesIO()
    joblib.dump(ensemble, file)
    file.seek(0)
    np.testing.assert_array_equal(
        joblib.load(file).score_samples(clips), ensemble.score_samples(clips)
    )


def test_not_fitted(X):
    for method in ("score_samples", "predict", "transform", "contributions"):
        with pytest.raises(NotFittedError):
            getattr(ScoreEnsemble(detectors()), method)(X)
