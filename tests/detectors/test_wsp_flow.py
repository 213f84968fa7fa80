"""WSPFlowDetector: planted anomalies, weights of the statistics, conditions, training, errors."""

import pickle

import numpy as np
import pytest
import torch
import xarray as xr
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline

from sk_asd.detectors import GaussianMixtureDetector
from sk_asd.detectors._wsp_flow import WSPFlowDetector
from sk_asd.detectors._wsp_net import StatisticsDataset, moments
from sk_asd.features import TimePooling


def make_detector(flow="gaussian", **params):
    """Small and fast; the Gaussian learns with large steps."""
    sizes = {"module__n_groups": 2, "module__transforms": 2, "module__hidden_features": (16,)}
    training = {"lr": 0.05, "max_epochs": 10, "random_state": 0}
    return WSPFlowDetector(flow, **{**sizes, **training, **params})


def auc(detector, normal, anomalous):
    scores = np.r_[detector.score_samples(normal), detector.score_samples(anomalous)]
    return roc_auc_score([1] * len(normal) + [0] * len(anomalous), scores)


def make_clips(n=80, n_bins=6, n_frames=24, seed=0):
    """Normal noise whose level and spread vary from clip to clip."""
    rng = np.random.default_rng(seed)
    level = 3 * rng.normal(size=(n, n_bins, 1))
    spread = 1 + 0.1 * rng.normal(size=(n, n_bins, 1))
    return (level + spread * rng.normal(size=(n, n_bins, n_frames))).astype("float32") - 60


def label(X, sections, machines="fan"):
    coords = {
        "machine": ("clip", np.broadcast_to(np.array(machines, dtype=object), len(X))),
        "section": ("clip", np.array(sections, dtype=object)),
        "mel": 100.0 * np.arange(X.shape[1]),
        "frame": 0.032 * np.arange(X.shape[2]),
    }
    return xr.DataArray(X, dims=("clip", "mel", "frame"), coords=coords)


@pytest.fixture(scope="module")
def X():
    return make_clips()


def coupled(n, sign, rng):
    """Bins i and i + 4 go together; their marginal distributions do not depend on the sign."""
    first = rng.normal(size=(n, 4))
    second = sign * 0.95 * first + np.sqrt(1 - 0.95**2) * rng.normal(size=(n, 4))
    return np.hstack([first, second])


@pytest.mark.parametrize(
    ("flow", "params"),
    [
        ("gaussian", {}),
        ("gaussian", {"module__n_groups": 1}),
        ("gaussian", {"module__grouping": "strided", "module__n_groups": 4}),
        ("maf", {"lr": 0.01, "max_epochs": 15}),
        ("realnvp", {"lr": 0.01, "max_epochs": 15}),
        ("nsf", {"lr": 0.01, "max_epochs": 15, "module__transforms": 1}),
    ],
    ids=str,
)
def test_finds_broken_correlations(flow, params):
    rng = np.random.default_rng(0)
    training = coupled(300, 1, rng)
    tests = coupled(100, 1, rng), coupled(100, -1, rng)
    detector = make_detector(flow, pooling="mean", **params).fit(training)
    assert auc(detector, *tests) > 0.95
    independent = GaussianMixtureDetector(covariance_type="diag").fit(training)
    assert auc(independent, *tests) < 0.65


