"""Splitters for clip tables."""

from sk_asd.model_selection._split import NormalTrainSplit

__all__ = ["NormalTrainSplit"]
