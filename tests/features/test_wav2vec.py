"""Wav2Vec: models of every kind, what is refused, features of whole clips."""

import argparse
import json
import os
import pickle
import sys

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from safetensors.torch import load_file, save_file

from sk_asd.datasets._audio import write_audio
from sk_asd.features import Wav2Vec
from sk_asd.features._wav2vec_files import write_safetensors
from sk_asd.features._wav2vec_models import SMALL
from sk_asd.networks import Wav2Vec1

SR = 16000


@pytest.fixture(scope="module")
def waves():
    return np.random.default_rng(0).uniform(-0.5, 0.5, size=(12, 2000)).astype(np.float32)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return Wav2Vec1(6, aggregator=[2, 3], n_steps=4).eval()


@pytest.fixture(scope="module")
def expected(network, waves):
    with torch.inference_mode():
        return [x.numpy() for x in network(torch.from_numpy(waves))]


def close(features, expected):
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)


class TestFeatures:
    def test_are_those_of_the_network(self, network, waves, expected):
        close(Wav2Vec(network).fit_transform(waves), expected[1])
        close(Wav2Vec(network, features="encoder").fit_transform(waves), expected[0])

    def test_labels(self, network, waves, expected, tmp_path):
        paths = [tmp_path / f"{i}.wav" for i in range(len(waves))]
        for path, wave in zip(paths, waves):
            write_audio(path, wave, SR, subtype="FLOAT")
        clips = pd.DataFrame({"path": [str(p) for p in paths], "section": ["00", "01"] * 6})
        features = Wav2Vec(network).fit_transform(clips)
        assert isinstance(features, xr.DataArray)
        assert features.dims == ("clip", "channel", "frame")
        assert features.dtype == np.float32
        assert features.section.values.tolist() == clips["section"].tolist()
        # Frame 2 sees samples 320 to 784.
        assert features.frame.values[2] == pytest.approx((320 + 784) / 2 / SR)
        assert len(features.frame) == (2000 - 465) // 160 + 1
        close(features.values, expected[1])
        audio = pd.DataFrame({"audio": list(waves), "section": "00"})
        np.testing.assert_array_equal(Wav2Vec(network).fit_transform(audio), features)

    def test_clips_do_not_depend_on_each_other_nor_on_threads(self, network, waves):
        all_at_once = Wav2Vec(network, n_jobs=1).fit_transform(waves)
        extractor = Wav2Vec(network, n_jobs=2).fit(waves)
        np.testing.assert_array_equal(extractor.transform(waves), all_at_once)
        np.testing.assert_array_equal(extractor.transform(waves[7:8]), all_at_once[7:8])

    def test_user_network_is_left_alone(self, waves):
        own = Wav2Vec1(4)
        before = {name: value.clone() for name, value in own.state_dict().items()}
        extractor = Wav2Vec(own).fit(waves)
        assert own.training
        assert all(p.requires_grad for p in own.parameters())
        assert all(torch.equal(before[n], v) for n, v in own.state_dict().items())
        assert not extractor.network_.training

    def test_lengths_and_rates(self, network, waves):
        table = pd.DataFrame({"audio": [waves[0], np.r_[waves[1], waves[2]]], "sr": SR})
        found = Wav2Vec(network, on_length="crop").fit_transform(table)
        np.testing.assert_array_equal(found.values, Wav2Vec(network).fit_transform(waves[:2]))
        with pytest.raises(ValueError, match=r"Row 1, column 'audio': the clip has 4000 samples"):
            Wav2Vec(network).fit_transform(table)
        half = table.assign(sr=8000)
        with pytest.raises(ValueError, match="sample rate 8000 Hz, expected sr=16000 Hz"):
            Wav2Vec(network).fit(half)
        resampled = Wav2Vec(network, on_rate="resample", on_length="crop").fit(half)
        assert resampled.n_samples_ == 4000

    def test_short_clips(self, network, waves):
        with pytest.raises(
            ValueError,
            match=r"Row 0: the clip has 464 samples, shorter than the receptive field of the "
            r"network, 465 samples \(0.02906 s",
        ):
            Wav2Vec(network).fit(waves[:, :464])
        with pytest.raises(ValueError, match=r"duration=0\.02 s are 320 samples, shorter than"):
            Wav2Vec(network, duration=0.02).fit(waves)
        assert Wav2Vec(network).fit_transform(waves[:, :465]).shape == (12, 6, 1)

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    def test_cuda(self, network, waves, expected):
        extractor = Wav2Vec(network, device="cuda").fit(waves)
        np.testing.assert_allclose(extractor.transform(waves), expected[1], atol=1e-3)
        assert next(extractor.network_.parameters()).device.type == "cpu"

    def test_pickle(self, network, waves):
        extractor = Wav2Vec(network).fit(waves)
        again = pickle.loads(pickle.dumps(extractor))
        np.testing.assert_array_equal(again.transform(waves), extractor.transform(waves))


