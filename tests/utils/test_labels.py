"""What labels mean, and that nothing but normal clips is learnt."""

import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sk_asd.datasets import load_clips, make_machine_sounds
from sk_asd.decisions import adapt
from sk_asd.detectors import AutoEncoderDetector, KNNDetector, MahalanobisDetector
from sk_asd.domains import DomainClassifier, DomainNormalizedDetector
from sk_asd.embedders import MultiHeadEmbedder, SectionEmbedder, Wav2VecPretrainer
from sk_asd.ensemble import GroupedDetector, ScoreEnsemble, ScoreEnsembleCV, simplex_grid
from sk_asd.features import KeepLabels, LogMel, TimePooling
from sk_asd.metrics import dcase_score, dcase_scorer
from sk_asd.model_selection import NormalTrainSplit
from sk_asd.systems import make_pooling
from sk_asd.utils._labels import label_kinds, normal_clips

SAID = "4 of 24 training clips are labelled as anomalies"
ODD = [3, 8, 13, 23]
NORMAL = np.setdiff1d(np.arange(24), ODD)


def labels(words=("normal", "anomaly")):
    values = np.full(24, words[0], dtype=object)
    values[ODD] = words[1]
    return values


def labelled(values, label):
    return xr.DataArray(
        values,
        dims=("clip", "mel", "frame")[: values.ndim],
        coords={
            "section": ("clip", np.array(["00", "01"] * 12, dtype=object)),
            "domain": ("clip", np.array(["source"] * 12 + ["target"] * 12, dtype=object)),
            "label": ("clip", label),
        },
    )


@pytest.fixture
def values():
    values = np.random.default_rng(0).normal(size=(24, 5))
    values[ODD] += 20
    return values


@pytest.fixture
def clips():
    return make_machine_sounds(("fan",), n_train=20, n_test=20, duration=0.5, random_state=0)


# What the labels mean.


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        *((v, "normal") for v in ("normal", " OK\n", "Good", 0, 0.0, "0", "0.0", False, "false")),
        *((v, "normal") for v in (np.int8(0), np.float32(0), np.bool_(False), np.str_("normal"))),
        *((v, "anomaly") for v in ("anomaly", "ANOMALOUS", "abnormal", "nok", "NOK ", "fault")),
        *((v, "anomaly") for v in ("faulty", "bad", "defect", "defective", 1, 1.0, "1", "1.0")),
        *((v, "anomaly") for v in (True, "True", np.int64(1), np.bool_(True))),
        *((v, None) for v in (None, np.nan, pd.NA, pd.NaT, "", "  ")),
    ],
)
def test_words(value, kind):
    column = pd.Series([value], dtype=object)
    assert label_kinds(pd.DataFrame({"label": column})).tolist() == [kind]


@pytest.mark.parametrize("dtype", ["string", "category", "Int64", "boolean", "float", "U7"])
def test_types_of_columns(dtype):
    if dtype == "U7":
        X = labelled(np.zeros((24, 1)), labels().astype("U7"))
        assert (label_kinds(X) == labels()).all()
        return
    words = ("normal", "anomaly") if dtype in ("string", "category") else (0, 1)
    column = pd.Series(labels(words)).astype(dtype)
    column[5] = None
    kinds = label_kinds(pd.DataFrame({"label": column}))
    assert kinds[5] is None
    assert (np.delete(kinds, 5) == np.delete(labels(), 5)).all()


@pytest.mark.parametrize("value", [-1, 2, "unknown", "-1", 0.5, "anormal", np.inf, "nan"])
def test_others_are_refused_with_what_is_understood(value):
    column = pd.Series(["normal", value, "anomaly", value], dtype=object)
    X = pd.DataFrame({"path": list("abcd"), "label": column})
    with pytest.raises(
        ValueError, match=r"found .* for b \(2 of 4 clips\). .*ok, good.*nok.*1"
    ) as e:
        label_kinds(X)
    assert f"found {value!r} for b" in str(e.value)


def test_every_unknown_label_is_listed(values):
    label = labels()
    label[[1, 2, 5]] = "maybe", "later", "maybe"
    message = r"'maybe' for the clip at position 1 \(2 of 24 clips\); 'later' for .* position 2"
    with pytest.raises(ValueError, match=message):
        KNNDetector().fit(labelled(values, label))


def test_metrics_understand_them():
    clips = pd.DataFrame({"machine": "fan", "section": "00", "domain": "source", "label": [0, 1]})
    assert dcase_score(clips, [0.9, 0.1]) == 1
    assert dcase_score(clips.assign(label=["OK", "faulty"]), [0.1, 0.9]) < 0.2


