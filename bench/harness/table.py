"""Results as Markdown tables, without digits that the samples do not support."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from cliprl.bench.harness.result import Result, Series

COLUMNS = ("case", "quantity", "unit", "median", "p90", "p95", "p99", "p99.9", "max", "spread", "samples")


def format_number(value: float, digits: int = 3) -> str:
    """Format with `digits` significant digits, all digits before the point, no exponent; a dash for NaN."""
    if math.isnan(value):
        return "–"
    if value == 0:
        return "0"
    return f"{value:.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"


def median(series: Series) -> str:
    """Format the median; with "≈" and two digits if the machine was too unsteady for more (see `Result.warnings`)."""
    digest = series.digest()
    if digest.stable or digest.n < 4:
        return format_number(digest.p50)
    return f"≈ {format_number(digest.p50, 2)}"


def rows(series: Iterable[Series]) -> list[list[str]]:
    """One row per series, with COLUMNS."""
    table = []
    for s in series:
        d = s.digest()
        tail = [format_number(v) for v in (d.p90, d.p95, d.p99, d.p999, d.max)]
        spread = "–" if math.isnan(d.spread) or d.n < 3 else f"{d.spread:.0%}"
        table.append([s.case, s.name, s.unit, median(s), *tail, spread, f"{d.n}"])
    return table


def grid(header: Sequence[str], body: Iterable[Sequence[str]], left: int = 1) -> str:
    """A Markdown table; the first `left` columns are left-aligned."""
    rule = "|".join("-" if i < left else "-:" for i in range(len(header)))
    head, *rows = (f"| {' | '.join(cells)} |" for cells in (header, *body))
    return "\n".join([head, f"|{rule}|", *rows])


def grids(header: Sequence[str], body: Sequence[Sequence[str]], most: int) -> list[str]:
    """Markdown tables of about equal length, none with more than `most` rows; none for an empty body."""
    if not body:
        return []
    size = math.ceil(len(body) / math.ceil(len(body) / most))
    return [grid(header, body[first : first + size]) for first in range(0, len(body), size)]


def provenance(result: Result) -> str:
    """Machine, date, input, bundle and commit in a line."""
    machine, bundle = result.machine, result.bundle
    where = f"{machine['cpu']}, {machine['cores']} cores"
    if machine["gpu"]:
        where += f", {machine['gpu'][0]}"
    what = f"{result.input['name']} ({result.input['size']}), bundle `{bundle['name']}` {bundle['sha256'][:12]}"
    return f"{where}; {result.date[:10]}; {what}; commit {result.commit or 'unknown'}"


def format_result(result: Result) -> str:
    """Format the whole result: command, provenance, every series, warnings, method and notes."""
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