class TestCache:
    def test_key_holds_the_weights(self, network, waves, tmp_path):
        cache, path = tmp_path / "cache", tmp_path / "model.safetensors"
        write_safetensors(network, path, sr=SR)
        by_name = Wav2Vec(path, cache_dir=cache).fit(waves)
        first = by_name.transform(waves)
        assert isinstance(first.base, np.memmap)
        np.testing.assert_array_equal(first, Wav2Vec(network).fit_transform(waves))
        # The same weights have the same file, wherever they come from and with other threads.
        Wav2Vec(network, cache_dir=cache, n_jobs=1).fit_transform(waves)
        assert len(list(cache.iterdir())) == 1
        Wav2Vec(path, features="encoder", cache_dir=cache).fit_transform(waves)
        Wav2Vec(path, duration=0.1, on_length="crop", cache_dir=cache).fit_transform(waves)
        assert len(list(cache.iterdir())) == 3
        # Another model under the same name has another.
        torch.manual_seed(1)
        write_safetensors(Wav2Vec1(6, aggregator=[2, 3], n_steps=4), path, sr=SR)
        second = Wav2Vec(path, cache_dir=cache).fit_transform(waves)
        assert len(list(cache.iterdir())) == 4
        assert not np.allclose(first, second)
        np.testing.assert_array_equal(by_name.transform(waves), first)

    def test_configuration_is_part_of_the_key(self, network, waves, tmp_path):
        other = Wav2Vec1(**{**network.config, "residual_scale": 0.7})
        other.load_state_dict(network.state_dict())
        for model in (network, other):
            Wav2Vec(model, cache_dir=tmp_path).fit_transform(waves)
        assert len(list(tmp_path.iterdir())) == 2


class TestSafetensors:
    def test_half(self, network, waves, expected, tmp_path):
        path = tmp_path / "model.safetensors"
        write_safetensors(network, path, sr=SR, half=True, note="a note")
        assert {t.dtype for t in load_file(path).values()} == {torch.float16}
        features = Wav2Vec(str(path)).fit_transform(waves)
        assert features.dtype == np.float32
        np.testing.assert_allclose(features, expected[1], atol=0.01)

    def test_packaged_model(self, waves):
        assert SMALL.stat().st_size <= 5e6
        extractor = Wav2Vec().fit(waves)
        features = extractor.transform(waves)
        assert features.shape == (12, 128, 10)
        assert np.isfinite(features).all()
        assert features.std(axis=(0, 2)).min() >= 0
        assert (features.std(axis=(0, 2)) > 1e-3).mean() > 0.5
        network = extractor.network_.network
        assert network.config == Wav2Vec1(128).config

    def test_rate_of_the_model(self, network, waves, tmp_path):
        write_safetensors(network, tmp_path / "m.safetensors", sr=8000)
        with pytest.raises(ValueError, match=r"m\.safetensors' was trained at 8000 Hz, found sr=1"):
            Wav2Vec(tmp_path / "m.safetensors").fit(waves)
        Wav2Vec(tmp_path / "m.safetensors", sr=8000).fit(waves)

    def test_missing(self, waves, tmp_path):
        for name in ("gone.safetensors", "gone.pt"):
            with pytest.raises(FileNotFoundError, match=rf"No such model file: .*{name}"):
                Wav2Vec(str(tmp_path / name)).fit(waves)

    def test_truncated(self, network, waves, tmp_path):
        path = tmp_path / "m.safetensors"
        write_safetensors(network, path, sr=SR)
        for size in (path.stat().st_size - 100, 20, 0):
            os.truncate(path, size)
            with pytest.raises(ValueError, match=rf"m\.safetensors is truncated .*\({size} bytes"):
                Wav2Vec(path).fit(waves)

    def test_of_another_program(self, waves, tmp_path):
        path = tmp_path / "m.safetensors"
        save_file({"a": torch.zeros(3)}, path)
        with pytest.raises(ValueError, match=r"no configuration 'sk_asd.Wav2Vec1' in its metadata"):
            Wav2Vec(path).fit(waves)
        config = json.dumps({"config": {"channels": 3, "depth": 2}, "sr": SR})
        save_file({"a": torch.zeros(3)}, path, {"sk_asd.Wav2Vec1": config})
        with pytest.raises(
            ValueError, match="the configuration 'sk_asd.Wav2Vec1' is wrong: .*dept"
        ):
            Wav2Vec(path).fit(waves)

    def test_keys_and_shapes(self, network, waves, tmp_path):
        path = tmp_path / "m.safetensors"
        write_safetensors(network, path, sr=SR)
        weights = load_file(path)
        del weights["encoder.0.conv.weight"]
        weights["extra"] = torch.zeros(1)
        weights["encoder.1.norm.bias"] = torch.zeros(5)
        config = json.dumps({"config": network.config, "sr": SR})
        save_file(weights, path, {"sk_asd.Wav2Vec1": config})
        with pytest.raises(
            ValueError,
            match=r"1 missing: encoder\.0\.conv\.weight; 1 unexpected: extra; 1 of other shape: "
            r"encoder\.1\.norm\.bias \(5,\) instead of \(6,\)",
        ):
            Wav2Vec(path).fit(waves)


