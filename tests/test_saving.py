"""Estimators that are saved are the same in another process, and files run nothing."""

import collections
import copy
import functools
import hashlib
import importlib.util
import io
import json
import os
import pickle
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import skops.io
import torch
import xarray as xr
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from skorch import NeuralNet
from skorch.callbacks import Callback, EarlyStopping
from torch import nn

import sk_asd
from sk_asd import _trust, _versions
from sk_asd.cli import main
from sk_asd.cli._models import load_model
from sk_asd.datasets import make_machine_sounds
from sk_asd.detectors import IDNN, KNNDetector, LOFDetector, MahalanobisDetector
from sk_asd.embedders import SectionEmbedder
from sk_asd.features import Labelled, LogMel, TimePooling
from sk_asd.metrics import dcase_scorer
from sk_asd.model_selection import NormalTrainSplit
from sk_asd.networks import Cnn6, SpecAugment
from sk_asd.systems import make_baseline, make_pooling
from sk_asd.utils._neural import SeededNet
from sk_asd.utils.estimator_checks import _output, make_inputs

HERE = Path(__file__).parent


def of_file(name):
    """A test module beside this one."""
    spec = importlib.util.spec_from_file_location(Path(name).stem, HERE / name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def embeddings():
    return make_inputs("embeddings")[0]


@pytest.fixture(scope="module")
def detector(embeddings):
    return KNNDetector().fit(embeddings)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.skasd"


@pytest.fixture
def file(detector, path):
    sk_asd.save(detector, path)
    return path


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


@pytest.mark.filterwarnings("ignore:No column:UserWarning")
def test_every_public_estimator(tmp_path):
    fitted = []
    for estimator, inputs in of_file("test_common.py").ESTIMATORS:
        X, _, _ = make_inputs(inputs)
        estimator = clone(estimator)
        if getattr(estimator, "backbone", None) == "cnn6":
            estimator.set_params(module__width=0.1)
        if hasattr(estimator, "max_epochs"):
            estimator.set_params(max_epochs=1)
        fitted.append((estimator.fit(X), X))
    load_in_another_process(fitted, tmp_path)


def sounds():
    """Training and test clips of two machines."""
    clips = make_machine_sounds(
        ("fan", "valve"),
        sections=2,
        n_train=4,
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
def test_submission_with_domain_normalisation(tmp_path):
    train, test = sounds()
    submission = of_file("systems/test_submission.py").tiny(1).fit(train)
    load_in_another_process([(submission, test)], tmp_path)


# What estimators may hold


class Scaler(TransformerMixin, BaseEstimator):
    """An estimator that the package does not know, with a table by tuples."""

    def __init__(self, factor=2.0):
        self.factor = factor

    def fit(self, X, y=None):
        self.table_ = {("fan", 1): np.arange(3), ("fan", None): {1.5: "a", True: (None, "b")}}
        return self

    def transform(self, X):
        return self.factor * np.asarray(X)


def round_trip(estimator, path, **params):
    sk_asd.save(estimator, path)
    return sk_asd.load(path, **params)


def test_trees_of_neighbours(path):
    X = np.random.default_rng(0).normal(size=(200, 3))
    detector = LOFDetector(metric="euclidean").fit(X)
    assert detector.lof_._fit_method == "kd_tree"
    loaded = round_trip(detector, path)
    np.testing.assert_array_equal(loaded.score_samples(X), detector.score_samples(X))
    np.testing.assert_array_equal(loaded.lof_._tree.idx_array, detector.lof_._tree.idx_array)


def test_parameters(path, tmp_path):
    optimizer = functools.partial(torch.optim.SGD, momentum=0.9)
    embedder = SectionEmbedder(
        Cnn6(12, width=0.1, embedding_dim=4),
        n_frames=None,
        max_epochs=1,
        optimizer=optimizer,
        augment=SpecAugment(max_time=0.5),
        callbacks=[("stop", EarlyStopping("train_loss", patience=2))],
        random_state=np.random.RandomState(3),
    )
    extractor = LogMel(cache_dir=tmp_path / "cache")
    memory = joblib.Memory(tmp_path / "memory", verbose=0)
    pipeline = make_pipeline(extractor, embedder, KNNDetector(), memory=memory)
    loaded = round_trip(pipeline, path)
    assert loaded.memory == str(tmp_path / "memory")
    assert loaded[0].cache_dir == tmp_path / "cache"
    found = loaded[1]
    assert (found.optimizer.func, found.optimizer.keywords) == (torch.optim.SGD, {"momentum": 0.9})
    assert found.augment.max_time == 0.5
    assert found.callbacks[0][1].patience == 2
    assert found.random_state.randint(1000) == embedder.random_state.randint(1000)
    expected = embedder.backbone.state_dict()
    weights = found.backbone.state_dict()
    assert all(torch.equal(weights[name], expected[name]) for name in expected | weights)


def test_a_loaded_network_is_trained_as_any(path):
    X = make_inputs("features")[0]
    network = IDNN(n_frames=None, max_epochs=1, random_state=0).fit(X)
    loaded = round_trip(network, path)
    for again in (network, loaded):
        again.set_params(warm_start=True).fit(X)
    np.testing.assert_array_equal(loaded.score_samples(X), network.score_samples(X))
    assert len(loaded.net_.history) == 2


def test_networks_keep_shared_weights_and_order_in_memory(path):
    shared = nn.Linear(4, 4)
    conv = nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last)
    depthwise = nn.Conv2d(3, 3, 3, groups=3).to(memory_format=torch.channels_last)
    conv.bias.requires_grad_(False)
    layers = {"first": shared, "second": shared, "conv": conv, "depthwise": depthwise}
    backbone = nn.ModuleDict(layers)
    backbone.register_buffer("mask", torch.ones(2, dtype=torch.bfloat16), persistent=False)
    loaded = round_trip(SectionEmbedder(backbone), path).backbone
    assert loaded["first"].weight is loaded["second"].weight
    for name in ("conv", "depthwise"):  # equal strides mean equal algorithms, to the last bit
        assert loaded[name].weight.stride() == backbone[name].weight.stride()
    assert torch.equal(loaded["conv"].weight, conv.weight)
    assert [p.requires_grad for p in loaded["conv"].parameters()] == [True, False]
    assert loaded.mask.dtype is torch.bfloat16
    assert set(loaded.state_dict()) == set(backbone.state_dict())
    with zipfile.ZipFile(path) as archive:
        weights = archive.read("weights.safetensors")
    assert b"backbone.first.weight" in weights


def test_arrays_tables_and_numbers(path, tmp_path):
    scaler = Scaler().fit(None)
    np.save(tmp_path / "map.npy", np.arange(6.0).reshape(2, 3))
    scaler.map_ = np.load(tmp_path / "map.npy", mmap_mode="r")
    scaler.text_ = np.array([["a", None], ["b", np.nan]], dtype=object)
    scaler.dtypes_ = [np.dtype("f4"), torch.float16, torch.device("cuda:1")]
    scaler.frame_ = pd.DataFrame(
        {"n": [1, 2], "s": ["x", None], "f": [0.5, np.inf]}, index=pd.Index(["r", "q"])
    )
    scaler.generator_ = torch.Generator().manual_seed(5)
    scaler.labelled_ = xr.DataArray(
        np.arange(4.0).reshape(2, 2),
        dims=("clip", "bin"),
        coords={"clip": ["a", "b"], "sr": 4000, "vel": ("clip", np.array([6, None], object))},
        name="x",
        attrs={"n_fft": 256},
    )
    scaler.again_ = scaler.table_
    with pytest.warns(UserWarning, match="called with trusted=.*Scaler"):
        loaded = round_trip(scaler, path, trusted=[Scaler])
    assert list(loaded.table_) == [("fan", 1), ("fan", None)]
    assert loaded.table_["fan", None] == {1.5: "a", True: (None, "b")}
    assert loaded.again_ is loaded.table_
    assert type(loaded.map_) is np.ndarray
    np.testing.assert_array_equal(loaded.map_, scaler.map_)
    pd.testing.assert_frame_equal(pd.DataFrame(loaded.text_), pd.DataFrame(scaler.text_))
    assert loaded.dtypes_ == scaler.dtypes_
    pd.testing.assert_frame_equal(loaded.frame_, scaler.frame_)
    xr.testing.assert_identical(loaded.labelled_, scaler.labelled_)
    draws = [torch.rand(2, generator=g) for g in (loaded.generator_, scaler.generator_)]
    assert torch.equal(*draws)
    # The estimator itself is as it was.
    assert isinstance(scaler.map_, np.memmap)


def test_searches_and_frozen_estimators(path, embeddings):
    search = GridSearchCV(
        make_pipeline(FrozenEstimator(TimePooling()), KNNDetector()),
        {"knndetector__n_neighbors": [1, 2]},
        scoring=dcase_scorer,
        cv=NormalTrainSplit(),
    )
    loaded = round_trip(search, path)
    assert loaded.scoring is dcase_scorer
    assert isinstance(loaded.estimator[0].estimator, TimePooling)
    function = make_pipeline(FunctionTransformer(np.square), MahalanobisDetector()).fit(embeddings)
    np.testing.assert_array_equal(
        round_trip(function, path).score_samples(embeddings), function.score_samples(embeddings)
    )


@pytest.mark.filterwarnings("ignore")
def test_transformers_that_keep_labels(path):
    """A fitted `Labelled` knows the bins of what it was fitted on."""
    train, test = sounds()
    steps = TimePooling(), Labelled(PCA(2)), MahalanobisDetector()
    system = make_pipeline(LogMel(n_fft=512, n_mels=16), *steps).fit(train)
    loaded = round_trip(system, path)
    np.testing.assert_array_equal(loaded.score_samples(test), system.score_samples(test))
    before, after = system[:-1].transform(test), loaded[:-1].transform(test)
    xr.testing.assert_identical(after, before)


def test_trained_elsewhere(path):
    """A network whose device is not here computes on the CPU, and says so."""
    X = make_inputs("features")[0]
    network = IDNN(n_frames=None, max_epochs=1, random_state=0, device="cpu").fit(X)
    expected = network.score_samples(X)
    loaded = round_trip(network.set_params(device="cuda:99"), path)
    assert {p.device.type for p in loaded.net_.module_.parameters()} == {"cpu"}
    with pytest.warns(UserWarning, match="device='cuda:99' cannot be used, computing on the CPU"):
        np.testing.assert_array_equal(loaded.score_samples(X), expected)


def test_what_cannot_be_saved(path):
    with pytest.raises(TypeError, match="Only estimators can be saved, got dict"):
        sk_asd.save({}, path)
    function = make_pipeline(FunctionTransformer(lambda x: x))
    with pytest.raises(ValueError, match=r"steps\[0\]\[1\].func cannot be saved: <function .*name"):
        sk_asd.save(function, path)
    scaler = Scaler()
    scaler.factor = [scaler]
    with pytest.raises(ValueError, match=r"factor\[0\] cannot be saved: .*Scaler refers to itself"):
        sk_asd.save(scaler, path)
    with pytest.raises(ValueError, match="factor cannot be saved: .* is a method of an object"):
        sk_asd.save(Scaler(scaler.fit), path)
    with pytest.raises(ValueError, match=r"This Scaler cannot be saved \(.*generator"):
        sk_asd.save(Scaler(x for x in ()), path)
    with pytest.raises(FileNotFoundError, match="its folder does not exist"):
        sk_asd.save(scaler, path / "missing" / "m.skasd")
    assert not list(path.parent.iterdir())


def test_an_old_file_survives_a_failed_save(file, detector, monkeypatch):
    before = file.read_bytes()

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        sk_asd.save(detector, file)
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


# Files that are not as they should be


def test_files_of_other_kinds(path, detector):
    with pytest.raises(FileNotFoundError, match=r"model\.skasd"):
        sk_asd.load(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"model\.skasd was not written by .*: it is empty"):
        sk_asd.load(path)
    joblib.dump(detector, path)
    with pytest.raises(ValueError, match="it seems to be a pickle, as joblib writes them"):
        sk_asd.load(path)
    path.write_text("path,score\n")
    with pytest.raises(ValueError, match="it begins with b'path'"):
        sk_asd.load(path)
    skops.io.dump(detector, path)
    with pytest.raises(ValueError, match=r"it is a zip without 'header.json', of \["):
        sk_asd.load(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("header.json", '{"package": "other"}')
    with pytest.raises(ValueError, match="its 'header.json' is another one"):
        sk_asd.load(path)
    with pytest.raises(TypeError, match="trusted must be a sequence of names, got the text 'a.B'"):
        sk_asd.load(path, trusted="a.B")


def test_truncated_and_changed_bytes(file, detector, embeddings):
    content = file.read_bytes()
    expected = detector.score_samples(embeddings)
    for n in np.linspace(4, len(content) - 1, 25, dtype=int):
        file.write_bytes(content[:n])
        with pytest.raises(ValueError, match=r"model\.skasd is truncated or damaged"):
            sk_asd.load(file)
    refused = 0
    for n in np.linspace(0, len(content) - 1, 60, dtype=int):
        file.write_bytes(content[:n] + bytes([content[n] ^ 0x55]) + content[n + 1 :])
        try:
            loaded = sk_asd.load(file)
        except ValueError as error:
            assert str(file) in str(error)  # noqa: PT017
            refused += 1
        else:  # what the zip says twice, or nobody reads
            np.testing.assert_array_equal(loaded.score_samples(embeddings), expected)
    assert refused > 45


def rewrite(path, header=None, **members):
    """Write a file anew with other members, and digests that fit them."""
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    found = json.loads(contents.pop("header.json"))
    contents.update({name.replace("_", "."): content for name, content in members.items()})
    for name, content in contents.items():
        digest = hashlib.sha256(content).hexdigest()
        found["members"][name] = {"bytes": len(content), "sha256": digest}
    found.update(header or {})
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {"header.json": json.dumps(found), **contents}.items():
            archive.writestr(name, content)


def test_changed_members(file):
    with zipfile.ZipFile(file) as archive:
        header = json.loads(archive.read("header.json"))
    other = skops.io.dumps(KNNDetector(n_neighbors=7))
    rewrite(file, header={"members": header["members"]}, estimator_skops=other)
    with pytest.raises(ValueError, match=r"was changed: 'estimator.skops' has bytes \d+, its hea"):
        sk_asd.load(file)
    rewrite(file, estimator_skops=other)
    assert sk_asd.load(file).n_neighbors == 7
    rewrite(file, header={"members": {}})
    with pytest.raises(
        ValueError, match=r"header tells of \[\], it holds \['estimator.skops', 'he"
    ):
        sk_asd.load(file)


def test_versions(file, embeddings, detector):
    here = _versions.versions()
    rewrite(file, header={"format": "1.7"})  # what a minor format adds is not for us
    sk_asd.load(file)
    old = {**here, "sk_asd": "0.0.9", "torch": "1.0+cu126", "python": "3.11.0"}
    rewrite(file, header={"versions": old})
    expected = rf"written with sk_asd 0.0.9 \(here {here['sk_asd']}\), torch 1.0\+cu126 \(here"
    with pytest.warns(UserWarning, match=expected) as caught:
        loaded = sk_asd.load(file)
    assert len(caught) == 1
    np.testing.assert_array_equal(
        loaded.score_samples(embeddings), detector.score_samples(embeddings)
    )
    gone = {**schema_of(KNNDetector()), "__class__": "Gone"}
    rewrite(file, estimator_skops=as_skops(gone))
    expected = (
        r"holds sk_asd\.detectors\._knn\.Gone at the top, .* It was written with sk_asd 0.0.9"
    )
    with pytest.raises(ValueError, match=expected):
        sk_asd.load(file)
    rewrite(file, estimator_skops=b"PK of another time")
    with pytest.raises(ValueError, match=r"Cannot load .* it was written with sk_asd 0.0.9"):
        sk_asd.load(file)
    rewrite(file, header={"format": "2.0"})
    with pytest.raises(ValueError, match=r"has format 2.0 of sk_asd 0.0.9; this .* reads format 1"):
        sk_asd.load(file)


def test_builds_for_another_device_are_the_same_version(file, monkeypatch):
    here = _versions.versions()
    other = {**here, "torch": here["torch"].split("+")[0] + "+cu126", "novelty": "1"}
    rewrite(file, header={"versions": other})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sk_asd.load(file)


# Files that try


class Bomb:
    """Unpickling this leaves a trace."""

    def __init__(self, trace):
        self.trace = str(trace)

    def __reduce__(self):
        return os.mkdir, (self.trace,)


def test_unknown_types_are_refused(path, tmp_path):
    scaler = make_pipeline(KNNDetector(), Scaler({"a": [1, Bomb(tmp_path / "trace")]}))
    with pytest.warns(UserWarning, match="which sk_asd.load does not know"):
        sk_asd.save(scaler, path)
    with pytest.raises(ValueError, match="is refused, and nothing in it was run") as caught:
        sk_asd.load(path)
    assert f"{__name__}.Scaler at steps[1][1]" in str(caught.value)
    assert f"{__name__}.Bomb at steps[1][1].factor.a[1]" in str(caught.value)
    with pytest.raises(ValueError, match=f"it holds {__name__}.Bomb at"):
        sk_asd.load(path, trusted=[f"{__name__}.Scaler"])
    assert not (tmp_path / "trace").exists()


def test_decision_trees_need_a_word(path):
    """scikit-learn follows the numbers of their nodes without checking them."""
    X = np.random.default_rng(0).normal(size=(40, 3))
    forest = IsolationForest(n_estimators=5, random_state=0).fit(X)
    with pytest.warns(UserWarning, match=r"called with trusted=\['sklearn.tree._tree.Tree'\]"):
        sk_asd.save(forest, path)
    with pytest.raises(ValueError, match=r"sklearn.tree._tree.Tree at estimators_\[0\].tree_"):
        sk_asd.load(path)
    loaded = sk_asd.load(path, trusted=["sklearn.tree._tree.Tree"])
    np.testing.assert_array_equal(loaded.score_samples(X), forest.score_samples(X))


@pytest.mark.parametrize("content", ["whole", "member", "array", "net"])
def test_pickles_are_not_run(file, tmp_path, content):
    bomb = pickle.dumps(Bomb(tmp_path / "trace"))
    if content == "whole":
        file.write_bytes(bomb)
    elif content == "member":
        rewrite(file, estimator_skops=bomb)
    elif content == "array":
        rewrite(file, estimator_skops=with_pickled_array(KNNDetector(np.zeros(3)), bomb))
    else:
        # skorch's nets load a pickle when their state is set.
        schema = node("ObjectNode", NeuralNet)
        schema["content"] = schema_of({"__cuda_dependent_attributes__": b"", "device": "cpu"})
        schema["content"]["content"]["__cuda_dependent_attributes__"]["file"] = "bomb.bin"
        rewrite(file, estimator_skops=as_skops(schema, {"bomb.bin": bomb}))
    expected = r"is refused.*NeuralNet at the top" if content == "net" else r"model\.skasd"
    with pytest.raises(ValueError, match=expected):
        sk_asd.load(file)
    assert not (tmp_path / "trace").exists()
    # It would have gone off.
    if content == "net":
        with pytest.raises(TypeError, match="NoneType"):
            NeuralNet(None, None).__setstate__(
                {"__cuda_dependent_attributes__": bomb, "device": "cpu"}
            )
    else:
        pickle.loads(bomb)
    assert (tmp_path / "trace").exists()


def test_what_is_made_runs_no_code_of_its_own():
    """A later library may give a class a way to set its state that reads a pickle."""
    refused = []
    for cls in [*subclasses(BaseEstimator), *subclasses(Callback)]:
        if "ObjectNode" in _trust._allowed(f"{cls.__module__}.{cls.__name__}"):
            assert cls.__new__ is object.__new__
            assert getattr(cls, "__setstate__", None) in _trust._STATE_SETTERS
        else:
            refused.append(cls)
    assert {NeuralNet, SeededNet} < set(refused)
    assert KNNDetector not in refused


def subclasses(cls):
    """All classes derived from this one."""
    return {cls}.union(*map(subclasses, cls.__subclasses__()))


def with_pickled_array(estimator, pickled):
    """The estimator as skops saves it, but with an array that is a pickle."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|O", "fortran_order": False, "shape": (3,)}
    )
    source, target = io.BytesIO(skops.io.dumps(estimator)), io.BytesIO()
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, header.getvalue() + pickled if name.endswith(".npy") else content)
    return target.getvalue()


def with_schema(estimator, change):
    """The estimator as skops saves it, after a change of its schema."""
    source, target = io.BytesIO(skops.io.dumps(estimator)), io.BytesIO()
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "schema.json":
                schema = json.loads(content, object_hook=without_number)
                change(schema)
                content = json.dumps(schema)
            new.writestr(name, content)
    return target.getvalue()


def schema_of(value):
    """A value as skops describes it."""
    with zipfile.ZipFile(io.BytesIO(skops.io.dumps(value))) as archive:
        schema = json.loads(archive.read("schema.json"))
    del schema["protocol"], schema["_skops_version"]
    # Numbers of objects are those of one file.
    return json.loads(json.dumps(schema), object_hook=without_number)


def without_number(state):
    return {k: v for k, v in state.items() if k != "__id__"}


def node(loader, value, **entries):
    module = {"mkdir": "os"}.get(value.__name__, value.__module__)
    return {"__loader__": loader, "__module__": module, "__class__": value.__name__, **entries}


def as_skops(schema, members=None):
    """A file of skops with a schema written by hand."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in (members or {}).items():
            archive.writestr(name, content)
        archive.writestr("schema.json", json.dumps({**schema, "protocol": 2}))
    return target.getvalue()


def attempts(trace):
    """Ways to have `os.mkdir` called, or a function that is trusted as a value."""
    arguments = schema_of((str(trace),))
    yield node("ConstructorFromReduceNode", os.mkdir, content=arguments)
    yield node("ListNode", os.mkdir, content=[schema_of(str(trace))])
    yield keyed(node("TypeNode", os.mkdir), trace)
    partial = schema_of(functools.partial(print, str(trace)))
    partial["content"]["func"] = node("FunctionNode", os.mkdir)
    yield partial
    yield node("ObjectNode", os.mkdir, content=schema_of({"a": str(trace)}))
    yield {**node("OperatorFuncNode", os.mkdir, attrs=arguments), "__module__": "operator"}
    owner = schema_of(KNNDetector())
    yield {**owner, "__loader__": "MethodNode", "content": {"func": "fit", "obj": owner}}
    # These names are trusted, but not to be called.
    for function in (print, dcase_scorer):
        yield node("ConstructorFromReduceNode", function, content=arguments)
        yield node("ListNode", function, content=arguments["content"])
        for loader in ("TypeNode", "FunctionNode"):
            yield keyed(node(loader, function), trace)
        partial = schema_of(functools.partial(print, 1))
        partial["content"]["func"] = node("FunctionNode", function)
        yield keyed(partial, trace)
        for loader in ("RandomState", "default_rng"):
            # A state that lacks what NumPy asks it for.
            default = schema_of(collections.defaultdict(None, {"a": 1}))
            default["content"]["default_factory"] = partial
            schema = schema_of(getattr(np.random, loader)(0))
            state = schema["content"].get("bit_generator", schema["content"])
            state["content"]["state"] = default
            yield schema
    yield node("ConstructorFromReduceNode", torch.nn.Linear, content=schema_of((1, 2)))


def keyed(key_type, key):
    """A dict whose one key is of a type that is written by hand."""
    types = schema_of([str])
    types["content"] = [key_type]
    return {**schema_of({str(key): 1}), "key_types": types}


@pytest.mark.parametrize("number", range(len(list(attempts("x")))))
def test_names_are_not_called(file, tmp_path, capsys, number):
    schema = schema_of(FunctionTransformer(1))
    attempt = list(attempts(tmp_path / "trace"))[number]
    schema["content"]["content"]["func"] = attempt
    rewrite(file, estimator_skops=as_skops(schema))
    with pytest.raises(ValueError, match=r"model\.skasd is refused, and nothing in it") as caught:
        sk_asd.load(file)
    assert " at func" in str(caught.value) or ".fit" in str(caught.value)
    assert not (tmp_path / "trace").exists()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("alias", ["list", "bare", "type"])
def test_numbers_of_other_nodes_are_not_followed(file, capsys, alias):
    """skops takes the first node of a number for all of them."""
    schema = schema_of(FunctionTransformer([0, 1]))
    types, key = schema_of([str]), schema_of({"key": 1})
    types["content"][0] = node("FunctionNode", print)
    if alias == "type":
        types["content"][0]["__id__"] = key["key_types"]["content"][0]["__id__"] = 7
    else:
        types["__id__"] = 7
        key["key_types"] = {"__id__": 7} | (key["key_types"] if alias == "list" else {})
    schema["content"]["content"]["func"]["content"] = [types, key]
    rewrite(file, estimator_skops=as_skops(schema))
    with pytest.raises(ValueError, match=r"damaged \(.*different things have the number 7\)"):
        sk_asd.load(file)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("kind", ["RandomState", "MT19937", "Philox"])
def test_places_of_random_numbers(file, kind):
    """NumPy would draw from any place in memory."""
    random = getattr(np.random, kind)(0)
    random = random if kind == "RandomState" else np.random.Generator(random)

    def change(schema):
        state = schema["content"]["content"]["func"]["content"]
        state = state.get("bit_generator", state)["content"]
        place = state["buffer_pos"] if kind == "Philox" else state["state"]["content"]["pos"]
        place["content"] = "100000000"

    rewrite(file, estimator_skops=with_schema(FunctionTransformer(random), change))
    with pytest.raises(ValueError, match="there is no random number 100000000"):
        sk_asd.load(file)


@pytest.mark.parametrize(
    "description",
    [
        {"__sk_asd__": "object", "cls": int, "state": {}},
        {"__sk_asd__": "list", "cls": KNNDetector, "items": []},
        {"__sk_asd__": "dtype", "name": "load"},
        {"__sk_asd__": "dtype", "name": "_inductor"},
        {"__sk_asd__": "objects", "shape": [10**10], "json": "[]"},
        {"__sk_asd__": "tensor", "name": "none", "shape": [], "stride": [], "parameter": 0}
        | {"requires_grad": 0},
        {"__sk_asd__": "packed", "text": "{", "others": []},
        {"__sk_asd__": "tree", "name": "KDTree", "data": [], "leaf_size": 1, "metric": print}
        | {"params": {}},
        {"__sk_asd__": "tree", "name": "BallTree", "data": [[1.0]] * 4, "leaf_size": 1}
        | {"metric": "pyfunc", "params": {"func": print}},
        {"__sk_asd__": "novelty"},
    ],
    ids=lambda d: d["__sk_asd__"],
)
def test_wrong_descriptions(file, description, capsys):
    rewrite(file, estimator_skops=skops.io.dumps(FunctionTransformer(description)))
    imported = set(sys.modules)
    with pytest.raises(ValueError, match=r"Cannot load .*model\.skasd: it is damaged \("):
        sk_asd.load(file)
    assert capsys.readouterr().out == ""
    assert not any(name.startswith("torch._inductor") for name in set(sys.modules) - imported)


def test_dicts_that_look_like_descriptions(path):
    value = {"__sk_asd__": "dtype", "name": "load"}
    loaded = round_trip(FunctionTransformer(kw_args=value), path)
    assert loaded.kw_args == value


# joblib


@pytest.mark.filterwarnings("ignore:This TimePooling was written with")
def test_pickles_carry_the_version(detector, tmp_path, monkeypatch):
    for estimator, _ in of_file("test_common.py").ESTIMATORS:
        assert estimator.__getstate__()["_sk_asd_version"] == sk_asd.__version__
    pipeline = make_pipeline(TimePooling(), detector)
    joblib.dump(pipeline, tmp_path / "model.joblib")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = joblib.load(tmp_path / "model.joblib")
        copied = copy.deepcopy(clone(loaded))
    assert vars(loaded[1]).keys() == vars(detector).keys()
    assert repr(copied) == repr(pipeline)
    monkeypatch.setattr(_versions, "__version__", "99.0")
    expected = rf"This KNNDetector was written with sk_asd {sk_asd.__version__} \(here 99.0\): its "
    with pytest.warns(UserWarning, match=expected):
        joblib.load(tmp_path / "model.joblib")


# The command line


def test_command_line(tmp_path, capsys):
    make_machine_sounds("fan", n_train=6, n_test=4, duration=1.0, root=tmp_path, random_state=0)
    data, scores = str(tmp_path / "dev_data"), {}
    for suffix in ("joblib", "skasd"):
        model, out = str(tmp_path / f"m.{suffix}"), str(tmp_path / f"{suffix}.csv")
        train = ["train", data, "--system", "pooling", "--r", "0.8", "--out", model, "--quiet"]
        assert main(train) == 0
        assert main(["score", model, data, "--out", out, "--quiet"]) == 0
        scores[suffix] = Path(out).read_text()
    assert scores["joblib"] == scores["skasd"]
    with zipfile.ZipFile(tmp_path / "m.skasd") as archive:
        header = json.loads(archive.read("header.json"))
    assert header["options"] == {"system": "pooling", "r": 0.8}
    assert header["sections"] == {"fan": ["00"]}
    assert header["estimator"]["steps"]["feature"] == "LogMel"
    sk_asd.save(sk_asd.load(tmp_path / "m.skasd"), tmp_path / "bare.skasd")
    out = str(tmp_path / "bare.csv")
    assert main(["score", str(tmp_path / "bare.skasd"), data, "--out", out, "--quiet"]) == 0
    assert Path(out).read_text() == scores["joblib"]
    (tmp_path / "m.skasd").write_bytes((tmp_path / "m.skasd").read_bytes()[:500])
    capsys.readouterr()
    assert main(["score", str(tmp_path / "m.skasd"), data, "--out", out, "--quiet"]) == 2
    assert "m.skasd is truncated or damaged (500 bytes)" in capsys.readouterr().err


def test_a_pickle_with_the_name_of_a_safe_file(file, tmp_path, capsys):
    header = {"format": "sk_asd model 1", "versions": _versions.versions()}
    header |= {"options": {}, "sections": {}}
    bomb = Bomb(tmp_path / "trace")
    joblib.dump({"header": json.dumps(header), "pipeline": bomb}, file)
    assert main(["score", str(file), str(tmp_path), "--out", "x.csv", "--quiet"]) == 2
    assert "it seems to be a pickle" in capsys.readouterr().err
    assert not (tmp_path / "trace").exists()
    with pytest.raises(ValueError, match="it seems to be a pickle"):
        load_model(file)
    load_model(file.rename(tmp_path / "model.joblib"))
    assert (tmp_path / "trace").exists()


# Earlier releases


@pytest.mark.filterwarnings("ignore:.*was written with:UserWarning")
@pytest.mark.parametrize("name", sorted(p.stem for p in (HERE / "saved").glob("*.skasd")))
def test_saved_by_earlier_releases(name):
    path = HERE / "saved" / f"{name}.skasd"
    assert path.stat().st_size < 200_000
    # In standard deviations of the training scores; another processor rounds otherwise.
    close = {"rtol": 1e-4, "atol": 1e-4}
    system = sk_asd.load(path)
    with np.load(path.with_suffix(".npz")) as kept:
        clips = pd.DataFrame({c: kept[c].astype(object) for c in ("machine", "section", "domain")})
        clips["audio"] = list((kept["audio"] / 2**15).astype(np.float32))
        clips["sr"] = kept["sr"]
        np.testing.assert_allclose(system.score_samples(clips), kept["scores"], **close)
        np.testing.assert_allclose(system.transform(clips), kept["contributions"], **close)
