"""Builders that return ready, unfitted Pipelines."""

from sk_asd.systems._classification import make_sc
from sk_asd.systems._pooling import make_pooling

__all__ = ["make_pooling", "make_sc"]
