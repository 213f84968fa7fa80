"""What is saved is the same in another process."""

import copy
import importlib.util
import subprocess
import sys
import warnings
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from pyod.models.knn import KNN
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.neighbors import KernelDensity, LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM
from skorch.callbacks import EarlyStopping
from torch import nn

import sk_asd
from sk_asd.datasets import make_machine_sounds
from sk_asd.detectors import IDNNDetector, KNNDetector, LOFDetector, MahalanobisDetector
from sk_asd.embedders import SectionEmbedder
from sk_asd.ensemble import GroupedDetector, ScoreEnsemble, ScoreEnsembleCV
from sk_asd.features import KeepLabels, LogMel, TimePooling, Wav2Vec
from sk_asd.metrics import dcase_scorer
from sk_asd.model_selection import NormalTrainSplit
from sk_asd.networks import Cnn6
from sk_asd.persistence._registry import PLAIN
from sk_asd.systems import make_baseline, make_pooling, make_submission
from sk_asd.utils import _base
from sk_asd.utils.estimator_checks import _output, make_inputs

TESTS = Path(__file__).parents[1]


def of_file(name):
    """A test module beside this folder."""
    spec = importlib.util.spec_from_file_location(Path(name).stem, TESTS / name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


LOAD_ALL = """
import sys, warnings, joblib, numpy as np, sk_asd
from sk_asd.utils.estimator_checks import _output
warnings.simplefilter("error")
for path, X, expected in joblib.load(sys.argv[1]):
    loaded = sk_asd.load(path)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "No column")
        np.testing.assert_array_equal(_output(loaded, X), expected, err_msg=path)
    print(path)
"""


def load_in_another_process(fitted, folder):
    """Save estimators, load them in one new process and compare what they give for `X`."""
    cases = []
    for i, (estimator, X) in enumerate(fitted):
        path = str(folder / f"{i}_{type(estimator).__name__}.skasd")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            sk_asd.save(estimator, path)
        cases.append((path, X, _output(estimator, X)))
    joblib.dump(cases, folder / "cases.joblib")
    command = [sys.executable, "-c", LOAD_ALL, folder / "cases.joblib"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [path for path, _, _ in cases]


def fitted_estimators():
    """One fitted instance or more of every public estimator, and its input."""
    for estimator, inputs in of_file("test_common.py").ESTIMATORS:
        X, _, _ = make_inputs(inputs)
        estimator = clone(estimator)
        if getattr(estimator, "backbone", None) == "cnn6":
            estimator.set_params(module__width=0.1)
        if hasattr(estimator, "max_epochs"):
            estimator.set_params(max_epochs=1)
        yield estimator.fit(X), X


@pytest.mark.filterwarnings("ignore:No column:UserWarning")
def test_every_public_estimator(tmp_path):
    load_in_another_process(list(fitted_estimators()), tmp_path)


@pytest.mark.filterwarnings("ignore:No column:UserWarning")
def test_a_loaded_estimator_has_all_attributes(path):
    for estimator, _ in fitted_estimators():
        loaded = round_trip(estimator, path)
        assert vars(loaded).keys() == vars(estimator).keys()
        if not isinstance(estimator, Wav2Vec):  # whose file is a place
            assert repr(loaded) == repr(estimator)


def sounds(n_train=4):
    """Training and test clips of two machines."""
    clips = make_machine_sounds(
        ("fan", "valve"),
        sections=2,
        n_train=n_train,
        n_test=2,
        n_target_train=2,
        duration=1.0,
        random_state=0,
    )
    return clips[clips.split == "train"], clips[clips.split == "test"]


@pytest.mark.filterwarnings("ignore")
def test_every_system(tmp_path):
    """The six subsystems as members of a submission, the submission, and the others."""
    train, test = sounds()
    submission = of_file("systems/test_submission.py").tiny(2).fit(train)
    small = {"feature__n_mels": 16, "feature__n_fft": 512, "detector__detector__max_epochs": 1}
    systems = [
        make_pooling(detector=KNNDetector(), over="domain"),
        make_baseline("ae").set_params(**small),
        make_baseline("mobilenetv2").set_params(**small, detector__detector__n_frames=16),
    ]
    fitted = [system.fit(train) for system in systems]
    load_in_another_process(
        [(system, test) for system in [*fitted, *submission.estimators_, submission]], tmp_path
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("number", [1, 3, 4, "best"])
def test_submissions(tmp_path, number):
    train, test = sounds(8)
    module = of_file("systems/test_submission.py")
    if number == "best":
        system = make_submission("best", max_epochs=1, random_state=0)
        system.set_params(mhcr__embedder__n_frames=16)
    else:
        system = module.tiny(number)
    load_in_another_process([(system.fit(train), test)], tmp_path)


# What estimators may hold


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.skasd"


def round_trip(estimator, path, **params):
    sk_asd.save(estimator, path)
    return sk_asd.load(path, **params)


class Scaler(TransformerMixin, BaseEstimator):
    """An estimator that the package does not know, with a table by tuples."""

    def __init__(self, factor=2.0):
        self.factor = factor

    def fit(self, X, y=None):
        self.table_ = {("fan", 1): np.arange(3), ("fan", None): {1.5: "a", True: (None, "b")}}
        return self

    def transform(self, X):
        return self.factor * np.asarray(X)


def test_trees_are_built_again(path):
    X = np.random.default_rng(0).normal(size=(200, 3))
    detector = LOFDetector(metric="euclidean", n_jobs=2).fit(X)
    assert detector.lof_._fit_method == "kd_tree"
    loaded = round_trip(detector, path)
    np.testing.assert_array_equal(loaded.score_samples(X), detector.score_samples(X))
    np.testing.assert_array_equal(loaded.lof_._tree.idx_array, detector.lof_._tree.idx_array)
    assert loaded.lof_.n_jobs == 2


def test_a_threshold_that_was_set(path):
    X = np.random.default_rng(0).normal(size=(40, 3))
    lof = LocalOutlierFactor(novelty=True).fit(X)
    lof.offset_ = -3.0
    assert round_trip(lof, path).offset_ == -3.0


def test_parameters(path, tmp_path):
    embedder = SectionEmbedder(
        Cnn6,
        module__n_bins=12,
        module__width=0.1,
        n_frames=None,
        max_epochs=1,
        optimizer=torch.optim.SGD,
        optimizer__momentum=0.9,
        callbacks=[("stop", EarlyStopping("train_loss", patience=2))],
        random_state=np.random.RandomState(3),
        device=torch.device("cpu"),
    )
    pipeline = make_pipeline(LogMel(window=("kaiser", 4.0)), embedder, KNNDetector())
    loaded = round_trip(pipeline, path)
    found = loaded[1]
    assert loaded[0].window == ("kaiser", 4.0)
    assert (found.backbone, found.optimizer) == (Cnn6, torch.optim.SGD)
    assert found.get_params()["optimizer__momentum"] == 0.9
    assert (found.callbacks[0][1].patience, found.callbacks[0][1].sink) == (2, print)
    assert found.random_state.randint(1000) == embedder.random_state.randint(1000)
    assert found.device == torch.device("cpu")


def test_places_of_a_machine_are_left_out(path, tmp_path):
    """What lies in a folder that a file names could be run, or overwritten."""
    memory = joblib.Memory(tmp_path / "memory", verbose=0)
    members = [("a", make_pooling(feature=LogMel(cache_dir=tmp_path / "cache")))]
    ensemble = ScoreEnsemble(members, memory=memory)
    loaded = round_trip(make_pipeline(ensemble, memory=str(tmp_path)), path)
    assert loaded.memory is loaded[0].memory is None
    assert loaded[0].estimators[0][1]["feature"].cache_dir is None


def test_a_loaded_network_is_trained_as_any(path):
    X = make_inputs("features")[0]
    network = IDNNDetector(n_frames=None, max_epochs=1, random_state=0).fit(X)
    loaded = round_trip(network, path)
    for again in (network, loaded):
        again.set_params(max_epochs=2).fit(X)
    np.testing.assert_array_equal(loaded.score_samples(X), network.score_samples(X))
    assert len(loaded.net_.history) == 2
    np.testing.assert_array_equal(
        loaded.net_.history[:, "train_loss"], network.net_.history[:, "train_loss"]
    )


def test_parameters_that_were_changed_after_the_fit(path):
    """The networks are those of the fit, whatever the parameters say by now."""
    X = make_inputs("features")[0]
    embedder = SectionEmbedder(
        "cnn6",
        n_frames=10,
        module__width=0.1,
        module__embedding_dim=4,
        max_epochs=1,
        random_state=0,
    ).fit(X)
    before = embedder.transform(X)
    embedder.set_params(module__embedding_dim=8, module__width=0.2, loss="softmax")
    np.testing.assert_array_equal(round_trip(embedder, path).transform(X), before)


def test_arrays_tables_and_numbers(path, tmp_path):
    scaler = Scaler().fit(None)
    np.save(tmp_path / "map.npy", np.arange(6.0).reshape(2, 3))
    scaler.map_ = np.load(tmp_path / "map.npy", mmap_mode="r")
    scaler.fortran_ = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    scaler.text_ = np.array([["a", None], ["b", np.nan]], dtype=object)
    scaler.names_ = np.array(["fan", "pump", ""])
    scaler.numbers_ = [np.float32(0.1), np.int64(3), np.bool_(True), np.str_("x"), 10**30]
    scaler.odd_ = [np.nan, -np.inf, np.empty((0, 3)), slice(1, None), Path("a/b"), {}, ()]
    scaler.masked_ = np.ma.MaskedArray([1, "a"], [False, True], dtype=object)
    scaler.tensor_ = torch.arange(3)
    scaler.frame_ = pd.DataFrame(
        {"n": [1, 2], "s": np.array(["x", None], object), "f": [0.5, np.inf]},
        index=np.array(["r", "q"], object),
    )
    scaler.labelled_ = xr.DataArray(
        np.arange(4.0).reshape(2, 2),
        dims=("clip", "bin"),
        coords={"clip": ["a", "b"], "sr": 4000, "vel": ("clip", np.array([6, None], object))},
        name="x",
        attrs={"n_fft": 256},
    )
    scaler.again_ = scaler.table_
    with pytest.warns(UserWarning, match="called with trusted="):
        loaded = round_trip(scaler, path, trusted=[Scaler])
    assert list(loaded.table_) == [("fan", 1), ("fan", None)]
    assert loaded.table_["fan", None] == {1.5: "a", True: (None, "b")}
    assert type(loaded.map_) is np.ndarray
    np.testing.assert_array_equal(loaded.map_, scaler.map_)
    np.testing.assert_array_equal(loaded.fortran_, scaler.fortran_)
    assert loaded.fortran_.flags.f_contiguous
    pd.testing.assert_frame_equal(pd.DataFrame(loaded.text_), pd.DataFrame(scaler.text_))
    assert loaded.names_.dtype == scaler.names_.dtype
    assert loaded.names_.tolist() == ["fan", "pump", ""]
    assert loaded.numbers_ == scaler.numbers_
    assert [type(n) for n in loaded.numbers_] == [np.float32, np.int64, np.bool_, str, int]
    assert np.isnan(loaded.odd_[0])
    assert loaded.odd_[1] == -np.inf
    assert loaded.odd_[2].shape == (0, 3)
    assert loaded.odd_[3:] == scaler.odd_[3:]
    assert loaded.masked_.tolist() == [1, None]
    assert torch.equal(loaded.tensor_, scaler.tensor_)
    pd.testing.assert_frame_equal(loaded.frame_, scaler.frame_)
    xr.testing.assert_identical(loaded.labelled_, scaler.labelled_)
    # The estimator itself is as it was.
    assert isinstance(scaler.map_, np.memmap)


@pytest.mark.filterwarnings("ignore:.*trusted=:UserWarning")
def test_what_is_one_object_stays_one(path):
    scaler = StandardScaler().fit(np.eye(3))
    knn = FrozenEstimator(KNNDetector().fit(np.random.default_rng(0).normal(size=(9, 3))))
    loaded = round_trip(make_pipeline(Scaler([scaler, knn, knn]), knn), path, trusted=[Scaler])
    assert loaded[0].factor[1] is loaded[0].factor[2] is loaded[1]


@pytest.mark.parametrize("name", sorted(PLAIN))
def test_estimators_of_scikit_learn(name, path):
    _, module, cls = name.split(".")
    cls = getattr(importlib.import_module(f"sklearn.{module}"), cls)
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 3)), np.arange(60) % 2
    params = {"n_quantiles": 10} if "Quantile" in name else {}
    estimator = cls(**params)
    if "random_state" in estimator.get_params():
        estimator.set_params(random_state=0)
    estimator.fit(X, y)
    loaded = round_trip(estimator, path)
    used = 0
    for method in ("transform", "score_samples", "decision_function", "predict", "mahalanobis"):
        if hasattr(estimator, method):
            used += 1
            expected = getattr(estimator, method)(X)
            np.testing.assert_array_equal(getattr(loaded, method)(X), expected)
    assert used


def test_searches_and_frozen_estimators(path):
    X = np.abs(make_inputs("embeddings")[0].values)
    y = np.where(np.arange(len(X)) % 4, 1, -1)
    search = GridSearchCV(
        make_pipeline(StandardScaler(), GaussianMixture(random_state=0)),
        {"gaussianmixture__n_components": [1, 2]},
        cv=KFold(3, shuffle=True, random_state=0),
    ).fit(X, y)
    loaded = round_trip(search, path)
    np.testing.assert_array_equal(loaded.score_samples(X), search.score_samples(X))
    assert loaded.score(X, y) == search.score(X, y)
    assert loaded.best_params_ == search.best_params_
    pd.testing.assert_frame_equal(
        pd.DataFrame(loaded.cv_results_), pd.DataFrame(search.cv_results_)
    )
    unfitted = GridSearchCV(
        make_pipeline(FrozenEstimator(TimePooling()), KNNDetector()),
        {"knndetector__n_neighbors": [1, 2]},
        scoring=dcase_scorer,
        cv=NormalTrainSplit(),
    )
    loaded = round_trip(unfitted, path)
    assert loaded.scoring is dcase_scorer
    assert isinstance(loaded.estimator[0].estimator, TimePooling)


def test_search_of_weights(path):
    X = make_inputs("embeddings")[0]
    members = [("knn", KNNDetector()), ("spread", MahalanobisDetector())]
    params = {"labels": "pseudo", "pseudo": "perturbed", "scoring": "auc", "step": 0.5}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "No column")
        search = ScoreEnsembleCV(members, random_state=0, **params).fit(X)
    loaded = round_trip(search, path)
    np.testing.assert_array_equal(loaded.score_samples(X), search.score_samples(X))
    assert loaded.cv_results_["params"] == search.cv_results_["params"]


