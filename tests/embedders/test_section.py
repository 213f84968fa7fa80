"""SectionEmbedder: learns classes, cuts windows right, repeats itself, and says what is wrong."""

import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from skorch.callbacks import Callback, EarlyStopping, EpochScoring, LRScheduler
from torch import nn

from sk_asd.embedders import SectionEmbedder
from sk_asd.utils._statistics import bin_statistics
from sk_asd.utils._windows import RandomWindowSampler, WindowDataset, window_starts


def small(backbone="cnn6", **params):
    defaults = {"n_frames": 16, "window_hop": 4, "module__embedding_dim": 8, "module__width": 0.1}
    training = {"max_epochs": 2, "batch_size": 16, "random_state": 0}
    return SectionEmbedder(backbone, **{**defaults, **training, **params})


def nearest_class(train, labels, new):
    centres = np.stack([train[labels == c].mean(axis=0) for c in np.unique(labels)])
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    return (new @ centres.T).argmax(axis=1)


def test_embeddings_tell_sections_apart(clips):
    embedder = small(max_epochs=12, lr=3e-3).fit(clips[:36])
    train, new = embedder.transform(clips[:36]).values, embedder.transform(clips[36:]).values
    y = np.arange(48) % 3
    assert (nearest_class(train, y[:36], new) == y[36:]).mean() == 1
    losses = embedder.net_.history[:, "train_loss"]
    assert losses[-1] < losses[0]
    assert len(losses) == 12


@pytest.mark.parametrize("backbone", ["mobilefacenet", "mfnse", "cnn6"])
def test_backbones_by_name(clips, backbone):
    embedder = small(backbone, max_epochs=1).fit(clips)
    embeddings = embedder.transform(clips)
    assert embeddings.dims == ("clip", "embedding")
    assert embeddings.shape == (48, 8)
    assert embeddings.dtype == np.float32
    assert embeddings.section.values.tolist() == clips.section.values.tolist()


class Tiny(nn.Module):
    """An own network: the mean over time, and a linear layer."""

    def __init__(self, dim=5):
        super().__init__()
        self.linear = nn.Linear(12, dim)

    def forward(self, x):
        return self.linear(x.mean(dim=2))


@pytest.mark.parametrize("backbone", [Tiny(), Tiny], ids=["instance", "class"])
def test_own_network(clips, backbone):
    params = {} if isinstance(backbone, Tiny) else {"module__dim": 7}
    before = backbone.linear.weight.clone() if isinstance(backbone, Tiny) else None
    embedder = SectionEmbedder(backbone, n_frames=16, max_epochs=2, random_state=0, **params)
    assert embedder.fit_transform(clips).shape == (48, 7 if params else 5)
    if before is not None:
        assert torch.equal(before, backbone.linear.weight)


def test_clip_embedding_is_the_mean_over_strided_windows(clips):
    embedder = small().fit(clips)
    module = embedder.net_.module_
    windows = torch.from_numpy(clips.values[5])
    stack = torch.stack([windows[:, s : s + 16] for s in (0, 4, 8, 12, 14)])
    with torch.no_grad():
        each = F.normalize(module(stack)).numpy()
    expected = each.mean(axis=0)
    np.testing.assert_allclose(embedder.transform(clips)[5], expected, rtol=1e-4, atol=1e-6)


def test_window_starts():
    assert window_starts(313, 192, 32) == [0, 32, 64, 96, 121]
    assert window_starts(192, 192, 32) == [0]
    assert window_starts(100, 20, 40) == [0, 40, 80]


def test_training_windows():
    X = np.arange(2 * 3 * 10, dtype="float32").reshape(2, 3, 10)
    window, label = WindowDataset(X, torch.tensor([4, 5]), 4)[1, 3]
    np.testing.assert_array_equal(window, X[1, :, 3:7])
    assert label == 5
    sampler = RandomWindowSampler(50, 7, torch.Generator().manual_seed(0))
    epochs = [list(sampler) for _ in range(40)]
    assert all(sorted(clip for clip, _ in epoch) == list(range(50)) for epoch in epochs)
    counts = np.bincount([start for epoch in epochs for _, start in epoch])
    assert len(counts) == 7
    assert counts.min() > 0.7 * counts.max()
    assert epochs[0] != epochs[1]


