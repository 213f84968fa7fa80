"""The scores of AEGANDetector: distances of windows, and of clips in the discriminator's space."""

import torch
import torch.nn.functional as F

from sk_asd.detectors._cosine import CosineDetector
from sk_asd.detectors._knn import KNNDetector
from sk_asd.detectors._lof import LOFDetector
from sk_asd.detectors._mahalanobis import MahalanobisDetector

DISTANCES = {
    "l1": lambda a, b: (a - b).abs().flatten(1).sum(1),
    "l2": lambda a, b: (a - b).square().flatten(1).sum(1),
    "cosine": lambda a, b: 1 - F.cosine_similarity(a, b),
}
SPACES = {"input": ("l1", "l2"), "latent": ("l1", "l2", "cosine")}
POOLINGS = {"mean": torch.mean, "min": torch.amin, "max": torch.amax}

WINDOW_METRICS = tuple(
    f"{space}_{distance}_{pooling}"
    for space, distances in SPACES.items()
    for distance in distances
    for pooling in POOLINGS
)
CLIP_METRICS = tuple(f"discriminator_{name}" for name in ("knn", "lof", "cosine", "mahalanobis"))


def spaces_of(metrics):
    """The spaces that some metrics need."""
    return {metric.split("_")[0] for metric in metrics}


def section_of(windows, section):
    """The same section for every window."""
    return torch.full((len(windows),), section, device=windows.device)


def clip_distances(module, chunks, section, spaces):
    """Anomaly scores of one clip from its windows, and its embedding by the discriminator.

    Parameters
    ----------
    module : AEGAN
        The trained networks.
    chunks : iterable of Tensor of shape (n_windows, n_bins, n_frames)
        Windows of the clip, of which one chunk at a time is in memory.
    section : int
        Code of its section, −1 for none.
    spaces : set of {"input", "latent", "discriminator"}
        What is asked for.

    Returns
    -------
    distances : dict
        Numbers by name, high = abnormal.
    embedding : Tensor of shape (n_features,) or None
        Mean over the windows.
    """
    found, embeddings = {}, []
    for windows in chunks:
        if spaces == {"discriminator"}:
            x = module.scale(windows)
        else:
            x, z, y = module(windows, section_of(windows, section))
        pairs = {}
        if "input" in spaces:
            pairs["input"] = x, y
        if "latent" in spaces:
            pairs["latent"] = z, module.generator.encode(y)
        for space, pair in pairs.items():
            for name in SPACES[space]:
                found.setdefault(f"{space}_{name}", []).append(DISTANCES[name](*pair))
        if "discriminator" in spaces:
            embeddings.append(module.discriminator.embed(x))
    distances = {
        f"{name}_{pooling}": pool(torch.cat(parts), dim=0).item()
        for name, parts in found.items()
        for pooling, pool in POOLINGS.items()
    }
    return distances, torch.cat(embeddings).mean(0) if embeddings else None


def fit_embedding_detectors(embeddings):
    """Fitted detectors by metric, on one embedding per training clip.

    Parameters
    ----------
    embeddings : ndarray of shape (n_clips, n_features)
        Embeddings of the training clips, of all sections and domains together.

    Returns
    -------
    dict
        Detectors; with very few clips they take fewer neighbours.
    """
    others = len(embeddings) - 1
    detectors = (
        KNNDetector(min(2, others)),
        LOFDetector(min(4, others)),
        CosineDetector(),
        MahalanobisDetector(),
    )
    return {name: detector.fit(embeddings) for name, detector in zip(CLIP_METRICS, detectors)}
