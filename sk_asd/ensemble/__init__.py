"""Detectors made of detectors."""

from sk_asd.ensemble._grouped import GroupedDetector
from sk_asd.ensemble._score_ensemble import ScoreEnsemble
from sk_asd.ensemble._score_ensemble_cv import ScoreEnsembleCV
from sk_asd.ensemble._simplex import simplex_grid

__all__ = ["GroupedDetector", "ScoreEnsemble", "ScoreEnsembleCV", "simplex_grid"]
