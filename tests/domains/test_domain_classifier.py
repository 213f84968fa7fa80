"""DomainClassifier and Cnn6Classifier: on where domains differ, off and silent elsewhere."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from joblib import parallel_config
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sk_asd.domains import Cnn6Classifier, DomainClassifier
from sk_asd.features import TimePooling

TINY = {"epoch_size": 96, "batch_size": 16, "max_epochs": 8, "random_state": 0}
POOLED = make_pipeline(TimePooling(("mean",)), StandardScaler(), LogisticRegression())


def make_clips(seed, n=48, n_target=8):
    """Features of two sections; in 00 the target domain has more energy in one bin."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(2 * n, 8, 16)).astype("float32")
    target = np.arange(2 * n) % n < n_target
    values[:n][target[:n], 2] += 2
    coords = {
        "section": ("clip", np.repeat(["00", "01"], n).astype(object)),
        "domain": ("clip", np.where(target, "target", "source").astype(object)),
    }
    return xr.DataArray(values, dims=("clip", "mel", "frame"), coords=coords)


@pytest.fixture
def X():
    return make_clips(0)


@pytest.mark.parametrize("classifier", [POOLED, Cnn6Classifier(**TINY)], ids=["pooled", "cnn6"])
def test_on_where_domains_differ(X, classifier):
    detector = DomainClassifier(classifier, cv=2, random_state=0).fit(X)
    assert detector.active_ == {"00": True, "01": False}
    assert detector.auc_["00"] > 0.95
    assert 0.1 < detector.auc_["01"] < 0.9
    assert detector.classifiers_["01"] is None
    assert detector.classes_.tolist() == ["source", "target"]
    new = make_clips(1)
    unlabelled = new.drop_vars("domain")
    proba = detector.predict_proba(unlabelled)
    np.testing.assert_allclose(proba[:48].sum(axis=1), 1)
    assert np.isnan(proba[48:]).all()
    predicted = detector.predict(unlabelled)
    assert (predicted == new.domain.values)[:48].mean() > 0.9
    assert (predicted[48:] == "source").all()


@pytest.mark.slow
def test_the_default_is_cnn6():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(12, 2)), np.array([0, 1] * 6)
    classifier = DomainClassifier(by=None, min_auc=0.0, cv=2, random_state=0).fit(X, y)
    assert isinstance(classifier.classifiers_[None], Cnn6Classifier)
    again = DomainClassifier(by=None, min_auc=0.0, cv=2, random_state=0).fit(X, y)
    np.testing.assert_array_equal(classifier.predict_proba(X), again.predict_proba(X))


def test_auc_and_training_probabilities_are_held_out():
    """A classifier that knows its training clips by heart learns nothing from noise."""
    X = np.random.default_rng(0).normal(size=(60, 3))
    y = np.array(["source"] * 45 + ["target"] * 15)
    fitted = DomainClassifier(
        KNeighborsClassifier(3), by=None, min_auc=0.0, cv=5, random_state=7
    ).fit(X, y)
    seed = np.random.RandomState(7).randint(np.iinfo(np.int32).max)
    expected, aucs = np.empty((60, 2)), []
    for train, test in StratifiedKFold(5, shuffle=True, random_state=seed).split(X, y):
        fold = KNeighborsClassifier(3).fit(X[train], y[train])
        expected[test] = fold.predict_proba(X[test])
        aucs.append(roc_auc_score(y[test] == "target", expected[test, 1]))
    np.testing.assert_array_equal(fitted.training_proba_, expected)
    assert fitted.auc_[None] == pytest.approx(np.mean(aucs))
    assert fitted.auc_[None] < 0.75
    everything = KNeighborsClassifier(3).fit(X, y)
    np.testing.assert_array_equal(fitted.predict_proba(X), everything.predict_proba(X))


def test_groups_do_not_depend_on_each_other(X):
    together = DomainClassifier(POOLED, random_state=0).fit(X)
    alone = DomainClassifier(POOLED, random_state=0).fit(X[:48])
    assert alone.auc_ == {"00": together.auc_["00"]}
    np.testing.assert_allclose(alone.predict_proba(X[:48]), together.predict_proba(X[:48]))
    with parallel_config("threading"):
        parallel = DomainClassifier(POOLED, random_state=0, n_jobs=2).fit(X)
    np.testing.assert_array_equal(parallel.training_proba_, together.training_proba_)


def test_several_columns(X):
    X = X.assign_coords(machine=("clip", np.full(96, "fan", dtype=object)))
    classifier = DomainClassifier(POOLED, by=["machine", "section"]).fit(X)
    assert classifier.active_ == {("fan", "00"): True, ("fan", "01"): False}
    pooled = DomainClassifier(DummyClassifier(), by="machine", min_auc=0.5).fit(X)
    assert pooled.auc_ == {"fan": 0.5}
    assert pooled.active_ == {"fan": True}


def test_clips_of_no_domain(X):
    """They are left out of training, and still get an answer."""
    domain = X.domain.values.copy()
    domain[[3, 20]] = None
    unknown = X.assign_coords(domain=("clip", domain))
    known = np.delete(np.arange(96), [3, 20])
    a = DomainClassifier(POOLED, random_state=0).fit(unknown)
    b = DomainClassifier(POOLED, random_state=0).fit(X[known])
    np.testing.assert_array_equal(a.training_proba_[known], b.training_proba_)
    np.testing.assert_array_equal(a.training_proba_[[3, 20]], b.predict_proba(X[[3, 20]]))
    assert not np.isnan(a.training_proba_[[3, 20]]).any()


