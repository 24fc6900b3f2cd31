"""`cliprl-bench readme`: the figures of the README files, written from the committed result files between two marks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path

import typer

from cliprl.bench.commands.results.check import Finding, Limit, measured, read_budget, unmeasured
from cliprl.bench.commands.results.figure_tables import MOST_ROWS, figures, machine_of, sort_rank
from cliprl.bench.harness.registry import app
from cliprl.bench.harness.result import LEAD, Result, Series, read_result
from cliprl.bench.harness.table import format_number, grid, grids, median
from cliprl.engines import UsageError

# Paths in a checkout, from whose root the command is run: the result files, their README, the room's, the root's.
ROOM_README, ROOT_README, RESULTS_FOLDER = Path("bench") / "README.md", Path("README.md"), Path("bench") / "results"
FIGURES_README = RESULTS_FOLDER / "README.md"
BUDGET, GOALS_FILE = "budget.toml", "headline.toml"
# The folder of the runs of `cliprl-bench acceptance`.
HEADLINE_FOLDER = "headline"
# The folder of results from a machine without VNNI and bf16.
OLDER = "avx2"
# The marks around the figures of each README.
FIGURE_MARKS: Mapping[Path, tuple[str, str]] = {
    FIGURES_README: ("<!-- figures -->", "<!-- end of the figures -->"),
    ROOM_README: ("<!-- limits -->", "<!-- end of the limits -->"),
    ROOT_README: ("<!-- headline figures -->", "<!-- end of the headline figures -->"),
}


@dataclass(frozen=True, slots=True)
class Headline:
    """A row of the root README: what was measured, by which command, and the statistic of the series that holds it."""

    title: str
    command: str
    case: str
    name: str
    statistic: str = "p50"

    @property
    def kind(self) -> str:
        """The kind of result that holds it."""
        return self.command.split()[0]


HEADLINES = (
    Headline("720p video, file to file", "stream", "cliprl-stream", "fps"),
    Headline(
        "the same, over an OpenCV loop with the same engine",
        "stream",
        "cliprl-stream",
        f"{LEAD}OpenCV + OpenVINO loop",
    ),
    Headline(
        "the same, over ultralytics YOLO11n-seg in OpenVINO",
        "peers",
        "cliprl-stream",
        f"{LEAD}ultralytics yolo11n-seg, OpenVINO",
    ),
    Headline("live at 25 FPS, camera to display, 99th percentile", "live --rate 25", "25 FPS", "glass to glass", "p99"),
    Headline("live at 25 FPS, frames lost", "live --rate 25", "25 FPS", "lost", "max"),
    Headline("masks are back after the segmenter is killed, at most", "faults", "is killed", "masks back after", "max"),
    Headline(
        "on the web page, age of a frame, 99th percentile",
        "watch",
        "watched and recorded",
        "latency at the viewer",
        "p99",
    ),
    Headline("memory growth of a long run", "soak", "cliprl-stream", "growth"),
)


def committed_results(folder: Path = RESULTS_FOLDER) -> list[Result]:
    """The result files of a folder by `sort_rank`; its subfolders hold those of other machines and of other inputs."""
    results = [read_result(path) for path in sorted(folder.glob("*.json"))]
    return sorted(results, key=lambda result: sort_rank(result.kind))


def limits_table(folder: Path = RESULTS_FOLDER, name: str = BUDGET) -> list[Limit]:
    """The limits of the budget beside a folder of results; none if there is no budget."""
    path = folder.parent / name
    return read_budget(path) if path.exists() else []


def limits_block(
    results: Sequence[Result], limits: Sequence[Limit], runs: Sequence[Result], goals: Sequence[Limit]
) -> str:
    """The block of the room's README: the budget, and for each machine the goals beside the headline figures of its runs."""
    tables = [_goals(list(same), goals) for _, same in groupby((r for r in runs if r.kind == "headline"), machine_of)]
    return "\n\n".join([*_budget(results, limits), *chain.from_iterable(tables)])


def _goals(runs: Sequence[Result], goals: Sequence[Limit]) -> list[str]:
    """Tables of the goals with the figure of each run on one machine."""
    rows = []
    for goal in goals:
        found = [finding for run in runs for finding in measured([run], goal)]
        if found:
            states = ["kept" if all(f.kept for f in found) else "missed"]
            rows.append([goal.title, goal.bounds, ", ".join(format_number(f.value) for f in found), *states])
    flags = {flag.removeprefix("avx512_") for flag in runs[0].machine.get("cpu_flags", ())}
    has = " and ".join(name for name in ("VNNI", "bf16") if name.lower() in flags) or "neither VNNI nor bf16"
    where = f"{machine_of(runs[0])}, {has}; {runs[0].date[:10]}, commit {(runs[0].commit or 'unknown')[:7]}"
    head = f"Goals of two cores, each run of `cliprl-bench acceptance` ({where}):"
    return [head, *grids(("goal", "bound", "measured", ""), rows, MOST_ROWS)]


