"""Plain :class:`torch.nn.Module` networks: spectrogram windows in, embeddings out."""

from sk_asd.networks._arcface import ArcFace
from sk_asd.networks._cnn6 import Cnn6
from sk_asd.networks._mobilefacenet import MFNSE, MobileFaceNet
from sk_asd.networks._standardize import BinStandardizer

__all__ = ["MFNSE", "ArcFace", "BinStandardizer", "Cnn6", "MobileFaceNet"]
