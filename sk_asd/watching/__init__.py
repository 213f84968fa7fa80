"""Watching machines: scores and alarms from a stream of sound, and drift."""

from sk_asd.watching._drift import DriftMonitor, DriftReport
from sk_asd.watching._streaming import StreamEvent, StreamingScorer

__all__ = ["DriftMonitor", "DriftReport", "StreamEvent", "StreamingScorer"]
