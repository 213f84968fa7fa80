"""Options of training that all embedders share."""

import copy
import functools
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from skorch.callbacks import Callback
from torch import nn

from sk_asd.detectors import IDNNDetector, KNNDetector
from sk_asd.embedders import MultiHeadEmbedder, SectionEmbedder
from sk_asd.ensemble import GroupedDetector
from sk_asd.networks import Cnn6, SpecAugment
from sk_asd.utils._statistics import bin_statistics
from sk_asd.utils._windows import RandomWindowSampler


def small(**params):
    defaults = {"n_frames": 16, "window_hop": 4, "module__embedding_dim": 8, "module__width": 0.1}
    training = {"max_epochs": 2, "batch_size": 16, "random_state": 0}
    return SectionEmbedder("cnn6", **{**defaults, **training, **params})


class Plain(torch.optim.Optimizer):
    """An optimizer that knows nothing of weight decay."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})

    def step(self, closure=None):
        return closure() if closure else None


def accuracy(embedder, clips):
    """Share of the last 12 clips whose nearest neighbour among the first 36 is of their class."""
    embeddings, section = embedder.transform(clips).values, clips.section.values
    nearest = (embeddings[36:] @ embeddings[:36].T).argmax(axis=1)
    return (section[:36][nearest] == section[36:]).mean()


@pytest.mark.parametrize("loss", ["arcface", "adacos", "subcluster_adacos", "softmax"])
def test_losses_learn_the_classes(clips, loss):
    embedder = small(loss=loss, max_epochs=40, lr=3e-3, loss__n_subclusters=4).fit(clips[:36])
    (head,) = embedder.net_.criterion_.heads
    codes = [head.predict(windows).item() for windows in embedder._embed(clips[36:], "embedding")]
    assert embedder.classes_[codes].tolist() == clips.section.values[36:].tolist()


class Augmented(nn.Module):
    """A backbone of one's own: masks, and then a network of the package."""

    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(SpecAugment(), Cnn6(12, 8, width=0.1))

    def forward(self, x):
        return self.network(x)


def augmented_by_masks(**params):
    training = {"n_frames": 16, "window_hop": 4, "max_epochs": 2, "batch_size": 16}
    return SectionEmbedder(Augmented, random_state=0, **{**training, **params})


@pytest.mark.parametrize(
    "make", [functools.partial(small, mixup=1.0), augmented_by_masks], ids=["mixup", "masks"]
)
def test_augmentation_is_for_training_only(clips, make):
    plain, augmented = small().fit(clips), make().fit(clips)
    assert augmented.net_.history[0]["train_loss"] != plain.net_.history[0]["train_loss"]
    first, second = augmented.transform(clips), augmented.transform(clips)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(make().fit(clips).transform(clips), first)
    learnt = make(max_epochs=15, lr=3e-3).fit(clips[:36])
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
        embedder = small(subtract_mean=True).fit(clips)
        expected = small().fit(clips - clips.mean("frame"))
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


def test_weighted_draws():
    weights = np.where(np.arange(100) < 98, 1 / 98, 1 / 2)
    sampler = RandomWindowSampler(100, 5, torch.Generator().manual_seed(0), weights)
    clips = np.array([clip for _ in range(40) for clip, _ in sampler])
    assert len(sampler) == 100
    assert 0.45 < (clips >= 98).mean() < 0.55


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


def test_a_second_fit_forgets_the_first(clips):
    embedder = small().fit(clips[:40]).fit(clips)
    np.testing.assert_array_equal(embedder.transform(clips), small().fit_transform(clips))


def test_a_fit_that_fails_leaves_nothing_to_use(clips):
    embedder = small().fit(clips)
    with pytest.raises(ValueError, match="Found 1 class"):
        embedder.fit(clips[clips.section == "02"])
    with pytest.raises(NotFittedError):
        embedder.transform(clips)


