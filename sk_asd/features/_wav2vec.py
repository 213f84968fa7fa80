"""Features of wav2vec models."""

import copy
import os
from numbers import Integral

import numpy as np
import torch
from torch import nn

from sk_asd.features._base import BaseExtractor
from sk_asd.features._wav2vec_models import (
    FirstVersion,
    digest,
    from_state,
    load_features,
    state_of,
)
from sk_asd.utils._sklearn import Interval, StrOptions
from sk_asd.utils._training import on_device, resolve_device


class WaveformNetwork(BaseExtractor):
    """What extractors have in common that put clips through a network, kept in ``network_``.

    The network is a module from waveforms to features with the attributes ``n_channels``,
    ``receptive_field`` and ``hop_length``; `_use` takes it.
    """

    _parameter_constraints: dict = {
        **BaseExtractor._parameter_constraints,
        "features": [StrOptions({"context", "encoder"})],
        "device": [str, torch.device],
    }
    _state = ("network_", "n_frames_", "_digest")

    def _use(self, module, origin):
        """Set the fitted attributes that follow from a network."""
        if self.n_samples_ < module.receptive_field:
            raise ValueError(
                f"{origin}, shorter than the receptive field of the network, "
                f"{module.receptive_field} samples ({module.receptive_field / self.sr:.4g} s at "
                f"{self.sr} Hz)."
            )
        self.network_ = module
        self.n_frames_ = (self.n_samples_ - module.receptive_field) // module.hop_length + 1
        self._digest = digest(module)

    def _get_state(self):
        state = super()._get_state()
        if hasattr(self, "network_"):
            state["network_"] = state_of(self.network_)
        return state

    def _set_state(self, state):
        state = dict(state)
        if "network_" in state:
            state["network_"] = from_state(state["network_"])
        super()._set_state(state)

    def _shape(self):
        return self.network_.n_channels, self.n_frames_

    def _labels(self):
        hop, middle = self.network_.hop_length, (self.network_.receptive_field - 1) / 2
        seconds = (middle + hop * np.arange(self.n_frames_)) / self.sr
        return ("channel", "frame"), {"frame": seconds}

    def _n_threads(self):
        # A GPU has one copy of the network and one queue.
        device = resolve_device(self.device, fitted=True)
        return super()._n_threads() if device.type == "cpu" else 1

    def _kernel(self):
        device = resolve_device(self.device, fitted=True)
        network = on_device(self.network_, device)
        waveform = torch.empty(1, self.n_samples_)
        samples = waveform[0].numpy()

        def kernel(wave, out):
            samples[:] = wave
            with torch.inference_mode():
                out[:] = network(waveform.to(device))[0].cpu().numpy()

        return kernel

    def _exported(self):
        if not isinstance(self.network_, FirstVersion):
            raise ValueError("its model is of transformers; models of Wav2Vec1 are exported.")
        return copy.deepcopy(self.network_).cpu()

    def _value_params(self):
        names = BaseExtractor._parameter_constraints.keys() - {"cache_dir", "n_jobs"}
        # What the network is, wherever it came from. A GPU computes other last bits.
        device = resolve_device(self.device, fitted=True).type
        values = {name: getattr(self, name) for name in sorted(names)}
        return {**values, "network": self._digest, "device": device}