def fairseq_state(network):
    names = network.fairseq_names()
    return {names[own]: value.clone() for own, value in network.state_dict().items()}


def fairseq_settings(**changed):
    """Arguments of the command that trained "wav2vec large", with fewer channels."""
    encoder = [(6, k, s) for k, s in ((10, 5), (8, 4), (4, 2), (4, 2), (4, 2), (1, 1), (1, 1))]
    return {
        "arch": "wav2vec",
        "conv_feature_layers": str(encoder),
        "conv_aggregator_layers": "[(6, 2, 1), (6, 3, 1)]",
        "skip_connections_feat": False,
        "skip_connections_agg": True,
        "residual_scale": 0.5,
        "log_compression": True,
        "prediction_steps": 4,
        "activation": "relu",
        "aggregator": "cnn",
        "agg_zero_pad": False,
        "vq_type": "none",
        **changed,
    }


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


class TestFairseq:
    @pytest.fixture
    def path(self, tmp_path):
        return tmp_path / "wav2vec.pt"

    @pytest.mark.parametrize("zipped", [True, False])
    @pytest.mark.parametrize("flavour", ["args", "cfg", "cfg-namespace", "none"])
    def test_equals_the_module_it_was_saved_from(
        self, network, waves, expected, path, flavour, zipped
    ):
        settings = fairseq_settings()
        contents = {
            "args": {"args": argparse.Namespace(**settings)},
            "cfg": {"args": None, "cfg": {"_name": None, "model": settings, "task": {}}},
            "cfg-namespace": {"cfg": {"model": argparse.Namespace(**settings)}},
            "none": {"args": None},
        }[flavour]
        contents = {**contents, "model": fairseq_state(network), "extra_state": {"epoch": 3}}
        torch.save(contents, path, _use_new_zipfile_serialization=zipped)
        close(Wav2Vec(path).fit_transform(waves), expected[1])
        close(Wav2Vec(path, features="encoder").fit_transform(waves), expected[0])

    def test_settings_are_followed(self, network, waves, path):
        changed = {"residual_scale": 0.3, "log_compression": False}
        torch.save(
            {
                "args": argparse.Namespace(**fairseq_settings(**changed)),
                "model": fairseq_state(network),
            },
            path,
        )
        other = Wav2Vec1(**{**network.config, **changed}).eval()
        other.load_state_dict(network.state_dict())
        with torch.inference_mode():
            close(Wav2Vec(path).fit_transform(waves), other(torch.from_numpy(waves))[1].numpy())
        network_without = fairseq_settings(skip_connections_agg=False)
        torch.save({"cfg": {"model": network_without}, "model": fairseq_state(network)}, path)
        assert Wav2Vec(path).fit(waves).network_.network.residual_scale is None

    @pytest.mark.parametrize("zipped", [True, False])
    def test_code_is_refused(self, network, waves, path, tmp_path, zipped):
        trace = tmp_path / "trace"
        contents = {"args": Evil(f"touch {trace}"), "model": fairseq_state(network)}
        torch.save(contents, path, _use_new_zipfile_serialization=zipped)
        with pytest.raises(
            ValueError, match=r"wav2vec\.pt is refused: .* asks for (posix|nt)\.system, which could"
        ):
            Wav2Vec(path).fit(waves)
        assert not trace.exists()

    @pytest.mark.filterwarnings("ignore:Detected pickle protocol 4:UserWarning")
    @pytest.mark.parametrize("protocol", [2, 4])
    def test_bare_pickle_with_code_is_refused(self, waves, path, tmp_path, protocol):
        trace = tmp_path / "trace"
        path.write_bytes(pickle.dumps(Evil(f"touch {trace}"), protocol=protocol))
        with pytest.raises(
            ValueError, match=r"wav2vec\.pt is (refused|truncated or no checkpoint)"
        ):
            Wav2Vec(path).fit(waves)
        assert not trace.exists()

    @pytest.mark.parametrize("zipped", [True, False])
    def test_objects_of_the_trainer_do_no_harm(
        self, network, waves, expected, path, tmp_path, zipped, monkeypatch
    ):
        """Old checkpoints hold meters of fairseq; here a module of that name would write a file."""
        trace = tmp_path / "trace"
        meters = type(sys)("fairseq.meters")
        exec(
            "class AverageMeter:\n"
            "    def __init__(self): self.sum = 3.0\n"
            f"    def __setstate__(self, state): open({str(trace)!r}, 'w').close()\n",
            meters.__dict__,
        )
        meters.AverageMeter.__module__ = "fairseq.meters"
        monkeypatch.setitem(sys.modules, "fairseq", type(sys)("fairseq"))
        monkeypatch.setitem(sys.modules, "fairseq.meters", meters)
        contents = {
            "args": argparse.Namespace(**fairseq_settings()),
            "model": fairseq_state(network),
            "extra_state": {"train_meters": [meters.AverageMeter()]},
        }
        torch.save(contents, path, _use_new_zipfile_serialization=zipped)
        close(Wav2Vec(path).fit_transform(waves), expected[1])
        assert not trace.exists()

    @pytest.mark.parametrize("zipped", [True, False])
    def test_truncated(self, network, waves, path, zipped):
        contents = {"model": fairseq_state(network)}
        torch.save(contents, path, _use_new_zipfile_serialization=zipped)
        for size in (path.stat().st_size - 200, 300, 0):
            os.truncate(path, size)
            with pytest.raises(
                ValueError, match=rf"wav2vec\.pt is truncated or no checkpoint .*\({size} bytes"
            ):
                Wav2Vec(path).fit(waves)

    def test_no_checkpoint(self, waves, path):
        torch.save({"weights": torch.zeros(3)}, path)
        with pytest.raises(ValueError, match=r"no checkpoint of fairseq.* found \['weights'\]"):
            Wav2Vec(path).fit(waves)
        path.write_text("this is no checkpoint")
        with pytest.raises(ValueError, match="truncated or no checkpoint of torch"):
            Wav2Vec(path).fit(waves)

    def test_another_architecture(self, network, waves, path):
        torch.save({"model": {"encoder.layers.0.fc1.weight": torch.zeros(3, 3)}}, path)
        with pytest.raises(
            ValueError, match="another architecture: it has no weights .*fc1.weight"
        ):
            Wav2Vec(path).fit(waves)
        for name, value in (("aggregator", "gru"), ("vq_type", "gumbel"), ("agg_zero_pad", True)):
            settings = argparse.Namespace(**fairseq_settings(**{name: value}))
            torch.save({"args": settings, "model": fairseq_state(network)}, path)
            with pytest.raises(ValueError, match=f"another architecture: {name}={value!r}"):
                Wav2Vec(path).fit(waves)
        for layers in ("[(6, 2, 2), (6, 3, 1)]", "[(6, 2, 1), (7, 3, 1)]"):
            settings = fairseq_settings(conv_aggregator_layers=layers)
            torch.save({"cfg": {"model": settings}, "model": fairseq_state(network)}, path)
            with pytest.raises(ValueError, match="layers of one width and an aggregator of stride"):
                Wav2Vec(path).fit(waves)
        settings = fairseq_settings(conv_aggregator_layers="exit()")
        torch.save({"cfg": {"model": settings}, "model": fairseq_state(network)}, path)
        with pytest.raises(ValueError, match=r"conv_aggregator_layers .* found 'exit\(\)'"):
            Wav2Vec(path).fit(waves)

    def test_keys_and_shapes(self, network, waves, path):
        settings = fairseq_settings(conv_aggregator_layers="[(6, 2, 1), (6, 4, 1), (6, 5, 1)]")
        state = {**fairseq_state(network), "quantizer.weight": torch.zeros(2)}
        torch.save({"args": argparse.Namespace(**settings), "model": state}, path)
        with pytest.raises(
            ValueError,
            match=r"4 missing: feature_aggregator\.conv_layers\.2\.1\.weight.*; 1 unexpected: "
            r"quantizer\.weight; 1 of other shape: feature_aggregator\.conv_layers\.1\.1\.weight "
            r"\(6, 6, 3\) instead of \(6, 6, 4\)",
        ):
            Wav2Vec(path).fit(waves)


