"""Anomaly maps: their sums, their places, and who is asked."""

import librosa
import numpy as np
import pandas as pd
import pytest
import soundfile as sf
import torch
from numpy.testing import assert_allclose
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from sk_asd.detectors import (
    AutoEncoderDetector,
    GaussianMixtureDetector,
    IMDNDetector,
    KNNDetector,
    LOFDetector,
    MahalanobisDetector,
    WSPFlowDetector,
)
from sk_asd.embedders import MultiHeadEmbedder, SectionEmbedder
from sk_asd.ensemble import GroupedDetector, ScoreEnsemble
from sk_asd.features import KeepLabels, TimePooling, Wav2Vec
from sk_asd.features._time_pooling import parts_over_time
from sk_asd.inspection import anomaly_map
from sk_asd.networks import Wav2Vec1


@pytest.mark.parametrize("statistic", ["mean", "std", "min", "max", "gwrp", "flux"])
def test_a_statistic_is_the_sum_of_its_parts(statistic):
    clip = np.random.default_rng(0).normal(size=(3, 7))
    clip[2] = 5.0
    parts, weights = parts_over_time(statistic, clip, r=0.5)
    pooled = TimePooling([statistic], r=0.5).fit_transform(clip[np.newaxis])[0]
    assert_allclose(parts.sum(axis=1), pooled)
    assert_allclose(weights.sum(axis=1), 1)


def test_parts_by_hand():
    clip = np.array([[4.0, 1.0, 2.0]])
    assert_allclose(parts_over_time("mean", clip)[0], [[4 / 3, 1 / 3, 2 / 3]])
    assert_allclose(parts_over_time("max", clip)[0], [[4, 0, 0]])
    assert_allclose(parts_over_time("min", clip)[0], [[0, 1, 0]])
    assert_allclose(parts_over_time("flux", clip)[0], [[0, 1.5, 0.5]])
    assert_allclose(parts_over_time("flux", clip[:, :1])[0], [[0]])
    # Weights 1, 1/2, 1/4 over 7/4 in the order 4, 2, 1.
    assert_allclose(parts_over_time("gwrp", clip, r=0.5)[0], [[16 / 7, 1 / 7, 4 / 7]])


QUADRATIC = {
    "mahalanobis": (MahalanobisDetector(), lambda s: s**2),
    "knn": (KNNDetector(metric="euclidean"), lambda s: s**2),
    "cosine": (KNNDetector(metric="cosine"), lambda s: -2 * s),
    "full": (GaussianMixtureDetector(), None),
    "tied": (GaussianMixtureDetector(covariance_type="tied"), None),
    "diag": (GaussianMixtureDetector(covariance_type="diag"), None),
    "spherical": (GaussianMixtureDetector(covariance_type="spherical"), None),
}


@pytest.mark.parametrize("statistics", [("mean", "std"), ("max",), ("gwrp", "mean")])
@pytest.mark.parametrize("name", QUADRATIC)
def test_shares_of_pooled_features_sum_up_to_the_squared_distance(features, name, statistics):
    detector, squared = QUADRATIC[name]
    pipeline = make_pipeline(TimePooling(statistics, r=0.8), detector).fit(features[:8])
    maps = anomaly_map(pipeline, features[8:])
    assert maps.attrs["method"] == "distance"
    assert maps.dims == ("clip", "mel", "frame")
    scores = pipeline.score_samples(features[8:])
    if squared is not None:
        expected = squared(scores)
    else:  # log p = log p(mean) - d² / 2
        mixture = pipeline[-1].mixture_
        expected = 2 * (mixture.score_samples(mixture.means_)[0] - scores)
    assert_allclose(maps.sum(("mel", "frame")), expected, rtol=2e-4)