def test_folders_are_read_by_the_same_words(tmp_path, write_tone):
    for folder in ("test/Good", "test/nok", "test/defective", "train"):
        write_tone(tmp_path / "pump" / folder / "a.wav")
    found = {
        path.split("/")[-2]: label for path, label in load_clips(tmp_path)[["path", "label"]].values
    }
    assert found == {"Good": "normal", "nok": "anomaly", "defective": "anomaly", "train": "normal"}


def test_split_understands_them():
    X = pd.DataFrame({"path": list("abcd"), "split": ["train"] * 3 + ["test"]})
    ((train, _),) = NormalTrainSplit().split(X.assign(label=[0, 1, np.nan, 1]))
    assert train.tolist() == [0, 2]
    with pytest.raises(ValueError, match="must hold 'normal' or 'anomaly'"):
        next(NormalTrainSplit().split(X.assign(label="what")))


# What is learnt.


def test_without_labels_nothing_changes(values):
    frame = pd.DataFrame(values)
    for X in (values, frame, labelled(values, labels()).drop_vars("label")):
        assert normal_clips(X)[0] is X


@pytest.mark.parametrize("make", [list, np.asarray, pd.Series, pd.DataFrame])
def test_y_is_cut_alike(values, make):
    with pytest.warns(UserWarning, match=SAID):
        X, y = normal_clips(labelled(values, labels()), make(list(range(24))))
    np.testing.assert_array_equal(X, values[NORMAL])
    np.testing.assert_array_equal(np.ravel(y), NORMAL)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        normal_clips(labelled(values, labels()), make(list(range(20))))


def test_all_anomalies(values):
    with pytest.raises(ValueError, match="All 24 training clips are labelled as anomalies"):
        KNNDetector().fit(labelled(values, np.full(24, "bad", dtype=object)))


@pytest.mark.parametrize("words", [(0, 1), ("normal", "anomaly"), (False, True)])
@pytest.mark.parametrize(
    "detector", [KNNDetector(metric="euclidean"), GroupedDetector(KNNDetector(metric="euclidean"))]
)
def test_features_in_a_frame(values, words, detector):
    frame = pd.DataFrame(values, columns=list("abcde")).assign(section=["00", "01"] * 12)
    if isinstance(detector, KNNDetector):
        frame = frame.drop(columns="section")
    mixed = frame.assign(label=labels(words))
    mixed["label"] = mixed["label"].infer_objects()
    with pytest.warns(UserWarning, match=SAID):
        detector.fit(mixed)
    expected = type(detector)(**detector.get_params(deep=False)).fit(frame.iloc[NORMAL])
    for X in (frame, mixed):  # the label is no feature
        np.testing.assert_array_equal(detector.score_samples(X), expected.score_samples(frame))


@pytest.mark.parametrize(
    "estimator",
    [
        KNNDetector(metric="euclidean"),
        MahalanobisDetector(),
        GroupedDetector(IsolationForest(random_state=0), over="domain"),
        ScoreEnsemble(
            [("knn", KNNDetector(metric="euclidean")), ("forest", IsolationForest(random_state=0))]
        ),
        ScoreEnsemble(
            [("knn", make_pipeline(KeepLabels(StandardScaler()), KNNDetector(metric="euclidean")))],
            crossfit=3,
        ),
        DomainNormalizedDetector(
            KNNDetector(metric="euclidean"), DomainClassifier(LogisticRegression(), cv=2)
        ),
    ],
    ids=lambda e: type(e).__name__,
)
def test_detectors_say_it_once(values, estimator):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        estimator.fit(labelled(values, labels()))
    assert [str(w.message).startswith(SAID) for w in caught] == [True]
    assert caught[0].filename == __file__
    scores = estimator.score_samples(labelled(values, labels()))
    assert scores[ODD].max() < scores[NORMAL].min()
    decisions = estimator.fit_predict(labelled(values, labels()))
    assert (decisions[ODD] == -1).all()
    assert (decisions[NORMAL] == 1).mean() > 0.5


def test_partial_fit(values):
    detector = KNNDetector(metric="euclidean").fit(values[NORMAL])
    expected = KNNDetector(metric="euclidean").fit(np.concatenate([values[NORMAL]] * 2))
    with pytest.warns(UserWarning, match=SAID):
        detector.partial_fit(labelled(values, labels()))
    np.testing.assert_array_equal(detector.training_scores_, expected.training_scores_)


def test_transformers(values):
    X = labelled(values, labels())
    with pytest.warns(UserWarning, match=SAID):
        Z = KeepLabels(PCA(2)).fit_transform(X)
    expected = PCA(2).fit(values[NORMAL]).transform(values)
    np.testing.assert_allclose(Z, expected)  # all clips come out, with their labels
    assert (Z.coords["label"] == labels()).all()


