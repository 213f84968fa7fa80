"""What embedders share: windows, the network and its training, the embeddings of clips."""

import copy
import itertools
from numbers import Integral, Real

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.base import ClassNamePrefixFeaturesOutMixin
from sklearn.utils.validation import check_is_fitted
from torch import nn

from sk_asd.embedders._heads import (
    LOSSES,
    ClassificationHead,
    HeadsLoss,
    RegressionHead,
    expand,
)
from sk_asd.embedders._layers import LAYERS, EmbedderLayer, check_layer, outputs_of
from sk_asd.embedders._net import EmbeddingNet
from sk_asd.networks import ECAPATDNN, Cnn6, MobileFaceNet
from sk_asd.networks._standardize import BinStandardizer
from sk_asd.utils._base import BaseEstimator
from sk_asd.utils._containers import wrap
from sk_asd.utils._output import LabelledOutput
from sk_asd.utils._sklearn import Interval, StrOptions, _fit_context
from sk_asd.utils._statistics import bin_statistics
from sk_asd.utils._training import NeuralMixin, Training, on_device, resolve_device
from sk_asd.utils._validation import check_features
from sk_asd.utils._windows import (
    RandomWindowSampler,
    WindowDataset,
    check_length,
    window_starts,
)

BACKBONES = ("mobilefacenet", "mfnse", "ecapa", "cnn6")
_BATCH = 32  # windows of variants of a clip at a time