def test_every_clip_is_explained_by_its_own_group(features):
    X = features.copy()
    X[6:] += 10
    grouped = GroupedDetector(MahalanobisDetector(), by="section")
    pipeline = make_pipeline(TimePooling(), grouped).fit(X)
    mixed = X[[7, 0, 8, 1]]
    maps = anomaly_map(pipeline, mixed)
    assert maps.section.values.tolist() == ["01", "00", "01", "00"]
    assert_allclose(maps.sum(("mel", "frame")), pipeline.score_samples(mixed) ** 2, rtol=1e-4)
    # A detector for every domain: the one that finds the clip most normal answers.
    X = X.assign_coords(domain=("clip", ["source", "target"] * 6))
    X[1::2] += 3
    grouped = GroupedDetector(MahalanobisDetector(), by="section", over="domain")
    pipeline = make_pipeline(TimePooling(), grouped).fit(X)
    maps = anomaly_map(pipeline, X)
    assert_allclose(maps.sum(("mel", "frame")), pipeline.score_samples(X) ** 2, rtol=1e-4)


def test_groups_of_pipelines_on_a_clip_table(clips, train, test, pooling):
    from sklearn.base import clone

    inner = make_pipeline(*map(clone, pooling[:2]), MahalanobisDetector())
    grouped = GroupedDetector(inner, by=["machine", "section"]).fit(train)
    some = test.iloc[::5]
    maps = anomaly_map(grouped, some)
    assert maps.machine.values.tolist() == some["machine"].tolist()
    assert_allclose(maps, anomaly_map(pooling, some), atol=1e-3)


def test_plain_waveforms_give_hertz_and_seconds(clips, train, test, pooling):
    from sklearn.base import clone

    waves = np.stack(train["audio"][:16])
    pipeline = make_pipeline(*map(clone, pooling[:2]), MahalanobisDetector()).fit(waves)
    maps = anomaly_map(pipeline, waves[:2])
    assert maps.dims == ("clip", "mel", "frame")
    assert_allclose(maps.frame[:2], [0, 512 / 16000])
    assert maps.mel[0] > 20


def detectors_with_maps():
    small = {"max_epochs": 1, "random_state": 0}
    return {
        "imdn": IMDNDetector("mlp", n_frames=5, n_components=1, module__hidden=(8,), **small),
        "ae": AutoEncoderDetector(**small),
        "nfcdee": WSPFlowDetector(
            pooling="none", by=None, module__n_groups=1, module__transforms=1, **small
        ),
    }


@pytest.mark.parametrize("name", detectors_with_maps())
def test_the_map_of_a_detector_is_taken_as_it_is(features, name):
    detector = detectors_with_maps()[name]
    pipeline = make_pipeline(GroupedDetector(detector, by="section")).fit(features)
    maps = anomaly_map(pipeline, features[[8, 2]])
    assert maps.attrs["method"] == "score_map"
    own = [pipeline[-1].detectors_[s].score_map(features[[i]]) for s, i in (("01", 8), ("00", 2))]
    assert_allclose(maps, np.concatenate(own))


@pytest.mark.parametrize("pooling", ["wsp", "mean", "std", "gwrp"])
def test_contributions_of_bins_are_spread_over_time(features, pooling):
    detector = WSPFlowDetector(
        pooling=pooling,
        by=None,
        max_epochs=1,
        random_state=0,
        module__n_groups=2,
        module__transforms=1,
    ).fit(features)
    X = features[:3].copy()
    X[0, 4, 13] += 30  # far above the others
    maps = anomaly_map(detector, X)
    assert maps.dims == ("clip", "mel", "frame")
    assert_allclose(maps.mean("frame"), detector.score_map(X), rtol=1e-4, atol=1e-5)
    assert_allclose(maps.mean(("mel", "frame")), -detector.score_samples(X), rtol=1e-3, atol=1e-4)
    assert maps[0, 4].values.argmax() == 13


class Tiny(nn.Module):
    """A little network whose embeddings depend on places."""

    def __init__(self, n_bins=6, n_frames=8):
        super().__init__()
        self.linear = nn.Linear(n_bins * n_frames, 4)

    def forward(self, x):
        return torch.tanh(self.linear(x.flatten(1)))


def fit_embedder(X, detector, cls=SectionEmbedder, **params):
    # Several heads have targets, one has a target.
    target = {"targets": ["section"]} if cls is MultiHeadEmbedder else {"target": "section"}
    params = {"n_frames": 8, "window_hop": 4, "max_epochs": 2, "random_state": 0} | params
    embedder = cls(Tiny(), **target, **params)
    return make_pipeline(embedder, GroupedDetector(detector, by="section")).fit(X)


