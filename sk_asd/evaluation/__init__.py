"""Whole evaluations: train, score, decide, choose and measure, as the challenge does it."""

from sk_asd.evaluation._evaluate import evaluate
from sk_asd.evaluation._result import Evaluation

__all__ = ["Evaluation", "evaluate"]