@pytest.mark.parametrize("value", ["source", None])
def test_one_domain(X, value):
    X = X.assign_coords(domain=("clip", np.full(96, value, dtype=object)))
    classifier = DomainClassifier(POOLED).fit(X)
    assert classifier.active_ == {"00": False, "01": False}
    assert np.isnan(classifier.auc_["00"])
    assert classifier.predict_proba(X).shape == (96, 2)
    assert (classifier.predict(X) == "source").all()


def test_target_is_the_more_frequent_domain(X):
    X = X.assign_coords(domain=("clip", np.array(["target", "target", "source"] * 32)))
    classifier = DomainClassifier(POOLED).fit(X)
    assert classifier.active_ == {"00": False, "01": False}
    assert (classifier.predict(X) == "target").all()


def test_one_target_clip(X):
    domain = np.array(["target"] + ["source"] * 95, dtype=object)
    classifier = DomainClassifier(POOLED, by=None).fit(X.assign_coords(domain=("clip", domain)))
    assert classifier.active_ == {None: False}


def test_a_frame_of_features(X):
    pooled = X.mean("frame")
    frame = pd.DataFrame(pooled.values, columns=list("abcdefgh")).assign(
        section=X.section.values, domain=X.domain.values
    )
    classifier = DomainClassifier(LogisticRegression()).fit(frame)
    assert classifier.n_features_in_ == 8
    expected = DomainClassifier(LogisticRegression()).fit(pooled)
    assert classifier.active_ == expected.active_
    np.testing.assert_allclose(
        classifier.predict_proba(frame.drop(columns="domain")), expected.predict_proba(pooled)
    )


def test_a_group_that_is_new(X):
    classifier = DomainClassifier(POOLED).fit(X)
    new = X.assign_coords(section=("clip", np.full(96, "07", dtype=object)))
    assert np.isnan(classifier.predict_proba(new)).all()
    assert (classifier.predict(new) == "source").all()


def test_lost_labels_are_never_silent(X):
    with pytest.warns(
        UserWarning, match=r"No column \['machine', 'section'\] .* all clips make one group"
    ):
        DomainClassifier(POOLED).fit(X.values, X.domain.values)
    classifier = DomainClassifier(POOLED).fit(X)
    with pytest.raises(ValueError, match=r"No column \['section'\] .* was fitted with it"):
        classifier.predict_proba(X.drop_vars("section"))
    with pytest.raises(ValueError, match=r"needs the column 'domain' among the labels"):
        classifier.fit(X.drop_vars("domain"), X.domain.values)


def test_three_domains(X):
    domain = np.array(["source", "target", "else"] * 32, dtype=object)
    with pytest.raises(ValueError, match=r"column 'domain' has the domains \['else', 'source',"):
        DomainClassifier(POOLED).fit(X.assign_coords(domain=("clip", domain)))


class TestCnn6Classifier:
    def test_few_clips_of_a_class(self):
        """Drawn as often as the others: 6 of 60 clips are recognised, in new ones too."""
        clips, new = make_clips(0, 60, 6), make_clips(1, 60, 30)
        classifier = Cnn6Classifier("domain", **TINY).fit(clips[:60])
        proba = classifier.predict_proba(new[:60])
        np.testing.assert_allclose(proba.sum(axis=1), 1)
        target = new.domain.values[:60] == "target"
        assert roc_auc_score(target, proba[:, 1]) > 0.95
        assert ((proba[:, 1] > 0.5) == target).mean() > 0.9
        assert (classifier.predict(new[:60]) == new.domain.values[:60]).mean() > 0.9

    def test_windows(self):
        """The probability of a clip is the mean over its windows."""
        X = make_clips(0)[:12]
        params = {**TINY, "max_epochs": 1}
        classifier = Cnn6Classifier("domain", n_frames=6, window_hop=5, **params).fit(X)
        windows = [classifier.predict_proba(X[:, :, s : s + 6]) for s in (0, 5, 10)]
        np.testing.assert_allclose(classifier.predict_proba(X), np.mean(windows, axis=0))
        whole = Cnn6Classifier("domain", n_frames=None, **params).fit(X)
        assert whole.n_frames_ == 16
        assert Cnn6Classifier("domain", **params).fit(X).n_frames_ == 16
        with pytest.raises(ValueError, match="fewer than one window of n_frames=6"):
            classifier.predict_proba(X[:, :, :5])

    def test_an_epoch_is_a_number_of_windows(self):
        X = make_clips(0)[:12]
        params = {"epoch_size": 40, "batch_size": 8, "max_epochs": 2, "random_state": 0}
        history = Cnn6Classifier("domain", **params).fit(X).net_.history
        assert [len(epoch["batches"]) for epoch in history] == [5, 5]

    def test_module_parameters(self):
        X = make_clips(0)[:12]
        params = {**TINY, "max_epochs": 1, "module__embedding_dim": 5, "module__width": 0.2}
        module = Cnn6Classifier("domain", **params).fit(X).net_.module_
        assert module[2].in_features == 5
        assert module[1].blocks[3][0].out_channels == 104

    def test_one_class(self):
        with pytest.raises(ValueError, match=r"Found 1 class, \['a'\]: a classifier needs at"):
            Cnn6Classifier().fit(np.ones((4, 2)), ["a"] * 4)
        with pytest.raises(ValueError, match="target needs the column 'place'"):
            Cnn6Classifier("place").fit(make_clips(0))
