"""Results as Markdown: every figure with its spread, and no digit that the samples do not carry."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from cliprl.bench.harness.result import Result, Series

COLUMNS = ("case", "quantity", "unit", "median", "p90", "p95", "p99", "p99.9", "max", "spread", "samples")
# What a reader who wants one line looks for, by kind of result; of other kinds everything.
HEADLINES = {
    "stream": ("fps", "efficiency", "latency", "processors at work", "refinement steps"),
    "peers": ("fps",),
    "live": ("delivered", "lost", "later than 100 ms", "glass to glass", "latency"),
    "scale": ("fps", "CPU work"),
    "faults": (
        "frame rate",
        "longest gap",
        "masks back after",
        "marked after",
        "age",
        "older than 1 s and called live",
        "error of the latency shown",
    ),
    "soak": ("growth", "memory", "open files", "latency drift"),
}


def number(value: float, digits: int = 3) -> str:
    """So many significant digits, all of those before the point, no exponent; a dash where there is no number."""
    if math.isnan(value):
        return "–"
    if value == 0:
        return "0"
    return f"{value:.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"


def median(series: Series) -> str:
    """The median as it may be quoted: "≈" and two digits where the machine was too unsteady for more (see `Result.warnings`)."""
    digest = series.digest()
    if digest.stable or digest.n < 4:
        return number(digest.p50)
    return f"≈ {number(digest.p50, 2)}"


def rows(series: Iterable[Series]) -> list[list[str]]:
    """A row a series, under COLUMNS."""
    table = []
    for s in series:
        d = s.digest()
        tail = [number(v) for v in (d.p90, d.p95, d.p99, d.p999, d.max)]
        spread = "–" if math.isnan(d.spread) or d.n < 3 else f"{d.spread:.0%}"
        table.append([s.case, s.name, s.unit, median(s), *tail, spread, f"{d.n}"])
    return table


def grid(header: Sequence[str], body: Iterable[Sequence[str]], left: int = 1) -> str:
    """A Markdown table; the first `left` columns are flush left."""
    rule = ["---" if i < left else "---:" for i in range(len(header))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *body))


def headline(result: Result) -> list[Series]:
    """The series that a short table shows."""
    names = HEADLINES.get(result.kind)
    if names is None:
        return list(result.series)
    return [s for s in result.series if s.name in names or s.unit == "times"]


def provenance(result: Result) -> str:
    """Where, when and on what: a line under a table."""
    machine, bundle = result.machine, result.bundle
    where = f"{machine['cpu']}, {machine['cores']} cores"
    if machine["gpu"]:
        where += f", {machine['gpu'][0]}"
    what = f"{result.input['name']} ({result.input['size']}), bundle `{bundle['name']}` {bundle['sha256'][:12]}"
    return f"{where}; {result.date[:10]}; {what}; commit {result.commit or 'unknown'}"


def markdown(result: Result) -> str:
    """The whole result: command, provenance, method, every series, and what speaks against it."""
    notes = dict.fromkeys(f"{s.case}: {s.note}" for s in result.series if s.note)
    method = [f"{key}: {value}" for key, value in result.method.items() if isinstance(value, str)]
    lines = [f"- {text}" for text in (*method, *notes, *result.notes)]
    warnings = [f"- **warning**: {text}" for text in result.warnings()]
    return "\n".join(
        [
            f"## {result.kind}",
            "",
            f"`{result.command}`  ",
            provenance(result),
            "",
            grid(COLUMNS, rows(result.series), left=3),
            "",
            *warnings,
            *lines,
            "",
        ]
    )
