"""AEGAN-AD: losses and steps by hand, all scores, maps, sections, errors."""

import copy
import pickle

import numpy as np
import pytest
import torch
import xarray as xr
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score
from skorch.callbacks import Callback

from sk_asd.detectors import CosineDetector, KNNDetector, LOFDetector, MahalanobisDetector
from sk_asd.detectors._aegan import AEGANDetector
from sk_asd.detectors._aegan_scores import CLIP_METRICS, WINDOW_METRICS
from sk_asd.detectors._aegan_training import AEGANNet, feature_distance, gradient_penalty
from sk_asd.ensemble import GroupedDetector
from sk_asd.networks._aegan import AEGANGenerator


def small(**params):
    defaults = {"n_frames": 16, "window_hop": 6, "module__width": 0.1, "module__latent_dim": 8}
    training = {"max_epochs": 1, "batch_size": 32, "random_state": 0}
    return AEGANDetector(**{**defaults, **training, **params})


def make_clips(n_clips, seed):
    """Two tones that come and go in time, at another level in every section."""
    rng = np.random.default_rng(seed)
    X = rng.normal(0, 1, size=(n_clips, 16, 34))
    section = np.arange(n_clips) % 2
    phase = rng.uniform(0, 2 * np.pi, n_clips)[:, None]
    X[:, 4] += 8 * np.sin(np.arange(34) / 3 + phase)
    X[:, 9] += 10 - 4 * section[:, None]
    labels = np.array([f"{s:02d}" for s in section], dtype=object)
    return xr.DataArray(
        (X - 40).astype("float32"),
        dims=("clip", "mel", "frame"),
        coords={"section": ("clip", labels), "mel": np.arange(16) * 50.0},
    )


@pytest.fixture(scope="module")
def clips():
    return make_clips(12, 0)


@pytest.fixture(scope="module")
def fitted(clips):
    return small().fit(clips)


@pytest.fixture(scope="module")
def learnt():
    return small(max_epochs=30, lr=4e-3).fit(make_clips(24, 0))


@pytest.fixture(scope="module")
def adaptive(clips):
    return small(section_adaptive=True, max_epochs=2).fit(clips)


def windows_of(clips, starts=(0, 6, 12, 18)):
    return torch.from_numpy(
        np.concatenate([[clip[:, s : s + 16] for s in starts] for clip in clips.values])
    )