class TestConditions:
    @pytest.fixture
    def clips(self):
        """Bin 2 is high in section 00 and low in section 01; nothing else tells them apart."""
        X = make_clips(160)
        section = np.array(["00", "01"] * 80)
        X[section == "00", 2] += 15
        X[section == "01", 2] -= 15
        return label(X, section)

    @pytest.mark.parametrize(
        ("flow", "params"),
        [("gaussian", {"max_epochs": 40}), ("maf", {"lr": 0.01, "max_epochs": 25})],
    )
    def test_normal_here_abnormal_there(self, clips, flow, params):
        detector = make_detector(flow, pooling="mean", **params).fit(clips[:100])
        assert detector.conditions_ == [("fan", "00"), ("fan", "01")]
        swapped = clips[100:].copy()
        swapped["section"] = ("clip", clips.section.values[101:].tolist() + ["00"])
        assert auc(detector, clips[100:], swapped) > 0.97
        blind = detector.set_params(by=None).fit(clips[:100])
        assert blind.conditions_ is None
        np.testing.assert_array_equal(
            blind.score_samples(clips[100:]), blind.score_samples(swapped)
        )

    def test_machines_are_conditions_too(self, clips):
        both = xr.concat([clips[:30], clips[:30].assign_coords(machine="pump")], "clip")
        both["machine"] = ("clip", np.repeat(["fan", "pump"], 30).astype(object))
        detector = make_detector(max_epochs=1).fit(both)
        assert len(detector.conditions_) == 4
        assert len(make_detector(max_epochs=1, by="section").fit(both).conditions_) == 2

    def test_numbers_as_values(self, clips):
        clips["vel"] = ("clip", np.arange(160) % 3 * 1.5)
        detector = make_detector(max_epochs=1, by=["section", "vel"]).fit(clips)
        assert ("01", 1.5) in detector.conditions_
        assert len(detector.conditions_) == 6

    def test_held_out_evenly(self, clips):
        clips["section"] = ("clip", np.array(["00"] * 120 + ["01"] * 40, dtype=object))
        held_out = make_detector(max_epochs=1).fit(clips).validation_clips_
        assert len(held_out) == 16
        assert (held_out >= 120).sum() == 4

    def test_plain_arrays_have_none(self, clips):
        plain = make_detector(max_epochs=1).fit(clips.values)
        assert plain.conditions_ is None
        labelled = make_detector(max_epochs=1, by=None).fit(clips)
        np.testing.assert_array_equal(
            plain.score_samples(clips.values), labelled.score_samples(clips)
        )

    def test_unseen(self, clips):
        detector = make_detector(max_epochs=1).fit(clips)
        clips["section"] = ("clip", np.array(["00", "03"] * 80, dtype=object))
        with pytest.raises(ValueError, match=r"not seen in training: \[\('fan', '03'\)\]; known"):
            detector.score_samples(clips)

    def test_lost_labels(self, clips):
        detector = make_detector(max_epochs=1).fit(clips)
        with pytest.raises(ValueError, match=r"No column by=.*ndarray, but WSPFlowDetector was fi"):
            detector.score_samples(clips.values)

    def test_missing_column(self, clips):
        with pytest.raises(ValueError, match="by='vel' needs the column 'vel' among the labels"):
            make_detector(by="vel").fit(clips)

    def test_missing_values(self, clips):
        clips["section"] = ("clip", np.array(["00", None] * 80, dtype=object))
        with pytest.raises(ValueError, match="'section' has no value for 80 of 160 .* position 1"):
            make_detector().fit(clips)