def test_bin_statistics_against_numpy():
    X = np.random.default_rng(0).normal(1000, 2, size=(150, 3, 20)).astype("float32")
    X[:, 2] = 7
    mean, std = bin_statistics(X)
    np.testing.assert_allclose(mean, X.mean(axis=(0, 2), dtype=float), rtol=1e-6)
    np.testing.assert_allclose(std[:2], X[:, :2].std(axis=(0, 2), dtype=float), rtol=1e-4)
    assert std[2] == 0


def test_standardisation_makes_scale_irrelevant(clips):
    scaled = clips.copy(data=clips.values * np.float32(2**10))
    np.testing.assert_allclose(
        small().fit_transform(clips), small().fit_transform(scaled), rtol=1e-3, atol=1e-5
    )


@pytest.mark.parametrize(
    ("target", "classes"),
    [
        ("section", ["00", "01", "02"]),
        (["machine", "section"], [("fan", "00"), ("fan", "01"), ("fan", "02")]),
        (["vel"], [(1.0,), (2.0,), (None,)]),
    ],
)
def test_classes_from_columns(clips, target, classes):
    assert small(target=target, max_epochs=1).fit(clips).classes_.tolist() == classes


def test_joint_classes(clips):
    embedder = small(target="joint", max_epochs=1).fit(clips)
    assert len(embedder.classes_) == 6
    assert ("fan", "00", "source", None) in embedder.classes_.tolist()


def test_plain_arrays_take_classes_from_y(clips):
    y = clips.section.values
    bare = small().fit(clips.values, y)
    assert bare.classes_.tolist() == ["00", "01", "02"]
    np.testing.assert_array_equal(bare.transform(clips.values), small().fit_transform(clips))


def test_last_batch_of_one_window(clips):
    small(batch_size=47).fit(clips)
    small(iterator_train__batch_size=47).fit(clips)


def test_skorch_parameters_pass_through(clips):
    embedder = small(
        callbacks=[
            ("schedule", LRScheduler("StepLR", step_size=1, gamma=0.5)),
            (
                "lr",
                EpochScoring(
                    lambda net, *_: net.optimizer_.param_groups[0]["lr"], name="lr", on_train=True
                ),
            ),
        ],
        optimizer=torch.optim.SGD,
        optimizer__momentum=0.5,
        iterator_train__num_workers=1,
        callbacks__schedule__gamma=0.1,
        lr=0.1,
        max_epochs=3,
    ).fit(clips)
    np.testing.assert_allclose(embedder.net_.history[:, "lr"], [1e-2, 1e-3, 1e-4])
    assert embedder.get_params()["optimizer__momentum"] == 0.5
    embedder.set_params(optimizer__momentum=0.9, module__width=0.2, lr=0.01)
    assert embedder.get_params()["module__width"] == 0.2
    with pytest.raises(TypeError, match="unexpected keyword argument 'epochs'.*module__"):
        SectionEmbedder(epochs=3).fit(clips)


def test_loader_processes_do_not_change_the_fit(clips):
    np.testing.assert_array_equal(
        small().fit_transform(clips), small(iterator_train__num_workers=1).fit_transform(clips)
    )


def test_progress(clips, capsys):
    small(verbose=1).fit(clips)
    assert "train_loss" in capsys.readouterr().out
    small().fit(clips)
    assert capsys.readouterr().out == ""


def test_memory_mapped_features(clips, tmp_path):
    np.save(tmp_path / "x.npy", clips.values)
    mapped = clips.copy(data=np.load(tmp_path / "x.npy", mmap_mode="r"))
    np.testing.assert_array_equal(small().fit_transform(mapped), small().fit_transform(clips))


SCRIPT = """
import numpy as np
from sk_asd.embedders import SectionEmbedder
X = np.random.default_rng(0).normal(size=(20, 12, 30)).astype("float32")
e = SectionEmbedder("cnn6", n_frames=16, max_epochs=2, random_state=0,
                    module__embedding_dim=8, module__width=0.1)
print(e.fit(X, [0, 1] * 10).transform(X).tobytes().hex())
"""