@pytest.mark.filterwarnings("ignore")
def test_transformers_that_keep_labels(path):
    """A fitted `KeepLabels` knows the bins of what it was fitted on."""
    train, test = sounds()
    steps = TimePooling(), KeepLabels(PCA(2)), MahalanobisDetector()
    system = make_pipeline(LogMel(n_fft=512, n_mels=16), *steps).fit(train)
    loaded = round_trip(system, path)
    np.testing.assert_array_equal(loaded.score_samples(test), system.score_samples(test))
    before, after = system[:-1].transform(test), loaded[:-1].transform(test)
    xr.testing.assert_identical(after, before)


def test_trained_elsewhere(path):
    """A network whose device is not here computes on the CPU, and says so."""
    X = make_inputs("features")[0]
    network = IDNNDetector(n_frames=None, max_epochs=1, random_state=0, device="cpu").fit(X)
    expected = network.score_samples(X)
    loaded = round_trip(network.set_params(device="cuda:99"), path)
    assert {p.device.type for p in loaded.net_.module_.parameters()} == {"cpu"}
    with pytest.warns(UserWarning, match="device='cuda:99' cannot be used, computing on the CPU"):
        np.testing.assert_array_equal(loaded.score_samples(X), expected)


# Classes of the user's own


class Backbone(nn.Module):
    """A network that the package does not know."""

    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(12, width)

    def forward(self, x):
        return self.linear(x.mean(dim=2))


