"""Plain :class:`torch.nn.Module` networks: spectrogram windows in, embeddings out."""

from sk_asd.networks._adacos import SubclusterAdaCos
from sk_asd.networks._arcface import ArcFace
from sk_asd.networks._augment import SpecAugment, mixup
from sk_asd.networks._cnn6 import Cnn6
from sk_asd.networks._ecapa import ECAPATDNN
from sk_asd.networks._mobilefacenet import MFNSE, MobileFaceNet
from sk_asd.networks._standardize import BinStandardizer
from sk_asd.networks._wav2vec import Wav2Vec1

__all__ = [
    "ECAPATDNN",
    "MFNSE",
    "ArcFace",
    "BinStandardizer",
    "Cnn6",
    "MobileFaceNet",
    "SpecAugment",
    "SubclusterAdaCos",
    "Wav2Vec1",
    "mixup",
]
