"""Builders that return ready, unfitted Pipelines."""

from sk_asd.systems._classification import make_mhcr, make_sc, make_sc_wav2vec
from sk_asd.systems._pooling import make_pooling
from sk_asd.systems._probabilistic import make_imdn, make_wsp_nfcdee
from sk_asd.systems._reconstruction import make_aegan_ad, make_baseline

__all__ = [
    "make_aegan_ad",
    "make_baseline",
    "make_imdn",
    "make_mhcr",
    "make_pooling",
    "make_sc",
    "make_sc_wav2vec",
    "make_wsp_nfcdee",
]