@pytest.mark.parametrize("cls", [SectionEmbedder, MultiHeadEmbedder])
def test_occlusion_is_the_change_of_the_score(features, cls):
    pipeline = fit_embedder(features, MahalanobisDetector(), cls)
    clip = features[[2]]
    maps = anomaly_map(pipeline, clip, patches=(3, 4))
    assert maps.attrs["method"] == "occlusion"
    mean = features.mean(("clip", "frame"))  # of the training clips
    for bins in (slice(0, 2), slice(4, 6)):
        # A frame beside each patch of five is hidden with it.
        for patch, frames in (((0, 5), (0, 6)), ((5, 10), (4, 11)), ((15, 20), (14, 20))):
            hidden, place = clip.copy(), (0, bins, slice(*frames))
            hidden[place] = np.minimum(clip[place], mean[bins])  # what is lower stays
            change = pipeline.score_samples(hidden) - pipeline.score_samples(clip)
            np.testing.assert_allclose(maps[0, bins, slice(*patch)], change.item(), atol=2e-4)


def test_occlusion_with_the_mean_of_the_clip_subtracted(features):
    pipeline = fit_embedder(features, KNNDetector(), subtract_mean=True)
    level = features[[2]] + 100  # falls out
    maps = [anomaly_map(pipeline, X, patches=(3, 4)) for X in (features[[2]], level)]
    assert_allclose(*maps, atol=1e-4)
    assert float(maps[0].std()) > 1e-4


def test_occlusion_of_any_other_steps(features):
    scaled = make_pipeline(TimePooling(("max",)), KeepLabels(StandardScaler()), LOFDetector(3))
    pipeline = scaled.fit(features)
    X = features[:2].copy()
    X[0, 3, 7] += 20
    maps = anomaly_map(pipeline, X, patches=(6, 20))
    assert maps.attrs["method"] == "occlusion"
    assert np.unravel_index(maps[0].values.argmax(), (6, 20)) == (3, 7)
    hidden = X[:1].copy()
    hidden[0, 3, 7] = float(X[0, 3].median())
    change = pipeline.score_samples(hidden) - pipeline.score_samples(X[:1])
    assert_allclose(maps[0, 3, 7], change.item(), rtol=1e-5)
    # More patches than cells are as many as cells.
    assert_allclose(anomaly_map(pipeline, X, patches=(99, 99)), maps)