class TestPrefixes:
    """Parameters of the net beside those of the signature."""

    @pytest.mark.parametrize(
        ("params", "decay"),
        [({}, 1e-4), ({"optimizer__weight_decay": 0.5}, 0.5), ({"optimizer": Plain}, None)],
    )
    def test_optimizer(self, clips, params, decay):
        found = []

        class Look(Callback):
            def on_train_end(self, net, **kwargs):
                found.append(net.optimizer_.param_groups[0].get("weight_decay"))

        small(callbacks=[("look", Look())], max_epochs=1, **params).fit(clips)
        assert found == [decay]

    def test_loss(self, clips):
        (head,) = small(loss__margin=0.3, loss__scale=8.0).fit(clips).net_.criterion_.heads
        assert (head.logits.margin, head.logits.scale) == (0.3, 8.0)
        (head,) = small().fit(clips).net_.criterion_.heads
        assert (head.logits.margin, head.logits.scale) == (0.5, 32.0)
        with pytest.raises(ValueError, match=r"margin must be in \[0, pi\), got 4"):
            small(loss__margin=4).fit(clips)

    def test_what_fit_refuses(self, clips):
        """As scikit-learn wants it, ``__init__`` and ``clone`` take anything."""
        for name, meant in (
            ("max_epoch", "max_epochs"),
            ("modul__width", "module__width"),
            ("los__margin", "loss__margin"),
        ):
            embedder = clone(small(**{name: 1}))
            assert embedder.get_params()[name] == 1
            said = f"SectionEmbedder got an unexpected keyword argument '{name}', perhaps for"
            with pytest.raises(TypeError, match=f"{said} '{meant}'; beside .* module__, loss__"):
                embedder.fit(clips)
        grouped = GroupedDetector(IDNNDetector(max_epoch=1), by="section")
        with pytest.raises(TypeError, match="IDNNDetector got an unexpected .* 'max_epoch'"):
            grouped.fit(clips)
        with pytest.raises(ValueError, match="Invalid parameter 'max_epoch'"):
            small().set_params(max_epoch=1)

    def test_copies_do_not_share_them(self):
        embedder = small()
        copied = copy.copy(embedder).set_params(module__width=0.2)
        assert embedder.get_params()["module__width"] == 0.1
        assert copied.get_params()["module__width"] == 0.2


class TestPenultimateLayer:
    @pytest.mark.parametrize(
        ("backbone", "width"), [("cnn6", 48), ("ecapa", 304), ("mobilefacenet", 48)]
    )
    def test_input_of_the_last_layer(self, clips, backbone, width):
        """From it the last layer makes the embedding, and it may be asked for after the fit."""
        params = {"n_frames": 16, "max_epochs": 1, "module__width": 0.1, "random_state": 0}
        embedder = SectionEmbedder(backbone, window_hop=4, **params).fit(clips)
        embedding = embedder.transform(clips)
        embedder.set_params(layer="penultimate")
        found = embedder.transform(clips)
        assert found.shape == (48, width)
        assert found.section.values.tolist() == clips.section.values.tolist()
        assert len(embedder.get_feature_names_out()) == width
        network = embedder.net_.module_[-1]
        windows = torch.from_numpy(clips.values[:2, :, :16])
        with torch.no_grad():
            standard = embedder.net_.module_[0](windows)
            last = network.penultimate(standard)
            if backbone == "mobilefacenet":
                last = last[:, :, None, None]
            made = network.embed(last).flatten(1)
            made = made.relu() if backbone == "cnn6" else made
            torch.testing.assert_close(made, network(standard))
        embedder.set_params(layer="embedding")
        np.testing.assert_array_equal(embedder.transform(clips), embedding)

    def test_pooled_as_embeddings_are(self, clips):
        """The mean over windows of vectors of unit length."""
        embedder = small(layer="penultimate", window_hop=7).fit(clips)
        module = nn.Sequential(embedder.net_.module_[0], nn.Identity())
        starts = (0, 7, 14)
        windows = torch.stack([torch.from_numpy(clips.values[3, :, s : s + 16]) for s in starts])
        with torch.no_grad():
            vectors = embedder.net_.module_[1].penultimate(module(windows)).numpy()
        expected = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).mean(axis=0)
        np.testing.assert_allclose(embedder.transform(clips[3:4])[0], expected, rtol=1e-5)

    def test_own_network(self, clips):
        class Own(nn.Module):
            def __init__(self):
                super().__init__()
                self.embed = nn.Linear(12, 4)

            def penultimate(self, x):
                return x.mean(dim=2)

            def forward(self, x):
                return self.embed(self.penultimate(x))

        for backbone in (Own, Own()):
            embedder = SectionEmbedder(backbone, n_frames=16, max_epochs=1, layer="penultimate")
            assert embedder.fit_transform(clips).shape == (48, 12)

    def test_network_without(self, clips):
        params = {"n_frames": 16, "layer": "penultimate"}
        flat = nn.Sequential(nn.Flatten(), nn.Linear(12 * 16, 4))
        with pytest.raises(ValueError, match="method `penultimate`, which Sequential does not"):
            SectionEmbedder(flat, **params).fit(clips)
        with pytest.raises(ValueError, match="method `penultimate`, which Augmented does not have"):
            SectionEmbedder(Augmented, **params).fit(clips)

    def test_heads_keep_the_embedding(self, clips):
        last, before = (
            MultiHeadEmbedder(
                "cnn6", n_frames=16, max_epochs=2, module__width=0.1, random_state=0, layer=layer
            ).fit(clips)
            for layer in ("embedding", "penultimate")
        )
        pd.testing.assert_frame_equal(last.predict_targets(clips), before.predict_targets(clips))


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
