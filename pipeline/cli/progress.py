"""The progress bar of a run and the table at its end."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cliprl.pipeline.core.interfaces import StreamInfo
from cliprl.pipeline.core.statistics import END_TO_END, STAGES, Summary
from cliprl.pipeline.sources.registry import find_source

# Title of each stage in the table, and its work as the bottleneck of a run. That of decoding depends on the source.
STAGE_TITLES = {
    "decode": "decode",
    "prepare": "view + network input",
    "encode": "CLIP encoder",
    "refine": "refinement",
    "draw": "overlay",
    "write": "encode + write",
    END_TO_END: "end to end, decoded to written",
}
STAGE_WORK = {
    "prepare": "preparing the network input",
    "encode": "the CLIP encoder",
    "refine": "refinement",
    "draw": "drawing the overlay",
    "write": "encoding and writing the output",
}
# The bottleneck of a run that displays frames at the rate of its source.
SOURCE = "source"


class ProgressBar:
    """Shows frames done, frame rate and time left on a terminal. Nothing is drawn unless `enabled`."""

    # Seconds between updates: one per frame would cost more than drawing the overlay's legend.
    PERIOD = 0.1

    def __init__(self, console: Console, info: StreamInfo, frames: int | None, *, enabled: bool) -> None:
        self._progress = _frame_progress(console) if enabled and console.is_terminal else None
        if self._progress:
            total = min((n for n in (info.frames, frames) if n is not None), default=None)
            self._task = self._progress.add_task(info.name, total=total, rate="…")
        self._done, self._shown = 0, 0.0

    def advance(self) -> None:
        """Count a frame that was written."""
        self._done += 1
        now = time.monotonic()
        if now - self._shown >= self.PERIOD:
            self._shown = now
            self._update()

    def _update(self) -> None:
        if self._progress:
            speed = self._progress.tasks[0].speed
            self._progress.update(self._task, completed=self._done, rate="…" if speed is None else f"{speed:.1f}")

    def __enter__(self) -> ProgressBar:
        if self._progress:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._update()
        if self._progress:
            self._progress.stop()


def _frame_progress(console: Console) -> Any:
    # Imported for terminals alone: with the tables of its spinners and emoji this takes 0.01 s of a start.
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    rate = TextColumn("{task.fields[rate]:>5} FPS", style="progress.data.speed", markup=False)
    name = TextColumn("{task.description}", markup=False)
    columns = SpinnerColumn(), name, BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn()
    return Progress(*columns, console=console, transient=True)


def summary_json(summary: Summary, written: Mapping[str, int], *, live: bool) -> dict[str, Any]:
    """Return the summary as JSON values, with the frames `written` by output.

    `frames` are those written, also of a live run, whose outputs may lose frames that are displayed.
    """
    frames = max(written.values(), default=summary.frames) if live else summary.frames
    counts = {"written": dict(written), "displayed": summary.frames if live else None}
    return replace(summary, frames=frames).to_json() | counts


def bottleneck(summary: Summary, *, paced: bool) -> str | None:
    """The stage that limited the frame rate of a run, `SOURCE` if the source did; None if no stage ran.

    paced: frames are displayed at the rate of the source. Stages run in parallel, so that the slowest one is the limit.
    """
    if paced and not summary.dropped:
        return SOURCE
    medians = {
        stage: latency.p50 for stage in STAGES if (latency := summary.latency[stage]).p50 == latency.p50
    }  # no NaN
    return max(medians, key=medians.__getitem__, default=None)


def describe_bottleneck(stage: str | None, source: str) -> str:
    """What limited a run of the input `source`, in words; "" if unknown."""
    if stage == SOURCE:
        return "the frame rate of the source"
    if stage == "decode":
        kind = find_source(source)
        return kind.work if kind else "decoding"
    return STAGE_WORK.get(stage or "", "")


def summary_table(summary: Summary, targets: Sequence[str], bound_by: str = "") -> Table:
    """Build the closing table: counts and the bottleneck in its title, a row per stage, the outputs in its caption."""
    outcome = "interrupted" if summary.interrupted else "done"
    title = f"{outcome}: {summary.frames} frames in {summary.seconds:.1f} s = {summary.fps:.1f} FPS"
    title += f", bound by {bound_by}" if bound_by else ""
    counts = (
        f"{summary.dropped} dropped · {summary.damaged} damaged · {summary.mean_steps:.2f} refinement steps per frame"
    )
    caption = Text("\n".join((counts, *targets)), "table.caption")  # no markup: "[1]" may be part of a name
    table = Table(title=title, caption=caption, title_justify="left", caption_justify="left")
    table.add_column("stage")
    for heading in ("p50 ms", "p95 ms", "p99 ms"):
        table.add_column(heading, justify="right")
    for name in (*STAGES, END_TO_END):
        latency = summary.latency[name]
        if latency.p50 == latency.p50:  # NaN: the stage did not run
            table.add_row(STAGE_TITLES[name], *(f"{v:.2f}" for v in (latency.p50, latency.p95, latency.p99)))
    return table
