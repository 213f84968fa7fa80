"""Whole systems on synthetic machines: the promises that users build on."""

import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from sk_asd import systems
from sk_asd.datasets import make_machine_sounds
from sk_asd.detectors import CosineDetector, KNNDetector, LOFDetector, MahalanobisDetector
from sk_asd.export import export_onnx
from sk_asd.features import STFT, LogMel
from sk_asd.inspection import anomaly_map
from sk_asd.metrics import dcase_score, dcase_scorer
from sk_asd.model_selection import NormalTrainSplit
from sk_asd.systems import (
    _tables,
    make_aegan_ad,
    make_baseline,
    make_imdn,
    make_instant,
    make_mhcr,
    make_pooling,
    make_sc,
    make_sc_wav2vec,
    make_submission,
    make_system,
    make_wsp_nfcdee,
)
from sk_asd.systems._registry import BUILDERS, SINGLE

SOUNDS = {"n_train": 12, "n_test": 6, "duration": 2.0, "random_state": 0}


@pytest.fixture(scope="module")
def clips():
    return make_machine_sounds(("fan", "valve"), **SOUNDS)


def pooling(**params):
    return make_pooling(feature=LogMel(n_fft=1024, n_mels=32), **params)


def sc(**params):
    """A classifier small enough for tests."""
    system = make_sc(
        feature=LogMel(n_fft=1024, hop_length=512, n_mels=16),
        backbone="cnn6",
        random_state=0,
        **params,
    )
    return system.set_params(
        embedder__n_frames=32,
        embedder__max_epochs=2,
        embedder__module__embedding_dim=16,
        embedder__module__width=0.1,
    )


SYSTEMS = [pooling(), sc()]


def train(clips):
    return clips[clips.split == "train"]


@pytest.mark.parametrize("system", SYSTEMS, ids=["pooling", "sc"])
def test_from_sounds_to_scores(clips, system, tmp_path):
    fitted = clone(system).fit(train(clips))
    scores = fitted.score_samples(clips)
    assert scores.shape == (len(clips),)
    assert 0 <= dcase_score(clips, scores) <= 1
    assert set(fitted.predict(clips)) <= {-1, 1}
    joblib.dump(fitted, tmp_path / "model.joblib")
    loaded = joblib.load(tmp_path / "model.joblib")
    np.testing.assert_array_equal(loaded.score_samples(clips), scores)
    # A clip's score is its own, whatever comes with it.
    np.testing.assert_allclose(fitted.score_samples(clips[5:6]), scores[5:6], rtol=1e-9)


def test_pooling_finds_planted_anomalies(clips):
    scores = pooling(statistics=("mean", "std")).fit(train(clips)).score_samples(clips)
    assert dcase_score(clips, scores) > 0.55


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_grid_search_over_a_detector(clips, n_jobs):
    search = GridSearchCV(
        pooling(),
        {
            "pooling__r": [0.5, 1.0],
            "detector__detector": [KNNDetector(), LOFDetector(), MahalanobisDetector()],
        },
        scoring=dcase_scorer,
        cv=NormalTrainSplit(),
        n_jobs=n_jobs,
        refit=False,
    ).fit(clips)
    results = search.cv_results_
    assert np.isfinite(results["mean_test_score"]).all()
    assert len(set(results["mean_test_score"].round(6))) > 2
    best = clone(pooling()).set_params(**search.best_params_).fit(train(clips))
    test = clips[clips.split == "test"]
    assert dcase_score(test, best.score_samples(test)) == pytest.approx(search.best_score_)


@pytest.mark.slow
def test_grid_search_over_an_embedder(clips):
    search = GridSearchCV(
        sc(),
        {"embedder__layer": ["embedding", "penultimate"], "embedder__module__width": [0.1, 0.2]},
        scoring=dcase_scorer,
        cv=NormalTrainSplit(),
        n_jobs=2,
        error_score="raise",
        refit=False,
    ).fit(clips)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert len(search.best_params_) == 2


def test_pipeline_memory(clips, tmp_path):
    memory = joblib.Memory(tmp_path, verbose=0)
    plain = pooling().fit(train(clips))
    cached = pooling().set_params(memory=memory).fit(train(clips))
    again = pooling(detector=CosineDetector()).set_params(memory=memory).fit(train(clips))
    np.testing.assert_array_equal(plain.score_samples(clips), cached.score_samples(clips))
    uncached = pooling(detector=CosineDetector()).fit(train(clips))
    np.testing.assert_array_equal(again.score_samples(clips), uncached.score_samples(clips))
    assert len(list(tmp_path.rglob("output.pkl"))) == 2  # the feature and the pooling, once


