"""One class is all that a new detector needs to be exported and explained."""

import numpy as np
import onnxruntime
import pytest
import torch
from scipy.spatial.distance import cdist
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.pipeline import make_pipeline
from torch import nn

from sk_asd.datasets import make_machine_sounds
from sk_asd.detectors._bank import BankDetector
from sk_asd.ensemble import GroupedDetector
from sk_asd.export import export_onnx
from sk_asd.features import LogMel, TimePooling
from sk_asd.inspection import anomaly_map, nearest_normal
from sk_asd.metrics import anomaly_score
from sk_asd.utils._validation import check_features


class VarianceDetector(BankDetector):
    """Squared distance to the mean in units of each feature's variance."""

    _state = ("mean_", "variance_")

    def __init__(self, *, contamination=0.1, threshold="quantile"):
        self.contamination = contamination
        self.threshold = threshold

    def _fit(self, X):
        self.mean_, self.variance_ = X.mean(axis=0), X.var(axis=0) + 1e-3
        return self._score(X)

    def _score(self, X):
        return -(np.square(X - self.mean_) / self.variance_).sum(axis=1)

    def _exported(self):
        return VarianceLayer(self.mean_, self.variance_)

    def _quadratic_form(self, X):
        expected = np.broadcast_to(self.mean_, X.shape)
        return expected, (X - expected) / self.variance_

    def _distances(self, a, b):
        return cdist(a, b, "seuclidean", V=self.variance_)


class VarianceLayer(nn.Module):
    def __init__(self, mean, variance):
        super().__init__()
        self.register_buffer("mean", torch.from_numpy(mean))
        self.register_buffer("variance", torch.from_numpy(variance))

    def forward(self, x):
        return -((x - self.mean).square() / self.variance).sum(dim=1)


class PlainDetector(OutlierMixin, BaseEstimator):
    """The same without anything of the package."""

    def fit(self, X, y=None):
        self.detector_ = VarianceDetector().fit(X)
        return self

    def score_samples(self, X):
        return self.detector_.score_samples(X)

    def decision_function(self, X):
        return self.detector_.decision_function(X)

    def predict(self, X):
        return self.detector_.predict(X)

    def _exported(self):
        return self.detector_._exported()


class FrameDetector(VarianceDetector):
    """The same of every frame of features ``(n_clips, n_bins, n_frames)``, and their mean."""

    _takes = "spectrograms"
    _map_unit = "squared deviation"

    def _validate(self, X, reset):
        return check_features(self, X, reset=reset, dtype=[np.float64])

    def _fit(self, X):
        self.mean_ = X.mean(axis=(0, 2))[:, np.newaxis]
        self.variance_ = X.var(axis=(0, 2))[:, np.newaxis] + 1e-3
        return self._score(X)

    def _score(self, X):
        return -self._squares(X).sum(axis=1).mean(axis=1)

    def _exported(self, n_frames):
        return FrameLayer(self.mean_, self.variance_)

    def score_map(self, X):
        return self._squares(self._validate(X, reset=False))

    def _squares(self, X):
        return np.square(X - self.mean_) / self.variance_


class FrameLayer(VarianceLayer):
    def forward(self, x):
        return super().forward(x).mean(dim=1)


class BinDetector(FrameDetector):
    """Says which bins are odd, and when in a way of its own."""

    def score_map(self, X):
        return super().score_map(X).mean(axis=2)

    def _map_over_frames(self, X):
        return super().score_map(X)

    def _exported(self, n_frames):
        raise ValueError("it is shy.")


@pytest.fixture(scope="module")
def clips():
    return make_machine_sounds(
        ("fan", "valve"), n_train=12, n_test=4, duration=1.0, random_state=0
    ).reset_index(drop=True)


@pytest.fixture(scope="module")
def train(clips):
    return clips[clips["split"] == "train"]


@pytest.fixture(scope="module")
def test(clips):
    return clips[clips["split"] == "test"]


def fit(train, *steps, **params):
    *steps, detector = steps
    mel = LogMel(n_fft=512, n_mels=8)
    return make_pipeline(mel, *steps, GroupedDetector(detector, **params)).fit(train)


def test_of_vectors(train, test, tmp_path):
    system = fit(train, TimePooling(), VarianceDetector())
    report = export_onnx(system, tmp_path / "own.onnx", clips=test)
    assert report.n_clips == len(test)
    session = onnxruntime.InferenceSession(str(report.path))
    names = [group["machine"] for group in report.groups]
    feed = {
        "waveform": np.stack(test["audio"].tolist()).astype("float32"),
        "group": np.array([names.index(machine) for machine in test["machine"]]),
    }
    (scores,) = session.run(None, feed)
    np.testing.assert_allclose(scores, anomaly_score(system, test), rtol=1e-4)

    maps = anomaly_map(system, test)
    assert maps.attrs == {"method": "distance", "unit": "share of squared distance"}
    np.testing.assert_allclose(maps.sum(("mel", "frame")), anomaly_score(system, test), rtol=1e-3)

    found = nearest_normal(system, test, train)
    pooled = [system[:-1].transform(clips) for clips in (test, train)]
    for row, machine in enumerate(test["machine"]):
        own = np.flatnonzero(train["machine"] == machine)
        V = system[-1].detectors_[machine, "00"].variance_
        distances = cdist(pooled[0][[row]], pooled[1][own], "seuclidean", V=V)[0]
        assert found["index"].iloc[row] == train.index[own[distances.argmin()]]
        assert found["distance"].iloc[row] == pytest.approx(distances.min())
    kept = nearest_normal(system, test)  # of the clips that the detector has kept
    assert train.index[kept["index"]].tolist() == found["index"].tolist()


@pytest.mark.slow
def test_of_another_library(train, test, tmp_path):
    system = fit(train, TimePooling(), PlainDetector())
    assert export_onnx(system, tmp_path / "own.onnx", clips=test).n_clips == len(test)


def test_of_features(train, test, tmp_path):
    system = fit(train, FrameDetector(), by="machine")
    report = export_onnx(system, tmp_path / "own.onnx", clips=test)
    assert report.n_clips == len(test)
    maps = anomaly_map(system, test)
    assert maps.attrs == {"method": "score_map", "unit": "squared deviation"}
    sums = maps.sum("mel").mean("frame")
    np.testing.assert_allclose(sums, anomaly_score(system, test), rtol=1e-5)


def test_of_bins(train, test, tmp_path):
    system = fit(train, BinDetector(), by="machine")
    maps = anomaly_map(system, test)
    assert maps.dims == ("clip", "mel", "frame")
    inner = system[-1].detectors_[test["machine"].iloc[0]]
    bins = inner.score_map(system[0].transform(test[:1]))
    np.testing.assert_allclose(maps[:1].mean("frame"), bins, rtol=1e-5)
    message = "^groupeddetector / fan: BinDetector cannot be exported to ONNX: it is shy"
    with pytest.raises(ValueError, match=message):
        export_onnx(system, tmp_path / "own.onnx", clips=test)
    assert not list(tmp_path.iterdir())
