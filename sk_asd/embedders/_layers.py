"""Fitted embedders as layers of a graph."""

import copy

import torch
import torch.nn.functional as F
from torch import nn

from sk_asd.utils._windows import check_length, window_starts

LAYERS = ("embedding", "penultimate")


class _Penultimate(nn.Module):
    """A backbone up to the layer before its last one."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone

    def forward(self, x):
        return self.backbone.penultimate(x)


def check_layer(backbone, layer):
    """Refuse a layer that a backbone, a network or a class, does not name.

    Raises
    ------
    ValueError
        If it is asked for its penultimate layer and has no method ``penultimate``.
    """
    if layer == "penultimate" and not hasattr(backbone, "penultimate"):
        name = getattr(backbone, "__name__", type(backbone).__name__)
        raise ValueError(
            f"layer={layer!r} needs a backbone with a method `penultimate`, which {name} does not "
            "have."
        )


def outputs_of(module, layer):
    """The network of an embedder up to a layer, ``"embedding"`` or ``"penultimate"``."""
    *before, backbone = module
    check_layer(backbone, layer)
    if layer == "embedding":
        return module
    return nn.Sequential(*before, _Penultimate(backbone)).train(module.training)


class PReLULayer(nn.Module):
    """A `PReLU` in simple operations: PRelu itself takes onnxruntime longer than the convolutions.

    Parameters
    ----------
    prelu : nn.PReLU
        The layer that is replaced.
    """

    def __init__(self, prelu):
        super().__init__()
        self.weight = prelu.weight
        self.is_maximum = bool((prelu.weight <= 1).all())  # as good as always

    def forward(self, x):
        """Compute the same, to the last digit."""
        slope = self.weight.view(-1, *[1] * (x.ndim - 2))
        if self.is_maximum:
            return torch.maximum(x, slope * x)
        positive = x.relu()
        return positive + slope * (x - positive)


class EmbedderLayer(nn.Module):
    """What a fitted embedder computes: embeddings of its windows, pooled.

    Parameters
    ----------
    embedder : BaseEmbedder
        The fitted embedder.
    n_frames : int
        Frames of a clip.
    """

    def __init__(self, embedder, n_frames):
        super().__init__()
        shape = torch.empty(1, embedder.n_features_in_, n_frames, device="meta")
        self.n_frames = check_length(shape, embedder.n_frames)
        self.starts = window_starts(n_frames, self.n_frames, embedder.window_hop)
        self.subtract_mean = embedder.subtract_mean
        # On a contiguous copy: the memory format of the training means nothing in a graph.
        network = copy.deepcopy(outputs_of(embedder.net_.module_, embedder.layer)).cpu().float()
        for module in list(network.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, nn.PReLU):
                    setattr(module, name, PReLULayer(child))
        self.network = network.to(memory_format=torch.contiguous_format).eval()

    def forward(self, features):
        """Embed features (batch, bins, frames)."""
        if self.subtract_mean:
            features = features - features.mean(dim=2, keepdim=True)
        windows = torch.stack([features[:, :, s : s + self.n_frames] for s in self.starts], dim=1)
        embeddings = F.normalize(self.network(windows.flatten(0, 1)))
        return embeddings.unflatten(0, (-1, len(self.starts))).mean(dim=1)
