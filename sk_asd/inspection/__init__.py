"""Looking at results: the HTML report."""

from sk_asd.inspection._report import write_report

__all__ = ["write_report"]
