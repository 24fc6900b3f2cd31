"""Sinks that write the report of a case at the end of the run."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.interfaces import OutputSpec
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.sinks.json_text import json_text
from cliprl.pipeline.sinks.partial_file_sink import PartialFileSink
from cliprl.pipeline.sinks.registry import EncoderSettings, register_sink
from cliprl.pipeline.sinks.report.page import report_page
from cliprl.pipeline.sinks.report.recorder import CaseRecorder


class ReportSink(PartialFileSink):
    """Collects the case, and writes `text` of it at the end, also of a run that was interrupted."""

    needs_planes = True  # colors show whether a frame is outside the body

    def __init__(self, target: Path, spec: OutputSpec, text: Callable[[CaseRecorder], str]) -> None:
        """Create the partial file. Raises UsageError if it can't be."""
        super().__init__(target)
        self._case, self._text = CaseRecorder(spec), text

    def _write(self, frame: Frame, segmentation: Segmentation | None) -> None:
        self._case.add(frame, segmentation)

    def _last_bytes(self) -> bytes:
        return self._text(self._case).encode("utf-8", "backslashreplace")


def report_json(case: CaseRecorder) -> str:
    """Return the report as JSON."""
    return json_text(case.to_json(), indent=1) + "\n"


def report_csv(case: CaseRecorder) -> str:
    """Return the intervals as CSV: kind, name, first and last frame, start, end and length in seconds."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["kind", "name", "first_frame", "last_frame", "start_s", "end_s", "seconds"])
    for kind, name, _, line in case.lines():
        for i in line.intervals:
            times = (f"{value:.3f}" for value in (i.start, i.end, i.end - i.start))
            writer.writerow([kind, name, i.first, i.last, *times])
    return text.getvalue()


_TEXTS: dict[str, Callable[[CaseRecorder], str]] = {
    ".html": report_page,
    ".report.json": report_json,
    ".report.csv": report_csv,
}


@register_sink(suffixes=tuple(_TEXTS), help="report of the case")
def open_report(target: str, spec: OutputSpec, settings: EncoderSettings) -> ReportSink:
    """Open a report as a page, JSON or CSV, by the name of the file."""
    text = next(text for suffix, text in _TEXTS.items() if target.lower().endswith(suffix))
    return ReportSink(Path(target), spec, text)
