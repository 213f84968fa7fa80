"""Options of training that all embedders share."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.pipeline import make_pipeline
from torch import nn

from sk_asd.detectors import KNNDetector
from sk_asd.embedders import SectionEmbedder
from sk_asd.networks import SpecAugment
from sk_asd.utils._statistics import bin_statistics
from sk_asd.utils._windows import RandomWindowSampler


def small(**params):
    defaults = {"n_frames": 16, "window_hop": 4, "module__embedding_dim": 8, "module__width": 0.1}
    training = {"max_epochs": 2, "batch_size": 16, "random_state": 0}
    return SectionEmbedder("cnn6", **{**defaults, **training, **params})


def accuracy(embedder, clips):
    """Share of the last 12 clips whose nearest neighbour among the first 36 is of their class."""
    embeddings, section = embedder.transform(clips).values, clips.section.values
    nearest = (embeddings[36:] @ embeddings[:36].T).argmax(axis=1)
    return (section[:36][nearest] == section[36:]).mean()


@pytest.mark.parametrize("loss", ["arcface", "adacos", "subcluster_adacos", "softmax"])
def test_losses_learn_the_classes(clips, loss):
    embedder = small(loss=loss, max_epochs=40, lr=3e-3, n_subclusters=4).fit(clips[:36])
    (head,) = embedder.net_.criterion_.heads
    codes = [head.predict(windows).item() for windows in embedder._embed(clips[36:])]
    assert embedder.classes_[codes].tolist() == clips.section.values[36:].tolist()


@pytest.mark.parametrize("params", [{"mixup": 1.0}, {"augment": SpecAugment()}], ids=str)
def test_augmentation_is_for_training_only(clips, params):
    plain, augmented = small().fit(clips), small(**params).fit(clips)
    assert augmented.net_.history[0]["train_loss"] != plain.net_.history[0]["train_loss"]
    first, second = augmented.transform(clips), augmented.transform(clips)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(small(**params).fit(clips).transform(clips), first)
    learnt = small(**params, max_epochs=15, lr=3e-3).fit(clips[:36])
    assert accuracy(learnt, clips) > 0.9


class TestSubtractMean:
    def test_level_of_a_clip_does_not_matter(self, clips):
        rng = np.random.default_rng(1)
        offsets = rng.normal(size=(48, 12, 1)).astype("float32") * 8
        np.testing.assert_allclose(
            small(subtract_mean=True).fit_transform(clips),
            small(subtract_mean=True).fit_transform(clips + offsets),
            rtol=1e-3,
            atol=1e-4,
        )

    def test_mean_of_the_clip_not_of_the_window(self, clips):
        embedder = small(subtract_mean=True, standardize=False).fit(clips)
        expected = small(standardize=False).fit(clips - clips.mean("frame"))
        np.testing.assert_allclose(
            embedder.transform(clips),
            expected.transform(clips - clips.mean("frame")),
            rtol=1e-4,
            atol=1e-6,
        )

    def test_statistics(self, clips):
        X = clips.values + np.arange(48, dtype="float32")[:, None, None] * 1000
        X[:, 3] = X[:, 3, :1]
        mean, std = bin_statistics(X, subtract_mean=True)
        centred = X - X.mean(axis=2, keepdims=True, dtype=float)
        np.testing.assert_allclose(mean, 0, atol=1e-3)
        np.testing.assert_allclose(std, centred.std(axis=(0, 2)), rtol=1e-3)
        assert std[3] == 0


class TestBalance:
    def test_draws(self):
        weights = np.where(np.arange(100) < 98, 1 / 98, 1 / 2)
        sampler = RandomWindowSampler(100, 5, torch.Generator().manual_seed(0), weights)
        clips = np.array([clip for _ in range(40) for clip, _ in sampler])
        assert len(sampler) == 100
        assert 0.45 < (clips >= 98).mean() < 0.55

    @pytest.mark.parametrize(
        ("balance", "share"), [("class", 1 / 3), ("domain", 1 / 4), (["domain", "section"], 1 / 3)]
    )
    def test_weights(self, clips, balance, share):
        """12 clips of sections 00, 4 of 01, 2 of 02, all of these but 00 in the source domain."""
        few = clips[np.r_[0:36:3, 1:13:3, 2:8:3]]
        section = few.section.values
        few["domain"] = ("clip", np.where(section == "00", "target", "source").astype(object))
        weights = small(balance=balance)._clip_weights(few, _codes(section))
        weights = weights / weights.sum()
        assert weights[section == "02"].sum() == pytest.approx(1 / 3 if share == 1 / 3 else 1 / 6)
        assert weights[section == "00"].sum() == pytest.approx(1 / 3 if share == 1 / 3 else 1 / 2)

    def test_missing_column(self, clips):
        with pytest.raises(ValueError, match=r"balance='pat' needs columns \['pat'\]"):
            small(balance="pat").fit(clips)

    def test_fit(self, clips):
        embedder = small(balance="section", max_epochs=15, lr=3e-3).fit(clips[:36])
        assert accuracy(embedder, clips) > 0.9


def _codes(section):
    return np.unique(section, return_inverse=True)[1][:, None].astype(float)


class TestEnd:
    def test_epochs(self, clips):
        embedder = small().fit(clips)
        assert (embedder.n_epochs_, embedder.stop_reason_) == (2, "max_epochs")
        assert 0 < embedder.fit_time_ < 60

    def test_max_time_within_an_epoch(self, clips):
        embedder = small(max_time=1e-6, max_epochs=50).fit(clips)
        assert (embedder.n_epochs_, embedder.stop_reason_) == (1, "max_time")
        assert embedder.net_.history[-1]["train_batch_count"] == 1
        assert np.isfinite(embedder.transform(clips)).all()

    def test_enough_time_changes_nothing(self, clips):
        np.testing.assert_array_equal(
            small(max_time=600).fit_transform(clips), small().fit_transform(clips)
        )

    def test_nan_is_noticed_at_once(self, clips):
        class Broken(nn.Module):
            def __init__(self):
                super().__init__()
                self.linear = nn.Linear(12, 4)

            def forward(self, x):
                return self.linear(x.mean(dim=2)) / (0 if self.training else 1)

        with pytest.raises(ValueError, match="Training diverged: the loss of epoch 1 is nan.*lr"):
            SectionEmbedder(Broken(), n_frames=16, batch_size=16).fit(clips)


class TestWarmStart:
    def test_goes_on(self, clips):
        embedder = small(warm_start=True).fit(clips)
        first = embedder.transform(clips).values
        losses = list(embedder.net_.history[:, "train_loss"])
        embedder.fit(clips)
        assert embedder.n_epochs_ == 4
        assert list(embedder.net_.history[:2, "train_loss"]) == losses
        assert not np.allclose(embedder.transform(clips), first)

    def test_one_more_tiny_step_changes_little(self, clips):
        embedder = small(warm_start=True, max_epochs=10).fit(clips)
        first = embedder.transform(clips).values
        embedder.set_params(lr=1e-9, max_epochs=1, weight_decay=0.0).fit(clips)
        # Batch normalisation goes on averaging.
        np.testing.assert_allclose(embedder.transform(clips), first, atol=0.05)

    def test_repeats_itself(self, clips):
        once, twice = (
            small(warm_start=True).fit(clips).fit(clips).transform(clips) for _ in range(2)
        )
        np.testing.assert_array_equal(once, twice)

    def test_draws_other_windows(self, clips):
        order = []

        class Order(nn.Module):
            def __init__(self):
                super().__init__()
                self.linear = nn.Linear(12, 4)

            def forward(self, x):
                if self.training:
                    order.append(x[:, 0, 0].tolist())
                return self.linear(x.mean(dim=2))

        embedder = SectionEmbedder(Order, n_frames=16, max_epochs=1, warm_start=True)
        embedder.set_params(random_state=0).fit(clips).fit(clips)
        assert order[0] != order[1]

    def test_cold_start_forgets(self, clips):
        embedder = small().fit(clips).fit(clips)
        np.testing.assert_array_equal(embedder.transform(clips), small().fit_transform(clips))

    def test_other_classes(self, clips):
        embedder = small(warm_start=True).fit(clips)
        before = embedder.transform(clips)
        with pytest.raises(
            ValueError, match="warm_start=True goes on with a fitted Section.*class"
        ):
            embedder.fit(clips[clips.section != "02"])
        assert embedder.classes_.tolist() == ["00", "01", "02"]
        np.testing.assert_array_equal(embedder.transform(clips), before)


def test_mixed_precision(clips):
    embedder = small(mixed_precision=True, max_epochs=15, lr=3e-3).fit(clips[:36])
    assert accuracy(embedder, clips) > 0.9
    dtypes = {p.dtype for p in embedder.net_.module_.parameters()}
    assert dtypes == {torch.float32}
    losses = embedder.net_.history[:, "train_loss"]
    exact = small(max_epochs=15, lr=3e-3).fit(clips[:36]).net_.history[:, "train_loss"]
    assert losses != exact
    np.testing.assert_allclose(losses[:3], exact[:3], rtol=0.1)


def test_windows_too_short_for_the_network(clips):
    deep = nn.Sequential(nn.Conv1d(12, 4, kernel_size=21), nn.Flatten())
    with pytest.raises(
        ValueError, match="Sequential cannot embed windows of 12 bins and 16 frames: .*size"
    ):
        SectionEmbedder(deep, n_frames=16).fit(clips)
    assert SectionEmbedder(deep, n_frames=21, max_epochs=1).fit_transform(clips).shape == (48, 4)


class TestScikitLearnCallbacks:
    """From scikit-learn 1.9 on, an embedder reports its epochs."""

    def fit(self, estimator, clips, *callbacks):
        estimator.set_callbacks(*callbacks)
        return estimator.fit(clips)

    @pytest.fixture(autouse=True)
    def _needs_callbacks(self):
        pytest.importorskip("sklearn.callback")

    class Record:
        def __init__(self, stop_after=None):
            self.stop_after = stop_after
            self.tasks = []
            self.embeddings = []

        max_propagation_depth = None

        def setup(self, estimator, context):
            pass

        def teardown(self, estimator, context):
            pass

        def on_fit_task_begin(self, estimator, context):
            self.tasks.append((context.estimator_name, context.task_name, "begin"))

        def on_fit_task_end(self, estimator, context, *, X=None, fitted_estimator=None):
            self.tasks.append((context.estimator_name, context.task_name, "end"))
            if context.task_name == "epoch":
                self.embeddings.append(fitted_estimator.transform(X))
                return context.task_id + 1 == self.stop_after
            return False

    def test_epochs(self, clips):
        record = self.Record()
        embedder = self.fit(small(), clips, record)
        epochs = [task for task in record.tasks if task[1] == "epoch"]
        assert [what for *_, what in epochs] == ["begin", "end"] * 2
        np.testing.assert_array_equal(record.embeddings[-1], embedder.transform(clips))
        assert not np.allclose(record.embeddings[0], record.embeddings[1])

    def test_reporting_does_not_change_the_fit(self, clips):
        embedder = self.fit(small(), clips, self.Record())
        np.testing.assert_array_equal(embedder.transform(clips), small().fit_transform(clips))

    def test_stop(self, clips):
        embedder = self.fit(small(max_epochs=9), clips, self.Record(stop_after=3))
        assert (embedder.n_epochs_, embedder.stop_reason_) == (3, "callback")

    @pytest.mark.filterwarnings("ignore:The estimator KNNDetector does not support callbacks")
    def test_in_a_pipeline(self, clips):
        record = self.Record()
        self.fit(make_pipeline(small(), KNNDetector()), clips, record)
        assert ("SectionEmbedder", "epoch", "end") in record.tasks
        assert any(name == "Pipeline" for name, *_ in record.tasks)

    def test_progress_bar(self, clips, capsys):
        pytest.importorskip("rich")
        from sklearn.callback import ProgressBar

        self.fit(small(), clips, ProgressBar())
        assert "SectionEmbedder" in capsys.readouterr().out

    def test_pickle(self, clips):
        embedder = small().fit(clips)
        again = pickle.loads(pickle.dumps(embedder))
        np.testing.assert_array_equal(again.transform(clips), embedder.transform(clips))