class Distance(KNNDetector):
    """A detector derived from one of the package, with an attribute of its own."""

    def _fit(self, X):
        self.centre_ = X.mean(axis=0)
        return super()._fit(X)


@pytest.mark.filterwarnings("ignore:.*trusted=:UserWarning", "ignore:No column:UserWarning")
def test_own_classes(path):
    X = make_inputs("features")[0]
    embedder = SectionEmbedder(Backbone, module__width=4, n_frames=None, max_epochs=1).fit(X)
    loaded = round_trip(embedder, path, trusted=[Backbone])
    np.testing.assert_array_equal(loaded.transform(X), embedder.transform(X))
    with pytest.raises(ValueError, match="Backbone at backbone, which sk_asd does not know"):
        sk_asd.load(path)
    X = make_inputs("embeddings")[0]
    for detector, trusted in [
        (GroupedDetector(KNN(n_neighbors=2)), [KNN]),
        (Distance(), [Distance]),
        (OneClassSVM(), [OneClassSVM]),
        (KernelDensity(), [KernelDensity]),
        (make_pipeline(Scaler(), LocalOutlierFactor(novelty=True)), [Scaler]),
    ]:
        detector.fit(X)
        loaded = round_trip(detector, path, trusted=trusted)
        np.testing.assert_array_equal(loaded.score_samples(X), detector.score_samples(X))
        with pytest.raises(ValueError, match="which sk_asd does not know"):
            sk_asd.load(path)


