"""Builders that return ready, unfitted Pipelines, and the results of the AITHU report."""

from sk_asd.systems._classification import make_mhcr, make_sc, make_sc_wav2vec
from sk_asd.systems._pooling import make_pooling
from sk_asd.systems._probabilistic import make_imdn, make_wsp_nfcdee
from sk_asd.systems._reconstruction import make_aegan_ad, make_baseline
from sk_asd.systems._report_results import REPORT_RESULTS, report_results
from sk_asd.systems._submission import make_submission

__all__ = [
    "REPORT_RESULTS",
    "make_aegan_ad",
    "make_baseline",
    "make_imdn",
    "make_mhcr",
    "make_pooling",
    "make_sc",
    "make_sc_wav2vec",
    "make_submission",
    "make_wsp_nfcdee",
    "report_results",
]
