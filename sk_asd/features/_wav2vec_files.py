"""Files of wav2vec models, read without executing what is in them."""

import argparse
import ast
import io
import json
import os
import pickle
import pickletools
import zipfile

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from sk_asd.networks import Wav2Vec1
from sk_asd.utils._files import replacing

_SR = 16000  # of all published models
_METADATA = "sk_asd.Wav2Vec1"

# Settings of fairseq's wav2vec that change what it computes, and the one value known here.
_FAIRSEQ_FIXED = {
    "activation": "relu",
    "agg_zero_pad": False,
    "aggregator": "cnn",
    "no_conv_bias": False,
    "non_affine_group_norm": False,
    "project_features": "none",
    "skip_connections_feat": False,
    "vq_type": "none",
}
# Objects of fairseq's trainer lie in some checkpoints beside the weights.
_INERT = ("fairseq.", "omegaconf.")
_HARMLESS = ("torch._utils._rebuild", "collections.OrderedDict", "argparse.Namespace", *_INERT)
_SHOWN = 4  # keys of each kind in a report


def write_safetensors(network, path, *, sr, half=False, **notes):
    """Write a network with its configuration; a half-written file never appears under its name.

    Parameters
    ----------
    network : Wav2Vec1
        The network.
    path : path-like
        The file.
    sr : int
        Sample rate that it was trained with.
    half : bool, default=False
        Whether weights are stored in float16.
    **notes : dict
        What else is to be known of the network, as JSON allows it.
    """
    weights = {
        name: tensor.detach().to("cpu", torch.float16 if half else torch.float32).contiguous()
        for name, tensor in network.state_dict().items()
    }
    metadata = {_METADATA: json.dumps({"config": network.config, "sr": sr, **notes})}
    with replacing(path) as temporary:
        temporary.write_bytes(save(weights, metadata))


def read_safetensors(path):
    """Read a network that :func:`write_safetensors` wrote.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    network : Wav2Vec1
        The network, in float32.
    sr : int
        Sample rate that it was trained with.

    Raises
    ------
    ValueError
        If the file is truncated or was written by another program.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(
            f"{path} is truncated or no file of safetensors ({os.path.getsize(path)} bytes): "
            f"{error}."
        ) from error
    if _METADATA not in metadata:
        raise ValueError(
            f"{path} has no configuration {_METADATA!r} in its metadata, as Wav2VecPretrainer.save "
            f"writes it; found {sorted(metadata)}."
        )
    try:
        description = json.loads(metadata[_METADATA])
        network, sr = _empty(description["config"]), int(description["sr"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: the configuration {_METADATA!r} is wrong: {error}.") from error
    return _filled(network, weights, {name: name for name in network.state_dict()}, path), sr


def read_fairseq(path):
    """Read a checkpoint of wav2vec from fairseq, without executing what is in it.

    Parameters
    ----------
    path : path-like
        The file, with settings in ``args`` or ``cfg`` and weights in ``model``.

    Returns
    -------
    network : Wav2Vec1
        The network.
    sr : int
        16000.

    Raises
    ------
    ValueError
        If the file is truncated, asks to execute code, or holds another architecture.
    """
    checkpoint = _load_checkpoint(path)
    weights = checkpoint.get("model") if isinstance(checkpoint, dict) else None
    if not isinstance(weights, dict) or not all(map(torch.is_tensor, weights.values())):
        found = sorted(map(str, checkpoint)) if isinstance(checkpoint, dict) else type(checkpoint)
        raise ValueError(
            f"{path} is no checkpoint of fairseq, which has weights in 'model' beside 'args' or "
            f"'cfg': found {found}."
        )
    settings = _as_dict(checkpoint.get("args"))
    if not settings:
        settings = _as_dict(_as_dict(checkpoint.get("cfg")).get("model"))
    network = _empty(_fairseq_config(settings, weights, path))
    return _filled(network, weights, network.fairseq_names(), path), _SR


class _Inert:
    """Stands for objects of fairseq's trainer; remembers what it was made from and does nothing."""

    def __init__(self, *args):
        self.args = args

    def __setstate__(self, state):
        pass

    def __str__(self):
        return str(self.args[0]) if self.args else ""


