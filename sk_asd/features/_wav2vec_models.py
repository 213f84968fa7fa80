"""Modules that compute the features of wav2vec models."""

import copy
import hashlib
import math
import os
from pathlib import Path

import torch
from torch import nn

from sk_asd.features._wav2vec_files import read_fairseq, read_safetensors
from sk_asd.networks import Wav2Vec1
from sk_asd.utils._random import RandomStream
from sk_asd.utils._training import set_weights, weights_of

SMALL = Path(__file__).parent / "models" / "wav2vec_small.safetensors"


class FirstVersion(nn.Module):
    """Features of a `Wav2Vec1`: waveforms in, (batch, channels, frames) out.

    Parameters
    ----------
    network : Wav2Vec1
        The network.
    features : {"context", "encoder"}
        Which of its outputs.
    sr : int or None
        Sample rate it was trained with, if known.
    """

    def __init__(self, network, features, sr):
        super().__init__()
        self.network = network
        self.features = features
        self.sr = sr
        self.n_channels = network.channels
        self.receptive_field = network.receptive_field
        self.hop_length = network.hop_length

    def forward(self, waveform):
        """Compute the features."""
        encoded = self.network.encode(waveform)
        return encoded if self.features == "encoder" else self.network.aggregate(encoded)

    def description(self):
        """What the features depend on beside the weights."""
        return self.network.config, self.features


class SecondVersion(nn.Module):
    """Features of a model of transformers: waveforms in, (batch, channels, frames) out.

    Parameters
    ----------
    network : transformers.PreTrainedModel
        The network, of wav2vec 2.0 or with its convolutions over the waveform, such as HuBERT.
    features : {"context", "encoder"}
        Hidden state, or output of the convolutions.
    layer : int or None
        Which hidden state, 0 being the input of the first layer; None for the last.
    normalise : bool
        Whether waveforms are brought to mean 0 and variance 1 first.
    sr : int
        Sample rate it was trained with.
    """

    def __init__(self, network, features, layer, normalise, sr):
        super().__init__()
        self.network = network
        self.features = features
        self.layer = layer
        self.normalise = normalise
        self.sr = sr
        config = network.config
        self.n_channels = config.conv_dim[-1] if features == "encoder" else config.hidden_size
        self.hop_length = math.prod(config.conv_stride)
        self.receptive_field = 1
        for kernel, stride in zip(config.conv_kernel[::-1], config.conv_stride[::-1]):
            self.receptive_field = (self.receptive_field - 1) * stride + kernel

    def forward(self, waveform):
        """Compute the features."""
        if self.normalise:
            variance, mean = torch.var_mean(waveform, dim=1, correction=0, keepdim=True)
            waveform = (waveform - mean) / torch.sqrt(variance + 1e-7)
        if self.features == "encoder":
            return self.network.feature_extractor(waveform)
        output = self.network(waveform, output_hidden_states=self.layer is not None)
        state = output.last_hidden_state if self.layer is None else output.hidden_states[self.layer]
        return state.transpose(1, 2)

    def description(self):
        """What the features depend on beside the weights."""
        return self.network.config.to_json_string(), self.features, self.layer, self.normalise


