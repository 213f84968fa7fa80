"""Features of clips: from waveforms to arrays that carry the labels of their clips."""

from sk_asd.features._keep_labels import KeepLabels
from sk_asd.features._logmel import LogMel
from sk_asd.features._stft import STFT
from sk_asd.features._time_pooling import TimePooling
from sk_asd.features._wav2vec import Wav2Vec

__all__ = ["STFT", "KeepLabels", "LogMel", "TimePooling", "Wav2Vec"]