def headlines(results: Sequence[Result], limits: Sequence[Limit] = ()) -> str:
    """The block of the root README: one table. A figure that breaks a limit is left out."""
    broken = {_key(f.limit) for limit in limits for f in measured(results, limit) if not f.kept}
    rows = []
    for line in HEADLINES:
        found = [s for r in results if r.kind == line.kind and (s := r.find(line.case, line.name)) is not None]
        if found and not any(key[:3] == (line.kind, line.case, line.name) for key in broken):
            rows.append([line.title, _with_unit(found[0], line.statistic), f"`cliprl-bench {line.command}`"])
    return grid(("measured", "result", "command"), rows)


def _key(limit: Limit) -> tuple[str, str, str, str]:
    return limit.kind, limit.case, limit.name, limit.statistic


def _with_unit(series: Series, statistic: str) -> str:
    value = median(series) if statistic == "p50" else format_number(getattr(series.digest(), statistic))
    return f"{value} {series.unit}"


def _budget(results: Sequence[Result], limits: Sequence[Limit]) -> list[str]:
    """Tables of every limit that was measured, its worst case; the other kinds are named after them."""
    worst: dict[tuple[object, ...], Finding] = {}
    for finding in (finding for limit in limits for finding in measured(results, limit)):
        limit = finding.limit
        key = (limit.kind, limit.name, limit.statistic, limit.bounds)
        if key not in worst or _margin(finding) < _margin(worst[key]):
            worst[key] = finding
    rows = [
        [f.limit.title, f.limit.bounds, format_number(f.value), "kept" if f.kept else f"**{f.state}**"]
        for f in worst.values()
    ]
    absent = ", ".join(f"`{kind}`" for kind in unmeasured(results, limits))
    remark = [f"The budget has limits on {absent} too; no such result is committed."] if absent else []
    return [*grids(("limit (worst case)", "bound", "measured", ""), rows, MOST_ROWS), *remark]


def _margin(finding: Finding) -> float:
    """How far a figure is within its limit, in the unit of the figure; negative for a breach, NaN counted as the worst."""
    margin = min(finding.value - finding.limit.min, finding.limit.max - finding.value)
    return margin if margin == margin else -float("inf")


def block_of(text: str, readme: Path = FIGURES_README) -> str | None:
    """The text between the marks of a README; None where they are missing."""
    start, end = FIGURE_MARKS[readme]
    first, last = text.find(start), text.find(end)
    return None if first < 0 or last < first else text[first + len(start) : last].strip("\n")


def expected_block(readme: Path, folder: Path = Path()) -> str:
    """The block that the committed results of a checkout give for one of its READMEs."""
    place = folder / RESULTS_FOLDER
    results, limits = committed_results(place), limits_table(place)
    if readme == ROOT_README:
        return headlines(results, limits)
    if readme == FIGURES_README:
        return figures(results, committed_results(place / OLDER))
    runs = [*committed_results(place / OLDER), *committed_results(place / HEADLINE_FOLDER)]
    return limits_block(results, limits, runs, limits_table(place, GOALS_FILE))


def update_readmes(folder: Path = Path()) -> list[Path]:
    """Write the block of each README below `folder` that has marks; return the paths written.

    Raises UsageError where no README has marks, or no result is committed.
    """
    texts = {p: (folder / p).read_text(encoding="utf-8") for p in FIGURE_MARKS if (folder / p).is_file()}
    marked = {path: text for path, text in texts.items() if block_of(text, path) is not None}
    if not marked:
        marks = " or ".join(f"{start} and {end} in {path}" for path, (start, end) in FIGURE_MARKS.items())
        raise UsageError(f"no README has a place for figures: put {marks}, each on a line")
    if not committed_results(folder / RESULTS_FOLDER):
        raise UsageError(f"no result files in {RESULTS_FOLDER}: measure first, with cliprl-bench suite")
    for path, text in marked.items():
        block = expected_block(path, folder)
        start, end = FIGURE_MARKS[path]
        before, after = text[: text.find(start)], text[text.find(end) + len(end) :]
        (folder / path).write_text(f"{before}{start}\n{block}\n{end}{after}", encoding="utf-8")
    return list(marked)


@app.command("readme")
def command() -> None:
    """Write the figures of README.md, bench/README.md and bench/results/README.md from the files in bench/results."""
    typer.echo(f"wrote {', '.join(map(str, update_readmes()))}")