class TestAlpha:
    """Means of clips vary 30 times as much as standard deviations; neither tells anything."""

    def fit(self, X, **params):
        return make_detector(max_epochs=25, validation_fraction=None, **params).fit(X)

    def test_stays_where_nothing_is_to_be_gained(self):
        detector = self.fit(make_clips(300))
        assert detector.alpha_ == pytest.approx(0.5, abs=0.12)
        assert detector.net_.history[-1, "alpha"] == pytest.approx(detector.alpha_)

    def test_literal_likelihood_is_gamed(self):
        """Without the standardisation the weight runs to the statistic that varies least."""
        detector = self.fit(make_clips(300), alpha="literal")
        history = detector.net_.history[:, "alpha"]
        assert detector.alpha_ < 0.1
        assert (np.diff(history[:10]) < 0).all()

    def test_goes_where_bins_explain_each_other(self):
        rng = np.random.default_rng(1)
        clips = make_clips(300)
        level = clips.mean(axis=2, keepdims=True)
        common = 3 * rng.normal(size=(300, 1, 1)).astype("float32")
        # The means vary as much as before, now in all bins alike.
        assert self.fit(clips - 0.9 * (level + 60) + common).alpha_ > 0.7

    def test_fixed(self, X):
        detector = make_detector(alpha=0.2, max_epochs=2).fit(X)
        assert detector.alpha_ == pytest.approx(0.2)
        pooled = 0.2 * X.mean(axis=2) + 0.8 * X.std(axis=2)
        expected = make_detector(pooling="mean", max_epochs=2).fit(pooled)
        np.testing.assert_allclose(
            detector.score_samples(X), expected.score_samples(pooled), rtol=1e-3, atol=1e-3
        )
        assert not hasattr(expected, "alpha_")

    @pytest.mark.parametrize("alpha", [0.05, 0.5, 0.9])
    def test_standardised_at_any_weight(self, X, alpha):
        module = make_detector(max_epochs=1, validation_fraction=None).fit(X).net_.module_
        dataset = StatisticsDataset(X, None, X.shape[2], "wsp", 1.0)
        seen = []
        module.flow.register_forward_pre_hook(lambda flow, inputs: seen.append(inputs[0]))
        with torch.no_grad():
            module.pooling.logit.fill_(np.log(alpha / (1 - alpha)))
            module(torch.from_numpy(dataset.pooled))
        np.testing.assert_allclose(seen[0].mean(0), 0, atol=1e-4)
        np.testing.assert_allclose(seen[0].std(0, correction=0), 1, rtol=1e-3)


class TestPooling:
    def test_moments(self, X):
        dataset = StatisticsDataset(X, None, 8, "wsp", 1.0)
        mean, covariance = moments(dataset, [3, 5], [0, 8, 16])
        windows = np.stack([X[c, :, s : s + 8] for c in (3, 5) for s in (0, 8, 16)]).astype(float)
        pooled = np.stack([windows.mean(axis=2), windows.std(axis=2)])
        np.testing.assert_allclose(mean, pooled.mean(axis=1), rtol=1e-5)
        for i in range(6):
            expected = np.cov(pooled[:, :, i], bias=True)
            np.testing.assert_allclose(covariance[:, :, i], expected, rtol=1e-3, atol=1e-4)

    @pytest.mark.parametrize("pooling", ["mean", "std", "gwrp"])
    def test_is_time_pooling(self, X, pooling):
        pooled = TimePooling((pooling,), r=0.7).fit_transform(X)
        detector = make_detector(pooling=pooling, r=0.7, max_epochs=2).fit(X)
        expected = make_detector(pooling="none", max_epochs=2).fit(pooled)
        np.testing.assert_allclose(detector.score_samples(X), expected.score_samples(pooled))

    def test_frames(self):
        """Without pooling the bins of a frame are looked at, which means do not show."""
        rng = np.random.default_rng(0)

        def clips(n, sign):
            frames = coupled(n * 20, sign, rng).reshape(n, 20, 8)
            return (frames - frames.mean(axis=1, keepdims=True)).transpose(0, 2, 1)

        training, normal, anomalous = clips(40, 1), clips(30, 1), clips(30, -1)
        frames = make_detector(pooling="none", max_epochs=200, validation_fraction=None)
        frames.fit(training)
        assert auc(frames, normal, anomalous) > 0.99
        assert frames.score_map(normal).shape == (30, 8, 20)

    def test_windows(self, X):
        detector = make_detector(n_frames=8, window_hop=10, max_epochs=2).fit(X)
        windows = np.concatenate([X[:5, :, s : s + 8] for s in (0, 10, 16)])
        expected = detector.score_samples(windows).reshape(3, 5).mean(axis=0)
        np.testing.assert_allclose(detector.score_samples(X[:5]), expected)

    @pytest.mark.parametrize("n_frames", [8, None])
    def test_every_clip_gives_one_window_an_epoch(self, X, n_frames):
        detector = make_detector(n_frames=n_frames, max_epochs=1).fit(X)
        assert len(X) - len(detector.validation_clips_) == 72
        assert detector.net_.history[0, "train_batch_count"] == 2