class TestTransformers:
    """A tiny wav2vec 2.0 of random weights, where transformers is installed."""

    @pytest.fixture
    def folder(self, tmp_path):
        transformers = pytest.importorskip("transformers")
        config = transformers.Wav2Vec2Config(
            hidden_size=12,
            num_hidden_layers=3,
            num_attention_heads=2,
            intermediate_size=16,
            conv_dim=(8, 8),
            conv_kernel=(10, 4),
            conv_stride=(5, 2),
            num_feat_extract_layers=2,
            feat_extract_norm="layer",  # which, other than "group", does not hide the scaling
            conv_bias=True,
            num_conv_pos_embeddings=4,
            num_conv_pos_embedding_groups=2,
        )
        torch.manual_seed(0)
        transformers.Wav2Vec2Model(config).save_pretrained(tmp_path)
        transformers.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(tmp_path)
        return tmp_path

    def test_hidden_states(self, folder, waves):
        import transformers

        model = transformers.Wav2Vec2Model.from_pretrained(folder).eval()
        scaling = transformers.Wav2Vec2FeatureExtractor.from_pretrained(folder)
        scaled = scaling(list(waves), sampling_rate=SR, return_tensors="pt").input_values
        with torch.inference_mode():
            output = model(scaled, output_hidden_states=True)
        found = Wav2Vec(folder).fit(waves)
        assert found.network_.receptive_field == 25
        assert found.network_.hop_length == 10
        close(found.transform(waves), output.last_hidden_state.transpose(1, 2).numpy())
        for layer in range(4):
            features = Wav2Vec(str(folder), layer=layer).fit_transform(waves)
            close(features, output.hidden_states[layer].transpose(1, 2).numpy())
        convolutions = Wav2Vec(folder, features="encoder").fit_transform(waves)
        close(convolutions, model.feature_extractor(scaled).detach().numpy())

    def test_normalisation_follows_the_configuration(self, folder, waves):
        scaled = Wav2Vec(folder).fit_transform(waves)
        np.testing.assert_allclose(
            Wav2Vec(folder).fit_transform(waves / 8 + 0.1), scaled, atol=1e-3
        )
        path = folder / "preprocessor_config.json"
        settings = json.loads(path.read_text()) | {"do_normalize": False}
        path.write_text(json.dumps(settings))
        assert not np.allclose(Wav2Vec(folder).fit_transform(waves), scaled, atol=1e-3)

    def test_cache_and_global_generator(self, folder, waves, tmp_path):
        torch.manual_seed(3)
        before = torch.get_rng_state()
        cache = tmp_path / "cache"
        for layer in (1, 2):
            Wav2Vec(folder, layer=layer, cache_dir=cache).fit_transform(waves)
        assert len(list(cache.iterdir())) == 2
        assert torch.equal(before, torch.get_rng_state())

    def test_errors(self, folder, waves):
        with pytest.raises(ValueError, match="layer=4: .* has hidden states 0 to 3"):
            Wav2Vec(folder, layer=4).fit(waves)
        with pytest.raises(ValueError, match="was trained at 16000 Hz, found sr=8000 Hz"):
            Wav2Vec(folder, sr=8000).fit(waves)
        with pytest.raises(
            FileNotFoundError, match="No wav2vec 2.0 model '.*nothing' on this mach"
        ):
            Wav2Vec(folder / "nothing").fit(waves)


def test_without_transformers(waves, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"'facebook/wav2vec2-base' is neither .*\[wav2vec2\]"):
        Wav2Vec("facebook/wav2vec2-base").fit(waves)


def test_transformers_is_not_imported_for_others(waves, monkeypatch, network):
    monkeypatch.setitem(sys.modules, "transformers", None)
    Wav2Vec(network).fit(waves)


def test_bad_parameters(network, waves, tmp_path):
    with pytest.raises(ValueError, match="layer=2 is for models of transformers.*; a Wav2Vec1 is"):
        Wav2Vec(network, layer=2).fit(waves)
    with pytest.raises(ValueError, match="layer=2 is for models of transformers.*model='small' is"):
        Wav2Vec(layer=2).fit(waves)
    with pytest.raises(ValueError, match="must be a Wav2Vec1, a name or a file, got a Linear"):
        Wav2Vec(torch.nn.Linear(2, 2)).fit(waves)
    with pytest.raises(ValueError, match="'features' parameter"):
        Wav2Vec(network, features="both").fit(waves)
    (tmp_path / "model.bin").write_text("")
    with pytest.raises(ValueError, match=r"model\.bin': expected a file ending in \.safetensors"):
        Wav2Vec(tmp_path / "model.bin").fit(waves)