@pytest.fixture(scope="module")
def wave_system(train):
    """Untrained wav2vec, an embedder, and k-NN per machine and section."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        wav2vec = Wav2Vec(Wav2Vec1(6, aggregator=(2,)))
        embedder = SectionEmbedder(Tiny(6, 40), n_frames=40, max_epochs=1, random_state=0)
    detector = GroupedDetector(KNNDetector(), by=["machine", "section"])
    return make_pipeline(wav2vec, embedder, detector).fit(train)


class TestWaves:
    """Systems whose features have channels and no frequencies: the sound is occluded."""

    def test_it_is_the_change_of_the_score(self, wave_system, test):
        clips = test.iloc[[7, 0]]
        maps = anomaly_map(wave_system, clips, patches=(1, 1))
        assert maps.dims == ("clip", "frequency", "frame")
        assert maps.attrs["method"] == "occlusion"
        assert maps.section.values.tolist() == clips["section"].tolist()
        # All that is louder than the median of its bin, lowered to it.
        quiet = []
        for y in clips["audio"]:
            spectrum = librosa.stft(y, n_fft=1024, hop_length=256, pad_mode="constant")
            level = abs(spectrum)
            gain = np.minimum(1, np.median(level, axis=1, keepdims=True) / level)
            quiet.append(librosa.istft(gain * spectrum, hop_length=256, length=len(y)))
        change = np.subtract(
            *(wave_system.score_samples(X) for X in (clips.assign(audio=quiet), clips))
        )
        assert abs(change).min() > 1e-3
        assert_allclose(maps[:, 0, 0], change, rtol=0.02, atol=1e-5)
        assert_allclose(maps, np.broadcast_to(maps[:, :1, :1], maps.shape))

    def test_hertz_seconds_and_patches(self, wave_system, test):
        maps = anomaly_map(wave_system, test.iloc[[3]], patches=(4, 5))
        assert_allclose(maps.frequency[[0, -1]], [0, 8000])
        assert_allclose(maps.frame[:2], [0, 256 / 16000])
        assert len(np.unique(maps)) == 20

    def test_arrays_and_files_say_the_same(self, train, tmp_path):
        waves = np.stack(train["audio"][:16])
        detector = TimePooling(("max",)), LOFDetector(3)
        cached = Wav2Vec(Wav2Vec1(4, aggregator=(2,)), cache_dir=tmp_path / "cache")
        system = make_pipeline(cached, *detector).fit(waves)
        sf.write(tmp_path / "a.wav", waves[0], 16000, subtype="FLOAT")
        n_files = len(list((tmp_path / "cache").iterdir()))
        maps = anomaly_map(system, waves[:1], patches=(2, 2))
        files = anomaly_map(system, pd.DataFrame({"path": [tmp_path / "a.wav"]}), patches=(2, 2))
        assert_allclose(maps, files, rtol=1e-5)
        assert float(maps.std()) > 0
        # What is occluded is not kept, only the clip itself, from the array and from the file.
        assert len(list((tmp_path / "cache").iterdir())) == n_files + 2

    def test_what_has_a_map_of_channels_keeps_it(self, train):
        wav2vec = Wav2Vec(Wav2Vec1(4, aggregator=(2,)))
        system = make_pipeline(wav2vec, TimePooling(), MahalanobisDetector()).fit(train)
        maps = anomaly_map(system, train[:2])
        assert (maps.dims[1], maps.attrs["method"]) == ("channel", "distance")


class TestEnsemble:
    @pytest.fixture
    def ensemble(self, features):
        members = [
            ("mean", make_pipeline(TimePooling(("mean",)), MahalanobisDetector())),
            ("max", make_pipeline(TimePooling(("max",)), MahalanobisDetector())),
        ]
        return ScoreEnsemble(members, by="section").fit(features)

    def test_the_loudest_member_is_asked(self, ensemble, features):
        X = features[:1].copy()
        X[0, 2, 5] += 8
        loudest = ["mean", "max"][int(np.argmin(ensemble.contributions(X).values[0]))]
        maps = anomaly_map(ensemble, X)
        assert maps.attrs["member"] == loudest
        assert_allclose(maps, anomaly_map(ensemble.named_estimators_[loudest], X))

    def test_any_member_may_be_asked(self, ensemble, features):
        for name in ("mean", "max"):
            maps = anomaly_map(ensemble, features, member=name)
            assert maps.attrs["member"] == name
            squared = ensemble.named_estimators_[name].score_samples(features) ** 2
            assert_allclose(maps.sum(("mel", "frame")), squared, rtol=1e-4)

    def test_no_such_member(self, ensemble, features):
        with pytest.raises(ValueError, match=r"member='min' is none.*\['mean', 'max'\]"):
            anomaly_map(ensemble, features, member="min")
        single = ensemble.named_estimators_["max"]
        with pytest.raises(ValueError, match="member='max' is for ensembles"):
            anomaly_map(single, features, member="max")


def test_errors(features):
    with pytest.raises(NotFittedError):
        anomaly_map(make_pipeline(TimePooling(), MahalanobisDetector()), features)
    flat = features.values.reshape(12, -1)
    with pytest.raises(ValueError, match=r"needs features.*MahalanobisDetector.*\(12, 120\)"):
        anomaly_map(MahalanobisDetector().fit(flat), flat)
    pipeline = make_pipeline(TimePooling(), MahalanobisDetector()).fit(features)
    with pytest.raises(ValueError, match="patches must be two numbers"):
        anomaly_map(pipeline, features, patches=(0, 4))
    grouped = GroupedDetector(MahalanobisDetector(), by="section")
    pipeline = make_pipeline(TimePooling(), grouped).fit(features[:6])
    with pytest.raises(ValueError, match=r"section='01' was not seen"):
        anomaly_map(pipeline, features)