def test_trusted_are_classes(path):
    sk_asd.save(KNNDetector(), path)
    for wrong in ("mine.Detector", ["mine.Detector"], KNNDetector, [print]):
        with pytest.raises(TypeError, match="trusted must be a sequence of classes, got"):
            sk_asd.load(path, trusted=wrong)


# What cannot be saved


def test_what_cannot_be_saved(path):
    with pytest.raises(TypeError, match="Only estimators can be saved, got dict"):
        sk_asd.save({}, path)
    function = make_pipeline(Scaler(lambda x: x))
    with pytest.raises(ValueError, match=r"steps\[0\]\[1\].factor cannot be saved: .* or function"):
        sk_asd.save(function, path)
    scaler = Scaler()
    scaler.factor = [scaler]
    with pytest.raises(ValueError, match=r"factor\[0\] cannot be saved: .*Scaler refers to itself"):
        sk_asd.save(scaler, path)
    with pytest.raises(ValueError, match="factor cannot be saved: .* or function"):
        sk_asd.save(Scaler(scaler.fit), path)
    with pytest.raises(ValueError, match="factor cannot be saved: .*generator is neither plain"):
        sk_asd.save(Scaler(x for x in ()), path)
    with pytest.raises(ValueError, match=r"factor cannot be saved: .* has values of type complex"):
        sk_asd.save(Scaler(np.zeros(2, complex)), path)
    with pytest.raises(ValueError, match="several levels of labels"):
        sk_asd.save(Scaler(pd.DataFrame({("a", "b"): [1]})), path)
    forest = IsolationForest(n_estimators=2).fit(np.zeros((4, 2)))
    with pytest.raises(
        ValueError, match=r"estimators_\[0\].tree_ cannot be saved: this sklearn.tree"
    ):
        sk_asd.save(forest, path)
    with pytest.raises(FileNotFoundError, match="its folder does not exist"):
        sk_asd.save(KNNDetector(), path / "missing" / "m.skasd")
    assert not list(path.parent.iterdir())