@pytest.mark.slow
def test_two_processes_give_the_same_bits():
    runs = [
        subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    assert runs[0].stdout == runs[1].stdout
    assert len(runs[0].stdout) > 1000


def test_seeds_differ(clips):
    assert not np.allclose(small().fit_transform(clips), small(random_state=1).fit_transform(clips))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda(clips):
    fitted = small(device="cuda", max_epochs=12).fit(clips)
    assert next(fitted.net_.module_.parameters()).device.type == "cpu"
    on_cpu = fitted.set_params(device="cpu").transform(clips)
    np.testing.assert_allclose(fitted.set_params(device="cuda").transform(clips), on_cpu, atol=1e-3)


def test_missing_attributes_beside_y(clips):
    """y is for scoring where labels are columns, whatever these hold."""
    y = np.ones(48)
    assert len(small(target="joint", max_epochs=1).fit(clips, y).classes_) == 6


def test_interrupted_training_is_no_fit(clips):
    class Interrupt(Callback):
        def on_batch_end(self, net, **kwargs):
            raise KeyboardInterrupt

    embedder = small(callbacks=[("interrupt", Interrupt())])
    with pytest.raises(KeyboardInterrupt):
        embedder.fit(clips)
    assert not hasattr(embedder, "net_")


def test_early_stopping(clips):
    stop = EarlyStopping("train_loss", patience=1, threshold=1e6, threshold_mode="abs")
    embedder = small(callbacks=[("stop", stop)], max_epochs=50).fit(clips)
    assert len(embedder.net_.history) < 10


def test_pickle_holds_the_weights_once(clips):
    schedule = LRScheduler("StepLR", step_size=1)
    embedder = small(callbacks=[("schedule", schedule)]).fit(clips)
    weights = sum(t.nbytes for t in embedder.net_.module_.state_dict().values())
    assert len(pickle.dumps(embedder)) < 1.5 * weights + 50_000
    assert not hasattr(schedule, "lr_scheduler_")


class TestErrors:
    def test_device(self, clips):
        with pytest.raises(ValueError, match="device='meteor' cannot be used"):
            small(device="meteor").fit(clips)
        embedder = small().fit(clips).set_params(device="meteor")
        with pytest.warns(UserWarning, match="device='meteor' cannot be used, computing on the"):
            embedder.transform(clips)

    def test_order_of_windows(self, clips):
        with pytest.raises(ValueError, match="iterator_train__shuffle cannot be set"):
            small(iterator_train__shuffle=True).fit(clips)

    def test_clip_shorter_than_one_window(self, clips):
        with pytest.raises(
            ValueError, match="have 30 frames, fewer than one window of n_frames=50"
        ):
            small(n_frames=50).fit(clips)
        with pytest.raises(
            ValueError, match="have 10 frames, fewer than one window of n_frames=16"
        ):
            small().fit(clips).transform(clips[:, :, :10])

    def test_one_class(self, clips):
        with pytest.raises(ValueError, match=r"Found 1 class, 'fan', in the target 'machine'"):
            small(target="machine").fit(clips)

    def test_missing_column(self, clips):
        with pytest.raises(
            ValueError, match=r"needs the column 'pat' among the labels.*\['machine'"
        ):
            small(target=["section", "pat"]).fit(clips)

    def test_no_column(self, clips):
        with pytest.raises(ValueError, match=r"target=\[\] has no columns that describe the clips"):
            small(target=[]).fit(clips)

    def test_missing_value(self, clips):
        with pytest.raises(ValueError, match="'vel' has no value for 16 of 48 clips"):
            small(target="vel").fit(clips)

    def test_no_classes(self, clips):
        with pytest.raises(ValueError, match="requires y to be passed"):
            small().fit(clips.values)
        with pytest.raises(ValueError, match="Found 48 clips but 3 class labels"):
            small().fit(clips.values, [0, 1, 2])

    def test_clip_table(self):
        with pytest.raises(ValueError, match="not a clip table: put a feature extractor"):
            small().fit(pd.DataFrame({"path": ["a.wav", "b.wav"]}))

    def test_divergence(self, clips):
        with pytest.raises(ValueError, match="Training diverged: the loss of epoch"):
            small(optimizer=torch.optim.SGD, lr=1e30, max_epochs=3).fit(clips)

    def test_parameters_of_an_instance(self, clips):
        with pytest.raises(ValueError, match="need a backbone given by name or as a class"):
            SectionEmbedder(Tiny(), n_frames=16, module__dim=3).fit(clips)

    def test_network_without_embeddings(self, clips):
        with pytest.raises(ValueError, match=r"shape \(batch, embedding_dim\), got \(1, 12, 16\)"):
            SectionEmbedder(nn.Identity(), n_frames=16).fit(clips)

    def test_unknown_backbone(self, clips):
        with pytest.raises(ValueError, match="'backbone' parameter .*cnn6.* Got 'resnet'"):
            SectionEmbedder("resnet").fit(clips)
