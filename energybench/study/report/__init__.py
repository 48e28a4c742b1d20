"""The report of a study: one page that tells what was found and how far to trust it, and its tables and figures."""

from energybench.study.report.files import FILE, write_page, write_report

__all__ = ["FILE", "write_page", "write_report"]
