"""Detectors made of detectors."""

from sk_asd.ensemble._adapt import adapt
from sk_asd.ensemble._cnn6_classifier import Cnn6Classifier
from sk_asd.ensemble._domain_classifier import DomainClassifier
from sk_asd.ensemble._domain_normalized import DomainNormalizedDetector
from sk_asd.ensemble._grouped import GroupedDetector
from sk_asd.ensemble._score_ensemble import ScoreEnsemble
from sk_asd.ensemble._score_ensemble_cv import ScoreEnsembleCV
from sk_asd.ensemble._simplex import simplex_grid

__all__ = [
    "Cnn6Classifier",
    "DomainClassifier",
    "DomainNormalizedDetector",
    "GroupedDetector",
    "ScoreEnsemble",
    "ScoreEnsembleCV",
    "adapt",
    "simplex_grid",
]
