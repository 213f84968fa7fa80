"""Graphs in onnxruntime: parity, inputs, metadata, refusals."""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler
from torch import nn

import sk_asd
from sk_asd.datasets import load_clips
from sk_asd.detectors import (
    AutoEncoderDetector,
    CosineDetector,
    GaussianMixtureDetector,
    KNNDetector,
    LOFDetector,
    MahalanobisDetector,
)
from sk_asd.embedders import MultiHeadEmbedder, SectionEmbedder
from sk_asd.ensemble import GroupedDetector, ScoreEnsemble
from sk_asd.export import _onnx, export_onnx
from sk_asd.export._mirror import Mirror
from sk_asd.features import STFT, KeepLabels, LogMel, TimePooling, Wav2Vec
from sk_asd.metrics import anomaly_score
from sk_asd.systems import make_pooling, make_sc

BY = ("machine", "section")


def waves(clips):
    return np.stack(clips["audio"].tolist()).astype("float32")


def numbers(report, clips):
    """Input ``group`` for clips, by the groups of a report."""
    names = [(group["machine"], group["section"]) for group in report.groups]
    return [names.index(name) for name in zip(clips["machine"], clips["section"])]


class Together(Mirror):
    """Several systems of the same clips in one graph, one column of scores each."""

    def __init__(self, systems):
        super().__init__(systems[0])
        self.others = nn.ModuleList(Mirror(system) for system in systems)

    def forward(self, waveform, group=None):
        return torch.stack([each(waveform, group) for each in self.others], dim=1)


class Heads(nn.Module):
    """Several detectors on the same embeddings."""

    def __init__(self, detectors):
        super().__init__()
        self.detectors = nn.ModuleList(detectors)

    def forward(self, x, group=None):
        return torch.stack([detector(x, group) for detector in self.detectors], dim=1)


