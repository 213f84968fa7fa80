"""The dense autoencoder: its vectors, scores by hand, maps, errors."""

import numpy as np
import pytest
import torch
import xarray as xr
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score

from sk_asd.detectors._all_windows import AllWindows, OverlapMean, chunks_of_windows
from sk_asd.detectors._autoencoder import METRICS, AutoEncoderDetector


def small(metric="mse", **params):
    defaults = {"n_frames": 3, "max_epochs": 2, "random_state": 0, "module__width": 16}
    return AutoEncoderDetector(metric, **{**defaults, **params})


def make_clips(n_clips, seed):
    """Bins that all follow one level, with the noise of every fourth clip, the target's, twice."""
    rng = np.random.default_rng(seed)
    level = rng.normal(size=(n_clips, 1, 20)) * 3
    domain = np.where(np.arange(n_clips) % 4 == 3, "target", "source").astype(object)
    noise = rng.normal(size=(n_clips, 8, 20)) * (1 + (domain == "target"))[:, None, None] / 4
    X = level * np.linspace(1, -1, 8)[:, None] + noise
    return xr.DataArray(
        X.astype("float32"),
        dims=("clip", "mel", "frame"),
        coords={"domain": ("clip", domain), "frame": np.arange(20) / 30},
    )


@pytest.fixture(scope="module")
def clips():
    return make_clips(24, 0)


@pytest.fixture(scope="module")
def learnt(clips):
    return small(max_epochs=40, lr=5e-3, batch_size=64).fit(clips)


def residuals_of(detector, clips):
    """Residuals of all vectors, (n_clips, n_vectors, n_values)."""
    X = np.stack([clips.values[:, :, s : s + 3] for s in range(18)], axis=1)
    with torch.inference_mode():
        Y = [detector.net_.module_(torch.from_numpy(x)).numpy() for x in X]
    return (X - np.stack(Y)).reshape(len(X), 18, -1).astype(float)


def test_windows():
    X = np.arange(2 * 3 * 7, dtype=float).reshape(2, 3, 7)
    windows = AllWindows(X, torch.tensor([5, 6]), 3, 3)
    assert windows.starts.tolist() == [0, 3, 4]
    assert len(windows) == 6
    batch, y = windows.__getitems__([0, 4, 5])
    for window, (clip, start) in zip(batch, [(0, 0), (1, 3), (1, 4)]):
        np.testing.assert_array_equal(window, X[clip, :, start : start + 3])
    assert y.tolist() == [5, 6, 6]
    window, target = AllWindows(X, None, 3, 3)[1]
    assert window is target or torch.equal(window, target)
    np.testing.assert_array_equal(window, X[0, :, 3:6])
    chunks = list(chunks_of_windows(X[1], 3, windows.starts, 2))
    assert [len(c) for c in chunks] == [2, 1]
    np.testing.assert_array_equal(torch.cat(chunks), windows.__getitems__([3, 4, 5])[0])


def test_overlap_mean():
    errors = OverlapMean(1, 5, [0, 1])
    errors.add(np.array([[[1.0, 2.0]]]))
    errors.add(np.array([[[4.0, 8.0]]]))
    np.testing.assert_array_equal(errors.mean(), [[1, 3, 8, np.nan, np.nan]])


def test_every_vector_once_an_epoch(clips):
    seen = []

    class Recorder(torch.nn.Module):
        def forward(self, output, target):
            seen.append(target)
            return (output - target).square().mean()

    detector = small(max_epochs=1, batch_size=50)
    build = detector._build
    detector._build = lambda **architecture: (build(**architecture)[0], Recorder())
    detector.fit(clips)
    vectors = torch.cat(seen).flatten(1)
    expected = torch.from_numpy(clips.values).unfold(2, 3, 1).transpose(1, 2).flatten(0, 1)
    assert torch.equal(_sorted(vectors), _sorted(expected.flatten(1)))
    assert not torch.equal(vectors, expected.flatten(1))


def _sorted(rows):
    return rows[rows[:, 0].argsort()]


