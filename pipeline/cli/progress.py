"""What a person sees of a run: the progress bar while it lasts, and the table at its end."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from cliprl.pipeline.core.interfaces import StreamInfo
from cliprl.pipeline.core.statistics import END_TO_END, STAGES, Summary

# What each stage is called in the table, for somebody who has not read the code.
TITLES = {
    "decode": "decode",
    "prepare": "view + network picture",
    "encode": "CLIP encoder",
    "refine": "refinement",
    "draw": "overlay",
    "write": "encode + write",
    END_TO_END: "end to end, decoded to written",
}


class _FramesPerSecond(ProgressColumn):
    """Frames a second over the last moments, as rich estimates them."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("  … FPS" if speed is None else f"{speed:5.1f} FPS", style="progress.data.speed")


class ProgressBar:
    """Shows frames done, rate and time left on a terminal; costs a clock reading a frame, and nothing is drawn when off."""

    # Updating rich for every frame would cost more than drawing the overlay's legend.
    PERIOD = 0.1

    def __init__(self, console: Console, info: StreamInfo, frames: int | None, *, enabled: bool) -> None:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            _FramesPerSecond(),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=console, transient=True, disable=not enabled)
        total = min((n for n in (info.frames, frames) if n is not None), default=None)
        self._task = self._progress.add_task(info.name, total=total)
        self._done, self._shown = 0, 0.0

    def advance(self) -> None:
        """One more frame was written."""
        self._done += 1
        now = time.monotonic()
        if now - self._shown >= self.PERIOD:
            self._shown = now
            self._progress.update(self._task, completed=self._done)

    def __enter__(self) -> ProgressBar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.update(self._task, completed=self._done)
        self._progress.stop()


def summary_table(summary: Summary, targets: Sequence[str]) -> Table:
    """The closing table: counts in its title, a row a stage, where the output went in its caption."""
    outcome = "interrupted" if summary.interrupted else "done"
    title = f"{outcome}: {summary.frames} frames in {summary.seconds:.1f} s = {summary.fps:.1f} FPS"
    counts = (
        f"{summary.dropped} dropped · {summary.damaged} damaged · {summary.mean_steps:.2f} refinement steps a frame"
    )
    caption = Text("\n".join((counts, *targets)), "table.caption")  # no markup: "[1]" may be part of a name
    table = Table(title=title, caption=caption, title_justify="left", caption_justify="left")
    table.add_column("stage")
    for heading in ("p50 ms", "p95 ms", "p99 ms"):
        table.add_column(heading, justify="right")
    for name in (*STAGES, END_TO_END):
        latency = summary.latency[name]
        if latency.p50 == latency.p50:  # NaN: the stage did not run
            table.add_row(TITLES[name], *(f"{v:.2f}" for v in (latency.p50, latency.p95, latency.p99)))
    return table
