"""Writes a report: the page alone, or a folder with its tables and figures beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from energybench.run.result import Result
from energybench.study.report.contents import Contents, contents
from energybench.study.report.page import render, require
from energybench.study.report.tables import FORMATS

FILE = "report.html"


def write_page(
    results: Sequence[Result], folders: Mapping[str, Path], directory: Path, problems: Sequence[str] = (), title: str = ""
) -> Path:
    """Writes report.html, which needs no other file.

    Args:
        results: the runs, each once.
        folders: run id -> its folder, for those on disk.
        directory: where to.
        problems: what could not be read, a line each.
        title: heading of the page; empty: the sweeps' names.

    Raises:
        ConfigError: what a report needs is not installed.
    """
    require()
    return _page(contents(results, folders, problems, title), directory)


def write_report(
    results: Sequence[Result], folders: Mapping[str, Path], directory: Path, problems: Sequence[str] = (), title: str = ""
) -> Path:
    """Writes the page, and in `tables` and `figures` what it shows, for a paper.

    Args and Raises as `write_page`; returns the page.
    """
    require()
    made = contents(results, folders, problems, title)
    tables, figures = directory / "tables", directory / "figures"
    for folder in (tables, figures):
        folder.mkdir(parents=True, exist_ok=True)
    for table in made.tables:
        for ending, write in FORMATS.items():
            (tables / f"{table.name}.{ending}").write_text(write(table), encoding="utf-8")
    for picture in made.pictures:
        (figures / f"{picture.name}.svg").write_text(picture.svg, encoding="utf-8")
        (figures / f"{picture.name}.png").write_bytes(picture.png)
    return _page(made, directory)


def _page(made: Contents, directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    page = directory / FILE
    partial = page.with_suffix(".html.partial")
    partial.write_text(render(made), encoding="utf-8")
    partial.replace(page)
    return page