class TestScores:
    def test_mse_by_hand(self, learnt, clips):
        expected = np.square(residuals_of(learnt, clips)).mean(axis=(1, 2))
        np.testing.assert_allclose(learnt.score_samples(clips), -expected, rtol=1e-4)
        np.testing.assert_allclose(learnt.training_scores_, -expected, rtol=1e-4)

    def test_mahalanobis_by_hand(self, learnt, clips):
        residuals, table = residuals_of(learnt, clips), learnt.score_metrics(clips)
        distances = {"mahalanobis": [], "mahalanobis_of_mean": []}
        for domain in ("source", "target"):
            own = residuals[clips.domain.values == domain].reshape(-1, 24)
            covariance = np.cov(own.T, bias=True)
            covariance += 1e-6 * np.trace(covariance) / 24 * np.eye(24)
            precision = np.linalg.inv(covariance)
            np.testing.assert_allclose(learnt.precisions_[domain], precision, rtol=1e-2)
            frames = np.einsum("ijk,kl,ijl->ij", residuals, precision, residuals)
            distances["mahalanobis"].append(frames.mean(axis=1))
            mean = residuals.mean(axis=1)
            distances["mahalanobis_of_mean"].append(np.einsum("ik,kl,il->i", mean, precision, mean))
        for name, values in distances.items():
            np.testing.assert_allclose(table[name], -np.min(values, axis=0), rtol=1e-3)

    def test_the_published_form_is_the_sum_over_pairs(self, learnt, clips):
        """The mean over all pairs of vectors, which is what its matrix product computes."""
        delta = residuals_of(learnt, clips)[0]
        pairs = [(delta @ p @ delta.T).mean() for p in learnt.precisions_.values()]
        score = learnt.score_metrics(clips[:1])["mahalanobis_of_mean"][0]
        assert score == pytest.approx(-min(pairs), rel=1e-3)

    def test_one_covariance_without_domains(self, clips):
        assert list(small().fit(clips.values).precisions_) == [None]
        assert list(small(over=None).fit(clips).precisions_) == [None]
        gap = clips.assign_coords(domain=("clip", ["source", None] * 12))
        assert list(small().fit(gap).precisions_) == ["source", None]

    def test_metric_is_chosen_without_refitting(self, clips):
        detector = small().fit(clips)
        table = detector.score_metrics(clips)
        assert list(table) == list(METRICS)
        for metric in METRICS:
            detector.set_params(metric=metric)
            np.testing.assert_array_equal(detector.score_samples(clips), table[metric])
            np.testing.assert_array_equal(detector.training_scores_, table[metric])
            assert (detector.predict(clips) == -1).sum() == 3

    @pytest.mark.parametrize("metric", ["mse", "mahalanobis"])
    def test_anomalies_reconstruct_worse(self, learnt, metric):
        normal, abnormal = make_clips(12, 1), make_clips(12, 2)
        abnormal[:, 3] += 3
        scores = learnt.set_params(metric=metric).score_samples(
            xr.concat([normal, abnormal], "clip")
        )
        learnt.set_params(metric="mse")
        assert roc_auc_score([1] * 12 + [0] * 12, scores) > 0.95


class TestMap:
    def test_by_hand(self, learnt, clips):
        squares = np.square(residuals_of(learnt, clips[:1]))[0].reshape(18, 8, 3)
        expected, count = np.zeros((2, 8, 20))
        for start, square in enumerate(squares):
            expected[:, start : start + 3] += square
            count[:, start : start + 3] += 1
        errors = learnt.score_map(clips[:1])
        np.testing.assert_allclose(errors[0], expected / count, rtol=1e-4, atol=1e-9)
        np.testing.assert_array_equal(errors.frame, clips.frame)
        assert errors.domain.values.tolist() == ["source"]

    def test_planted_place(self, learnt):
        clips = make_clips(4, 3)
        clips[:, 2, 8] += 10
        errors = learnt.score_map(clips.values)
        assert [np.unravel_index(e.argmax(), e.shape) for e in errors] == [(2, 8)] * 4


def test_fit(learnt, clips):
    losses = learnt.net_.history[:, "train_loss"]
    assert losses[-1] < 0.3 * losses[0]
    assert small(module__latent_dim=3).fit(clips).net_.module_.layers[12].out_features == 3


class TestErrors:
    def test_short_clips(self, learnt, clips):
        with pytest.raises(ValueError, match="have 2 frames, fewer than one window of n_frames=3"):
            small().fit(clips[:, :, :2])
        for method in (learnt.score_samples, learnt.score_metrics, learnt.score_map):
            with pytest.raises(ValueError, match="have 2 frames, fewer than one window"):
                method(clips[:, :, :2])

    def test_number_of_bins(self, learnt, clips):
        with pytest.raises(ValueError, match="X has 7 features, .* expecting 8 features"):
            learnt.score_samples(clips[:, :7])

    def test_metric(self, clips):
        with pytest.raises(ValueError, match="'metric' parameter of AutoEncoderDetector"):
            small("mae").fit(clips)

    def test_divergence(self, clips):
        detector = small(lr=1e30)
        with pytest.raises(ValueError, match="Training diverged: the loss of epoch"):
            detector.fit(clips)
        with pytest.raises(NotFittedError):
            detector.score_samples(clips)
