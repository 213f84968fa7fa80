"""Source and target domain: telling them apart, and their scores on one scale."""

from sk_asd.domains._cnn6_classifier import Cnn6Classifier
from sk_asd.domains._domain_classifier import DomainClassifier
from sk_asd.domains._domain_normalized import DomainNormalizedDetector

__all__ = ["Cnn6Classifier", "DomainClassifier", "DomainNormalizedDetector"]
