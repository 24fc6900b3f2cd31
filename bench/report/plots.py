"""Plots as plain SVG text: no library, no script, nothing fetched."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

# Okabe and Ito's colours: told apart by nearly everyone, on paper too.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#7f7f7f")
WIDTH, HEIGHT = 760, 380
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 20, 55
LINE_HEIGHT = 18


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


def ticks(low: float, high: float, count: int = 6) -> list[float]:
    """Round numbers from `low` to `high`, about `count` of them."""
    span = high - low
    if not span > 0 or not math.isfinite(span):
        return [low]
    power = 10.0 ** math.floor(math.log10(span / count))
    step = next(power * m for m in (1, 2, 5, 10) if span / (power * m) <= count)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 10) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def line_plot(lines: Sequence[Line], x_title: str, y_title: str, *, y_most: float | None = None) -> str:
    """Lines over axes that begin at the least x and at 0; the legend below. Empty where no line has a point."""
    points = [p for line in lines for p in line.points]
    if not points:
        return ""
    x_low, x_high = min(x for x, _ in points), max(x for x, _ in points)
    y_high = y_most or max(y for _, y in points) * 1.05 or 1.0
    x_high = x_high if x_high > x_low else x_low + 1
    place = _Frame(x_low, x_high, y_high)
    body = [place.axes(x_title, y_title)]
    for i, line in enumerate(lines):
        path = " ".join(f"{place.x(x):.1f},{place.y(min(y, y_high)):.1f}" for x, y in line.points)
        dash = ' stroke-dasharray="6 5"' if line.dashed else ""
        body.append(f'<polyline points="{path}" fill="none" stroke="{_color(i)}" stroke-width="2"{dash}/>')
        body += [_dot(place, p, i) for p in line.points] if len(line.points) <= 12 and not line.dashed else []
    body += _legend([line.name for line in lines])
    return _svg(body, HEIGHT + LINE_HEIGHT * len(lines))


def bar_plot(bars: Sequence[Bar], x_title: str) -> str:
    """Horizontal bars in their order, from left to right along one axis that begins at 0."""
    if not bars:
        return ""
    left, row = 230, 30
    most = max(bar.reach for bar in bars) * 1.02 or 1.0
    scale = (WIDTH - left - 150) / most
    bottom = TOP + row * len(bars)
    body = []
    for value in ticks(0, most):
        x = left + value * scale
        body.append(f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{bottom}" class="grid"/>')
        body.append(_text(x, bottom + 18, f"{value:g}", "middle"))
    for i, bar in enumerate(bars):
        middle = TOP + row * (i + 0.5)
        start, end, reach = (left + v * scale for v in (bar.start, bar.end, bar.reach))
        body.append(_text(left - 10, middle + 5, bar.name, "end"))
        size = f'width="{max(1.5, end - start):.1f}" height="18"'
        body.append(f'<rect x="{start:.1f}" y="{middle - 9:.1f}" {size} fill="{_color(bar.color)}"/>')
        body.append(f'<line x1="{end:.1f}" y1="{middle:.1f}" x2="{reach:.1f}" y2="{middle:.1f}" class="whisker"/>')
        body.append(_text(max(end, reach) + 8, middle + 5, bar.text, "start"))
    body.append(_text((left + WIDTH - 150) / 2, bottom + 42, x_title, "middle"))
    return _svg(body, bottom + BOTTOM)


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where data units lie on the picture."""

    x_low: float
    x_high: float
    y_high: float

    def x(self, value: float) -> float:
        return LEFT + (value - self.x_low) / (self.x_high - self.x_low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - value / self.y_high * (HEIGHT - BOTTOM - TOP)

    def axes(self, x_title: str, y_title: str) -> str:
        parts = []
        for value in ticks(self.x_low, self.x_high):
            x = self.x(value)
            parts.append(f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{HEIGHT - BOTTOM}" class="grid"/>')
            parts.append(_text(x, HEIGHT - BOTTOM + 18, f"{value:g}", "middle"))
        for value in ticks(0, self.y_high):
            y = self.y(value)
            parts.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" class="grid"/>')
            parts.append(_text(LEFT - 8, y + 5, f"{value:g}", "end"))
        middle = (HEIGHT - BOTTOM + TOP) / 2
        parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - BOTTOM + 42, x_title, "middle"))
        parts.append(
            f'<text x="18" y="{middle}" text-anchor="middle" transform="rotate(-90 18 {middle})">{escape(y_title)}</text>'
        )
        return "".join(parts)


def _legend(names: Sequence[str]) -> list[str]:
    parts = []
    for i, name in enumerate(names):
        y = HEIGHT + LINE_HEIGHT * i
        parts.append(f'<rect x="{LEFT}" y="{y - 7}" width="24" height="4" fill="{_color(i)}"/>')
        parts.append(_text(LEFT + 32, y, name, "start"))
    return parts


def _dot(place: _Frame, point: tuple[float, float], i: int) -> str:
    return f'<circle cx="{place.x(point[0]):.1f}" cy="{place.y(point[1]):.1f}" r="4" fill="{_color(i)}"/>'


def _color(i: int) -> str:
    return COLORS[i % len(COLORS)]


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(body: Sequence[str], height: float) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img">{"".join(body)}</svg>'