class TestScoreMap:
    def test_peaks_at_the_planted_bin(self, X):
        detector = make_detector(module__n_groups=3, max_epochs=20).fit(X)
        odd = X.copy()
        odd[np.arange(80), np.arange(80) % 6] += 25
        peaks = detector.score_map(odd).argmax(axis=1)
        assert (peaks == np.arange(80) % 6).mean() > 0.9

    @pytest.mark.parametrize("params", [{}, {"n_frames": 8}, {"pooling": "none"}], ids=str)
    def test_mean_is_the_score(self, X, params):
        detector = make_detector(max_epochs=2, **params).fit(X)
        maps = detector.score_map(X)
        np.testing.assert_allclose(maps.reshape(80, -1).mean(axis=1), -detector.score_samples(X))

    def test_labels(self, X):
        clips = label(X, ["00", "01"] * 40)
        maps = make_detector(max_epochs=1).fit(clips).score_map(clips)
        assert maps.dims == ("clip", "mel")
        xr.testing.assert_equal(maps.mel.drop_vars("mel"), clips.mel.drop_vars("mel"))
        assert maps.section.values.tolist() == clips.section.values.tolist()
        maps = make_detector(max_epochs=1, pooling="none").fit(clips).score_map(clips)
        assert maps.dims == ("clip", "mel", "frame")
        np.testing.assert_array_equal(maps.frame, clips.frame)

    def test_constant_bins_contribute_nothing(self, X):
        silent = X.copy()
        silent[:, [1, 4]] = -100
        with pytest.warns(UserWarning, match=r"2 of 6 bins are constant .* left out: 1, 4\.$"):
            detector = make_detector(max_epochs=2).fit(silent)
        maps = detector.score_map(silent)
        assert not maps[:, [1, 4]].any()
        others = make_detector(max_epochs=2).fit(X[:, [0, 2, 3, 5]])
        expected = others.score_map(X[:, [0, 2, 3, 5]])
        np.testing.assert_allclose(maps[:, [0, 2, 3, 5]], expected, rtol=1e-3)


