"""The page: one HTML file with everything in it, made by a template that is packaged beside this module."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

from energybench.errors import ConfigError

if TYPE_CHECKING:
    from energybench.study.report.contents import Contents

TEMPLATES = "templates"
REMEDY = "run pip install 'energybench[report]'"


def missing() -> str:
    """What is not installed that a report needs, in one line; empty where nothing is missing."""
    from importlib.util import find_spec

    absent = [name for name in ("jinja2", "matplotlib") if find_spec(name) is None]
    return f"{' and '.join(absent)} not installed; {REMEDY}" if absent else ""


def require() -> None:
    """Raises ConfigError where a report cannot be made."""
    if reason := missing():
        raise ConfigError(f"report: {reason}")


def render(contents: Contents) -> str:
    """The page as text."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_template),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, script = jinja2_safe(_template("report.css")), jinja2_safe(_template("report.js"))
    return environment.get_template("report.html").render(report=contents, style=style, script=script)


def jinja2_safe(text: str) -> str:
    """Text that the template sets as it is: ours, not a user's."""
    import markupsafe

    return markupsafe.Markup(text)


def _template(name: str) -> str:
    return (resources.files(__package__) / TEMPLATES / name).read_text(encoding="utf-8")
