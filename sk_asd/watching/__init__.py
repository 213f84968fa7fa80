"""Watching machines: scores and alarms from sound and folders of recordings, and drift."""

from sk_asd.watching._drift import DriftMonitor, DriftReport
from sk_asd.watching._folder import FolderEvent, FolderWatcher
from sk_asd.watching._scorers import StreamingScorers
from sk_asd.watching._streaming import StreamEvent, StreamingScorer

__all__ = [
    "DriftMonitor",
    "DriftReport",
    "FolderEvent",
    "FolderWatcher",
    "StreamEvent",
    "StreamingScorer",
    "StreamingScorers",
]