class TestTraining:
    def test_best_weights(self, X):
        patience = {"callbacks__early_stopping__patience": 4}
        detector = make_detector("maf", lr=0.02, max_epochs=60, **patience).fit(X)
        losses = detector.net_.history[:, "valid_loss"]
        assert detector.stop_reason_ == "callback"
        assert len(losses) == np.argmin(losses) + 5 < 60
        held_out = X[detector.validation_clips_]
        assert len(held_out) == 8
        assert -detector.score_samples(held_out).mean() == pytest.approx(min(losses), abs=1e-5)

    def test_without_validation(self, X):
        detector = make_detector(validation_fraction=None, max_epochs=3).fit(X)
        assert (detector.n_epochs_, detector.stop_reason_) == (3, "max_epochs")
        assert len(detector.validation_clips_) == 0
        few = make_detector(max_epochs=3).fit(X[:3])  # a tenth of 3 clips is none
        assert len(few.validation_clips_) == 0

    def test_two_clips(self, X):
        detector = make_detector(validation_fraction=0.5, max_epochs=2).fit(X[:2])
        assert len(detector.validation_clips_) == 0
        assert np.isfinite(detector.score_samples(X)).all()

    def test_seed(self, X):
        first, second = (make_detector("maf", n_frames=8).fit(X) for _ in range(2))
        np.testing.assert_array_equal(first.score_map(X), second.score_map(X))
        other = make_detector("maf", n_frames=8, random_state=1).fit(X)
        assert not np.allclose(first.score_map(X), other.score_map(X))
        again = pickle.loads(pickle.dumps(first))
        np.testing.assert_array_equal(again.score_map(X), first.score_map(X))

    def test_keeps_no_clips(self, X):
        detector = make_detector(max_epochs=1)
        size = len(pickle.dumps(detector.fit(X)))
        assert len(pickle.dumps(detector.fit(np.tile(X, (1, 1, 50))))) < size + 1000

    def test_max_time(self, X):
        detector = make_detector(max_time=1e-6, batch_size=8).fit(X)
        assert (detector.n_epochs_, detector.stop_reason_) == (1, "max_time")
        assert np.isfinite(detector.training_scores_).all()

    def test_parameters_of_the_net(self, X):
        detector = make_detector("maf", module__context_features=5, max_epochs=1).fit(X)
        assert detector.net_.module_.flow.flows[0].context_net.out_features == 5

    def test_verbose(self, X, capsys):
        make_detector(max_epochs=2, verbose=1).fit(X)
        printed = capsys.readouterr().out
        assert all(name in printed for name in ("train_loss", "valid_loss", "alpha"))
        make_detector(max_epochs=40).fit(X)
        assert capsys.readouterr().out == ""

    def test_in_a_pipeline(self, X):
        pipeline = make_pipeline(TimePooling(("mean",)), make_detector(pooling="none"))
        clips = label(X, ["00", "01"] * 40)
        assert pipeline.fit(clips).score_samples(clips).shape == (80,)
        assert len(pipeline[-1].conditions_) == 2
        assert set(pipeline.predict(clips)) == {-1, 1}

    def test_reports_to_scikit_learn(self, X):
        """A training that is stopped early does not upset scikit-learn's callbacks."""
        pytest.importorskip("sklearn.callback")
        epochs = []

        class Record:
            max_propagation_depth = None

            def setup(self, estimator, context):
                pass

            def teardown(self, estimator, context):
                pass

            def on_fit_task_begin(self, estimator, context):
                pass

            def on_fit_task_end(self, estimator, context, *, X=None, fitted_estimator=None):
                if context.task_name == "epoch":
                    epochs.append(fitted_estimator.score_samples(X).mean())
                return False

        detector = make_detector(max_epochs=60, callbacks__early_stopping__patience=2)
        detector.set_callbacks(Record())
        detector.fit(X)
        assert detector.stop_reason_ == "callback"
        assert len(epochs) in (detector.n_epochs_ - 1, detector.n_epochs_)
        assert np.isfinite(epochs).all()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"module__n_groups": 7}, "module__n_groups=7 groups need .* bins, found n_features = 6"),
        ({"n_frames": 25}, "24 frames, fewer than one window of n_frames=25"),
        ({"alpha": 1.0}, "'alpha' parameter of WSPFlowDetector must be"),
        ({"pooling": "max"}, "'pooling' parameter of WSPFlowDetector must be"),
        ({"flow": "glow"}, "'flow' parameter of WSPFlowDetector must be"),
        ({"validation_fraction": 0.9}, "'validation_fraction' parameter"),
        ({"pooling": "std", "n_frames": 1}, "all 6 bins are constant .*single frame has no spread"),
    ],
    ids=str,
)
def test_errors(X, params, message):
    with pytest.raises(ValueError, match=message):
        make_detector(**params).fit(X)


def test_errors_of_the_clips(X):
    with pytest.raises(ValueError, match="minimum of 2"):
        make_detector().fit(X[:1])
    with pytest.raises(ValueError, match="All 6 bins are constant over the 80 training clips"):
        make_detector().fit(np.ones_like(X))
    silent = X.copy()
    silent[:, 1:] = -100
    with pytest.raises(ValueError, match="n_groups=2 .* found n_features = 6, of which 1 vary"):
        make_detector().fit(silent)
    detector = make_detector(n_frames=20, max_epochs=1).fit(X)
    with pytest.raises(ValueError, match="19 frames, fewer than one window of n_frames=20"):
        detector.score_samples(X[:, :, :19])
