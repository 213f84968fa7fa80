"""adapt: ten clips of a new operating condition, and refusals with a reason."""

import copy
import pickle
import warnings

import joblib
import numpy as np
import pytest
import xarray as xr
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import sk_asd
from sk_asd.datasets import make_machine_sounds
from sk_asd.decisions import adapt, set_threshold
from sk_asd.detectors import (
    AutoEncoderDetector,
    CosineDetector,
    GaussianMixtureDetector,
    KNNDetector,
    LOFDetector,
    MahalanobisDetector,
    WSPFlowDetector,
)
from sk_asd.domains import DomainClassifier, DomainNormalizedDetector
from sk_asd.embedders import SectionEmbedder
from sk_asd.ensemble import GroupedDetector, ScoreEnsemble, ScoreEnsembleCV
from sk_asd.features import LogMel, TimePooling
from sk_asd.systems import make_pooling

CLOSE = {"rtol": 0, "atol": 1e-9}
LOCAL = KNNDetector(metric="euclidean", density_neighbors=4)


def embeddings(n_clips, section="00", domain="source", place=0.0, seed=0):
    """Clips around a place of a space of 8 features."""
    values = np.random.default_rng(seed).normal(size=(n_clips, 8))
    values[:, 0] += place
    coords = {
        "section": ("clip", np.full(n_clips, section, dtype=object)),
        "domain": ("clip", np.full(n_clips, domain, dtype=object)),
    }
    return xr.DataArray(values, dims=("clip", "embedding"), coords=coords)


@pytest.fixture
def train():
    return xr.concat(
        [embeddings(80), embeddings(20, domain="target", place=6), embeddings(60, "01", seed=1)],
        "clip",
    )


@pytest.fixture
def ten():
    return embeddings(10, place=30, seed=2)


def same(one, other, new):
    for method in ("score_samples", "decision_function"):
        expected = getattr(other, method)(new)
        np.testing.assert_allclose(getattr(one, method)(new), expected, **CLOSE)


# What it is for.


@pytest.mark.parametrize(
    ("detector", "most_alarms"),
    [
        (LOCAL, 0.2),
        (LOFDetector(metric="euclidean"), 0.1),
        (KNNDetector(metric="euclidean"), 0.8),
        (GroupedDetector(MahalanobisDetector(), by=(), over="domain"), 0.4),
        (make_pipeline(StandardScaler(), GroupedDetector(LOCAL, by="none")), 0.2),
        (ScoreEnsemble([("a", LOCAL), ("b", LOFDetector(metric="euclidean"))], by=None), 0.15),
    ],
    ids=["local", "lof", "knn", "domains", "pipeline", "ensemble"],
)
@pytest.mark.filterwarnings("ignore:No column:UserWarning")
def test_a_new_operating_condition(detector, most_alarms):
    """Its false alarms fall, while its anomalies and those of before are still found."""
    before = clone(detector).fit(embeddings(200))
    later = embeddings(200, place=30, domain="new", seed=300)
    of_before = embeddings(200, seed=301)
    faulty = xr.concat([embeddings(20, place=place, seed=302) for place in (30, 0)], "clip")
    faulty.values[:, 3] += 15
    assert (before.predict(later) == -1).all()
    new_alarms, old_alarms = [], []
    # Ten clips are a matter of luck: of twenty draws of them the mean.
    for seed in range(1, 21):
        after = adapt(before, embeddings(10, place=30, domain="new", seed=seed))
        new_alarms.append((after.predict(later) == -1).mean())
        old_alarms.append((after.predict(of_before) == -1).mean())
        assert (after.predict(faulty) == -1).all()
    assert np.mean(new_alarms) < most_alarms
    assert np.mean(old_alarms) < 0.15


def test_a_new_section_of_sounds():
    clips = make_machine_sounds(
        ("fan",), sections=2, n_train=20, n_test=20, duration=1.0, random_state=0
    )
    train, test = clips[clips["split"] == "train"], clips[clips["split"] == "test"]
    first, second = (train[train["section"] == s] for s in ("00", "01"))
    model = make_pooling(detector=KNNDetector(metric="euclidean"))
    before = clone(model).fit(first)
    after = adapt(before, second, new=[("fan", "01")])
    same(after, clone(model).fit(train.sort_values("section", kind="stable")), test)
    with pytest.raises(ValueError, match="was not seen in training"):
        before.score_samples(test)


# What it is: the same as a fit on all clips, where the last step has all there is to learn.