def _load_checkpoint(path):
    """``torch.load`` with tensors, plain values and argparse.Namespace alone."""
    names = _globals(path)
    inert = [
        type(name, (_Inert,), {"__module__": module})
        for module, _, name in (full.rpartition(".") for full in names)
        if module.startswith(_INERT)
    ]
    try:
        with torch.serialization.safe_globals([argparse.Namespace, *inert]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = [n for n in names if not n.startswith(_HARMLESS) and not n.endswith("Storage")]
        if not wanted:
            raise _unreadable(path, error) from error
        raise ValueError(
            f"{path} is refused: beside tensors and plain values it asks for {', '.join(wanted)}, "
            "which could execute code."
        ) from None
    except Exception as error:  # whatever a reader may stumble over in bytes that are no checkpoint
        raise _unreadable(path, error) from error


def _unreadable(path, error):
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    size = os.path.getsize(path)
    return ValueError(f"{path} is truncated or no checkpoint of torch ({size} bytes): {reason}")


def _globals(path):
    """Names of all classes and functions that the pickle of a checkpoint asks for, unexecuted."""
    names = set()
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    if name.endswith("data.pkl"):
                        names |= _globals_of_pickle(io.BytesIO(archive.read(name)))
        else:
            with open(path, "rb") as file:
                for _ in range(4):  # before torch 1.6 the contents were the fourth pickle of a file
                    names |= _globals_of_pickle(file)
    except Exception:
        pass  # bytes that are no pickle; torch will tell
    return sorted(names)


def _globals_of_pickle(file):
    opcodes = [(opcode.name, argument) for opcode, argument, _ in pickletools.genops(file)]
    names = {argument.replace(" ", ".") for name, argument in opcodes if name == "GLOBAL"}
    return names | {"computed names" for name, _ in opcodes if name == "STACK_GLOBAL"}


def _as_dict(settings):
    if isinstance(settings, argparse.Namespace):
        return vars(settings)
    return settings if isinstance(settings, dict) else {}


def _fairseq_config(settings, weights, path):
    """Configuration of the network, from the settings or else from the shapes of the weights."""
    for name, value in _FAIRSEQ_FIXED.items():
        if str(settings.get(name, value)) != str(value):
            raise ValueError(
                f"{path} is of another architecture: {name}={settings[name]!r}, expected {value!r}."
            )
    layers = {}
    for option, module, conv in (
        ("conv_feature_layers", "feature_extractor", 0),
        ("conv_aggregator_layers", "feature_aggregator", 1),
    ):
        if settings.get(option) is not None:
            layers[option] = _parsed(settings[option], option, path)
        else:
            kernels = _kernels(weights, f"{module}.conv_layers.{{}}.{conv}.weight")
            # Shapes do not tell strides: in all published encoders they are half the kernels.
            layers[option] = [
                (width, kernel, 1 if conv else -(-kernel // 2)) for width, kernel in kernels
            ]
    encoder, aggregator = layers.values()
    if not encoder or not aggregator:
        raise ValueError(
            f"{path} is of another architecture: it has no weights "
            "'feature_extractor.conv_layers.<i>.0.weight' or "
            f"'feature_aggregator.conv_layers.<i>.1.weight' of wav2vec; found {_some(weights)}."
        )
    widths = {width for width, _, _ in [*encoder, *aggregator]}
    if len(widths) > 1 or any(stride != 1 for _, _, stride in aggregator):
        raise ValueError(
            f"{path} is of another architecture: expected layers of one width and an aggregator of "
            f"stride 1, found conv_feature_layers={encoder} and "
            f"conv_aggregator_layers={aggregator}."
        )
    projections = weights.get("wav2vec_predictions.project_to_steps.weight")
    n_steps = projections.shape[-1] if projections is not None else 12
    # Without settings it is the published model, which was not trained with fairseq's defaults.
    residual = settings.get("skip_connections_agg", not settings)
    return {
        "channels": widths.pop(),
        "encoder": [(kernel, stride) for _, kernel, stride in encoder],
        "aggregator": [kernel for _, kernel, _ in aggregator],
        "n_steps": settings.get("prediction_steps", n_steps),
        "residual_scale": settings.get("residual_scale", 0.5) if residual else None,
        "log_compression": bool(settings.get("log_compression", not settings)),
    }


def _parsed(text, option, path):
    """Layers of fairseq, a text such as ``[(512, 10, 5), (512, 8, 4)]``."""
    try:
        layers = ast.literal_eval(text) if isinstance(text, str) else text
        return [(int(width), int(kernel), int(stride)) for width, kernel, stride in layers]
    except (SyntaxError, TypeError, ValueError):
        raise ValueError(
            f"{path}: expected {option} to be a list of (channels, kernel, stride), found {text!r}."
        ) from None


def _kernels(weights, key):
    """Width and kernel of the layers whose weights lie under `key`, a pattern of their number."""
    found = []
    while (weight := weights.get(key.format(len(found)))) is not None and weight.ndim == 3:
        found.append((weight.shape[0], weight.shape[2]))
    return found


def _empty(config):
    """A network without values, whose making draws no random numbers."""
    with torch.device("meta"):
        return Wav2Vec1(**config)


def _filled(network, weights, names, path):
    """Put weights, found under `names`, into a network, after a look at keys and shapes."""
    expected = {names[own]: tuple(tensor.shape) for own, tensor in network.state_dict().items()}
    problems = {
        "missing": [name for name in expected if name not in weights],
        "unexpected": [name for name in weights if name not in expected],
        "of other shape": [
            f"{name} {tuple(weights[name].shape)} instead of {shape}"
            for name, shape in expected.items()
            if name in weights and tuple(weights[name].shape) != shape
        ],
    }
    if any(problems.values()):
        report = "; ".join(
            f"{len(found)} {kind}: {_some(found)}" for kind, found in problems.items() if found
        )
        raise ValueError(f"{path} does not hold the weights of its configuration: {report}.")
    state = {own: weights[name].float() for own, name in names.items()}
    network.load_state_dict(state, assign=True)
    return network


def _some(names):
    names = list(names)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
