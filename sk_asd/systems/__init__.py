"""Builders that return ready, unfitted Pipelines."""

from sk_asd.systems._classification import make_mhcr, make_sc, make_sc_wav2vec
from sk_asd.systems._pooling import make_pooling

__all__ = ["make_mhcr", "make_pooling", "make_sc", "make_sc_wav2vec"]
