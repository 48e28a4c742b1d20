"""Writes a report: the page alone, or a folder with its tables and figures beside it."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

from energybench.errors import EnergybenchError
from energybench.run.result import REPORT_FILE
from energybench.study.collect import Collected
from energybench.study.report.contents import Contents, contents
from energybench.study.report.page import missing, render, require
from energybench.study.report.tables import FORMATS
from energybench.whole import whole, writable


def write_report(found: Collected, directory: Path, title: str = "") -> Path:
    """Writes the page, and in `tables` and `figures` what it shows, for a paper.

    Args:
        found: the runs and where they lie.
        directory: where to; made where it is not there.
        title: heading of the page; empty: the sweeps' names.

    Returns:
        The page.

    Raises:
        ConfigError: what a report needs is not installed, or nothing can be written into the folder.
    """
    require()
    made = contents(found, title)
    tables, figures = directory / "tables", directory / "figures"
    for folder in (directory, tables, figures):
        writable(folder)
    for table in made.tables:
        for ending, write in FORMATS.items():
            (tables / f"{table.name}.{ending}").write_text(write(table), encoding="utf-8")
    for picture in made.pictures:
        (figures / f"{picture.name}.svg").write_text(picture.svg, encoding="utf-8")
        (figures / f"{picture.name}.png").write_bytes(picture.png)
    return _page(made, directory)


def page_of_sweep(found: Collected, directory: Path) -> Path | None:
    """Writes the page of a sweep that has ended into its folder; what keeps it from that is said and costs no run.

    Returns:
        The page; None where there is none.
    """
    if not found.results:
        return None
    if reason := missing():
        print(f"energybench: no report: {reason}", file=sys.stderr)
        return None
    try:
        page = _page(contents(found), directory)
    except KeyboardInterrupt:
        print(f"energybench: no report; later: energybench report {directory}", file=sys.stderr)
    except (EnergybenchError, OSError) as error:
        print(f"energybench: warning: no report: {error}", file=sys.stderr)
    except Exception as error:  # a bug of ours must not take the table and the exit code of a sweep with it
        traceback.print_exception(error)
        print(f"energybench: warning: no report, please report it: {error!r}", file=sys.stderr)
    else:
        print(f"report: {page}")
        return page
    return None


def _page(made: Contents, directory: Path) -> Path:
    page = directory / REPORT_FILE
    with whole(page) as file:
        file.write(render(made).encode())
    return page