class TestLosses:
    def test_gradient_penalty_of_a_linear_critic(self):
        weight = torch.tensor([[1.0, -2.0], [2.0, 4.0]], requires_grad=True)  # of norm 5
        real, fake = torch.randn(2, 6, 2, 2)
        penalty = gradient_penalty(lambda x: (x * weight).sum((1, 2)), real, fake)
        assert penalty.item() == pytest.approx(16)
        penalty.backward()
        torch.testing.assert_close(weight.grad, 2 * 4 * weight.detach() / 5)

    def test_gradient_penalty_is_taken_between_the_pairs(self):
        """The gradient of half the squared norm is the place itself."""
        real, fake = torch.randn(2, 6, 2, 3)
        share = torch.linspace(0, 1, 6)
        penalty = gradient_penalty(lambda x: x.square().sum((1, 2)) / 2, real, fake, share)
        places = share[:, None, None] * real + (1 - share[:, None, None]) * fake
        expected = (places.square().sum((1, 2)).sqrt() - 1).square().mean()
        torch.testing.assert_close(penalty, expected)

    def test_feature_distance(self):
        real = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
        fake = torch.tensor([[1.0, 1.0], [1.0, 7.0]])
        # Means (1, 2) and (1, 4); standard deviations √2 times (1, 1) and (0, 3).
        assert feature_distance(real, fake).item() == pytest.approx(2)
        both = feature_distance(real, fake, ("mean", "std")).item()
        assert both == pytest.approx(2 + (2 * 1 + 2 * 4) / 2)

    @pytest.mark.parametrize(("penalty_weight", "matching_weight"), [(0, 0), (10, 0.1), (3, 2)])
    @pytest.mark.parametrize("match", ["mean", "mean_std"])
    def test_history(self, clips, penalty_weight, matching_weight, match):
        """One batch, whose losses follow from the networks before and after it."""
        before = []

        class Keep(Callback):
            def on_train_begin(self, net, **kwargs):
                before.append(copy.deepcopy(net.module_))

        loss = {"loss__penalty_weight": penalty_weight, "loss__matching_weight": matching_weight}
        detector = small(batch_size=99, loss__match=match, callbacks=[Keep()], **loss).fit(clips)
        (row,) = detector.net_.history
        with torch.no_grad():
            x, _, fake = before[0](windows_of(clips))
            mse = (x - fake).square().mean()
            critic = before[0].discriminator
            distance = critic(fake).mean() - critic(x).mean()
            # The generator's step sees the discriminator after its own.
            features = [detector.net_.module_.discriminator.embed(v) for v in (x, fake)]
            statistics = [f.mean(0) for f in features], [f.std(0) for f in features]
            matching = sum(
                (a - b).square().mean() for a, b in statistics[: 1 + (match == "mean_std")]
            )
        assert row["reconstruction_loss"] == pytest.approx(mse.item(), rel=1e-4)
        expected = mse + matching_weight * matching
        assert row["train_loss"] == pytest.approx(expected.item(), rel=1e-4)
        penalty = penalty_weight * row.get("penalty", 0)
        assert row["discriminator_loss"] - penalty == pytest.approx(distance.item(), abs=1e-4)
        assert ("penalty" in row) is (penalty_weight > 0)
        assert ("matching_loss" in row) is (matching_weight > 0)

    def test_without_matching_the_discriminator_does_not_matter(self, clips):
        with_it = small(loss__matching_weight=0, max_epochs=2).fit(clips)
        without = small(adversarial=False, max_epochs=2).fit(clips)
        assert without.net_.module_.discriminator is None
        np.testing.assert_array_equal(with_it.score_samples(clips), without.score_samples(clips))
        losses = with_it.net_.history[:, "train_loss"]
        assert losses == without.net_.history[:, "train_loss"]
        assert losses == with_it.net_.history[:, "reconstruction_loss"]
        assert losses != small(max_epochs=2).fit(clips).net_.history[:, "train_loss"]


@pytest.mark.parametrize(
    ("step", "moves"), [("discriminator_step", "discriminator"), ("generator_step", "generator")]
)
def test_each_step_moves_one_network(clips, monkeypatch, step, moves):
    original, changed = getattr(AEGANNet, step), []

    def watched(net, *args):
        before = copy.deepcopy(net.module_.state_dict())
        result = original(net, *args)
        after = net.module_.state_dict()
        changed.append({k for k in after if not torch.equal(after[k], before[k])})
        return result

    monkeypatch.setattr(AEGANNet, step, watched)
    detector = small().fit(clips)
    names = {name for name, _ in detector.net_.module_.named_parameters()}
    # The discriminator's last bias shifts all its numbers, and their difference not at all.
    expected = {n for n in names if n.startswith(moves)} - {"discriminator.head.2.bias"}
    for batch in changed:
        assert batch == expected
    assert len(changed) == 2


def test_two_optimizers(clips):
    seen = []

    class Look(Callback):
        def on_batch_end(self, net, **kwargs):
            seen.append((net.optimizer_, net.discriminator_optimizer_))

    detector = small(callbacks=[Look()], optimizer__betas=(0.2, 0.9), lr=0.003).fit(clips)
    for optimizer, network in zip(seen[0], ("generator", "discriminator")):
        (group,) = optimizer.param_groups
        assert (group["betas"], group["lr"]) == ((0.2, 0.9), 0.003)
        n_parameters = len(list(getattr(detector.net_.module_, network).parameters()))
        assert len(group["params"]) == n_parameters
    assert detector.net_.optimizer_ is detector.net_.discriminator_optimizer_ is None
    small(callbacks=[Look()]).fit(clips)
    assert seen[-1][0].param_groups[0]["betas"] == (0.5, 0.999)
    sgd = small(optimizer=torch.optim.SGD).fit(clips)  # has no betas
    assert np.isfinite(sgd.training_scores_).all()


