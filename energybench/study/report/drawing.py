"""How figures look, and how a matplotlib figure becomes an inline SVG that follows the page's light or dark colours."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from energybench.power_plot import LINES, OTHER_PHASES, PHASES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, MUTED, RULE, PAPER = "#1d232b", "#5b6672", "#d9dee4", "#fefefe"
"""Text, secondary text, grid and background: of no other part of a figure, so that the page can replace them."""

PIXELS_AN_INCH = 200
"""Of PNG files: enough for two columns of a printed page."""

MOST_GROWTHS = 4
"""How often a sheet is made taller for its words."""

_SCREEN = 1.5
"""CSS pixels a point: text of 9 points is then as large as the page's small print."""

_STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9.0,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.7,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "text.color": INK,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.6,
    "lines.markersize": 5.0,
    "errorbar.capsize": 2.5,
    "path.simplify_threshold": 0.3,
}

# Colours of the page by those of the figures; a page without these variables shows the figure's own.
_VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    RULE: "rule",
    PAPER: "paper",
    **{colour.lower(): f"line-{number}" for number, colour in enumerate(LINES)},
    **{colour: f"phase-{name}" for name, colour in PHASES.items()},
    **{colour: f"phase-other-{number}" for number, colour in enumerate(OTHER_PHASES)},
}


@dataclass(frozen=True)
class Picture:
    """A figure of the report.

    Attributes:
        name: of its files and of its anchor on the page: "energy-against-batch".
        title: short, for people who see it.
        description: what is to be seen, in words, for people who do not.
        caption: what it shows and how to read it.
        figure: matplotlib's, drawn.
    """

    name: str
    title: str
    description: str
    caption: str
    figure: Figure

    @property
    def inline(self) -> str:
        """As SVG for the page: text as text, colours as the page's."""
        return _inline(self._svg("none"), self)

    @property
    def svg(self) -> str:
        """As SVG for a file: text as outlines, so that it looks the same everywhere."""
        return self._svg("path")

    @property
    def png(self) -> bytes:
        """As PNG for a file."""
        made = io.BytesIO()
        with _style():
            self.figure.savefig(made, format="png", dpi=PIXELS_AN_INCH, metadata={"Software": None})
        return made.getvalue()

    def _svg(self, text: str) -> str:
        made = io.StringIO()
        absent = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        with _style({"svg.hashsalt": self.name, "svg.fonttype": text}):
            self.figure.savefig(made, format="svg", metadata=absent)
        return made.getvalue()


def picture(
    name: str,
    title: str,
    description: str,
    draw: Callable[[Figure], Any],
    *,
    caption: str = "",
    size: tuple[float, float] = (7.4, 3.6),
) -> Picture:
    """Draws a figure; the same data give the same bytes.

    Args:
        name: see Picture.
        title: see Picture.
        description: see Picture.
        draw: fills the empty figure.
        caption: see Picture.
        size: width and height, inches.
    """
    with _style():
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=size, layout="constrained")  # not pyplot: it keeps global state
        FigureCanvasAgg(figure)
        draw(figure)
        _lay_out(figure)
    return Picture(name, title, description, caption, figure)


def _lay_out(figure: Figure) -> None:
    """Once for all forms it is written in; where words leave no room for the axes, on a taller sheet."""
    for _ in range(MOST_GROWTHS):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            figure.draw_without_rendering()
        if not any("collapsed to zero" in str(one.message) for one in caught):
            break
        width, height = figure.get_size_inches()
        figure.set_size_inches(width, 1.5 * height)
    figure.set_layout_engine("none")


@contextmanager
def _style(more: Mapping[str, Any] = MappingProxyType({})) -> Iterator[None]:
    import matplotlib

    with matplotlib.rc_context({**_STYLE, **more}):
        yield


def _inline(svg: str, picture: Picture) -> str:
    """The svg element alone, with a title, ids of its own, and the page's colours."""
    name = picture.name
    body = svg[svg.index("<svg") :]
    head, _, rest = body.partition(">")
    box = re.search(r'viewBox="([^"]+)"', head)
    assert box is not None
    rest = re.sub(r"\s*<metadata>.*?</metadata>", "", rest, flags=re.DOTALL)
    rest = re.sub(r'(?<!\w)id="([^"]+)"', rf'id="{name}-\1"', rest)
    rest = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', rest)
    rest = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", rest)
    rest = re.sub(r"(?<=: )#[0-9a-f]{6}", lambda found: _variable(found[0]), rest)
    rest = re.sub(r"font: ([\d.]+px) [^;\"]+", r"font-size: \1", rest)
    rest = re.sub(r"font: (bold|\d+) ([\d.]+px) [^;\"]+", r"font-weight: \1; font-size: \2", rest)
    titled = (
        f'<title id="{name}-title">{escape(picture.title)}</title>'
        f'<desc id="{name}-desc">{escape(picture.description)}</desc>'
    )
    labels = f'role="img" aria-labelledby="{name}-title {name}-desc"'
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    width, height = (round(float(side) * _SCREEN) for side in box[1].split()[2:])
    return f'<svg {spaces} width="{width}" height="{height}" viewBox="{box[1]}" {labels}>{titled}{rest}'


def _variable(colour: str) -> str:
    name = _VARIABLES.get(colour)
    return f"var(--{name}, {colour})" if name else colour
