"""The progress of an archive: videos done, failures, and the time left."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.text import Text

from cliprl.engines.cli.console import error_console
from cliprl.pipeline.archive.driver import VideoOutcome
from cliprl.pipeline.sinks.json_text import readable

# Seconds between two lines where there is no terminal for a bar.
_LINE_SECONDS = 60.0


class ArchiveProgress:
    """Shows a bar on a terminal, else a line a minute; and a line for each video that fails. Quiet: only the latter."""

    def __init__(self, console: Console, videos: Mapping[str, int]) -> None:
        """videos: bytes of each video, by which the time left is estimated."""
        self._console, self._videos = console, videos
        self._errors = error_console() if console.quiet else console
        self._total = sum(videos.values())
        self._done = self._failed = self._bytes = self._bytes_now = 0
        self._started = self._shown = time.monotonic()
        columns = (SpinnerColumn(), BarColumn(), TextColumn("{task.description}", markup=False))
        self._bar = Progress(
            *columns, console=console, transient=True, disable=console.quiet or not console.is_terminal
        )
        self._task = self._bar.add_task(self.text(), total=max(self._total, 1))

    def add(self, outcome: VideoOutcome) -> None:
        """Count a video."""
        size = self._videos.get(outcome.video, 0)
        self._done, self._bytes = self._done + 1, self._bytes + size
        self._bytes_now += size if outcome.is_new else 0
        if not outcome.good:
            self._failed += 1
            self._print(f"failed: {readable(outcome.video)}: {outcome.reason}", self._errors)
        self._bar.update(self._task, completed=self._bytes, description=self.text())
        if self._bar.disable and time.monotonic() - self._shown >= _LINE_SECONDS:
            self._shown = time.monotonic()
            self._print(self.text())

    def note(self, text: str) -> None:
        """Print a remark above the bar."""
        self._print(f"note: {text}")

    def text(self) -> str:
        """Return the state in words."""
        failed = f", {self._failed} failed" if self._failed else ""
        left = self.seconds_left()
        time_left = "" if left is None else f", {time_text(left)} left"
        return f"{self._done:,} of {len(self._videos):,} videos{failed}{time_left}"

    def seconds_left(self) -> float | None:
        """Estimate the time left by the bytes processed in this run. None before the first video is done."""
        if not self._bytes_now:
            return None
        elapsed = time.monotonic() - self._started
        return elapsed / self._bytes_now * (self._total - self._bytes)

    def _print(self, text: str, console: Console | None = None) -> None:
        with suppress(OSError):
            (console or self._console).print(Text(text), soft_wrap=True)

    def __enter__(self) -> ArchiveProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


def time_text(seconds: float) -> str:
    """Return a length of time as h:mm:ss."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