class TestScores:
    def test_names(self, fitted, clips):
        table = fitted.score_metrics(clips)
        assert list(table) == [*WINDOW_METRICS, *CLIP_METRICS]
        assert table.shape == (12, 19)
        assert set(table.dtypes.astype(str)) == {"float64"}

    def test_of_windows_by_hand(self, fitted, clips):
        table = fitted.score_metrics(clips)
        module = fitted.net_.module_
        middle = (clips.values.max() + clips.values.min()) / 2
        half = (clips.values.max() - clips.values.min()) / 2
        for i in range(3):
            x = (windows_of(clips[i : i + 1]) - middle) / half
            with torch.no_grad():
                z = module.generator.encode(x)
                y = module.generator.decode(z)
                w = module.generator.encode(y)
            x, y, z, w = (v.double().flatten(1).numpy() for v in (x, y, z, w))
            cosine = (z * w).sum(1) / np.linalg.norm(z, axis=1) / np.linalg.norm(w, axis=1)
            expected = {
                "input_l1": np.abs(x - y).sum(1),
                "input_l2": np.square(x - y).sum(1),
                "latent_l1": np.abs(z - w).sum(1),
                "latent_l2": np.square(z - w).sum(1),
                "latent_cosine": 1 - cosine,
            }
            for name, values in expected.items():
                for pooling in ("mean", "min", "max"):
                    score = -getattr(values, pooling)()
                    found = table[f"{name}_{pooling}"][i]
                    assert found == pytest.approx(score, rel=1e-3, abs=1e-6), (name, pooling)

    def test_of_the_discriminator(self, fitted, clips):
        module = fitted.net_.module_
        new = make_clips(5, 1)

        def embed(clips):
            with torch.no_grad():
                f = module.discriminator.embed(module.scale(windows_of(clips)))
            return f.reshape(len(clips), 4, -1).mean(1).numpy()

        detectors = (KNNDetector(2), LOFDetector(4), CosineDetector(), MahalanobisDetector())
        for name, detector in zip(CLIP_METRICS, detectors):
            detector.fit(embed(clips))
            scores = detector.score_samples(embed(new))
            np.testing.assert_allclose(fitted.score_metrics(new)[name], scores, rtol=1e-3)
            np.testing.assert_allclose(
                fitted.training_metrics_[name], detector.training_scores_, rtol=1e-3
            )

    def test_metric_is_chosen_without_refitting(self, clips):
        detector = small().fit(clips)
        table = detector.score_metrics(clips)
        for metric in table:
            detector.set_params(metric=metric)
            scores = detector.score_samples(clips)
            np.testing.assert_allclose(scores, table[metric], rtol=1e-6, atol=1e-9)
            training = detector.training_scores_
            np.testing.assert_array_equal(training, detector.training_metrics_[metric])
            assert detector.offset_ == pytest.approx(np.quantile(training, 0.1))
            np.testing.assert_array_equal(
                detector.decision_function(clips), scores - detector.offset_
            )
        again = small(metric=metric).fit(clips)
        np.testing.assert_array_equal(again.training_scores_, detector.training_scores_)

    def test_no_more_windows_than_a_chunk_at_a_time(self, clips, monkeypatch):
        detector = small(window_hop=1, max_time=0.01).fit(clips)
        long = np.concatenate([clips.values] * 4, axis=2)[:2]  # 121 windows a clip
        expected = detector.score_metrics(long)
        sizes, encode = [], AEGANGenerator.encode

        def counted(self, x):
            sizes.append(len(x))
            return encode(self, x)

        monkeypatch.setattr(AEGANGenerator, "encode", counted)
        np.testing.assert_array_equal(detector.score_metrics(long), expected)
        assert sizes == [64, 64, 57, 57] * 2

    def test_three_clips(self, clips):
        assert np.isfinite(small().fit(clips[:3]).score_metrics(clips)).all(axis=None)


