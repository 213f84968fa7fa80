"""Looking at results: plots, maps of what is abnormal, and the HTML report."""

from sk_asd.inspection._anomaly_map import AnomalyMapDisplay
from sk_asd.inspection._contribution import ContributionDisplay
from sk_asd.inspection._embedding import EmbeddingDisplay
from sk_asd.inspection._explain import explain_clips
from sk_asd.inspection._maps import anomaly_map
from sk_asd.inspection._nearest import nearest_normal
from sk_asd.inspection._report import write_report
from sk_asd.inspection._roc import RocDisplay
from sk_asd.inspection._score_distribution import ScoreDistributionDisplay
from sk_asd.inspection._spectrogram import SpectrogramDisplay

__all__ = [
    "AnomalyMapDisplay",
    "ContributionDisplay",
    "EmbeddingDisplay",
    "RocDisplay",
    "ScoreDistributionDisplay",
    "SpectrogramDisplay",
    "anomaly_map",
    "explain_clips",
    "nearest_normal",
    "write_report",
]
