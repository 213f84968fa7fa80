"""The official metrics of DCASE Task 2, a scorer for model selection, and submission files."""

from sk_asd.metrics._challenge_files import read_submission, write_submission
from sk_asd.metrics._dcase import dcase_score, dcase_scores
from sk_asd.metrics._scorer import anomaly_score, dcase_scorer

__all__ = [
    "anomaly_score",
    "dcase_score",
    "dcase_scorer",
    "dcase_scores",
    "read_submission",
    "write_submission",
]