def test_networks():
    values = np.random.default_rng(0).normal(size=(24, 16, 40)).astype("float32")
    X = labelled(values, labels())
    settings = {"max_epochs": 1, "random_state": 0}
    for estimator in (
        AutoEncoderDetector(**settings),
        SectionEmbedder("cnn6", n_frames=32, module__width=0.1, **settings),
    ):
        with pytest.warns(UserWarning, match=SAID):
            mixed = type(estimator)(**estimator.get_params(deep=False)).fit(X)
        alone = estimator.fit(X[NORMAL])
        for a, b in zip(mixed.net_.module_.parameters(), alone.net_.module_.parameters()):
            np.testing.assert_array_equal(a.detach(), b.detach())


def test_targets_in_y_of_an_embedder():
    values = np.random.default_rng(0).normal(size=(24, 16)).astype("float32")
    y = pd.DataFrame({"section": ["00", "01"] * 12})
    settings = {"n_frames": 1, "max_epochs": 1, "module__width": 0.1, "random_state": 0}
    with pytest.warns(UserWarning, match=SAID):
        mixed = MultiHeadEmbedder("cnn6", **settings).fit(
            pd.DataFrame(values, columns=[f"f{i}" for i in range(16)]).assign(label=labels()), y
        )
    alone = MultiHeadEmbedder("cnn6", **settings).fit(values[NORMAL], y.iloc[NORMAL])
    for a, b in zip(mixed.net_.module_.parameters(), alone.net_.module_.parameters()):
        np.testing.assert_array_equal(a.detach(), b.detach())


def test_pretraining():
    waves = np.random.default_rng(0).normal(size=(24, 4000)).astype("float32") * 0.1
    table = pd.DataFrame({"audio": list(waves), "label": labels()})
    settings = {"max_updates": 1, "batch_size": 2, "module__channels": 8, "random_state": 0}
    with pytest.warns(UserWarning, match=SAID):
        mixed = Wav2VecPretrainer(**settings).fit(table)
    alone = Wav2VecPretrainer(**settings).fit(table.iloc[NORMAL])
    np.testing.assert_array_equal(mixed.transform(waves), alone.transform(waves))


def test_a_pipeline_on_a_whole_table(clips):
    with pytest.warns(UserWarning, match="10 of 40 training clips are labelled as anomalies"):
        whole = make_pooling().fit(clips)
    normal = make_pooling().fit(clips[clips["label"] == "normal"])
    np.testing.assert_array_equal(whole.score_samples(clips), normal.score_samples(clips))


def test_grid_search_refits_to_normal_clips(clips):
    ensemble = ScoreEnsemble([("a", make_pooling(r=1.0)), ("b", make_pooling(r=0.5))])
    search = GridSearchCV(
        ensemble, {"weights": simplex_grid(2, 0.5)}, scoring=dcase_scorer, cv=NormalTrainSplit()
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        search.fit(clips)
    assert [str(w.message)[:40] for w in caught] == ["10 of 40 training clips are labelled as "]
    assert len(search.best_estimator_.training_scores_) == 30


def test_search_of_weights(clips):
    members = [("a", make_pooling(r=1.0)), ("b", make_pooling(r=0.5))]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the splitter takes normal training clips
        assert len(ScoreEnsembleCV(members, step=0.5).fit(clips).training_scores_) == 20
    search = ScoreEnsembleCV(members, step=0.5, cv=KFold(2, shuffle=True, random_state=0))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        decisions = search.fit_predict(clips)
    assert [str(w.message)[:40] for w in caught] == ["10 of 40 training clips are labelled as "]
    assert len(search.training_scores_) == 30
    assert decisions.shape == (40,)
    wrong = clips[clips["split"] == "train"].copy()
    wrong.loc[wrong.index[:2], "label"] = "anomaly"
    search = ScoreEnsembleCV(members, step=0.5, labels="pseudo", pseudo="perturbed", random_state=0)
    with pytest.warns(UserWarning, match="2 of 20 training clips are labelled as anomalies"):
        search.fit(wrong)


def test_adapt(clips):
    train, test = (clips[clips["split"] == split] for split in ("train", "test"))
    model = make_pipeline(LogMel(n_mels=16), TimePooling(), GroupedDetector()).fit(train)
    with pytest.warns(UserWarning, match="10 of 20 training clips are labelled as anomalies"):
        later = adapt(model, test)
    expected = adapt(model, test[test["label"] == "normal"])
    np.testing.assert_array_equal(later.score_samples(clips), expected.score_samples(clips))