class BaseEmbedder(NeuralMixin, ClassNamePrefixFeaturesOutMixin, LabelledOutput, BaseEstimator):
    """A network trained by heads on its embeddings; see :class:`SectionEmbedder`.

    A subclass says what the heads learn: ``_targets(X, y, n_clips)`` sets its fitted attributes and
    returns the targets ``(n_clips, n_heads)``, NaN where unknown, and a dict of the heads' names
    with the number of their classes, None for a regression.
    """

    _parameter_constraints: dict = {
        "backbone": [StrOptions(set(BACKBONES)), nn.Module, type],
        "n_frames": [Interval(Integral, 1, None, closed="left"), None],
        "window_hop": [Interval(Integral, 1, None, closed="left")],
        "layer": [StrOptions(set(LAYERS))],
        "loss": [StrOptions(set(LOSSES))],
        "subtract_mean": ["boolean"],
        "mixup": [Interval(Real, 0, None, closed="left")],
        **NeuralMixin._training_constraints,
    }
    _net_class = EmbeddingNet
    _net_defaults = {"optimizer__weight_decay": 1e-4}
    _takes = "spectrograms"

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Train the network.

        Parameters
        ----------
        X : DataArray or array-like of shape (n_clips, n_bins, n_frames)
            Features of normal clips; a 2-D array is one frame a clip.
        y : array-like of shape (n_clips,) or DataFrame, default=None
            Class labels of a plain array, or for several heads a column per target; ignored where
            `X` carries labels.

        Returns
        -------
        self
            The fitted embedder.

        Raises
        ------
        ValueError
            If labels are missing or tell nothing apart, clips are shorter than one window, the
            network cannot take such windows, or the training diverges.
        """
        return self._fit_network(X, y)

    def _training(self, features, X, y, generator):
        n_frames = check_length(features, self.n_frames)
        targets, heads = self._targets(X, y, len(features))
        targets = torch.from_numpy(targets.astype(np.float32))
        return Training(
            self._architecture_for(features, n_frames, heads),
            WindowDataset(
                features,
                expand(targets, heads.values()),
                n_frames,
                subtract_mean=self.subtract_mean,
            ),
            RandomWindowSampler(len(features), features.shape[2] - n_frames + 1, generator),
            attributes={"mixup": self.mixup, "head_names": list(heads)},
        )

    def _finish(self, features, X):
        self._architecture["width"] = self.net_.criterion_.embedding_dim

    def transform(self, X):
        """Embed clips.

        Each clip is computed on its own, so that its embedding does not depend, not even by
        rounding, on the clips that come with it.

        Parameters
        ----------
        X : DataArray or array-like of shape (n_clips, n_bins, n_frames)
            Features.

        Returns
        -------
        DataArray, ndarray or DataFrame of shape (n_clips, embedding_dim)
            Embeddings in float32, labelled as `X` is, or what ``set_output`` asks for.

        Raises
        ------
        ValueError
            If clips are shorter than one window.
        """
        embeddings = [F.normalize(windows).mean(0) for windows in self._embed(X, self.layer)]
        values = torch.stack(embeddings).cpu().numpy()
        return self._contained(wrap(values, X, ("embedding",)), X)

    @property
    def _n_features_out(self):
        size = self._architecture["size"]
        return _width(outputs_of(self.net_.module_, self.layer), *size)

    def _embed(self, X, layer):
        """Output of a layer for every clip's windows, clip by clip."""
        check_is_fitted(self, "net_")
        features = check_features(self, X, reset=False)
        n_frames = check_length(features, self.n_frames)
        starts = window_starts(features.shape[2], n_frames, self.window_hop)
        module, device = self._outputs(layer)
        with torch.inference_mode():
            for clip in features:
                if self.subtract_mean:
                    clip = clip - clip.mean(axis=1, keepdims=True)
                windows = np.stack([clip[:, s : s + n_frames] for s in starts])
                yield module(torch.from_numpy(windows).to(device))

    def _outputs(self, layer):
        """The network up to a layer, and where it is to compute."""
        device = resolve_device(self.device, fitted=True)
        return outputs_of(on_device(self.net_.module_, device), layer), device

    def _exported(self, n_frames):
        return EmbedderLayer(self, n_frames)

    def _level(self):
        """What is usual in every bin, (n_bins, 1), where that is the same for all clips."""
        if self.subtract_mean:
            return None
        return self.net_.module_[0].mean.cpu().numpy()

    def _with_fewer_windows(self):
        """The same with windows that overlap by half at most, which is enough to compare with."""
        if self.n_frames is None:
            return self
        hop = max(self.window_hop, self.n_frames // 2)
        return copy.copy(self).set_params(window_hop=hop)

    def _embed_variants(self, variants, frames):
        """Embeddings of a clip and of variants of it, by fewer windows.

        A variant differs from the first, the clip, in its slice of `frames`; windows that it leaves
        alone are computed once.
        """
        embedder = self._with_fewer_windows()
        module, device = self._outputs(self.layer)
        windows = embedder._changed_windows(variants, frames)
        found = {}
        with torch.inference_mode():
            while batch := list(itertools.islice(windows, _BATCH)):
                places, values = zip(*batch)
                embedded = module(torch.from_numpy(np.stack(values)).to(device))
                found.update(zip(places, F.normalize(embedded).cpu()))
        starts = sorted({start for _, start in found})
        return torch.stack(
            [
                torch.stack([found.get((i, s), found[0, s]) for s in starts]).mean(0)
                for i in range(len(frames))
            ]
        ).numpy()

    def _changed_windows(self, variants, frames):
        """Number of the variant and first frame, and the window, where it is not the clip's."""
        for number, (values, changed) in enumerate(zip(variants, frames)):
            n_frames = check_length(values[np.newaxis], self.n_frames)
            if self.subtract_mean:
                values = values - values.mean(axis=1, keepdims=True)
            for start in window_starts(values.shape[1], n_frames, self.window_hop):
                touched = start < changed.stop and changed.start < start + n_frames
                if touched or self.subtract_mean:
                    yield (number, start), values[:, start : start + n_frames]

    def _head_weights(self, heads):
        return [1.0] * len(heads)

    def _architecture_for(self, features, n_frames, heads):
        """What :meth:`_build` takes for clips and heads."""
        params = self._net_params("module__")
        if isinstance(self.backbone, str):
            params = {"embedding_dim": 128, **params}
        else:
            check_layer(self.backbone, self.layer)
        return {
            "size": (features.shape[1], n_frames),
            "backbone": self.backbone,
            "params": params,
            "statistics": bin_statistics(features, self.subtract_mean),
            "heads": list(heads.values()),
            "head_weights": self._head_weights(heads),
            "loss": {"loss": self.loss, **self._net_params("loss__")},
            "width": None,
        }

    @staticmethod
    def _build(size, backbone, params, statistics, heads, head_weights, loss, width):
        """Layers up to the embedding, and the joint loss of the heads; `width` None is measured."""
        if isinstance(backbone, nn.Module):
            backbone = _copy(backbone, params)
        elif isinstance(backbone, type):
            backbone = backbone(**params)
        elif backbone in ("cnn6", "ecapa"):
            backbone = {"cnn6": Cnn6, "ecapa": ECAPATDNN}[backbone](size[0], **params)
        else:
            se = {"squeeze_excitation": "output"} if backbone == "mfnse" else {}
            backbone = MobileFaceNet(input_size=size, **{**se, **params})
        module = nn.Sequential(BinStandardizer(*statistics), backbone)
        width = _width(module, *size) if width is None else width
        heads = [
            RegressionHead(width)
            if n_classes is None
            else ClassificationHead(embedding_dim=width, n_classes=n_classes, **loss)
            for n_classes in heads
        ]
        return module, HeadsLoss(heads, head_weights)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = []
        return tags


def _copy(module, params):
    if params:
        raise ValueError(
            f"module__* parameters {sorted(params)} need a backbone given by name or as a class, "
            f"not an instance of {type(module).__name__}."
        )
    return copy.deepcopy(module).cpu()


def _width(module, n_bins, n_frames):
    """Width of the embeddings, by embedding one window of zeros."""
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            embedding = module(torch.zeros(1, n_bins, n_frames))
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"{type(module[-1]).__name__} cannot embed windows of {n_bins} bins and {n_frames} "
            f"frames: {str(error).splitlines()[0]}"
        ) from error
    finally:
        module.train(training)
    if embedding.ndim != 2:
        raise ValueError(
            "The backbone must return embeddings of shape (batch, embedding_dim), got "
            f"{tuple(embedding.shape)}."
        )
    return embedding.shape[1]