@pytest.mark.parametrize(
    "detector",
    [
        GroupedDetector(KNNDetector()),
        GroupedDetector(MahalanobisDetector(), over="domain"),
        GroupedDetector(GaussianMixtureDetector(2, crossfit=3, random_state=0), unseen="pool"),
        make_pipeline("passthrough", GroupedDetector(CosineDetector())),
        ScoreEnsemble([("a", KNNDetector()), ("b", make_pipeline(GroupedDetector(LOFDetector())))]),
    ],
    ids=["knn", "domains", "mixture", "pipeline", "ensemble"],
)
@pytest.mark.parametrize("place", ["known", "new"])
def test_equals_fit_on_all(detector, place, train):
    new = embeddings(10, "00" if place == "known" else "02", place=30, seed=2)
    every = xr.concat([train, new], "clip")
    adapted = adapt(clone(detector).fit(train), new, new="02" if place == "new" else ())
    same(adapted, clone(detector).fit(every), every)
    order = np.random.default_rng(0).permutation(10)
    other = adapt(clone(detector).fit(train), new[order], new="02" if place == "new" else ())
    if "crossfit=3" not in repr(detector):  # whose folds go by position
        np.testing.assert_allclose(
            other.score_samples(every), adapted.score_samples(every), atol=1e-6
        )


def test_steps_before_the_last_stay_as_they_are(train, ten):
    model = make_pipeline(PCA(3), KNNDetector()).fit(train.values)
    adapted = adapt(model, ten.values)
    np.testing.assert_array_equal(adapted[0].components_, model[0].components_)
    expected = KNNDetector().fit(model[0].transform(np.vstack([train, ten])))
    same(adapted[1], expected, model[0].transform(ten.values + 1))
    # Also within groups.
    grouped = GroupedDetector(make_pipeline(PCA(3), KNNDetector())).fit(train)
    adapted = adapt(grouped, ten)
    inner = grouped.detectors_["00"]
    clips = inner[0].transform(np.vstack([train[:100], ten]))
    expected = KNNDetector().fit(clips)
    same(adapted.detectors_["00"][1], expected, clips + 1)
    assert adapted.offsets_ == {"00": expected.offset_, "01": grouped.offsets_["01"]}
    expected = [*expected.training_scores_[:100], *grouped.training_scores_[100:]]
    np.testing.assert_allclose(adapted.training_scores_[:160], expected, **CLOSE)


def test_a_network_in_front_is_not_touched():
    rng = np.random.default_rng(0)
    section = np.arange(24) % 2
    X = rng.normal(size=(24, 12, 20)).astype(np.float32) + section[:, None, None]
    coords = {"section": ("clip", np.array(["00", "01"], dtype=object)[section])}
    X = xr.DataArray(X, dims=("clip", "mel", "frame"), coords=coords)
    embedder = SectionEmbedder(
        "cnn6", n_frames=None, max_epochs=1, module__embedding_dim=4, random_state=0
    )
    model = make_pipeline(embedder, GroupedDetector()).fit(X)
    weights = {k: v.clone() for k, v in model[0].net_.module_.state_dict().items()}
    new = X[:6].copy(data=X.values[:6] + rng.normal(size=(6, 12, 20)).astype(np.float32))
    adapted = adapt(model, new)
    for one in (model, adapted):
        found = one[0].net_.module_.state_dict()
        assert all((found[name] == weight).all() for name, weight in weights.items())
    assert adapted[0] is not model[0]
    assert len(adapted[-1].training_scores_) == 30
    assert adapt(model, new, copy=False) is model
    np.testing.assert_array_equal(model.score_samples(new), adapted.score_samples(new))


@pytest.mark.parametrize("copied", [True, False])
def test_the_old_one_stays_as_it_is_unless_asked(copied, train, ten):
    members = [("a", KNNDetector()), ("b", GroupedDetector(MahalanobisDetector(), over="domain"))]
    ensemble = make_pipeline(ScoreEnsemble(members)).fit(train)
    expected, untouched = ensemble.score_samples(ten), copy.deepcopy(ensemble)
    before = joblib.hash(ensemble)
    adapted = adapt(ensemble, ten, copy=copied)
    assert not np.allclose(adapted.score_samples(ten), expected)
    if copied:
        assert joblib.hash(ensemble) == before
        same(ensemble, untouched, train)
        adapted[-1].estimators_[0].neighbors_._fit_X[:] = 0
        np.testing.assert_array_equal(ensemble.score_samples(ten), expected)
    else:
        assert adapted is ensemble
        same(adapted, adapt(untouched, ten), train)


