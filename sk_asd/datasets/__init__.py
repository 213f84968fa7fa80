"""Clip tables: loading, fetching, checking and synthesising recordings of machines."""

from sk_asd.datasets._check import check_clips
from sk_asd.datasets._fetch import fetch_dcase
from sk_asd.datasets._load import load_clips
from sk_asd.datasets._machine_sounds import make_machine_sounds

__all__ = ["check_clips", "fetch_dcase", "load_clips", "make_machine_sounds"]
