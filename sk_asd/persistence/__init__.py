"""Models on disk: plain data in a file, nothing that could run."""

from sk_asd.persistence._file import load, save

__all__ = ["load", "save"]
