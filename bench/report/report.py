"""`cliprl-bench report`: result files as one HTML page that needs nothing else, neither network nor script."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

import numpy as np

from cliprl.bench.harness import stats
from cliprl.bench.harness.result import Result, Series
from cliprl.bench.peers import cliprl_contender
from cliprl.bench.report.plots import Bar, Line, bar_plot, line_plot
from cliprl.bench.report.table import COLUMNS, median, provenance, rows
from cliprl.pipeline.core.statistics import STAGES

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1b1f24; background: #fff; max-width: 1080px;
  margin: 2rem auto; padding: 0 1rem; }
h1, h2, h3 { line-height: 1.2; } h2 { border-top: 2px solid #1b1f24; padding-top: 1rem; margin-top: 3rem; }
code { background: #f2f4f6; padding: .1em .3em; } .from { color: #57606a; }
.warning { background: #fff3cd; border-left: 4px solid #e69f00; padding: .4rem .8rem; }
svg { width: 100%; max-width: 760px; height: auto; display: block; }
svg text { font: 14px system-ui, sans-serif; fill: #1b1f24; } .grid { stroke: #d8dee4; }
.whisker { stroke: #1b1f24; stroke-width: 2; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: 14px; }
td, th { padding: .2rem .6rem; border-bottom: 1px solid #d8dee4; text-align: right; white-space: nowrap; }
td:nth-child(-n+3), th:nth-child(-n+3) { text-align: left; }
"""
# The page may use its own style and nothing from anywhere.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
# A curve is drawn with so many points, a timeline with so many medians.
CURVE, MOMENTS = 200, 120


def html(results: Sequence[Result]) -> str:
    """The page: for each result its plots, its table, its method and its warnings."""
    parts = [_section(result) for result in results]
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n<title>cliprl-bench</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<h1>cliprl-bench</h1>\n{''.join(parts)}\n</body>\n</html>\n"
    )


def _section(result: Result) -> str:
    plots = [
        ("Latency: share of frames done within a time", latency_curve(result)),
        ("A frame's way: median of each stage, line to the 99th percentile", frame_timeline(result)),
        ("Stages over the run", run_timeline(result)),
        ("Throughput against load", throughput(result)),
        ("Frames per second", rates(result)),
    ]
    shown = "".join(f"<h3>{escape(title)}</h3>{plot}" for title, plot in plots if plot)
    warnings = "".join(f'<p class="warning">{escape(text)}</p>' for text in result.warnings())
    method = [f"{key}: {value}" for key, value in result.method.items() if value is not None]
    notes = list(dict.fromkeys(f"{s.case}: {s.note}" for s in result.series if s.note))
    remarks = "".join(f"<li>{escape(text)}</li>" for text in (*result.notes, *notes, *method))
    return (
        f"<h2>{escape(result.kind)}</h2><p><code>{escape(result.command)}</code></p>"
        f'<p class="from">{escape(provenance(result))}; {escape(_libraries(result))}</p>'
        f"{warnings}{shown}<h3>Figures</h3>{_table(result)}<h3>How it was measured</h3><ul>{remarks}</ul>"
    )


def _libraries(result: Result) -> str:
    return ", ".join(f"{name} {version}" for name, version in result.machine["libraries"].items())


def _table(result: Result) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in COLUMNS)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows(result.series))
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def latency_curve(result: Result) -> str:
    """The cumulative distribution of the latency of every case, to its 99.9th percentile."""
    shares = np.linspace(0, 99.9, CURVE)
    names = ("latency", "glass to glass", "latency at the viewer")
    lines = [
        Line(
            s.title,
            [(float(v), q / 100) for q, v in zip(shares, np.percentile(values, shares), strict=True)],
        )
        for s in result.series
        if s.name in names and len(values := stats.pooled(s.rounds)) > 1
    ]
    return line_plot(lines, "milliseconds", "share of frames", y_most=1.0)


def _stages(result: Result, case: str) -> list[Series]:
    found = [result.find(case, name) for name in (*STAGES[:1], "read", *STAGES[1:])]
    return [s for s in found if s is not None and s.unit == "ms" and s.digest().n]


def frame_timeline(result: Result) -> str:
    """The stages of each case one after the other, as a frame meets them, waiting left out."""
    bars = []
    for case in result.cases():
        start = 0.0
        stages = _stages(result, case)
        for i, series in enumerate(stages if len(stages) > 1 else []):
            d = series.digest()
            high = d.p50 if np.isnan(d.p99) else max(d.p99, d.p50)
            bars.append(Bar(f"{case}: {series.name}", start, start + d.p50, start + high, f"{median(series)} ms", i))
            start += d.p50
    return bar_plot(bars, "milliseconds from the start of the frame's work")


def run_timeline(result: Result) -> str:
    """Milliseconds of each stage of the first case over the run, in medians of neighbouring frames."""
    case = next((c for c in result.cases() if len(_stages(result, c)) > 1), "")
    return line_plot(
        [Line(s.name, _moments(s)) for s in _stages(result, case)], f"frame of the run ({case})", "milliseconds"
    )


def _moments(series: Series) -> list[tuple[float, float]]:
    values = stats.pooled(series.rounds)
    parts = np.array_split(values, min(MOMENTS, len(values)))
    ends = np.cumsum([len(part) for part in parts])
    return [(float(end), float(np.median(part))) for end, part in zip(ends, parts, strict=True)]


def throughput(result: Result) -> str:
    """Frames per second delivered against frames per second offered, where a result has cases of both."""
    points = []
    for series in result.series:
        offered = re.fullmatch(r"(\d+) FPS", series.case)
        if offered and series.name == "delivered":
            points.append((float(offered[1]), series.digest().p50))
    if not points:
        return ""
    points.sort()
    ideal = [(x, x) for x, _ in points]
    return line_plot(
        [Line("delivered", points), Line("all frames", ideal, dashed=True)], "FPS offered", "FPS delivered"
    )


def rates(result: Result) -> str:
    """Frames per second of every case that has them."""
    bars = []
    for series in result.series:
        if series.unit == "FPS" and series.name in ("fps", "bound"):
            d = series.digest()
            label = series.case if series.name == "fps" else "bound of the machine"
            bars.append(Bar(label, 0.0, d.p50, d.p50, median(series), int(label != cliprl_contender.NAME)))
    return bar_plot(bars, "frames per second, median")
