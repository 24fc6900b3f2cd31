"""`cliprl-bench report`: result files as one HTML page that loads nothing, neither from a network nor by script."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from cliprl.bench.commands.results.plots import INSTALL, Bar, Line, bar_plot, line_plot
from cliprl.bench.harness import stats
from cliprl.bench.harness.registry import app
from cliprl.bench.harness.result import Result, Series, check_place, read_result, write_text
from cliprl.bench.harness.table import COLUMNS, format_result, median, provenance, rows
from cliprl.bench.peers import cliprl_contender
from cliprl.engines import UsageError
from cliprl.pipeline.core.statistics import STAGES

TEMPLATE = Path(__file__).with_name("report.html.jinja")
_TITLE = "<title>cliprl-bench</title>"
# Points of a latency curve; medians of a timeline.
CURVE, MOMENTS = 200, 120


@app.command("report")
def command(
    files: Annotated[list[Path], typer.Argument(metavar="RESULT…", help="Result files.", show_default=False)],
    output: Annotated[Path, typer.Option("-o", "--output", help="The HTML page to write.")] = Path("report.html"),
    table: Annotated[Path | None, typer.Option("--markdown", help="Write the tables as Markdown here.")] = None,
) -> None:
    """One HTML page with plots and tables, which needs neither network nor script (needs the extra `bench`)."""
    results = [read_result(path) for path in files]
    check_place(output, _TITLE)
    if table is not None:
        check_place(table, f"## {results[0].kind}")
    write_text(output, html(results))
    if table is not None:
        write_text(table, "\n".join(format_result(result) for result in results))
    typer.echo(f"wrote {output}" if table is None else f"wrote {output} and {table}")


def html(results: Sequence[Result]) -> str:
    """Render the page: for each result its plots, its table, its method and its warnings. Raises UsageError without Jinja2."""
    try:
        from jinja2 import Template
    except ImportError as error:
        raise UsageError(f"the page needs Jinja2 ({error}): {INSTALL}") from error
    template = Template(TEMPLATE.read_text(encoding="utf-8"), autoescape=True)
    page: str = template.render(sections=[_section(result) for result in results], columns=COLUMNS)
    return page


def _section(result: Result) -> dict[str, Any]:
    """What the template shows of a result."""
    plots = [
        ("Latency: share of frames done within a time", latency_curve(result)),
        ("Stages of a frame: median of each, line to the 99th percentile", frame_timeline(result)),
        ("Stages over the run", run_timeline(result)),
        ("Throughput against load", plot_throughput(result)),
        ("Frames per second", rates(result)),
    ]
    libraries = ", ".join(f"{name} {version}" for name, version in result.machine["libraries"].items())
    notes = dict.fromkeys(f"{s.case}: {s.note}" for s in result.series if s.note)
    method = [f"{key}: {value}" for key, value in result.method.items() if value is not None]
    return {
        "result": result,
        "origin": f"{provenance(result)}; {libraries}",
        "plots": [(title, plot) for title, plot in plots if plot],
        "rows": rows(result.series),
        "remarks": [*result.notes, *notes, *method],
    }


def latency_curve(result: Result) -> str:
    """Plot the cumulative latency distribution of every case, to the 99.9th percentile."""
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
    """Plot the stages of each case in the order of a frame, without waiting times."""
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
    """Plot the milliseconds of each stage of the first case over the run, in medians of neighboring frames."""
    case = next((c for c in result.cases() if len(_stages(result, c)) > 1), "")
    return line_plot(
        [Line(s.name, _moments(s)) for s in _stages(result, case)], f"frame of the run ({case})", "milliseconds"
    )


def _moments(series: Series) -> list[tuple[float, float]]:
    values = stats.pooled(series.rounds)
    parts = np.array_split(values, min(MOMENTS, len(values)))
    ends = np.cumsum([len(part) for part in parts])
    return [(float(end), float(np.median(part))) for end, part in zip(ends, parts, strict=True)]


def plot_throughput(result: Result) -> str:
    """Plot delivered against offered frames per second, if the result has such cases."""
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
    """Plot the frames per second of every case that has them."""
    bars = []
    for series in result.series:
        if series.unit == "FPS" and series.name in ("fps", "bound"):
            d = series.digest()
            label = series.case if series.name == "fps" else "bound of the machine"
            bars.append(Bar(label, 0.0, d.p50, d.p50, median(series), int(label != cliprl_contender.NAME)))
    return bar_plot(bars, "frames per second, median")