class TestReconstruction:
    def test_error_falls(self, learnt):
        losses = learnt.net_.history[:, "reconstruction_loss"]
        assert losses[-1] < 0.5 * losses[0]

    @pytest.mark.parametrize("kind", ["tone", "click", "missing"])
    def test_anomalies_reconstruct_worse(self, learnt, kind):
        normal, abnormal = make_clips(12, 1), make_clips(12, 2)
        if kind == "tone":
            abnormal[:, 13] += 10
        elif kind == "click":
            abnormal[:, :, 15:18] += 8
        else:
            abnormal[:, 9] -= 8
        scores = learnt.score_samples(xr.concat([normal, abnormal], "clip"))
        assert roc_auc_score([1] * 12 + [0] * 12, scores) > 0.95

    def test_map_peaks_at_the_planted_place(self, learnt):
        clips = make_clips(4, 3)
        clips[:, 12:14, 20:22] += 15
        for errors in learnt.score_map(clips).values:
            mel, frame = np.unravel_index(errors.argmax(), errors.shape)
            assert mel in (12, 13)
            assert frame in (20, 21)

    def test_map_of_one_window_adds_up_to_the_score(self, learnt):
        clip = make_clips(3, 4)[:, :, :16]
        total = learnt.score_map(clip).sum(("mel", "frame"))
        np.testing.assert_allclose(-total, learnt.score_samples(clip), rtol=1e-5)

    def test_map_is_the_mean_over_windows(self, learnt):
        clips = make_clips(1, 5)
        expected, count = np.zeros((2, 16, 34))
        with torch.no_grad():
            x, _, y = learnt.net_.module_(windows_of(clips))
        for error, start in zip((x - y).square().numpy(), (0, 6, 12, 18)):
            expected[:, start : start + 16] += error
            count[:, start : start + 16] += 1
        (errors,) = learnt.score_map(clips).values
        np.testing.assert_allclose(errors, expected / count, rtol=1e-5)

    def test_map_is_labelled(self, learnt):
        clips = make_clips(3, 0)
        errors = learnt.score_map(clips)
        assert errors.dims == clips.dims
        assert errors.section.values.tolist() == ["00", "01", "00"]
        np.testing.assert_array_equal(errors.mel, clips.mel)
        bare = learnt.score_map(clips.values)
        assert isinstance(bare, np.ndarray)
        np.testing.assert_array_equal(bare, errors.values)
        sparse = copy.deepcopy(learnt).set_params(window_hop=18)
        assert np.isfinite(sparse.score_map(clips)).all()


class TestSections:
    def test_style_follows_the_section(self, adaptive, clips):
        assert adaptive.sections_ == ["00", "01"]
        style = adaptive.net_.module_.generator.style
        with torch.no_grad():
            style.shift[1] += 3
        expected = adaptive.score_samples(clips)
        swapped = clips.assign_coords(section=("clip", clips.section.values[::-1]))
        assert not np.isclose(adaptive.score_samples(swapped), expected).any()

    def test_unseen_and_missing_sections(self, adaptive, clips):
        unseen = clips.assign_coords(section=("clip", np.full(12, "07", dtype=object)))
        missing = clips.assign_coords(section=("clip", np.full(12, None, dtype=object)))
        scores = adaptive.score_samples(unseen)
        np.testing.assert_array_equal(adaptive.score_samples(missing), scores)
        module = copy.deepcopy(adaptive.net_.module_)
        x, _, y = module(windows_of(clips[:1]))
        assert -(x - y).square().sum((1, 2)).mean().item() == pytest.approx(scores[0], rel=1e-5)

    def test_column(self, clips):
        renamed = clips.rename(section="id")
        named = small(section_adaptive="id").fit(renamed)
        assert named.sections_ == ["00", "01"]
        np.testing.assert_array_equal(
            named.score_samples(renamed),
            small(section_adaptive=True).fit(clips).score_samples(clips),
        )

    def test_errors(self, adaptive, clips):
        with pytest.raises(
            ValueError, match="section_adaptive needs the column 'section'.*ndarray"
        ):
            small(section_adaptive=True).fit(clips.values)
        with pytest.raises(ValueError, match="section_adaptive needs the column 'section'"):
            adaptive.score_samples(clips.values)
        gap = clips.assign_coords(section=("clip", ["00", None] * 6))
        with pytest.raises(ValueError, match="'section' has no value for 6 of 12.*position 1"):
            small(section_adaptive=True).fit(gap)


