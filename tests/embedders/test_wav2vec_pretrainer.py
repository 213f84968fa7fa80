"""Wav2VecPretrainer: learns, follows its schedule, stops, resumes bit for bit, and saves."""

import math
import pickle
import time

import numpy as np
import pandas as pd
import pytest
import torch
from skorch.callbacks import Callback, EarlyStopping

from sk_asd.datasets._audio import write_audio
from sk_asd.embedders import Wav2VecPretrainer
from sk_asd.embedders._wav2vec_training import CropBatches, Updates, learning_rate
from sk_asd.features import Wav2Vec
from sk_asd.networks import Wav2Vec1

SR = 16000


def tiny(**params):
    """A network of a few hundred weights: receptive field 16, hop 8."""
    defaults = {
        "max_updates": 6,
        "checkpoint_every": 2,
        "batch_size": 4,
        "max_samples": 400,
        "warmup": 2,
        "random_state": 0,
        "module__channels": 8,
        "module__encoder": [(16, 8)],
        "module__aggregator": [2, 3],
        "module__n_steps": 2,
    }
    return Wav2VecPretrainer(**{**defaults, **params})


def tones(n_clips, n_samples=960, seed=0):
    """Clips of six tones each: a frame sounds like its neighbours and unlike most others."""
    rng = np.random.default_rng(seed)
    pitch = rng.uniform(0.05, 0.45, (n_clips, 6)).repeat(n_samples // 6, axis=1)
    return np.sin(2 * math.pi * pitch.cumsum(axis=1)).astype(np.float32)


@pytest.fixture(scope="module")
def waves():
    return tones(10)


def weights(pretrainer):
    return torch.cat([p.detach().flatten() for p in pretrainer.net_.module_.parameters()])


def test_learns_what_can_be_predicted():
    fitted = tiny(
        loss__infonce=True,
        max_updates=150,
        checkpoint_every=50,
        batch_size=8,
        max_samples=480,
        lr=1e-2,
        warmup=10,
        validation_fraction=0.2,
    ).fit(tones(100, 480))
    history = fitted.net_.history
    assert history[:, "update"] == [50, 100, 150]
    assert history[-1, "train_loss"] < history[0, "train_loss"]
    assert history[-1, "valid_loss"] < history[0, "valid_loss"]
    assert fitted.accuracy_ == history[-1, "valid_accuracy"]
    assert fitted.accuracy_ > 2 / 11
    assert fitted.stop_reason_ == "max_updates"


def test_learning_rate():
    """The schedule of the report."""
    rate = {"warmup": 500, "lr": 5e-3, "max_updates": 1500}
    assert learning_rate(0, **rate) == 1e-7
    assert learning_rate(250, **rate) == pytest.approx((1e-7 + 5e-3) / 2)
    assert learning_rate(500, **rate) == 5e-3
    assert learning_rate(1000, **rate) == pytest.approx((5e-3 + 1e-6) / 2)
    assert learning_rate(1500, **rate) == pytest.approx(1e-6)
    assert learning_rate(0, **{**rate, "warmup": 0}) == 5e-3


def test_every_update_has_its_learning_rate(waves):
    rates = []

    class Watch(Callback):
        def on_batch_end(self, net, training=False, **kwargs):
            if training:
                rates.append(net.optimizer_.param_groups[0]["lr"])

    fitted = tiny(callbacks=[("watch", Watch())]).fit(waves)
    schedule = {"warmup": 2, "lr": 5e-3, "max_updates": 6}
    assert rates == [learning_rate(i, **schedule) for i in range(6)]
    assert fitted.net_.history[:, "lr"] == rates[1::2]
    assert fitted.n_updates_ == 6


def test_transform_is_that_of_the_file(waves, tmp_path):
    fitted = tiny().fit(waves)
    path = tmp_path / "deep" / "model.safetensors"
    fitted.save(path)
    features = fitted.transform(waves)
    assert features.shape == (10, 8, 119)
    np.testing.assert_array_equal(features, Wav2Vec(path).fit_transform(waves))
    fitted.save(path, half=True)
    np.testing.assert_allclose(features, Wav2Vec(path).fit_transform(waves), atol=0.02)
    assert [p.name for p in path.parent.iterdir()] == ["model.safetensors"]


def test_sizes():
    counts = {}
    for size in ("small", "large"):
        with torch.device("meta"):
            params = Wav2VecPretrainer(size)
            network = Wav2Vec1(channels={"small": 128, "large": 512}[size])
        counts[params.size] = sum(p.numel() for p in network.parameters())
    assert counts["small"] * 2 < 5e6  # bytes in float16
    assert counts["large"] == 5_779_456 + 23_611_392 + 3_146_240
    fitted = Wav2VecPretrainer(max_updates=1, batch_size=1, random_state=0)
    fitted.fit(np.random.default_rng(0).normal(size=(2, 2000)))
    assert fitted.network_.network.config == Wav2Vec1(128).config


def test_clips_of_files_of_any_length(tmp_path):
    rng = np.random.default_rng(0)
    paths = []
    for i, length in enumerate((900, 300, 2000, 1500, 700)):
        paths.append(str(tmp_path / f"{i}.wav"))
        write_audio(paths[-1], rng.uniform(-0.5, 0.5, length), SR, subtype="FLOAT")
    clips = pd.DataFrame({"path": paths, "section": "00"})
    fitted = tiny().fit(clips)
    audio = clips.assign(audio=[rng.uniform(size=3)] * 5)
    assert fitted.n_samples_ == 900
    features = fitted.transform(clips[:1])
    assert features.dims == ("clip", "channel", "frame")
    assert features.section.values.tolist() == ["00"]
    with pytest.raises(ValueError, match=r"1\.wav: the clip has 300 samples .* expected 900"):
        fitted.transform(clips)
    # Sound from memory gives the very same training.
    from sk_asd.datasets._audio import read_audio

    audio["audio"] = [read_audio(path)[0] for path in paths]
    assert torch.equal(weights(fitted), weights(tiny().fit(audio)))


def test_resampled_clips(waves):
    table = pd.DataFrame({"audio": list(waves), "sr": [SR] * 9 + [8000]})
    with pytest.raises(ValueError, match="Row 9, .* sample rate 8000 Hz, expected sr=16000"):
        tiny().fit(table)
    assert tiny(on_rate="resample").fit(table).n_updates_ == 6


def batches(lengths, n_batches, held_out=False, **params):
    def read(row, start, length):
        assert 0 <= start <= lengths[row] - length
        return np.arange(start, start + length, dtype=np.float32) + 10000 * row

    with torch.device("meta"):
        network = Wav2Vec1(2, encoder=[(16, 8)])
    rows = np.flatnonzero(lengths)
    data = CropBatches(
        read,
        rows,
        lengths[rows],
        network,
        **{"batch_size": 4, "max_samples": 100, "n_negatives": 3, "seed": 0, **params},
        held_out=held_out,
    )
    return [data[i][0] for i in range(n_batches or len(data))]


def test_training_batches():
    lengths = np.array([200, 150, 0, 90, 120, 100, 300, 80])  # clip 2 is not of the set
    found = batches(lengths, 60, batch_size=3)
    clips = np.array([b["waveform"][:, 0].numpy() // 10000 for b in found])
    # Six of seven clips before a new order is drawn, none of them twice.
    assert all(len(set(pair.ravel())) == 6 for pair in clips.reshape(-1, 2, 3))
    assert set(clips.ravel()) == {0, 1, 3, 4, 5, 6, 7}
    for batch, rows in zip(found, clips.astype(int)):
        length = min(100, *lengths[rows])
        assert batch["waveform"].shape == (3, length)
        assert batch["negatives"].shape == (3, 3, (length - 16) // 8 + 1)
    starts = [s for b in found for s in (b["waveform"][:, 0] % 10000).tolist()]
    assert len(set(starts)) > 40
    again, other = batches(lengths, 60, batch_size=3), batches(lengths, 60, batch_size=3, seed=1)
    assert all(torch.equal(a["negatives"], b["negatives"]) for a, b in zip(found, again))
    assert all(torch.equal(a["waveform"], b["waveform"]) for a, b in zip(found, again))
    assert not torch.equal(found[0]["waveform"], other[0]["waveform"])


def test_held_out_batches():
    lengths = np.array([200, 150, 90, 120, 100, 300])
    first, second = batches(lengths, None, held_out=True)
    assert first["waveform"][:, 0].tolist() == [55, 10030, 20000, 30015]
    assert second["waveform"][:, 0].tolist() == [40000, 50100]


def test_numbers_of_updates():
    updates = Updates(every=4, total=10)
    assert updates.rows_left() == 3
    rows = []
    while updates.rows_left():
        rows.append(list(updates))
        updates.done += len(rows[-1])
    assert rows == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    updates.done = 6  # stopped within a row
    assert list(updates) == [6, 7]
    assert updates.rows_left() == 2


class StopAt(Callback):
    """Ctrl-C at an update."""

    def __init__(self, update):
        self.update = update

    def on_batch_begin(self, net, training=False, **kwargs):
        if training and net.updates.done == self.update:
            raise KeyboardInterrupt


def same_history(first, second):
    names = ("update", "lr", "train_loss", "train_accuracy", "valid_loss", "valid_accuracy")
    return first.net_.history[:, names] == second.net_.history[:, names]


@pytest.mark.parametrize("seed", [0, None])
def test_resumed_after_an_interruption(waves, tmp_path, seed):
    """The weights are those of a training without interruption, bit for bit."""
    path = tmp_path / "training.pt"
    interrupted = tiny(checkpoint=path, callbacks=[("stop", StopAt(5))], random_state=seed)
    with pytest.raises(KeyboardInterrupt):
        interrupted.fit(waves)
    assert not hasattr(interrupted, "net_")
    contents = torch.load(path, weights_only=True)
    assert contents["update"] == 4
    resumed = tiny(checkpoint=str(path), random_state=seed).fit(waves)
    assert resumed.n_updates_ == 6
    if seed is None:
        assert torch.load(path, weights_only=True)["seed"] == contents["seed"]
        return
    whole = tiny().fit(waves)
    assert torch.equal(weights(resumed), weights(whole))
    assert same_history(resumed, whole)
    np.testing.assert_array_equal(resumed.transform(waves), whole.transform(waves))
    # A finished training is read back.
    assert torch.equal(weights(tiny(checkpoint=path).fit(waves)), weights(whole))
    assert [p.name for p in tmp_path.iterdir()] == ["training.pt"]


class Slow(Callback):
    """Lets time pass at an update."""

    def __init__(self, update, seconds):
        self.update = update
        self.seconds = seconds

    def on_batch_end(self, net, training=False, **kwargs):
        if training and net.updates.done == self.update:
            time.sleep(self.seconds)


def test_time_is_up(waves, tmp_path):
    path = tmp_path / "training.pt"
    slow = [("slow", Slow(3, 1.5))]
    stopped = tiny(checkpoint=path, max_time=1.5, callbacks=slow).fit(waves)
    assert stopped.stop_reason_ == "max_time"
    assert stopped.n_updates_ <= 3
    assert stopped.net_.history[-1, "update"] == stopped.n_updates_
    assert np.isfinite(stopped.accuracy_)
    assert stopped.transform(waves).shape == (10, 8, 119)
    resumed = tiny(checkpoint=path).fit(waves)
    assert resumed.stop_reason_ == "max_updates"
    assert torch.equal(weights(resumed), weights(tiny().fit(waves)))


def test_same_seed_same_bits(waves):
    first = tiny().fit(waves)
    assert torch.equal(weights(first), weights(tiny().fit(waves)))
    assert torch.equal(weights(first), weights(tiny(checkpoint_every=4).fit(waves)))
    with_loader = tiny(iterator_train__num_workers=1).fit(waves)
    assert torch.equal(weights(first), weights(with_loader))
    assert not torch.equal(weights(first), weights(tiny(random_state=1).fit(waves)))


def test_without_held_out_clips(waves):
    fitted = tiny(validation_fraction=0).fit(waves)
    assert np.isnan(fitted.accuracy_)
    assert "valid_loss" not in fitted.net_.history[-1]
    fitted = tiny(validation_fraction=0, batch_size=100).fit(waves[:1])
    assert fitted.n_updates_ == 6


def test_skorch_parameters_pass_through(waves):
    fitted = tiny(
        max_updates=20,
        callbacks=[("stop", EarlyStopping("valid_loss", patience=1, threshold=1e6))],
        optimizer=torch.optim.SGD,
        optimizer__momentum=0.5,
        lr=1e-3,
    ).fit(waves)
    assert fitted.stop_reason_ == "callback"
    assert fitted.n_updates_ < 20
    assert fitted.get_params()["optimizer__momentum"] == 0.5
    with pytest.raises(TypeError, match="unexpected keyword argument 'channels'.*module__"):
        Wav2VecPretrainer(channels=3).fit(waves)


def test_pickle_holds_neither_clips_nor_optimizer(waves):
    fitted = tiny().fit(np.tile(waves, 40))
    size = len(pickle.dumps(fitted))
    assert size < 4 * weights(fitted).numel() + 60_000 < waves.nbytes * 40


def test_progress(waves, capsys):
    tiny(verbose=1).fit(waves)
    assert "valid_accuracy" in capsys.readouterr().out
    tiny().fit(waves)
    assert capsys.readouterr().out == ""


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda(waves, tmp_path):
    for mixed in (False, True):
        fitted = tiny(device="cuda", mixed_precision=mixed, checkpoint=tmp_path / f"{mixed}.pt")
        fitted.fit(waves)
        assert next(fitted.net_.module_.parameters()).device.type == "cpu"
        assert fitted.set_params(device="cpu").transform(waves).shape == (10, 8, 119)


def test_mixed_precision(waves):
    fitted = tiny(mixed_precision=True).fit(waves)
    assert np.isfinite(fitted.net_.history[-1, "train_loss"])
    assert not torch.equal(weights(fitted), weights(tiny().fit(waves)))


class TestErrors:
    def test_divergence(self, waves):
        with pytest.raises(ValueError, match="Training diverged: the loss"):
            tiny(optimizer=torch.optim.SGD, lr=1e30, warmup=0).fit(waves)

    def test_short_clips(self, waves):
        with pytest.raises(ValueError, match="with 20 feature.* while a minimum of 32 is required"):
            tiny().fit(waves[:, :20])
        table = pd.DataFrame({"audio": [*waves[:3], waves[3, :31]]})
        with pytest.raises(
            ValueError, match="Row 3, column 'audio': the clip has 31 samples, expected at least 32"
        ):
            tiny().fit(table)
        with pytest.raises(ValueError, match="max_samples=31 are too few: expected at least 32"):
            tiny(max_samples=31).fit(waves)

    def test_one_clip(self, waves):
        with pytest.raises(ValueError, match="1 sample"):
            tiny().fit(waves[:1])
        with pytest.raises(ValueError, match="Found 1 clip, expected at least 2 since validation_"):
            tiny().fit(pd.DataFrame({"audio": [waves[0]]}))

    def test_samples_that_are_no_numbers(self, waves):
        bad = waves.copy()
        bad[3, 400:500] = np.nan
        with pytest.raises(ValueError, match="Row 3, column 'audio': the clip contains NaN"):
            tiny(max_samples=960, batch_size=9).fit(pd.DataFrame({"audio": list(bad)}))

    def test_checkpoint_of_another_training(self, waves, tmp_path):
        path = tmp_path / "training.pt"
        tiny(checkpoint=path).fit(waves)
        for params, match in (
            ({"lr": 1e-3}, r"lr \(0.005 there, 0.001 here\)"),
            ({"random_state": 1}, "random_state"),
            ({"module__channels": 4}, "network .*'channels': 8.* there, .*'channels': 4"),
        ):
            with pytest.raises(ValueError, match=f"training.pt' is of a training with.*{match}"):
                tiny(checkpoint=path, **params).fit(waves)
        with pytest.raises(ValueError, match="other settings: clips"):
            tiny(checkpoint=path).fit(waves[:9])

    def test_broken_checkpoint(self, waves, tmp_path):
        path = tmp_path / "training.pt"
        tiny(checkpoint=path).fit(waves)
        path.write_bytes(path.read_bytes()[:500])
        with pytest.raises(ValueError, match=r"training\.pt' is truncated or no checkpoint"):
            tiny(checkpoint=path).fit(waves)
        torch.save({"model": 1}, path)
        with pytest.raises(ValueError, match=r"training\.pt' was not written by Wav2VecPretrainer"):
            tiny(checkpoint=path).fit(waves)
        with pytest.raises(FileNotFoundError, match="nowhere.* there is no such folder"):
            tiny(checkpoint=tmp_path / "nowhere" / "training.pt").fit(waves)

    def test_parameters(self, waves, tmp_path):
        with pytest.raises(ValueError, match="'size' parameter .* Got 'medium'"):
            tiny(size="medium").fit(waves)
        with pytest.raises(ValueError, match="iterator_train__shuffle cannot be set"):
            tiny(iterator_train__shuffle=True).fit(waves)
        with pytest.raises(ValueError, match=r"must end in '\.safetensors', got '.*model\.pt'"):
            tiny().fit(waves).save(tmp_path / "model.pt")
