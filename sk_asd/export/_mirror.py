"""A fitted system as one torch module: waveforms and groups in, anomaly scores out."""

import copy

import numpy as np
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted
from torch import nn

from sk_asd.detectors import (
    CosineDetector,
    GaussianMixtureDetector,
    KNNDetector,
    LOFDetector,
    MahalanobisDetector,
)
from sk_asd.embedders import MultiHeadEmbedder, SectionEmbedder
from sk_asd.ensemble import GroupedDetector, ScoreEnsemble
from sk_asd.export._detectors import (
    CosineLayer,
    EnsembleLayer,
    GroupedLayer,
    KNNLayer,
    LOFLayer,
    MahalanobisLayer,
    MixtureLayer,
)
from sk_asd.export._embedders import EmbedderLayer
from sk_asd.export._features import AffineLayer, PoolingLayer, SpectrogramLayer
from sk_asd.export._groups import Groups, thresholds
from sk_asd.features import STFT, KeepLabels, LogMel, TimePooling, Wav2Vec
from sk_asd.features._wav2vec_models import FirstVersion
from sk_asd.utils._system import each, inside, is_passthrough, joined, parts, unwrapped

_METRICS = {
    "cosine": "cosine",
    "euclidean": "euclidean",
    "l2": "euclidean",
    "minkowski": "euclidean",
}
_EXTRACTORS = (STFT, LogMel, Wav2Vec)
_EMBEDDERS = (SectionEmbedder, MultiHeadEmbedder)
_EXPORTED = (
    "the features STFT, LogMel and Wav2Vec (of the first version), TimePooling, SectionEmbedder "
    "and MultiHeadEmbedder, StandardScaler and PCA, the detectors KNNDetector, LOFDetector, "
    "CosineDetector, MahalanobisDetector and GaussianMixtureDetector, GroupedDetector and "
    "ScoreEnsemble"
)


class Mirror(nn.Module):
    """The system in `forward`, and what one must know to use it.

    Parameters
    ----------
    system : estimator
        The fitted system.
    groups : sequence or None
        Groups to keep; None keeps all.

    Attributes
    ----------
    groups : Groups
        The groups, in the order of the input ``group``.
    extractors : list of estimator
        The feature extractors of all members; all take the same clips.
    thresholds : list of float
        Anomaly score above which a clip is called abnormal, for every group.

    Raises
    ------
    ValueError
        If a part cannot be exported; the message has its place and the reason.
    """

    def __init__(self, system, groups=None):
        super().__init__()
        self.groups = Groups(system, groups)
        self.system = _Builder(self.groups).scorer(system, "", _Waveform())
        self.extractors = _extractors(system)
        self.n_samples = self.extractors[0].n_samples_
        self.sr = self.extractors[0].sr
        self.thresholds = [-offset for offset in thresholds(system, self.groups)]
        for tensor in (*self.parameters(), *self.buffers()):
            tensor.data = tensor.data.contiguous()  # the exporter hashes their memory
        self.eval()

    def forward(self, waveform, group=None):
        """Anomaly scores (batch,), high = abnormal."""
        return -self.system(waveform, group).float()


class _Waveform:
    """What flows at the beginning."""


class _Spectrogram:
    def __init__(self, n_frames):
        self.n_frames = n_frames


class _Vector:
    """Pooled features or embeddings."""


class _Chain(nn.Module):
    """Steps, and a detector at the end."""

    def __init__(self, steps, detector):
        super().__init__()
        self.steps = nn.ModuleList(steps)
        self.detector = detector

    def forward(self, x, group=None):
        for step in self.steps:
            x = step(x)
        return self.detector(x, group)