def test_features_once_for_many_detectors(clips, tmp_path):
    cached = pooling().set_params(feature__cache_dir=tmp_path).fit(train(clips))
    assert len(list(tmp_path.iterdir())) == 1
    np.testing.assert_array_equal(
        cached.score_samples(clips), pooling().fit(train(clips)).score_samples(clips)
    )


SCRIPT = f"""
import sys, joblib
from sk_asd.datasets import make_machine_sounds
clips = make_machine_sounds(("fan", "valve"), **{SOUNDS!r})
system = joblib.load(sys.argv[1]).fit(clips[clips.split == "train"])
print(system.score_samples(clips).tobytes().hex())
"""


@pytest.mark.parametrize("system", SYSTEMS, ids=["pooling", "sc"])
@pytest.mark.slow
def test_same_seed_same_bits(clips, system, tmp_path):
    def scores(_=None):
        return clone(system).fit(train(clips)).score_samples(clips).tobytes()

    expected = scores()
    assert scores() == expected
    with ThreadPoolExecutor(2) as pool:
        assert set(pool.map(scores, range(2))) == {expected}
    joblib.dump(system, tmp_path / "system.joblib")
    command = [sys.executable, "-c", SCRIPT, tmp_path / "system.joblib"]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate()[0] for process in processes]
    assert [output.strip() for output in outputs] == [expected.hex()] * 2


def test_table_3():
    system = make_sc("slider", budget="report")
    assert isinstance(system["feature"], STFT)
    assert (system["feature"].n_fft, system["feature"].power) == (2048, 1.0)
    embedder = system["embedder"]
    assert (embedder.backbone, embedder.n_frames, embedder.max_epochs) == ("mfnse", 192, 25)
    assert embedder.target == ["machine", "section"]
    toy = make_sc("ToyCar", budget="report")
    assert (toy["feature"].n_mels, toy["embedder"].backbone) == (64, "ecapa")
    assert [make_sc(m, budget="report")["embedder"].backbone for m in ("bearing", "ToyTrain")] == [
        "mobilefacenet",
        "cnn6",
    ]


@pytest.mark.parametrize("machine", [None, "bearing", "ToyCar", "ToyTrain"])
@pytest.mark.parametrize("make", [make_sc, make_mhcr])
def test_laptop_keeps_the_structure(make, machine):
    laptop, report = make(machine), make(machine, budget="report")
    assert type(laptop["feature"]) is type(report["feature"])
    assert laptop["embedder"].backbone == report["embedder"].backbone
    assert laptop["embedder"].n_frames < report["embedder"].n_frames
    assert laptop["embedder"].get_params()["module__width"] < 1
    assert laptop["embedder"].max_time < 3600
    assert make(machine, max_epochs=3)["embedder"].max_epochs == 3


def test_attributes_of_a_machine():
    kinds = make_mhcr("valve", loss_weights={"pat": 0.5})["embedder"].kinds
    assert kinds["pat"] == "classification"
    assert make_mhcr("slider")["embedder"].kinds["vel"] == "regression"
    of_all = make_mhcr()["embedder"].kinds
    assert (of_all["pat"], of_all["spd"]) == ("classification", "regression")
    for row in _tables.MHCR.values():
        assert row.items() <= of_all.items()


def test_table_5():
    machines = ("bearing", "gearbox", "ToyCar", "valve", None)
    detectors = [type(make_sc_wav2vec(m)["detector"].detector) for m in machines]
    assert detectors == [MahalanobisDetector, KNNDetector, LOFDetector, CosineDetector, KNNDetector]
    chosen = make_sc_wav2vec("valve", detector="lof")["detector"].detector
    assert isinstance(chosen, LOFDetector)


def test_table_8():
    valve, gearbox = make_imdn("valve", budget="report"), make_imdn("gearbox", budget="report")
    assert (valve["feature"].n_mels, valve["feature"].n_fft) == (64, 1024)
    assert (valve["detector"].detector.n_frames, valve["detector"].detector.network) == (30, "ignn")
    assert gearbox["detector"].detector.network == "dfnet"
    laptop = make_imdn("bearing", max_epochs=2)
    assert laptop["feature"].n_mels < make_imdn("bearing", budget="report")["feature"].n_mels
    assert laptop["detector"].detector.network == "lrcgnn"
    assert laptop["detector"].detector.max_epochs == 2


def test_flow_has_features_of_its_own():
    assert make_wsp_nfcdee("valve", budget="report")["feature"].n_mels == 128
    detector = make_wsp_nfcdee(pooling="gwrp", flow="gaussian")["detector"].detector
    assert (detector.pooling, detector.flow, detector.by) == ("gwrp", "gaussian", "section")


