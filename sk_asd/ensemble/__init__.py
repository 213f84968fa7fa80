"""Detectors made of detectors."""

from sk_asd.ensemble._grouped import GroupedDetector

__all__ = ["GroupedDetector"]
