"""The README's figures: a marked block that one command writes from the committed result files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cliprl.bench.harness.budget import Limit, measured, read_budget, unmeasured
from cliprl.bench.harness.result import Result, read_result
from cliprl.bench.report.table import grid, headline, median, number, provenance
from cliprl.engines import UsageError

START, END = "<!-- figures:start -->", "<!-- figures:end -->"
# Of the checkout in whose root the command is run: an installed package has neither.
README, RESULTS = Path("README.md"), Path("bench") / "results"
BUDGET = "budget.toml"
COLUMNS = ("", "median", "p95", "p99", "max", "samples")
# The order in which a reader asks, and what is shown before being asked for.
ORDER = ("stream", "peers", "live", "faults", "watch", "stages", "engines", "training", "scale", "soak")
OPEN = ("stream", "peers", "live")


def committed_results(folder: Path = RESULTS) -> list[Result]:
    """The result files of a folder, what matters most first."""
    results = [read_result(path) for path in sorted(folder.glob("*.json"))]
    return sorted(results, key=lambda r: ORDER.index(r.kind) if r.kind in ORDER else len(ORDER))


def figures(results: Sequence[Result], limits: Sequence[Limit] = ()) -> str:
    """The block's text: a table a result, each with its command, machine and date; then which promises they keep."""
    return "\n\n".join([*map(_section, results), *_promises(results, limits)])


def _promises(results: Sequence[Result], limits: Sequence[Limit]) -> list[str]:
    """A table of every limit that was measured; the others are named after it."""
    findings = [finding for limit in limits for finding in measured(results, limit)]
    body = [[f.limit.title, f.limit.bounds, number(f.value), "kept" if f.kept else f"**{f.state}**"] for f in findings]
    absent = ", ".join(f"`{kind}`" for kind in unmeasured(results, limits))
    remark = f"There are promises on {absent} too; no result of these is committed." if absent else ""
    return [text for text in (grid(("promise", "must be", "is", ""), body) if body else "", remark) if text]


def _section(result: Result) -> str:
    body = []
    for series in headline(result):
        d = series.digest()
        unit = "" if series.unit == "1" else f", {series.unit}"
        cells = [median(series), *(number(v) for v in (d.p95, d.p99, d.max)), f"{d.n}"]
        body.append([f"{series.title}{unit}", *cells])
    notes = dict.fromkeys(f"{s.case}: {s.note}" for s in result.series if s.note)
    remarks = [f"- {text}" for text in (*notes, *result.notes, *(f"warning: {w}" for w in result.warnings()))]
    text = "\n".join(
        [f"`{result.command}`  ", provenance(result), "", grid(COLUMNS, body), *([""] if remarks else []), *remarks]
    )
    folded = f"<details>\n<summary>{result.kind}</summary>\n\n{text}\n\n</details>"
    return text if result.kind in OPEN else folded


def block_of(text: str) -> str | None:
    """What stands between the marks in a README; None where they are missing."""
    start, end = text.find(START), text.find(END)
    return None if start < 0 or end < start else text[start + len(START) : end].strip("\n")


def update(readme: Path = README, folder: Path = RESULTS) -> None:
    """Write the block anew. Raises UsageError where the README bears no marks, or there is no result to quote."""
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    if block_of(text) is None:
        raise UsageError(f"{readme.name} has no place for figures: put {START} and {END} on lines of their own")
    results = committed_results(folder)
    if not results:
        raise UsageError(f"no result files in {folder.name}: measure first, with cliprl-bench suite")
    before, after = text[: text.find(START)], text[text.find(END) + len(END) :]
    readme.write_text(f"{before}{START}\n{figures(results, promises(folder))}\n{END}{after}", encoding="utf-8")


def promises(folder: Path = RESULTS) -> list[Limit]:
    """The budget that lies beside a folder of results; nothing where there is none."""
    path = folder.parent / BUDGET
    return read_budget(path) if path.exists() else []