@pytest.mark.parametrize("budget", ["laptop", "report"])
def test_table_7_as_printed(budget):
    printed = {
        "bearing": (128, 2048, 100),
        "fan": (128, 2048, 60),
        **dict.fromkeys(("gearbox", "slider", "ToyCar", "ToyTrain"), (64, 2048, 100)),
        "valve": (64, 1024, 30),
    }
    assert set(printed) == set(_tables.MACHINES)
    for machine, row in printed.items():
        system = make_wsp_nfcdee(machine, budget=budget, features="table7")
        feature, detector = system["feature"], system["detector"].detector
        assert (feature.n_mels, feature.n_fft, detector.n_frames) == row
        assert make_wsp_nfcdee(machine, budget=budget)["detector"].detector.n_frames is None
    with pytest.raises(ValueError, match="features must be 'table7' or None, got 'table8'"):
        make_wsp_nfcdee("fan", features="table8")
    with pytest.raises(ValueError, match="features='table7' needs a machine"):
        make_wsp_nfcdee(features="table7")


def test_wav2vec_of_the_report_is_not_the_packaged_one():
    """Whoever spends the report's budget on it is told so."""
    with pytest.warns(UserWarning, match="not the report's.*model= of make_sc_wav2vec") as caught:
        make_sc_wav2vec("fan", budget="report")
    assert caught[0].filename == __file__
    for number, machine in ((1, "fan"), (2, None), (3, "ToyCar")):
        with pytest.warns(UserWarning, match="wav2vec= of make_submission"):
            make_submission(number, machine, budget="report")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_sc_wav2vec("fan")
        make_sc_wav2vec("fan", budget="report", model="wav2vec_large.pt")
        make_submission(2, budget="report", wav2vec="wav2vec_large.pt")
        make_submission(4, budget="report")


def test_machines_of_aegan():
    critics = [m for m in _tables.MACHINES if make_aegan_ad(m)["detector"].detector.adversarial]
    assert critics == ["gearbox", "slider"]
    report = make_aegan_ad("ToyCar", budget="report")["detector"].detector
    assert (report.window_hop, report.section_adaptive) == (1, True)
    params = report.get_params()
    assert params["optimizer__betas"] == (0.0, 0.999)
    assert "module__width" not in params
    assert make_aegan_ad("fan")["detector"].detector.get_params()["module__width"] < 1


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        ("gearbox", ("batch", True, "mean_std")),  # of the team's code
        ("slider", ("layer", True, "mean")),
        ("fan", ("layer", False, "mean")),
        ("ToyTrain", ("layer", False, "mean")),  # ours, as the fan
        ("valve", ("layer", False, "mean")),
        (None, ("layer", False, "mean")),
    ],
)
def test_what_the_report_leaves_open_of_aegan_are_arguments(machine, expected):
    names = ("module__norm", "module__first_norm", "loss__match")

    def settings(**arguments):
        params = make_aegan_ad(machine, **arguments)["detector"].detector.get_params()
        return tuple(params[name] for name in names)

    assert settings() == expected
    assert settings(norm="instance", first_norm=not expected[1], match="mean_std") == (
        "instance",
        not expected[1],
        "mean_std",
    )
    assert settings(norm="layer", match="mean") == ("layer", expected[1], "mean")


def test_baselines():
    autoencoder = make_baseline("ae", metric="mahalanobis")["detector"].detector
    assert (autoencoder.max_epochs, autoencoder.n_frames, autoencoder.metric) == (
        100,
        5,
        "mahalanobis",
    )
    classifier = make_baseline("mobilenetv2")["detector"].detector
    assert (classifier.target, classifier.n_frames, classifier.max_epochs) == ("section", 64, 20)
    assert make_baseline("mobilenetv2", by="section")["detector"].by == "section"
    one = make_baseline("mobilenetv2", target=("machine", "section"), by=None)["detector"]
    assert one.target == ("machine", "section")
    with pytest.raises(ValueError, match=r"kind must be one of \['ae', 'mobilenetv2'\]"):
        make_baseline("vae")


def small(system, **params):
    """A system with a network per machine, small enough for tests."""
    return system.set_params(
        feature__n_mels=16,
        feature__n_fft=512,
        detector__detector__max_epochs=1,
        detector__detector__random_state=0,
        **{f"detector__detector__{name}": value for name, value in params.items()},
    )


