"""The report of a study: one page that tells what was found and how far to trust it, and its tables and figures.

`contents` works out what the page says, with `advice`, `claims`, `settings` and `origin`; `pictures` chooses what is
drawn, `figures` and `drawing` draw it; `page` makes HTML of it, `tables` what a paper wants, and `files` writes both.
"""

from energybench.study.report.files import page_of_sweep, write_report
from energybench.study.report.page import require

__all__ = ["page_of_sweep", "require", "write_report"]
