"""Plain :class:`torch.nn.Module` networks: embeddings, densities, reconstructions, heads."""

from sk_asd.networks._adacos import SubclusterAdaCos
from sk_asd.networks._aegan import AEGANDiscriminator, AEGANGenerator
from sk_asd.networks._arcface import ArcFace
from sk_asd.networks._augment import SpecAugment, mixup
from sk_asd.networks._autoencoder import AutoEncoder
from sk_asd.networks._cnn6 import Cnn6
from sk_asd.networks._dfnet import DFNet
from sk_asd.networks._ecapa import ECAPATDNN
from sk_asd.networks._flows import ConditionalFlow, GroupedFlow
from sk_asd.networks._ignn import IGNN, LRCGNN, InterpolationMLP
from sk_asd.networks._mixture import GaussianMixtureDensity
from sk_asd.networks._mobilefacenet import MFNSE, MobileFaceNet
from sk_asd.networks._mobilenetv2 import MobileNetV2
from sk_asd.networks._wav2vec import Wav2Vec1
from sk_asd.networks._weighted_pooling import WeightedStatisticPooling

__all__ = [
    "ECAPATDNN",
    "IGNN",
    "LRCGNN",
    "MFNSE",
    "AEGANDiscriminator",
    "AEGANGenerator",
    "ArcFace",
    "AutoEncoder",
    "Cnn6",
    "ConditionalFlow",
    "DFNet",
    "GaussianMixtureDensity",
    "GroupedFlow",
    "InterpolationMLP",
    "MobileFaceNet",
    "MobileNetV2",
    "SpecAugment",
    "SubclusterAdaCos",
    "Wav2Vec1",
    "WeightedStatisticPooling",
    "mixup",
]