def test_networks_as_instances(path):
    """They cannot be made again from parameters, and saving says what to do."""
    hint = r"cannot be saved: .* give its class and module__\* in its place, or use joblib"
    for estimator, name in [
        (SectionEmbedder(Cnn6(12)), "backbone"),
        (SectionEmbedder(nn.Linear(2, 2)), "backbone"),
        (Wav2Vec(nn.Identity()), "model"),
    ]:
        with pytest.raises(ValueError, match=rf"{name} {hint}"):
            sk_asd.save(estimator, path)


def test_attributes_that_are_none_of_the_class(path):
    detector = KNNDetector().fit(np.random.default_rng(0).normal(size=(9, 3)))
    detector.extra_ = 1
    with pytest.raises(
        ValueError, match=r"KNNDetector has \['extra_'\], which its class does not name in `_state`"
    ):
        sk_asd.save(detector, path)


def test_no_declared_state_shadows_a_class_attribute():
    from sk_asd.persistence._registry import made

    for name, cls in made().items():
        if name.startswith("sk_asd.") and hasattr(cls, "_state_names"):
            assert not [n for n in cls._state_names() if hasattr(cls, n)]


# joblib


@pytest.mark.filterwarnings("ignore:This TimePooling was written with")
def test_pickles_carry_the_version(tmp_path, monkeypatch):
    for estimator, _ in of_file("test_common.py").ESTIMATORS:
        assert estimator.__getstate__()["_sk_asd_version"] == sk_asd.__version__
    detector = KNNDetector().fit(np.random.default_rng(0).normal(size=(9, 3)))
    pipeline = make_pipeline(TimePooling(), detector)
    joblib.dump(pipeline, tmp_path / "model.joblib")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = joblib.load(tmp_path / "model.joblib")
        copied = copy.deepcopy(clone(loaded))
    assert vars(loaded[1]).keys() == vars(detector).keys()
    assert repr(copied) == repr(pipeline)
    monkeypatch.setattr(_base, "__version__", "99.0")
    expected = rf"This KNNDetector was written with sk_asd {sk_asd.__version__} \(here 99.0\): its "
    with pytest.warns(UserWarning, match=expected):
        joblib.load(tmp_path / "model.joblib")
