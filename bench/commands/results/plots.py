"""Plots as SVG elements for an HTML page, drawn by matplotlib (extra `bench`)."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cliprl.engines import UsageError

# The colors of Okabe and Ito, which color-blind readers can tell apart, in print too.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#7f7f7f")
INSTALL = "pip install 'cliprl[bench]'"
# Width of a plot, height of its axes, of a legend's line and of a bar, in inches.
_WIDTH, _HEIGHT, _LINE, _ROW = 7.6, 3.4, 0.22, 0.32
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "cliprl-bench",
    "font.size": 9,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#d8dee4",
}
_UNNAMED = dict.fromkeys(("Date", "Creator", "Format", "Type"))


@dataclass(frozen=True, slots=True)
class Line:
    """A named line through points (x, y), in data units."""

    name: str
    points: Sequence[tuple[float, float]]
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar from `start` to `end` with a whisker to `reach`, in data units, a text after it, in one of COLORS."""

    name: str
    start: float
    end: float
    reach: float
    text: str
    color: int = 0


def line_plot(lines: Sequence[Line], x_title: str, y_title: str, *, y_most: float | None = None) -> str:
    """Draw lines above y = 0 with a legend below. Return "" if no line has a point."""
    lines = [line for line in lines if line.points]
    if not lines:
        return ""

    def draw(figure: Any, axes: Any) -> None:
        for i, line in enumerate(lines):
            marker = "o" if len(line.points) <= 12 and not line.dashed else ""
            style = {"color": _color(i), "linestyle": "--" if line.dashed else "-", "linewidth": 2, "marker": marker}
            axes.plot(*zip(*line.points, strict=True), label=line.name, **style)
        axes.set(xlabel=x_title, ylabel=y_title)
        axes.set_ylim(0, y_most)
        figure.legend(loc="outside lower left", frameon=False)

    return _svg(draw, _HEIGHT + _LINE * len(lines))


def bar_plot(bars: Sequence[Bar], x_title: str) -> str:
    """Draw horizontal bars from the top down along one axis that begins at 0. Return "" without bars."""
    if not bars:
        return ""

    def draw(figure: Any, axes: Any) -> None:
        for row, bar in enumerate(bars):
            axes.barh(row, bar.end - bar.start, left=bar.start, height=0.6, color=_color(bar.color))
            axes.plot((bar.end, bar.reach), (row, row), color=COLORS[6])
            axes.annotate(bar.text, (max(bar.end, bar.reach), row), (5, 0), textcoords="offset points", va="center")
        axes.set_yticks(range(len(bars)), [bar.name for bar in bars])
        axes.set(xlabel=x_title, xlim=(0, max(bar.reach for bar in bars) * 1.2 or 1.0))
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")

    return _svg(draw, 0.8 + _ROW * len(bars))


def _color(i: int) -> str:
    return COLORS[i % len(COLORS)]


def _svg(draw: Any, height: float) -> str:
    """The SVG element of a figure: text as text, no prolog, no ids but those that the element refers to."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError(f"plots need matplotlib ({error}): {INSTALL}") from error
    file = io.StringIO()
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        draw(figure, figure.subplots())
        figure.savefig(file, format="svg", metadata=_UNNAMED)
    text = file.getvalue()
    return re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", text[text.index("<svg") :]).replace("<svg", '<svg role="img"', 1)
