"""From scores to decisions: p-values, thresholds after the fit, how often they err, adapting."""

from sk_asd.decisions._adapt import adapt
from sk_asd.decisions._pvalues import predict_pvalue
from sk_asd.decisions._score_clips import score_clips
from sk_asd.decisions._thresholds import false_alarms_per_day, set_threshold

__all__ = ["adapt", "false_alarms_per_day", "predict_pvalue", "score_clips", "set_threshold"]