def load_features(model, features, layer):
    """Make the module that computes the features of a model.

    Parameters
    ----------
    model : str, path-like or Wav2Vec1
        As for :class:`~sk_asd.features.Wav2Vec`.
    features : {"context", "encoder"}
        Which features.
    layer : int or None
        Which hidden state of a model of transformers.

    Returns
    -------
    FirstVersion or SecondVersion
        On the CPU, ready for inference.

    Raises
    ------
    FileNotFoundError, ImportError, ValueError
        If the model is not there, needs transformers, or cannot be read.
    """
    read = None
    if not isinstance(model, nn.Module):
        path = SMALL if model == "small" else Path(model)
        readers = {".safetensors": read_safetensors, ".pt": read_fairseq, ".pth": read_fairseq}
        read = None if path.is_dir() else readers.get(path.suffix)
        if read is None:
            return _load_transformers(os.fspath(model), features, layer)
    if layer is not None:
        name = f"a {type(model).__name__}" if read is None else f"model={os.fspath(model)!r}"
        raise ValueError(
            f"layer={layer} is for models of transformers, which have several; {name} is of the "
            "first version of wav2vec."
        )
    if read is None:
        if not isinstance(model, Wav2Vec1):
            raise ValueError(
                f"model must be a Wav2Vec1, a name or a file, got a {type(model).__name__}."
            )
        network, sr = copy.deepcopy(model).cpu(), None
    else:
        if not path.is_file():
            raise FileNotFoundError(f"No such model file: {path}")
        network, sr = read(path)
    return FirstVersion(network, features, sr).requires_grad_(False).eval()


def digest(module):
    """Hash of all that the features of a module depend on.

    Parameters
    ----------
    module : FirstVersion or SecondVersion
        The module.

    Returns
    -------
    str
        Hexadecimal digits.
    """
    value = hashlib.blake2b(repr(module.description()).encode(), digest_size=16)
    for name, tensor in sorted(module.state_dict().items()):
        value.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        value.update(tensor.contiguous().flatten().view(torch.uint8).numpy())
    return value.hexdigest()


def state_of(module):
    """What a saved model holds of a module; :func:`from_state` makes it again.

    Raises
    ------
    ValueError
        If it is a network of transformers, which would be made by that library's code.
    """
    if not isinstance(module, FirstVersion):
        raise ValueError(
            f"a {type(module.network).__name__} of transformers cannot be saved in this format; "
            "use joblib"
        )
    return {
        "config": module.network.config,
        "features": module.features,
        "sr": module.sr,
        "weights": weights_of(module.network),
    }


def from_state(state):
    """Make a module from the result of :func:`state_of`, ready for inference."""
    network = Wav2Vec1(**state["config"])
    set_weights(network, state["weights"])
    module = FirstVersion(network, state["features"], state["sr"])
    return module.requires_grad_(False).eval()


def _load_transformers(name, features, layer):
    """Features of a wav2vec 2.0 model of transformers, from files on this machine."""
    if os.path.isfile(name):
        raise ValueError(f"model={name!r}: expected a file ending in .safetensors or .pt.")
    try:
        import transformers
    except ImportError as error:
        raise ImportError(
            f"model={name!r} is neither 'small' nor a file ending in .safetensors or .pt. If it is "
            "a wav2vec 2.0 model, it needs transformers: pip install 'sk_asd[wav2vec2]'."
        ) from error
    local = {"local_files_only": True, "trust_remote_code": False}
    try:
        # Weights that a file lacks are drawn at random.
        with RandomStream(0).active():
            network = transformers.AutoModel.from_pretrained(name, **local)
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"No wav2vec 2.0 model {name!r} on this machine; download it first, as with "
            f"transformers.AutoModel.from_pretrained({name!r}). transformers says: "
            f"{str(error).splitlines()[0]}"
        ) from error
    try:
        scaling = transformers.AutoFeatureExtractor.from_pretrained(name, **local)
    except (OSError, ValueError):
        scaling = transformers.Wav2Vec2FeatureExtractor()
    config = network.config
    if not hasattr(config, "conv_stride") or not hasattr(network, "feature_extractor"):
        raise ValueError(
            f"model={name!r} is of another architecture, {type(network).__name__}: expected "
            "wav2vec 2.0 or another model with its convolutions over the waveform."
        )
    if layer is not None and not 0 <= layer <= config.num_hidden_layers:
        raise ValueError(
            f"layer={layer}: model={name!r} has hidden states 0 to {config.num_hidden_layers}."
        )
    module = SecondVersion(network, features, layer, scaling.do_normalize, scaling.sampling_rate)
    return module.float().requires_grad_(False).eval()