def test_again_and_again_and_after_pickle(train, tmp_path):
    detector = GroupedDetector(MahalanobisDetector()).fit(train)
    parts = [embeddings(5, place=9, seed=s) for s in (3, 4, 5)]
    expected = clone(detector).fit(xr.concat([train, *parts], "clip"))
    for part in parts:
        detector = pickle.loads(pickle.dumps(adapt(detector, part)))
        sk_asd.save(detector, tmp_path / "detector.skasd")
        detector = sk_asd.load(tmp_path / "detector.skasd")
    same(detector, expected, train)


def test_a_search_adapts_its_best(train, ten):
    train, ten = (
        X.assign_coords(machine=("clip", np.full(len(X), "fan", dtype=object)))
        for X in (train, ten)
    )
    clips = train.assign_coords(
        split=("clip", np.where(np.arange(160) % 4, "train", "test")),
        label=("clip", np.where(np.arange(160) % 8, "normal", "anomaly")),
    )
    members = [("a", KNNDetector()), ("b", MahalanobisDetector())]
    search = ScoreEnsembleCV(members, step=0.5, scoring="auc").fit(clips)
    adapted = adapt(search, ten)
    assert len(adapted.training_scores_) == len(search.training_scores_) + 10
    np.testing.assert_array_equal(adapted.best_weights_, search.best_weights_)
    same(adapted.best_estimator_, adapt(search.best_estimator_, ten), train)


# Domains.


@pytest.fixture
def normalized(train):
    return DomainNormalizedDetector(
        GroupedDetector(MahalanobisDetector()), DomainClassifier(LogisticRegression())
    ).fit(train)


def test_domain_statistics(normalized, train):
    new = embeddings(10, domain="target", place=8, seed=2)
    adapted = adapt(normalized, new)
    assert adapted.domain_classifier_.active_ == normalized.domain_classifier_.active_
    # By the same classifier, whose answers for training clips are held out: all else is a fit.
    every = xr.concat([train, new], "clip")
    raw = clone(normalized.detector_).fit(every)
    expected = copy.copy(normalized)
    expected.detector_ = raw
    probability = np.r_[
        normalized.training_probability_,
        normalized.domain_classifier_.predict_proba(new)[:, 1],
    ]
    codes = (every.domain.values == "target").astype(int)
    expected._learn(raw.training_scores_, every.section.values, codes, probability)
    same(adapted, expected, every)
    assert adapted.means_["00"][2] != normalized.means_["00"][2]
    np.testing.assert_array_equal(adapted.means_["01"], normalized.means_["01"])


def test_domains_that_are_not_known(normalized, ten):
    with pytest.raises(ValueError, match=r"'domain' has 'winter', .* \['source', 'target'\]"):
        adapt(normalized, ten.assign_coords(domain=("clip", ["winter"] * 10)))
    without = adapt(normalized, ten.drop_vars("domain"))
    assert without.means_["00"][0] != normalized.means_["00"][0]
    np.testing.assert_allclose(without.means_["00"][1], normalized.means_["00"][1], rtol=0.5)


# Scores only.


def flow(X, **params):
    detector = WSPFlowDetector(
        by=None,
        max_epochs=1,
        random_state=0,
        module__n_groups=2,
        module__transforms=1,
        module__hidden_features=(8,),
    )
    return detector.set_params(**params).fit(X)


@pytest.fixture(scope="module")
def spectrograms():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 12, 20)).astype(np.float32)
    coords = {"section": ("clip", np.repeat("00", 40).astype(object))}
    return xr.DataArray(X, dims=("clip", "mel", "frame"), coords=coords)


def test_a_density_is_refused_and_its_scores_are_not(spectrograms):
    train, new = spectrograms[:30], spectrograms[30:] * 2
    density = flow(train)
    with pytest.raises(
        ValueError, match=r"WSPFlowDetector cannot be adapted: .* trains a network.*scores_only="
    ):
        adapt(density, new)
    adapted = adapt(density, new, scores_only=True)
    scores = np.r_[density.training_scores_, density.score_samples(new)]
    np.testing.assert_array_equal(adapted.training_scores_, scores)
    assert adapted.offset_ == np.quantile(scores, 0.1) < density.offset_
    np.testing.assert_array_equal(adapted.score_samples(new), density.score_samples(new))
    # As one of a few members it counts in the units of old and new clips.
    ensemble = ScoreEnsemble([("flow", FrozenEstimator(density))]).fit(train)
    with pytest.raises(ValueError, match="Member 'flow': FrozenEstimator cannot .* it is frozen"):
        adapt(ensemble, new)
    adapted = adapt(ensemble, new, scores_only="auto")
    assert adapted.means_["00"] == pytest.approx(scores.mean())
    assert adapted.scales_["00"] == pytest.approx(scores.std())
    expected = (density.score_samples(new) - scores.mean()) / scores.std()
    np.testing.assert_allclose(adapted.score_samples(new), expected)


