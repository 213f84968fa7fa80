"""The official metrics of DCASE Task 2 and a scorer for model selection."""

from sk_asd.metrics._dcase import dcase_score, dcase_scores
from sk_asd.metrics._scorer import anomaly_score, dcase_scorer

__all__ = ["anomaly_score", "dcase_score", "dcase_scorer", "dcase_scores"]
