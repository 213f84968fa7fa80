"""Outlier detectors: how abnormal an embedding or a feature is."""

from sk_asd.detectors._cosine import CosineDetector
from sk_asd.detectors._gaussian_mixture import GaussianMixtureDetector
from sk_asd.detectors._knn import KNNDetector
from sk_asd.detectors._lof import LOFDetector
from sk_asd.detectors._mahalanobis import MahalanobisDetector

__all__ = [
    "CosineDetector",
    "GaussianMixtureDetector",
    "KNNDetector",
    "LOFDetector",
    "MahalanobisDetector",
]