@pytest.mark.parametrize(
    "system",
    [
        small(make_wsp_nfcdee()),
        small(make_imdn(), n_frames=9),
        small(make_aegan_ad("slider"), n_frames=16),
        small(make_aegan_ad("gearbox"), n_frames=16),
        small(make_baseline("ae")),
        small(make_baseline("mobilenetv2"), n_frames=16),
    ],
    ids=["wsp-nfcdee", "imdn", "aegan-ad slider", "aegan-ad gearbox", "ae", "mobilenetv2"],
)
@pytest.mark.slow
def test_systems_with_a_network_per_machine(system, tmp_path):
    clips = make_machine_sounds(("fan", "valve"), sections=2, **SOUNDS)
    fitted = clone(system).fit(train(clips))
    scores = fitted.score_samples(clips)
    assert set(fitted["detector"].detectors_) == {"fan", "valve"}
    assert 0 <= dcase_score(clips, scores) <= 1
    np.testing.assert_array_equal(clone(system).fit(train(clips)).score_samples(clips), scores)
    joblib.dump(fitted, tmp_path / "model.joblib")
    loaded = joblib.load(tmp_path / "model.joblib")
    np.testing.assert_array_equal(loaded.score_samples(clips), scores)
    np.testing.assert_allclose(fitted.score_samples(clips[5:6]), scores[5:6], rtol=1e-9)


def test_all_builders_have_a_name():
    builders = {name for name in systems.__all__ if name.startswith("make_")}
    assert {builder.function for builder in BUILDERS.values()} == builders - {"make_system"}


@pytest.mark.parametrize("name", SINGLE)
def test_what_the_command_line_sets_is_there(name):
    system = make_system(name)
    name, feature = system.steps[0]
    assert name == "feature"
    wanted = {"sr", "duration", "on_length", "on_rate", "cache_dir", "n_jobs"}
    assert wanted <= set(feature.get_params())


def test_unknown_choices():
    with pytest.raises(ValueError, match=r"budget must be one of \['laptop', 'report'\], got 'x'"):
        make_sc(budget="x")
    with pytest.raises(
        ValueError, match=r"feature must be one of \['logmel', 'stft'\], got 'mfcc'"
    ):
        make_sc(feature="mfcc")
    with pytest.raises(ValueError, match=r"machine must be one of .*'valve'\], or None.*'pump'"):
        make_mhcr("pump")
    with pytest.raises(ValueError, match=r"detector must be one of \['knn', .*got 'svm'"):
        make_sc_wav2vec(detector="svm")


def test_scores_on_real_recordings(real_data):
    """Ranking pooling and Mahalanobis, at the level that peers reach on the slide rail."""
    from sk_asd.datasets import load_clips

    clips = load_clips(real_data / "dcase_real" / "dev_data" / "slider")
    system = make_pooling(r=0.88).fit(train(clips))
    test = clips[clips.split == "test"]
    assert dcase_score(test, system.score_samples(test)) > 0.70


class TestInstant:
    def test_is_the_mean_of_its_members(self, clips):
        train, test = (clips[clips["split"] == s] for s in ("train", "test"))
        instant = make_instant().fit(train)
        assert list(instant.named_estimators_) == ["ranks", "flux", "peaks"]
        matrix = np.asarray(instant.transform(test))
        np.testing.assert_allclose(instant.score_samples(test), matrix.mean(axis=1))
        np.testing.assert_array_equal(instant.weights_, [1 / 3] * 3)
        again = clone(instant).fit(train)  # nothing is drawn
        np.testing.assert_array_equal(again.score_samples(test), instant.score_samples(test))

    @pytest.mark.slow
    def test_explained_and_exported(self, clips, tmp_path):
        pytest.importorskip("onnxruntime")
        train, test = (clips[clips["split"] == s] for s in ("train", "test"))
        instant = make_instant().fit(train)
        for member in instant.named_estimators_:
            found = anomaly_map(instant, test.iloc[:2], member=member)
            assert found.attrs["method"] == "distance"
            assert found.dims == ("clip", "mel", "frame")
        export_onnx(instant, tmp_path / "m.onnx", clips=test)

    def test_what_moves_is_heard(self):
        """A band that flutters, with the mean level that it always has."""
        rng = np.random.default_rng(0)
        time = np.arange(16000) / 16000

        def clip(depth):
            envelope = 1 + depth * np.sign(np.sin(2 * np.pi * 6 * time))
            return 0.1 * envelope * np.sin(2 * np.pi * 1000 * time) + 0.01 * rng.normal(size=16000)

        audio = [clip(0) for _ in range(30)] + [clip(0.8) for _ in range(10)]
        split = ["train"] * 20 + ["test"] * 20
        table = pd.DataFrame({"audio": audio, "sr": 16000, "split": split, "machine": "m"})
        flux = make_instant(by="machine").named_estimators["flux"]
        scores = flux.fit(table[:20]).score_samples(table[20:])
        assert scores[:10].min() > scores[10:].max()