def test_a_detector_with_several_metrics(spectrograms):
    train, new = spectrograms[:30], spectrograms[30:] * 2
    baseline = AutoEncoderDetector(n_frames=None, max_epochs=1, random_state=0).fit(train)
    adapted = adapt(baseline, new, scores_only="auto")
    scores = np.r_[baseline.training_scores_, baseline.score_samples(new)]
    np.testing.assert_allclose(adapted.training_scores_, scores)
    assert adapted.offset_ == pytest.approx(np.quantile(scores, 0.1))
    assert len(baseline.training_scores_) == 30
    assert adapted.metric_offsets_.keys() == baseline.metric_offsets_.keys()


def test_no_detector_learns_with_scores_only(train, ten):
    detector = KNNDetector().fit(train)
    adapted = adapt(detector, ten, scores_only=True)
    np.testing.assert_array_equal(adapted.score_samples(ten), detector.score_samples(ten))
    assert len(adapted.training_scores_) == 170
    for call in (lambda: adapt(adapted, ten), lambda: adapted.partial_fit(ten)):
        with pytest.raises(ValueError, match="KNNDetector has scores of clips that it did not"):
            call()
    assert len(adapt(adapted, ten, scores_only=True).training_scores_) == 180


@pytest.mark.parametrize("over", [None, "domain"])
@pytest.mark.parametrize(
    "inner",
    [KNNDetector(metric="euclidean"), IsolationForest(n_estimators=20, random_state=0)],
    ids=["knn", "forest"],
)
def test_groups_with_scores_only(over, inner, train, ten):
    grouped = GroupedDetector(inner, over=over).fit(train)
    adapted = adapt(grouped, ten, scores_only=True)
    scores = np.r_[grouped.training_scores_, grouped.score_samples(ten)]
    np.testing.assert_allclose(adapted.training_scores_, scores)
    assert list(adapted.training_groups_) == [*grouped.training_groups_, *["00"] * 10]
    mine = scores[adapted.training_groups_ == "00"]
    share = np.mean(mine[:100] < grouped.offsets_["00"])
    assert np.mean(mine < adapted.offsets_["00"]) == pytest.approx(share, abs=0.02)
    assert adapted.offsets_["00"] < grouped.offsets_["00"]
    assert adapted.offsets_["01"] == grouped.offsets_["01"]
    # Further ones, too; but nothing that would lose those.
    assert len(adapt(adapted, ten, scores_only=True).training_scores_) == 180
    with pytest.raises(ValueError, match=r"has scores of clips|cannot be adapted"):
        adapt(adapted, ten)
    with pytest.raises(ValueError, match="Group section='02': a detector of its own would have to"):
        adapt(grouped, ten.assign_coords(section=("clip", ["02"] * 10)), new="02", scores_only=True)


def test_members_that_learn_and_others(train, ten):
    members = [("k", KNNDetector()), ("f", IsolationForest(random_state=0))]
    ensemble = ScoreEnsemble(members).fit(train)
    with pytest.raises(ValueError, match="Member 'f': IsolationForest cannot .* training clips"):
        adapt(ensemble, ten)
    some, none = (adapt(ensemble, ten, scores_only=s) for s in ("auto", True))
    new = [e.named_estimators_["k"].score_samples(ten) for e in (ensemble, some, none)]
    assert (new[1] > new[0] + 0.001).any()
    np.testing.assert_array_equal(new[2], new[0])
    forest = ensemble.estimators_[1]
    for adapted in (some, none):
        np.testing.assert_array_equal(
            adapted.estimators_[1].score_samples(ten), forest.score_samples(ten)
        )
        assert len(adapted.training_scores_) == 170
        assert adapted.training_matrix_.mean() == pytest.approx(0, abs=1e-9)