@pytest.fixture(scope="module")
def exported(pooling, test, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    return export_onnx(pooling, path, clips=test)


FRONTS = ("mel", "stft", "embedder")
DETECTORS = [
    KNNDetector(),
    KNNDetector(2, metric="euclidean"),
    LOFDetector(3),
    CosineDetector(),
    MahalanobisDetector(),
    GaussianMixtureDetector(2, reg_covar=0.1, random_state=0),
]


@pytest.fixture(scope="module")
def fitted(train, embedder):
    """Return a function that fits a detector behind one of the features."""
    fronts = {
        "mel": [LogMel(n_fft=512, n_mels=16), TimePooling(("gwrp", "mean", "std", "max"), r=0.9)],
        "stft": [STFT(n_fft=256), TimePooling(("max",))],
    }
    fronts = {name: make_pipeline(*steps).fit(train) for name, steps in fronts.items()}
    fronts["embedder"] = make_pipeline(*embedder)

    def fit(front, detector):
        vectors = fronts[front].transform(train)
        return Pipeline([*fronts[front].steps, ("detector", clone(detector).fit(vectors))])

    return fit


def check_together(systems, clips, run_graph):
    """Compare systems in one graph, since making one takes seconds."""
    content = _onnx.serialised(_onnx.to_model(Together(systems), 20))
    found = run_graph(content, waves(clips))
    assert found.shape == (len(clips), len(systems))
    for column, system in zip(found.T, systems):
        expected = anomaly_score(system, clips)
        np.testing.assert_allclose(column, expected, rtol=1e-4, atol=1e-4, err_msg=str(system))


def test_every_feature_and_every_detector(fitted, test, run_graph):
    systems = [fitted(*pair) for pair in zip(itertools.cycle(FRONTS), DETECTORS)]
    check_together(systems, test, run_graph)


@pytest.mark.slow
def test_every_feature_with_every_detector(fitted, test, run_graph):
    systems = [fitted(*pair) for pair in itertools.product(FRONTS, DETECTORS)]
    check_together(systems, test, run_graph)


def test_report_and_groups(exported, pooling, test, run_graph):
    assert exported.path.is_file()
    assert exported.n_clips == len(test)
    assert exported.groups == [
        {"machine": machine, "section": section}
        for machine in ("fan", "valve")
        for section in ("00", "01")
    ]
    found = run_graph(exported.path, waves(test), numbers(exported, test))
    expected = anomaly_score(pooling, test)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert exported.max_difference == pytest.approx(np.abs(found - expected).max(), rel=0.5)
    # Another group is another detector.
    others = [(number + 1) % 4 for number in numbers(exported, test)]
    assert np.abs(run_graph(exported.path, waves(test), others) - expected).min() > 1e-3


@pytest.mark.parametrize("n_clips", [1, 7])
def test_dynamic_batch(exported, pooling, test, run_graph, n_clips):
    part = test[:n_clips]
    found = run_graph(exported.path, waves(part), numbers(exported, part))
    assert found.shape == (n_clips,)
    np.testing.assert_allclose(found, anomaly_score(pooling, part), rtol=1e-4, atol=1e-4)


def test_metadata(exported, pooling, test):
    session = onnxruntime.InferenceSession(str(exported.path))
    shapes = {i.name: (i.type, i.shape) for i in session.get_inputs()}
    assert shapes == {
        "waveform": ("tensor(float)", ["batch", 16000]),
        "group": ("tensor(int64)", ["batch"]),
    }
    (output,) = session.get_outputs()
    assert (output.name, output.type, output.shape) == ("anomaly_score", "tensor(float)", ["batch"])
    meta = session.get_modelmeta().custom_metadata_map
    assert (meta["sr"], meta["n_samples"]) == ("16000", "16000")
    assert json.loads(meta["groups"]) == exported.groups
    (feature,) = json.loads(meta["features"])
    assert (feature["name"], feature["n_fft"], feature["n_mels"]) == ("LogMel", 512, 16)
    assert json.loads(meta["versions"])["sk_asd"] == sk_asd.__version__
    # Above the threshold is abnormal, as predict says.
    limits = np.array(json.loads(meta["threshold"]))[numbers(exported, test)]
    np.testing.assert_array_equal(
        anomaly_score(pooling, test) > limits, pooling.predict(test) == -1
    )
    assert str(Path.cwd()) not in str(meta)


def test_without_this_package(exported, pooling, test, tmp_path):
    """In a process that has onnxruntime and NumPy alone."""
    np.savez(tmp_path / "clips.npz", waveform=waves(test), group=numbers(exported, test))
    code = f"""
import sys
for name in ("sk_asd", "torch", "sklearn"):
    sys.modules[name] = None  # any import of it fails
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession({str(exported.path)!r})
clips = np.load({str(tmp_path / "clips.npz")!r})
(scores,) = session.run(None, dict(clips))
np.save({str(tmp_path / "scores.npy")!r}, scores)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    found = np.load(tmp_path / "scores.npy")
    np.testing.assert_allclose(found, anomaly_score(pooling, test), rtol=1e-4, atol=1e-4)


def test_one_group_of_an_ensemble_with_clips_of_its_own(train, test, tmp_path, run_graph):
    """One group needs no input for it; synthetic clips are compared where none are given."""
    members = [
        ("ranks", make_pooling(feature=LogMel(n_fft=512, n_mels=16))),
        ("peaks", make_pooling(feature=LogMel(n_fft=512, n_mels=16), statistics=("max",))),
    ]
    system = ScoreEnsemble(members, (0.7, 0.3), by=BY).fit(train)
    report = sk_asd.export_onnx(system, tmp_path / "m.onnx", groups=[("valve", "01")])
    assert report.groups == [{"machine": "valve", "section": "01"}]
    assert report.n_clips == 8
    session = onnxruntime.InferenceSession(str(report.path))
    assert [i.name for i in session.get_inputs()] == ["waveform"]
    meta = session.get_modelmeta().custom_metadata_map
    assert json.loads(meta["threshold"]) == pytest.approx(-system.offset_)
    own = test[(test["machine"] == "valve") & (test["section"] == "01")]
    found = run_graph(report.path, waves(own))
    np.testing.assert_allclose(found, anomaly_score(system, own), rtol=1e-4, atol=1e-4)
    # The features of both members are the same, and computed once.
    products = [n.op_type for n in onnx.load(report.path).graph.node].count("Log")
    assert products == 1


@pytest.mark.parametrize(
    ("detector", "message"),
    [
        (LocalOutlierFactor(n_neighbors=3, novelty=True), "LocalOutlierFactor .* has no layer"),
        (KNNDetector(metric="cityblock"), "KNNDetector .* its metric is 'cityblock'"),
        (make_pipeline(KeepLabels(MinMaxScaler()), KNNDetector()), "MinMaxScaler .* has no layer"),
    ],
)
def test_detectors_that_are_refused(train, tmp_path, detector, message):
    feature = LogMel(n_fft=512, n_mels=16)
    system = make_pooling(feature=feature, detector=detector, by="machine").fit(train)
    with pytest.raises(ValueError, match=r"^detector / fan( / keeplabels)?: " + message):
        export_onnx(system, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_networks_that_are_refused(train, tmp_path):
    steps = [("mel", LogMel(n_fft=512, n_mels=8)), ("ae", AutoEncoderDetector(max_epochs=1))]
    system = ScoreEnsemble([("old", Pipeline(steps))], by=None).fit(train)
    message = "^old / ae: AutoEncoderDetector cannot be exported to ONNX: .* network of its own"
    with pytest.raises(ValueError, match=message):
        export_onnx(system, tmp_path / "model.onnx")


def test_a_network_that_torch_cannot_export(train, tmp_path, capfd):
    class Moody(nn.Module):
        def forward(self, x):
            means = x.mean(dim=2)
            return means if means.sum().item() > 0 else 2 * means

    embedder = SectionEmbedder(Moody, target="machine", n_frames=None, max_epochs=1, device="cpu")
    system = make_pipeline(STFT(n_fft=256), embedder, KNNDetector()).fit(train)
    with pytest.raises(ValueError, match="^torch cannot export the network of the system"):
        export_onnx(system, tmp_path / "model.onnx")
    assert "def forward" not in capfd.readouterr().err  # the operations of the network
    assert not list(tmp_path.iterdir())


def test_systems_that_are_refused(train, tmp_path):
    path = tmp_path / "model.onnx"
    mel = LogMel(n_fft=512, n_mels=16)
    with pytest.raises(ValueError, match="^KNNDetector .* waveforms and takes vectors; begin with"):
        export_onnx(KNNDetector().fit(np.eye(4)), path)
    twice = make_pipeline(mel, TimePooling(), TimePooling(), KNNDetector()).fit(train)
    with pytest.raises(ValueError, match="^timepooling-2: .* given vectors and takes spectrograms"):
        export_onnx(twice, path)
    lengths = [
        (name, make_pooling(feature=LogMel(n_mels=8, duration=seconds, on_length="crop")))
        for name, seconds in (("long", 1.0), ("short", 0.5))
    ]
    system = ScoreEnsemble(lengths, by=None).fit(train)
    message = "long / feature takes 16000 samples at 16000 Hz .* short / feature 8000 samples"
    with pytest.raises(ValueError, match=message):
        export_onnx(system, path)
    members = [("a", make_pooling(feature=mel, by="machine"))]
    system = ScoreEnsemble(members, by="section").fit(train)
    with pytest.raises(ValueError, match=r"a / detector groups clips by \['machine'\] and"):
        export_onnx(system, path)
    whole = make_pipeline(mel, TimePooling(), GroupedDetector(CosineDetector(), by=BY))
    system = GroupedDetector(whole, by=BY).fit(train)
    with pytest.raises(ValueError, match="knows no group .*: groups within groups cannot be"):
        export_onnx(system, path)
    with pytest.raises(ValueError, match="^timepooling: .* gives no scores; end with a detector"):
        export_onnx(make_pipeline(mel, TimePooling()).fit(train), path)
    for unfitted in (make_pooling(feature=mel), make_pipeline(mel, TimePooling(), KNNDetector())):
        with pytest.raises(NotFittedError):
            export_onnx(clone(unfitted), path)
    assert not list(tmp_path.iterdir())


def test_parameters_that_are_refused(pooling, test, tmp_path):
    path = tmp_path / "model.onnx"
    for groups in (["fan"], [("fan", "07")], [], [("fan", "00")] * 2):
        with pytest.raises(ValueError, match=r"expected different ones out of .*'valve', '01'"):
            export_onnx(pooling, path, groups=groups)
    with pytest.raises(ValueError, match="groups='fan': expected a list"):
        export_onnx(pooling, path, groups="fan")
    fans = test[test["machine"] == "fan"]
    with pytest.raises(ValueError, match="None of the 8 clips to compare"):
        export_onnx(pooling, path, clips=fans, groups=[("valve", "00")])
    with pytest.raises(ValueError, match="opset must be an integer of at least 18, got 9"):
        export_onnx(pooling, path, opset=9)
    with pytest.raises(ValueError, match="opset=99: the installed torch and onnx write 18 inst"):
        export_onnx(pooling, path, opset=99)
    with pytest.raises(FileNotFoundError, match="no does not exist"):
        export_onnx(pooling, tmp_path / "no" / "model.onnx")
    with pytest.raises(IsADirectoryError, match="is a folder, expected the name of a file"):
        export_onnx(pooling, tmp_path)
    assert not list(tmp_path.iterdir())


def test_other_scores_leave_no_file(pooling, test, tmp_path, monkeypatch):
    """With tolerances that float32 cannot keep, and with a runtime that goes wrong."""
    path = tmp_path / "model.onnx"
    path.write_text("before")
    scores = anomaly_score(pooling, test)

    def wrong(content, mirror, clips):
        return scores + np.where(np.arange(len(clips)) == 3, 0.25, 0)

    monkeypatch.setattr(_onnx, "to_model", lambda mirror, opset: onnx.ModelProto())
    monkeypatch.setattr(_onnx, "runtime_scores", wrong)
    message = r"for 1 of 16 clips; the largest difference is 0\.25, at position 3 of the clips"
    with pytest.raises(ValueError, match=message):
        export_onnx(pooling, path, clips=test)
    monkeypatch.setattr(_onnx, "runtime_scores", lambda *args: scores * np.nan)
    with pytest.raises(ValueError, match="for 16 of 16 clips; the largest difference is nan"):
        export_onnx(pooling, path, clips=test)
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
    assert path.read_text() == "before"
    monkeypatch.setattr(_onnx, "runtime_scores", lambda *args: scores + 5e-5)
    assert export_onnx(pooling, path, clips=test).max_difference == pytest.approx(5e-5)
    assert path.read_bytes() != b"before"


def test_without_the_extra(pooling, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r'pip install "sk_asd\[onnx\]"'):
        export_onnx(pooling, tmp_path / "model.onnx")


@pytest.mark.slow
def test_every_backbone_and_wav2vec(train, test, run_graph):
    mel = LogMel(n_fft=512, n_mels=16)
    # Enough steps that embeddings of different clips differ by more than rounding.
    settings = {"n_frames": 16, "window_hop": 8, "module__embedding_dim": 8, "max_epochs": 10}
    settings["batch_size"] = 4
    systems = [make_pipeline(Wav2Vec(), TimePooling(("mean",)), CosineDetector()).fit(train)]
    for name in ("mobilefacenet", "mfnse", "ecapa", "cnn6"):
        kind = MultiHeadEmbedder if name == "mfnse" else SectionEmbedder
        embedder = kind(name, **settings, device="cpu", random_state=0, module__width=0.1)
        systems.append(make_pipeline(mel, embedder, MahalanobisDetector()).fit(train))
    check_together(systems, test, run_graph)


@pytest.mark.slow
def test_classifier_on_real_recordings(real_data, run_graph):
    """SC with each of its detectors: 50 clips of a slider that it has not seen."""
    clips = load_clips(real_data / "dcase_real" / "dev_data" / "slider")
    train = clips[clips["split"] == "train"][::3]
    test = clips[clips["split"] == "test"]
    test = test[:: len(test) // 50][:50]
    assert len(test) == 50
    assert test["section"].nunique() == 2
    first = make_sc("slider", max_epochs=3, random_state=0, device="cpu")
    # Steps enough for the statistics of batch normalisation; else all embeddings are alike.
    first.set_params(embedder__module__width=0.25, embedder__batch_size=4).fit(train)
    embeddings = first[:-1].transform(train)
    systems = []
    for name in ("knn", "lof", "cosine", "mahalanobis"):
        detector = make_sc("slider", detector=name)["detector"].fit(embeddings)
        systems.append(Pipeline([*first.steps[:-1], ("detector", detector)]))
    graph = Mirror(systems[0])
    graph.system.detector = Heads(Mirror(system).system.detector for system in systems)
    content = _onnx.serialised(_onnx.to_model(graph, 20))
    found = _onnx.runtime_scores(content, graph, test)
    for column, system in zip(found.T, systems):
        expected = anomaly_score(system, test)
        difference = np.abs(column - expected).max()
        print(f"{system[-1].detector}: {difference:.1e}, standard deviation {expected.std():.1e}")
        assert difference < 1e-4
        assert difference < 1e-2 * expected.std()  # small beside what tells clips apart
