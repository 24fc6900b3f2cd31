"""The tables of results in READMEs: a section for each kind, with a row for a case and a column for a quantity."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from cliprl.bench.harness.result import LEAD, SHAKY, Result, Series
from cliprl.bench.harness.table import format_number, grids, median

# The kinds of result in the order of their sections; others follow.
_ORDER = (
    "headline",
    "stream",
    "peers",
    "scenarios",
    "live",
    "faults",
    "watch",
    "stages",
    "engines",
    "training",
    "scale",
    "soak",
)
# The series in the tables, by kind of result; all series of other kinds.
_SHOWN = {
    "stream": ("fps", "efficiency", "latency", "busy processors", "refinement steps", "fps per watt"),
    "peers": ("fps",),
    "live": ("delivered", "lost", "later than 100 ms", "glass to glass"),
    "scale": ("fps", "CPU work"),
    "faults": (
        *("frame rate", "longest gap", "masks back after", "marked after"),
        *("age", "older than 1 s and called live", "error of the latency shown"),
    ),
    "watch": ("latency at the viewer", "pictures at the viewer", "frames", "missing"),
    "stages": ("decode", "prepare", "encode", "refine", "draw", "write"),
    "soak": ("growth", "memory", "open files", "latency drift"),
}
MOST_ROWS, _MAX_WIDTH = 10, 150


def sort_rank(kind: str) -> int:
    """The place of a kind of result in the figures."""
    return _ORDER.index(kind) if kind in _ORDER else len(_ORDER)


def figures(results: Sequence[Result], older: Sequence[Result] = ()) -> str:
    """The block of the results' README: a section for each result, the tables of an older machine."""
    groups = [(f"**{result.kind}** ", [result]) for result in results]
    for kind in dict.fromkeys(result.kind for result in older):
        groups.append((f"**{kind}, older CPU** ", [result for result in older if result.kind == kind]))
    machine = machine_of(groups[0][1][0])
    sections = [_section(title, group, machine) for title, group in groups]
    return "\n\n".join([f"Machine, if a section names no other: {machine}.", *sections])


def _section(title: str, results: Sequence[Result], machine: str) -> str:
    """The command and origin of the first result, a table with a row a case and a column a quantity, remarks."""
    head = f"{title}`{results[0].command}`{' and with the options in the rows' if len(results) > 1 else ''}  "
    return "\n".join([head, _origin(results[0], machine), "", "\n\n".join(_cases(results)), *_remarks(results)])


def machine_of(result: Result) -> str:
    """The processor and its number of cores."""
    return f"{result.machine['cpu']}, {result.machine['cores']} cores"


def _origin(result: Result, machine: str) -> str:
    """Machine, if it is not the given one, date, bundle and commit."""
    where = "" if machine_of(result) == machine else f"{machine_of(result)}; "
    return f"{where}{result.date[:10]}; bundle {result.bundle['sha256'][:12]}; commit {result.commit or 'unknown'}"


def _remarks(results: Sequence[Result]) -> list[str]:
    """The notes of a single result; not the warning on series whose halves differ, which the cells mark with a sign."""
    if len(results) > 1:
        return []
    (result,) = results
    notes = dict.fromkeys(f"{s.case}: {s.note}" for s in result.series if s.note)
    warnings = [f"warning: {text}" for text in result.warnings() if not text.startswith(SHAKY)]
    host = [result.host_note()] if result.host else []
    remarks = [*notes, *result.notes, *host, *warnings]
    lines = [line for text in remarks for line in textwrap.wrap(f"- {text}", _MAX_WIDTH, subsequent_indent="  ")]
    return ["", *lines] if lines else []


def _cases(results: Sequence[Result]) -> list[str]:
    """Tables with a row for each case and a column for each quantity; the factor over a peer stands in the peer's row."""
    columns: dict[str, None] = {}
    rows: dict[str, dict[str, str]] = {}
    for result in results:
        steps = f", --steps {result.method['steps']}" if len(results) > 1 and result.method["steps"] is not None else ""
        for series in result.series:
            case, column = _place(series)
            if case != series.case or series.name in _SHOWN.get(result.kind, (series.name,)):
                columns[column] = None
                rows.setdefault(case + steps, {})[column] = _cell(series)
    lines = [[case, *(row.get(column, "") for column in columns)] for case, row in rows.items()]
    return grids(("", *columns), lines, MOST_ROWS)


def _place(series: Series) -> tuple[str, str]:
    """The row and the column of a series."""
    if series.name.startswith(LEAD):
        return series.name.removeprefix(LEAD), f"{series.case} over it, {series.unit}"
    return series.case, series.name if series.unit.lower() in series.name.split() else f"{series.name}, {series.unit}"


def _cell(series: Series) -> str:
    """The median, and the 99th percentile behind it where there are samples enough."""
    p99 = format_number(series.digest().p99)
    return median(series) if p99 in ("–", format_number(series.digest().p50)) else f"{median(series)} ({p99})"