def test_one_per_group(clips):
    detector = GroupedDetector(small(metric="latent_l1_mean")).fit(clips)
    alone = small(metric="latent_l1_mean").fit(clips[::2])
    np.testing.assert_array_equal(
        detector.score_samples(clips)[::2], alone.score_samples(clips[::2])
    )
    assert detector.offsets_["00"] == alone.offset_ == alone.metric_offsets_["latent_l1_mean"]


def test_pickle(fitted, clips):
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.score_metrics(clips), fitted.score_metrics(clips))
    np.testing.assert_array_equal(again.score_map(clips), fitted.score_map(clips))


def test_mixed_precision(clips):
    exact, mixed = (small(mixed_precision=m).fit(clips).net_.history[0] for m in (False, True))
    assert exact["train_loss"] != mixed["train_loss"]
    for name in ("train_loss", "penalty", "matching_loss"):
        assert mixed[name] == pytest.approx(exact[name], rel=0.1)


class TestErrors:
    def test_nan_leaves_the_detector_unfitted(self, clips):
        detector = small().fit(clips).set_params(lr=1e30)
        with pytest.raises(ValueError, match="Training diverged: the loss of epoch 1 is nan.*lr"):
            detector.fit(clips)
        with pytest.raises(NotFittedError):
            detector.score_samples(clips)

    @pytest.mark.parametrize("params", [{"adversarial": False}, {"loss__matching_weight": 0}])
    def test_nan_of_either_network(self, clips, params):
        with pytest.raises(ValueError, match="Training diverged"):
            small(lr=1e30, max_epochs=2, **params).fit(clips)

    @pytest.mark.parametrize(
        ("params", "message"),
        [
            (
                {"loss__penalty_weight": -1},
                "loss__penalty_weight must be a number from 0 on, got -",
            ),
            ({"loss__matching_weight": np.nan}, "loss__matching_weight must .* got nan"),
            ({"loss__match": "std"}, "loss__match must be 'mean' or 'mean_std', got 'std'"),
            ({"module__norm": "group"}, "norm must be one of .* got 'group'"),
        ],
        ids=str,
    )
    def test_parameters_of_the_losses(self, clips, params, message):
        with pytest.raises(ValueError, match=message):
            small(**params).fit(clips)

    def test_short_clips(self, fitted, clips):
        with pytest.raises(
            ValueError, match="have 12 frames, fewer than one window of n_frames=16"
        ):
            small().fit(clips[:, :, :12])
        for method in (fitted.score_samples, fitted.score_metrics, fitted.score_map):
            with pytest.raises(ValueError, match="have 12 frames, fewer than one window"):
                method(clips[:, :, :12])

    def test_whole_clips(self, clips):
        detector = small(n_frames=None).fit(clips)
        assert detector.n_frames_ == 34
        with pytest.raises(
            ValueError, match="have 33 frames, fewer than one window of n_frames=34"
        ):
            detector.score_samples(clips[:, :, :33])

    def test_number_of_bins(self, fitted, clips):
        for method in (fitted.score_samples, fitted.score_metrics, fitted.score_map):
            with pytest.raises(ValueError, match="X has 15 features, .* expecting 16 features"):
                method(clips[:, :15])

    def test_metric(self, fitted, clips):
        with pytest.raises(ValueError, match="'metric' parameter of AEGANDetector must be a str"):
            small(metric="input_cosine_mean").fit(clips)
        with pytest.raises(
            ValueError, match="metric='discriminator_knn' is none of those.*input_l1"
        ):
            small(metric="discriminator_knn", adversarial=False).fit(clips)
        with pytest.raises(ValueError, match="metric='nothing' is none of those"):
            copy.deepcopy(fitted).set_params(metric="nothing").score_samples(clips)

    def test_constant_clips(self):
        with pytest.raises(ValueError, match="All 16 bins are constant over the 6 training clips"):
            small().fit(np.ones((6, 16, 20)))
