"""Builders that return ready, unfitted Pipelines, and the results of the AITHU report.

They are loaded on first use, so that names of systems can be listed without torch.
"""

import importlib

_WHERE = {
    "make_aegan_ad": "_reconstruction",
    "make_baseline": "_reconstruction",
    "make_imdn": "_probabilistic",
    "make_mhcr": "_classification",
    "make_instant": "_without_network",
    "make_pooling": "_without_network",
    "make_sc": "_classification",
    "make_sc_wav2vec": "_classification",
    "make_submission": "_submission",
    "make_system": "_registry",
    "make_wsp_nfcdee": "_probabilistic",
    "REPORT_RESULTS": "_report_results",
    "report_results": "_report_results",
}

__all__ = [*_WHERE]


def __getattr__(name):
    if name in _WHERE:
        return getattr(importlib.import_module(f"sk_asd.systems.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'sk_asd.systems' has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *__all__})
