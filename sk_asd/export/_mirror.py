"""A fitted system as one torch module: waveforms and groups in, anomaly scores out."""

from typing import NamedTuple

import numpy as np
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted
from torch import nn

from sk_asd.export._graph_groups import Groups, thresholds
from sk_asd.export._layers import AffineLayer, EnsembleLayer, GroupedLayer
from sk_asd.features import KeepLabels
from sk_asd.utils._system import (
    each,
    inside,
    is_ensemble,
    is_grouped,
    is_passthrough,
    joined,
    parts,
    unwrapped,
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
        self.system = _Builder(self.groups).scorer(system, "", _Flow("waveforms"))
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


class _Flow(NamedTuple):
    """What reaches a part: "waveforms", "spectrograms" of so many frames, or "vectors"."""

    kind: str
    n_frames: int | None = None


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
        if is_grouped(estimator):
            return self._grouped(estimator, where, flow)
        if is_ensemble(estimator):
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
        if type(step) in (StandardScaler, PCA):
            _expect(flow, "vectors", step, where)
            return _affine(step), flow
        layer = _layer(step, where, flow)
        is_first = flow.kind == "waveforms"
        return layer, _Flow("spectrograms", step.n_frames_) if is_first else _Flow("vectors")

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
        if not hasattr(estimator, "score_samples"):
            raise _refusal(where, estimator, "it gives no scores; end with a detector.")
        return _Detect(_layer(estimator, where, flow))


def _layer(part, where, flow):
    """What a part exports itself as."""
    if not hasattr(part, "_exported"):
        reason = "it has no layer of a graph; the notes of export_onnx list the parts that have."
        raise _refusal(where, part, reason)
    # A detector that derives from nothing here takes what those of scikit-learn do.
    _expect(flow, getattr(part, "_takes", "vectors"), part, where)
    try:
        return part._exported(*[flow.n_frames] if flow.kind == "spectrograms" else [])
    except ValueError as error:
        raise _refusal(where, part, error) from error


def _extractors(system):
    """Feature extractors of a system, which must take the same clips."""
    found = [(w, p) for w, p in parts(system) if getattr(p, "_takes", None) == "waveforms"]
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


def _expect(flow, kind, part, where):
    if flow.kind != kind:
        hint = "; begin with features such as LogMel" if flow.kind == "waveforms" else ""
        raise _refusal(where, part, f"it is given {flow.kind} and takes {kind}{hint}.")


def _refusal(where, estimator, reason):
    place = f"{where}: " if where else ""
    return ValueError(f"{place}{type(estimator).__name__} cannot be exported to ONNX: {reason}")