class Wav2Vec(WaveformNetwork):
    """Features of a pre-trained wav2vec model (first part of subsystem SC-wav2vec).

    The network sees each clip whole and on its own, at the rate it was trained with. Clips are
    computed in several threads and sound files are read there, so that nothing but the features
    is held in memory, or nothing at all with `cache_dir`.

    Parameters
    ----------
    model : str, path-like or Wav2Vec1, default="small"
        One of

        - ``"small"``: the model of 128 channels that comes with the package. It was trained on
          synthetic machine sounds for some minutes: a stand-in with which everything works without
          a download, no match for a model trained on hours of recordings;
        - a file ending in ``.safetensors``, written by
          :meth:`~sk_asd.embedders.Wav2VecPretrainer.save`;
        - a file ending in ``.pt``, a checkpoint of wav2vec (the first version) from fairseq, such
          as ``wav2vec_large.pt``. It is read without executing what is in it, and refused if it
          asks for that;
        - the folder or the name of a wav2vec 2.0 model of transformers, or of a similar one such as
          HuBERT. It must be on this machine already, and needs the extra ``wav2vec2``;
        - a network.
    features : {"context", "encoder"}, default="context"
        Output of the aggregator, or for wav2vec 2.0 of the transformer; or that of the
        convolutions before it.
    layer : int, default=None
        Hidden state of a wav2vec 2.0 model, from 0, the input of its first layer; None is its final
        output. For `features` "context".
    sr : int, default=16000
        Sample rate in Hz.
    duration : float, default=None
        Length that all clips are brought to, in seconds; None is the length of the first clip in
        `fit`.
    on_length : {"error", "pad", "crop", "tile"}, default="error"
        What to do with clips of another length. All but "error" keep the beginning of a longer
        clip. A shorter one is continued with zeros by "pad" and with its own beginning by "tile";
        for "crop" it is an error.
    on_rate : {"error", "resample"}, default="error"
        What to do with clips of another sample rate than `sr`. Resampling is soxr's, quality HQ.
    channel : int, default=0
        Channel that is read of sound files with several, counted from 0.
    device : str or torch.device, default="auto"
        Where to compute; ``"auto"`` is a CUDA device if there is one, else the CPU. The network is
        kept on the CPU.
    cache_dir : str or path-like, default=None
        Folder for a file of the features, from where they are read back memory-mapped when the same
        clips (path, size and modification time, or the samples) are transformed again with the
        same weights and parameters. A set of clips has one file; nothing deletes it. None keeps
        the features in memory.
    n_jobs : int, default=None
        Number of threads; each computes a clip of its own. None is as many as torch is set to use
        (``torch.get_num_threads()``), but no more than the CPUs at hand; -1 is all cores. A GPU is
        fed by one.

    Attributes
    ----------
    network_ : nn.Module
        Network from waveforms ``(batch, n_samples)`` to features ``(batch, n_channels, n_frames)``.
    n_samples_ : int
        Samples of a clip.
    n_frames_ : int
        Frames of a clip.
    peak_ : float
        Largest magnitude of the samples of up to 16 clips that `fit` was given.
    quiet_ : float
        Level that 95 % of the tenths of a second of these clips exceed: standard deviation, in
        their unit; 0 if nothing was heard.
    n_features_in_ : int
        Samples of a clip, or the width of the array seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features,)
        Column names of a numeric DataFrame without sound, if `fit` was given one.

    See Also
    --------
    sk_asd.embedders.Wav2VecPretrainer : Trains models on unlabelled sound.
    sk_asd.networks.Wav2Vec1 : The network.

    Notes
    -----
    The result for a clip table is a DataArray of dimensions ``("clip", "channel", "frame")`` with
    the seconds of the middle of the encoder's frames as coordinates, beside the columns of the
    table. Models of the first version take waveforms as they are; for wav2vec 2.0 each clip is
    brought to mean 0 and variance 1 where the model's own configuration says so.

    A fitted transformer holds the network, and so does its pickle. The cache is keyed by the
    weights, not by the name of their file.

    References
    ----------
    Schneider, S. et al. "wav2vec: Unsupervised pre-training for speech recognition", Interspeech
    2019. Baevski, A. et al. "wav2vec 2.0: A framework for self-supervised learning of speech
    representations", NeurIPS 2020. AITHU report for DCASE 2022 task 2, section 3.1.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_asd.features import Wav2Vec
    >>> X = np.random.default_rng(0).normal(size=(2, 16000)).astype("float32")
    >>> Wav2Vec().fit_transform(X).shape
    (2, 128, 98)
    """

    _parameter_constraints: dict = {
        **WaveformNetwork._parameter_constraints,
        "model": [str, os.PathLike, nn.Module],
        "layer": [Interval(Integral, 0, None, closed="left"), None],
    }

    def __init__(
        self,
        model="small",
        *,
        features="context",
        layer=None,
        sr=16000,
        duration=None,
        on_length="error",
        on_rate="error",
        channel=0,
        device="auto",
        cache_dir=None,
        n_jobs=None,
    ):
        self.model = model
        self.features = features
        self.layer = layer
        self.sr = sr
        self.duration = duration
        self.on_length = on_length
        self.on_rate = on_rate
        self.channel = channel
        self.device = device
        self.cache_dir = cache_dir
        self.n_jobs = n_jobs

    def _setup(self, origin):
        module = load_features(self.model, self.features, self.layer)
        if module.sr is not None and module.sr != self.sr:
            raise ValueError(
                f"The model {os.fspath(self.model)!r} was trained at {module.sr} Hz, found "
                f"sr={self.sr} Hz: set sr={module.sr}, and on_rate='resample' for clips of another "
                "rate."
            )
        self._use(module, origin)
