"""Utilities, among them :mod:`sk_asd.utils.estimator_checks`."""
