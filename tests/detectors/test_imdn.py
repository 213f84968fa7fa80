"""Interpolation of centre frames: known densities, planted anomalies, scores and maps, errors."""

import pickle

import numpy as np
import pytest
import torch
import xarray as xr
from scipy import signal
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.utils import check_random_state
from torch import nn

from sk_asd.detectors._idnn import IDNNDetector
from sk_asd.detectors._imdn import IMDNDetector
from sk_asd.detectors._interpolation import InterpolationDensity
from sk_asd.ensemble import GroupedDetector
from sk_asd.features import LogMel
from sk_asd.networks._ignn import InterpolationMLP
from sk_asd.utils._random import RandomStream
from sk_asd.utils._statistics import bin_statistics
from sk_asd.utils._windows import RandomWindowSampler

N_CLIPS, N_BINS, N_FRAMES = 24, 8, 30


def small(**params):
    defaults = {"n_frames": 5, "window_hop": 2, "module__hidden": 8, "n_components": 2}
    training = {"max_epochs": 2, "batch_size": 16, "random_state": 0}
    return IMDNDetector(**{**defaults, **training, **params})


def autoregressive(n_clips, n_bins, n_frames, phi, seed):
    """Every bin of every clip an AR(1) sequence of unit variance."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(n_clips, n_bins, n_frames + 200)) * np.sqrt(1 - phi**2)
    return signal.lfilter([1], [1, -phi], noise, axis=2)[:, :, 200:].astype("float32")


@pytest.fixture
def X():
    return autoregressive(N_CLIPS, N_BINS, N_FRAMES, 0.9, seed=0)


@pytest.fixture
def labelled(X):
    coords = {
        "mel": np.linspace(100, 4000, N_BINS),
        "frame": np.arange(N_FRAMES) * 0.032,
        "section": ("clip", np.array(["00", "01"] * 12, dtype=object)),
    }
    return xr.DataArray(X, coords, ("clip", "mel", "frame"), attrs={"units": "dB"})


PHI = 0.95
SIGMA = 0.2


@pytest.fixture(scope="module")
def fitted():
    """A detector that has seen AR(1) sequences."""
    detector = IMDNDetector("mlp", n_frames=3, window_hop=1, n_components=1, random_state=0)
    detector.set_params(max_epochs=400, lr=3e-3, module__hidden=(32,))
    return detector.fit(autoregressive(64, 4, 60, PHI, seed=0))


@pytest.fixture(scope="module")
def frames():
    """Frames of four bins that are all up or all down."""
    rng = np.random.default_rng(0)
    sign = np.where(rng.random((600, 1)) < 0.5, 1, -1)
    return (sign + SIGMA * rng.normal(size=(600, 4))).astype("float32")


class TestRecovery:
    def test_the_density_beats_the_marginal_and_comes_near_the_truth(self, fitted):
        """Between its neighbours, an AR(1) sequence has the variance (1 - phi²) / (1 + phi²)."""
        new = autoregressive(64, 4, 60, PHI, seed=1)
        marginal, truth = (
            -0.5 * np.log(2 * np.pi * np.e * variance)
            for variance in (1, (1 - PHI**2) / (1 + PHI**2))
        )
        score = fitted.score_samples(new).mean()
        assert truth - 0.1 < score < truth + 0.02
        assert score > marginal + 1.2

    def test_planted_place_is_the_peak_of_the_map(self, fitted):
        new = autoregressive(20, 4, 60, PHI, seed=2)
        places = np.random.default_rng(0).integers([0, 5], [4, 55], size=(20, 2))
        for clip, (bin_, frame) in zip(new, places):
            clip[bin_, frame] += 3
        for scores, (bin_, frame) in zip(fitted.score_map(new), places):
            peak = np.unravel_index(np.nanargmax(scores), scores.shape)
            # A neighbour cannot be predicted from the planted frame either.
            assert peak[0] == bin_
            assert abs(peak[1] - frame) <= 1

    def test_planted_clips_are_told_from_normal_ones(self, fitted):
        normal = autoregressive(40, 4, 60, PHI, seed=3)
        odd = autoregressive(40, 4, 60, PHI, seed=4)
        odd[:, 2, 10::20] += 1.5
        y = [1] * 40 + [-1] * 40
        for pooling in ("mean", "max", "topk"):
            fitted.set_params(pooling=pooling)
            scores = fitted.score_samples(np.concatenate([normal, odd]))
            assert roc_auc_score(y, scores) > 0.95
        fitted.set_params(pooling="mean")
        assert (fitted.predict(odd) == -1).mean() > 0.9

    @pytest.mark.parametrize("network", ["ignn", "lrcgnn", "dfnet"])
    def test_networks_of_the_report_learn_to_interpolate(self, network):
        """Tones that rise and fall at the same pace, at a phase of their own."""
        rng = np.random.default_rng(0)
        phase = rng.uniform(0, 2 * np.pi, (96, 1, 1))
        time = np.arange(24) + np.arange(8)[:, None]
        X = np.sin(2 * np.pi * time / 12 + phase) + 0.1 * rng.normal(size=(96, 8, 24))
        detector = small(network=network, n_frames=6, window_hop=1, module__hidden=32)
        detector.set_params(max_epochs=20, lr=1e-2).fit(X[:72])
        marginal = -0.5 * np.log(2 * np.pi * np.e)
        assert detector.score_samples(X[72:]).mean() > marginal + 1
        odd = X[72:].copy()
        odd[:, :, 11] = odd[:, :, 5]
        assert (detector.score_samples(odd) < detector.score_samples(X[72:]) - 0.1).all()


class TestMixtures:
    """Of frames that are all up or all down, the truth is known."""

    def score(self, frames, mixture, n_components):
        """In the units of the frames, which the detector standardises."""
        detector = IMDNDetector(n_frames=None, mixture=mixture, n_components=n_components)
        detector.set_params(max_epochs=80, lr=0.05, random_state=0).fit(frames[:400])
        return detector.score_samples(frames[400:]).mean() - np.log(frames[:400].std(0)).mean()

    def test_frame_reaches_the_truth(self, frames):
        gaussian = -0.5 * np.log(2 * np.pi * np.e * SIGMA**2)
        tied = gaussian - np.log(2) / 4
        untied = gaussian - np.log(2)
        single = -0.5 * np.log(2 * np.pi * np.e * (1 + SIGMA**2))
        assert self.score(frames, "frame", 2) == pytest.approx(tied, abs=0.05)
        assert self.score(frames, "bin", 2) == pytest.approx(untied, abs=0.05)
        assert self.score(frames, "frame", 1) == pytest.approx(single, abs=0.05)

    def test_as_printed_learns_one_bin_alone(self, frames):
        detector = IMDNDetector(n_frames=None, mixture="literal", n_components=2, random_state=0)
        detector.set_params(max_epochs=80, lr=0.05).fit(frames[:400])
        module = detector.net_.module_
        with torch.inference_mode():
            parts = module.by_bin(torch.from_numpy(frames[400:, :, None])).mean(dim=0)
        assert parts.max() - parts.min() > 0.1
        assert np.isfinite(detector.score_samples(frames)).all()


class TestIDNN:
    def test_equals_a_plain_network_trained_by_squared_error(self, X):
        detector = IDNNDetector(max_epochs=5, batch_size=8, random_state=0).fit(X)
        # The same first weights and the same windows.
        seed = check_random_state(0).randint(np.iinfo(np.int32).max)
        generator = torch.Generator().manual_seed(seed)
        with RandomStream(seed).active():
            net = InterpolationMLP(N_BINS, 5, N_BINS)
        Z = torch.from_numpy(X)
        Z = (Z - Z.mean((0, 2), keepdim=True)) / Z.std((0, 2), keepdim=True, unbiased=False)
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
        sampler = RandomWindowSampler(N_CLIPS, N_FRAMES - 4, generator)
        for _ in range(5):
            # A DataLoader draws a seed for its workers before it starts.
            torch.empty((), dtype=torch.int64).random_(generator=generator)
            items = list(sampler)
            for i in range(0, N_CLIPS, 8):
                batch = torch.stack(
                    [Z[clip, :, start : start + 5] for clip, start in items[i : i + 8]]
                )
                predicted = net(batch[:, :, [0, 1, 3, 4]])
                optimizer.zero_grad()
                nn.functional.mse_loss(predicted, batch[:, :, 2]).div(2).backward()
                optimizer.step()
        windows = Z.unfold(2, 5, 1).transpose(1, 2)  # (clip, start, bin, frame)
        with torch.no_grad():
            predicted = net(windows[..., [0, 1, 3, 4]].flatten(0, 1)).unflatten(0, (N_CLIPS, -1))
        mse = ((predicted - windows[..., 2]) ** 2).mean(dim=(1, 2)).numpy()
        np.testing.assert_allclose(
            detector.score_samples(X), -(mse + np.log(2 * np.pi)) / 2, rtol=1e-4
        )

    def test_other_networks_and_errors(self, X):
        detector = IDNNDetector("ignn", n_frames=None, max_epochs=1, module__hidden=8).fit(X)
        assert detector.net_.module_.density.n_outputs == N_BINS
        with pytest.raises(TypeError, match="unexpected keyword argument 'n_components'"):
            IDNNDetector(n_components=2).fit(X)


class TestScores:
    @pytest.mark.parametrize("n_frames", [5, 6])
    @pytest.mark.parametrize("mixture", ["frame", "bin"])
    def test_map_and_score_agree(self, X, n_frames, mixture):
        detector = small(n_frames=n_frames, window_hop=1, mixture=mixture).fit(X)
        scores = detector.score_map(X)
        before = n_frames // 2
        empty = np.isnan(scores)
        assert empty[:, :, :before].all()
        assert empty[:, :, N_FRAMES - (n_frames - 1 - before) :].all()
        assert (~empty).sum() == N_CLIPS * N_BINS * (N_FRAMES - n_frames + 1)
        np.testing.assert_allclose(
            -np.nanmean(scores, axis=(1, 2)), detector.score_samples(X), rtol=1e-4
        )

    def test_the_frame_predicted_is_not_looked_at(self, X):
        """Changing one frame changes the density of others, the prediction of itself never."""
        for n_frames in (5, 6):
            detector = small(n_frames=n_frames).fit(X)
            module = detector.net_.module_
            window = torch.from_numpy(X[:1, :, :n_frames])
            other = window.clone()
            other[:, :, n_frames // 2] += 1
            raw, frame = module._predict(window)
            assert torch.equal(module._predict(other)[0], raw)
            assert not torch.equal(module._predict(other)[1], frame)

    def test_pooling(self, X):
        detector = small(window_hop=3).fit(X)
        losses = detector.score_map(X)[:, :, 2 : N_FRAMES - 2].mean(axis=1)
        strided = losses[:, [*range(0, 26, 3), 25]]
        for pooling, expected in [
            ("mean", strided.mean(axis=1)),
            ("max", strided.max(axis=1)),
        ]:
            detector.set_params(pooling=pooling)
            np.testing.assert_allclose(detector.score_samples(X), -expected, rtol=1e-4)

    def test_a_quarter_of_a_window_is_the_hop_by_default(self, X):
        detector = small(n_frames=12, window_hop=None).fit(X)
        scores = detector.score_samples(X)
        np.testing.assert_array_equal(detector.set_params(window_hop=3).score_samples(X), scores)
        assert (detector.set_params(window_hop=4).score_samples(X) != scores).any()

    def test_clips_do_not_look_at_each_other(self, X):
        for network in ("ignn", "dfnet"):
            detector = small(network=network).fit(X)
            scores, maps = detector.score_samples(X), detector.score_map(X)
            np.testing.assert_array_equal(detector.score_samples(X[3:4]), scores[3:4])
            np.testing.assert_array_equal(detector.score_samples(X[::-1]), scores[::-1])
            np.testing.assert_array_equal(detector.score_map(X[7:9]), maps[7:9])

    def test_clips_may_be_longer_than_in_training(self, X):
        detector = small(n_frames=None, window_hop=1).fit(X)
        assert detector.net_.module_.n_frames == N_FRAMES
        longer = np.concatenate([X, X[:, :, :2]], axis=2)
        assert (~np.isnan(detector.score_map(longer))).any(axis=(0, 1)).sum() == 3

    def test_only_a_chunk_of_windows_is_ever_copied(self, monkeypatch):
        X = np.random.default_rng(0).normal(size=(4, 3, 400)).astype("float32")
        detector = small(window_hop=1, max_epochs=1).fit(X)
        shapes = []
        forward = InterpolationDensity.forward
        monkeypatch.setattr(
            InterpolationDensity,
            "forward",
            lambda self, windows: shapes.append(tuple(windows.shape)) or forward(self, windows),
        )
        detector.score_samples(X)
        assert set(shapes) == {(64, 3, 5), (396 % 64, 3, 5)}

    def test_labels_of_the_map(self, X, labelled):
        detector = small().fit(labelled)
        scores = detector.score_map(labelled)
        assert scores.dims == ("clip", "mel", "frame")
        assert scores.dtype == np.float32
        for name in ("mel", "frame", "section"):
            xr.testing.assert_equal(scores.coords[name], labelled.coords[name])
        assert scores.attrs == {}  # not in dB any more
        np.testing.assert_array_equal(scores.values, detector.score_map(X))

    def test_single_frames(self):
        """Clips without time have a density that is the same for all, fitted to them."""
        rng = np.random.default_rng(0)
        X = rng.normal(size=(200, 3)) * [1, 10, 100] + [0, 5, 1000]
        detector = IMDNDetector(n_frames=None, n_components=1, max_epochs=60, lr=0.02)
        scores = detector.set_params(batch_size=50, random_state=0).fit(X).score_samples(X)
        z = (X - X.mean(axis=0)) / X.std(axis=0)
        np.testing.assert_allclose(scores, -0.5 * (z**2 + np.log(2 * np.pi)).mean(axis=1), atol=0.1)
        scores_map = detector.score_map(X)
        assert scores_map.shape == X.shape
        np.testing.assert_allclose(-scores_map.mean(axis=1), scores, rtol=1e-4)

    def test_constant_bin(self, X):
        """It adds no infinite likelihood, and something new in it shows."""
        X = X.copy()
        X[:, 3] = -80.0
        detector = small(max_epochs=30, n_components=1).fit(X)
        module = detector.net_.module_
        assert module.density.min_scale[3] == 1
        assert np.isfinite(detector.training_scores_).all()
        odd = X[:1].copy()
        odd[:, 3, 12] = -60.0
        scores = detector.score_map(odd)[0]
        assert np.unravel_index(np.nanargmax(scores), scores.shape) == (3, 12)
        assert 20 < np.nanmax(scores) < 250  # 0.5 * 20² and a bit
        assert np.nanmin(scores[3]) > 0.5 * np.log(2 * np.pi) - 1e-3

    def test_statistics(self, X):
        X = X * np.float32(3) + np.arange(N_BINS, dtype="float32")[:, None] * 1000
        X[:, 5] = np.float32(0.1)
        mean, std = bin_statistics(np.concatenate([X] * 4))
        np.testing.assert_allclose(mean, X.mean(axis=(0, 2), dtype=float), rtol=1e-6)
        np.testing.assert_allclose(std[:5], X[:, :5].std(axis=(0, 2), dtype=float), rtol=1e-4)
        assert std[5] == 0

    def test_level_and_scale_of_the_features_do_not_matter(self, X):
        gain = np.linspace(0.1, 10, N_BINS, dtype="float32")[:, None]
        np.testing.assert_allclose(
            small().fit(X).score_samples(X),
            small().fit(X * gain - 50).score_samples(X * gain - 50),
            rtol=1e-3,
        )


class TestTraining:
    def test_same_seed_same_bits(self, X):
        first, again = small().fit(X), small().fit(X)
        np.testing.assert_array_equal(first.score_samples(X), again.score_samples(X))
        other = small(random_state=1).fit(X)
        assert (first.score_samples(X) != other.score_samples(X)).all()

    def test_pickle(self, X):
        detector = small().fit(X)
        restored = pickle.loads(pickle.dumps(detector))
        np.testing.assert_array_equal(restored.score_samples(X), detector.score_samples(X))
        np.testing.assert_array_equal(restored.score_map(X), detector.score_map(X))

    def test_loss_in_the_history_is_the_negative_score(self, X):
        detector = small(network="mlp", module__hidden=(16,), max_epochs=60, lr=1e-2, window_hop=1)
        detector.fit(X)
        losses = detector.net_.history[:, "train_loss"]
        assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.3
        assert np.mean(losses[-5:]) == pytest.approx(-detector.training_scores_.mean(), abs=0.2)

    def test_max_time(self, X):
        detector = small(max_time=1e-6, max_epochs=100).fit(X)
        assert (detector.n_epochs_, detector.stop_reason_) == (1, "max_time")
        assert np.isfinite(detector.score_samples(X)).all()

    def test_mixed_precision(self, X):
        for network in ("ignn", "dfnet"):
            losses = [
                small(network=network, mixed_precision=mixed).fit(X).net_.history[-1, "train_loss"]
                for mixed in (False, True)
            ]
            assert losses[0] != losses[1]
            assert losses[0] == pytest.approx(losses[1], abs=0.05)

    def test_networks_take_their_parameters(self, X):
        detector = small(network="lrcgnn", module__conv_axis="freq").fit(X)
        assert detector.net_.module_.network.conv[0].in_channels == 4

    def test_sections_of_their_own(self, labelled):
        detector = GroupedDetector(small()).fit(labelled)
        own = small().fit(labelled[::2]).score_samples(labelled[::2])
        np.testing.assert_array_equal(detector.score_samples(labelled)[::2], own)

    def test_pipeline(self):
        rng = np.random.default_rng(0)
        waves = rng.normal(size=(6, 8000)) * 0.1
        pipeline = make_pipeline(LogMel(n_mels=8, n_fft=256, hop_length=128), small())
        scores = pipeline.fit(waves).score_samples(waves)
        assert scores.shape == (6,)
        assert np.isfinite(scores).all()


class TestErrors:
    @pytest.mark.parametrize("n_frames", [0, 1, 2, 2.5])
    def test_too_few_frames(self, X, n_frames):
        with pytest.raises(ValueError, match="'n_frames' parameter of IMDNDetector must be an int"):
            small(n_frames=n_frames).fit(X)

    def test_bins_not_divisible(self, X):
        with pytest.raises(ValueError, match="DFNet needs n_bins to be a multiple of 8, got 7"):
            small(network="dfnet").fit(X[:, :7])

    def test_short_clips(self, X):
        detector = small(n_frames=31)
        with pytest.raises(
            ValueError, match="have 30 frames, fewer than one window of n_frames=31"
        ):
            detector.fit(X)
        detector = small().fit(X)
        for method in (detector.score_samples, detector.score_map):
            with pytest.raises(ValueError, match="The clips have 4 frames, fewer than one window"):
                method(X[:, :, :4])

    def test_all_bins_constant(self):
        with pytest.raises(ValueError, match="All 8 bins are constant over the 4 training clips"):
            small().fit(np.full((4, 8, 30), -80.0))

    def test_one_clip(self, X):
        with pytest.raises(ValueError, match="minimum of 2 is required"):
            small().fit(X[:1])

    def test_unknown_network(self, X):
        with pytest.raises(ValueError, match="'network' parameter of IMDNDetector must be a str"):
            small(network="gru").fit(X)