def test_cross_fitted_ensembles(train, ten):
    ensemble = ScoreEnsemble([("k", KNNDetector())], crossfit=3).fit(train)
    with pytest.raises(ValueError, match="crossfit=3 scores training clips by copies"):
        adapt(ensemble, ten)
    adapted = adapt(ensemble, ten, scores_only="auto")
    np.testing.assert_array_equal(adapted._raw[:160], ensemble._raw)
    np.testing.assert_array_equal(
        adapted.estimators_[0].score_samples(ten), ensemble.estimators_[0].score_samples(ten)
    )


# Refusals.


@pytest.mark.parametrize(
    ("labels", "new", "message"),
    [
        ({"label": ["anomaly"] * 10}, (), "All 10 training clips are labelled as anomalies"),
        (
            {"label": ["odd"] * 10, "path": [f"{i}.wav" for i in range(10)]},
            (),
            r"'label' must hold .* found 'odd' for 0.wav \(10 of 10 clips\)",
        ),
        (
            {"section": ["07"] * 10},
            (),
            r"section='07' was not seen .*\['00', '01'\]. To learn it, name it: new=\['07'\]",
        ),
        ({"section": ["07"] * 10}, ["08"], "section='07' was not seen"),
        ({}, ["00"], r"new=\['00'\]: there are no clips of such a group, or it is known"),
        ({"section": [None] * 10}, (), "'section' has no value for 10 of 10"),
    ],
)
@pytest.mark.parametrize(
    "detector", [GroupedDetector(), ScoreEnsemble([("a", KNNDetector())])], ids=["g", "e"]
)
def test_clips_that_are_refused(detector, labels, new, message, train, ten):
    detector = clone(detector).fit(train)
    before = detector.score_samples(train)
    ten = ten.assign_coords({k: ("clip", np.array(v, dtype=object)) for k, v in labels.items()})
    with pytest.raises(ValueError, match=message):
        adapt(detector, ten, new=new, copy=False)
    np.testing.assert_array_equal(detector.score_samples(train), before)


@pytest.mark.parametrize("detector", [KNNDetector(), GroupedDetector(over="domain")])
def test_clips_that_are_known(detector, train, ten):
    detector = clone(detector).fit(train)
    some = xr.concat([ten[:3], train[5:9] * (1 + 1e-7)], "clip")
    with pytest.raises(ValueError, match="4 of 7 clips are known already, the first at position 3"):
        adapt(detector, some)
    with pytest.raises(ValueError, match="10 of 10 clips are known already"):
        adapt(adapt(detector, ten), ten)


def test_detectors_that_are_refused(train, ten):
    forest = IsolationForest().fit(train.values)
    with pytest.raises(
        ValueError, match="IsolationForest cannot be adapted: IsolationForest keeps"
    ):
        adapt(forest, ten.values)
    with pytest.raises(ValueError, match="keeps no scores of its training clips"):
        adapt(forest, ten.values, scores_only=True)
    inner = GroupedDetector(make_pipeline(PCA(2), KNNDetector()), over="domain").fit(train)
    with pytest.raises(ValueError, match="over='domain' compares the clips of all its detectors"):
        adapt(inner, ten)
    with pytest.raises(ValueError, match="X has 7 features"):
        adapt(KNNDetector().fit(train), ten[:, :7])
    with pytest.raises(ValueError, match="not fitted"):
        adapt(KNNDetector(), ten)


def test_a_threshold_that_was_set(train, ten):
    for detector in (KNNDetector(), GroupedDetector(), ScoreEnsemble([("a", KNNDetector())])):
        fitted = make_pipeline(clone(detector)).fit(train)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            adapt(fitted, ten)
        set_threshold(fitted, contamination=0.02)
        with pytest.warns(UserWarning, match="threshold was set after the fit") as caught:
            adapt(fitted, ten)
        assert caught[0].filename == __file__


def test_a_table_of_sounds_in_front():
    clips = make_machine_sounds(("fan",), n_train=12, n_test=4, duration=0.5, random_state=0)
    train = clips[clips["split"] == "train"]
    model = make_pipeline(LogMel(n_mels=16), TimePooling(), GroupedDetector()).fit(train)
    with pytest.warns(UserWarning, match="2 of 4 training clips are labelled as anomalies"):
        later = adapt(model, clips[clips["split"] == "test"])
    assert len(later[-1].training_scores_) == 14
    with pytest.raises(ValueError, match="known already"):
        adapt(model, train.iloc[3:5])
