"""Outlier detectors: how abnormal an embedding or a feature is."""

from sk_asd.detectors._aegan import AEGANDetector
from sk_asd.detectors._autoencoder import AutoEncoderDetector
from sk_asd.detectors._cosine import CosineDetector
from sk_asd.detectors._gaussian_mixture import GaussianMixtureDetector
from sk_asd.detectors._idnn import IDNNDetector
from sk_asd.detectors._imdn import IMDNDetector
from sk_asd.detectors._knn import KNNDetector
from sk_asd.detectors._lof import LOFDetector
from sk_asd.detectors._mahalanobis import MahalanobisDetector
from sk_asd.detectors._mobilenetv2 import MobileNetV2Detector
from sk_asd.detectors._wsp_flow import WSPFlowDetector

__all__ = [
    "AEGANDetector",
    "AutoEncoderDetector",
    "CosineDetector",
    "GaussianMixtureDetector",
    "IDNNDetector",
    "IMDNDetector",
    "KNNDetector",
    "LOFDetector",
    "MahalanobisDetector",
    "MobileNetV2Detector",
    "WSPFlowDetector",
]