class _Detect(nn.Module):
    """A detector behind the cast to the float64 that it computes in."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x, group=None):
        return self.layer(x.double())


class _Builder:
    """Turns estimators into layers; `flow` is what reaches them."""

    def __init__(self, groups):
        self.groups = groups

    def scorer(self, estimator, where, flow):
        estimator = unwrapped(estimator)
        if hasattr(estimator, "steps"):
            return self._chain(estimator, where, flow)
        if isinstance(estimator, GroupedDetector):
            return self._grouped(estimator, where, flow)
        if isinstance(estimator, ScoreEnsemble):
            return self._ensemble(estimator, where, flow)
        return self._detector(estimator, where, flow)

    def _chain(self, pipeline, where, flow):
        steps = []
        for name, step in pipeline.steps[:-1]:
            if is_passthrough(step):
                continue
            layer, flow = self._step(unwrapped(step), joined(where, name), flow)
            steps.append(layer)
        name, last = pipeline.steps[-1]
        return _Chain(steps, self.scorer(last, joined(where, name), flow))

    def _step(self, step, where, flow):
        """Layer of a transformer, and what flows behind it."""
        check_is_fitted(step)
        if isinstance(step, KeepLabels):
            step = step.transformer_
        if isinstance(step, _EXTRACTORS):
            _expect(flow, _Waveform, step, where)
            return _extractor(step, where), _Spectrogram(step.n_frames_)
        if isinstance(step, TimePooling):
            _expect(flow, _Spectrogram, step, where)
            return PoolingLayer(step, flow.n_frames), _Vector()
        if isinstance(step, _EMBEDDERS):
            _expect(flow, _Spectrogram, step, where)
            return EmbedderLayer(step, flow.n_frames), _Vector()
        if type(step) in (StandardScaler, PCA):
            _expect(flow, _Vector, step, where)
            return _affine(step), flow
        raise _refusal(where, step, f"it is none of the steps that are: {_EXPORTED}.")

    def _grouped(self, estimator, where, flow):
        keys = [self.groups.key(estimator, name) for name in self.groups.names]
        own = list(dict.fromkeys(keys))
        detectors = [
            [
                self.scorer(detector, joined(where, key), flow)
                for detector in each(estimator.detectors_[key])
            ]
            for key in own
        ]
        return GroupedLayer(detectors, [own.index(key) for key in keys])

    def _ensemble(self, estimator, where, flow):
        members = [
            self.scorer(member, joined(where, name), flow) for name, member in inside(estimator)
        ]
        keys = [self.groups.key(estimator, name) for name in self.groups.names]
        means, scales = (
            np.stack([values[key] for key in keys])
            for values in (estimator.means_, estimator.scales_)
        )
        return EnsembleLayer(members, means, scales, estimator.weights_)

    def _detector(self, estimator, where, flow):
        check_is_fitted(estimator)
        if isinstance(estimator, (KNNDetector, LOFDetector)):
            metric = _METRICS.get(estimator.metric) if isinstance(estimator.metric, str) else None
            if metric is None:
                raise _refusal(
                    where,
                    estimator,
                    f"its metric is {estimator.metric!r}; 'cosine' and 'euclidean' are exported.",
                )
            layer = KNNLayer if isinstance(estimator, KNNDetector) else LOFLayer
            layer = layer(estimator, metric)
        elif isinstance(estimator, CosineDetector):
            layer = CosineLayer(estimator)
        elif isinstance(estimator, MahalanobisDetector):
            layer = MahalanobisLayer(estimator)
        elif isinstance(estimator, GaussianMixtureDetector):
            layer = MixtureLayer(estimator)
        elif hasattr(estimator, "net_"):
            raise _refusal(
                where, estimator, "it scores with a network of its own; networks of embedders are."
            )
        elif not hasattr(estimator, "score_samples"):
            raise _refusal(where, estimator, "it gives no scores; end with a detector.")
        else:
            raise _refusal(where, estimator, f"it is none of the parts that are: {_EXPORTED}.")
        _expect(flow, _Vector, estimator, where)
        return _Detect(layer)


def _extractors(system):
    """Feature extractors of a system, which must take the same clips."""
    found = [(where, part) for where, part in parts(system) if isinstance(part, _EXTRACTORS)]
    (first_where, first), *others = found
    for where, other in others:
        if _clip(other) != _clip(first):
            raise ValueError(
                f"{first_where} takes {_clip(first)} and {where} {_clip(other)}: a graph takes one "
                "waveform."
            )
    return [extractor for _, extractor in found]


def _clip(extractor):
    return f"{extractor.n_samples_} samples at {extractor.sr} Hz of channel {extractor.channel}"


def _extractor(extractor, where):
    if not isinstance(extractor, Wav2Vec):
        return SpectrogramLayer(extractor)
    if not isinstance(extractor.network_, FirstVersion):
        raise _refusal(where, extractor, "its model is of transformers; models of Wav2Vec1 are.")
    return copy.deepcopy(extractor.network_).cpu()


def _affine(step):
    if isinstance(step, StandardScaler):
        mean = step.mean_ if step.with_mean else None
        return AffineLayer(mean, None, step.scale_ if step.with_std else None)
    matrix = step.components_.T
    if not step.whiten:
        return AffineLayer(step.mean_, matrix, None)
    # scikit-learn guards against components without variance in the same way.
    scale = np.sqrt(step.explained_variance_)
    return AffineLayer(step.mean_, matrix, np.maximum(scale, np.finfo(scale.dtype).eps))


def _expect(flow, kind, estimator, where):
    needs = {_Waveform: "waveforms", _Spectrogram: "spectrograms", _Vector: "one vector a clip"}
    if not isinstance(flow, kind):
        hint = "; begin with STFT, LogMel or Wav2Vec" if isinstance(flow, _Waveform) else ""
        reason = f"it is given {needs[type(flow)]} and takes {needs[kind]}{hint}."
        raise _refusal(where, estimator, reason)


def _refusal(where, estimator, reason):
    place = f"{where}: " if where else ""
    return ValueError(f"{place}{type(estimator).__name__} cannot be exported to ONNX: {reason}")
