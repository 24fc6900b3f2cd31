"""Sinks that write the report of a case at the end of the run."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.interfaces import OutputSpec
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.sinks.json_text import json_text
from cliprl.pipeline.sinks.labels.frame_labels import check_classes
from cliprl.pipeline.sinks.partial_file_sink import PartialFileSink
from cliprl.pipeline.sinks.registry import EncoderSettings, register_sink
from cliprl.pipeline.sinks.report.image_quality import QUALITY_SERIES, QualityPoint
from cliprl.pipeline.sinks.report.page import report_page
from cliprl.pipeline.sinks.report.recorder import CaseRecorder
from cliprl.pipeline.sinks.report.timeline import Interval


class ReportSink(PartialFileSink):
    """Collects the case, and writes `text` of it at the end, also of a run that was interrupted."""

    needs_planes = True  # colors show whether a frame is outside the body

    def __init__(self, target: Path, spec: OutputSpec, text: Callable[[CaseRecorder], str]) -> None:
        """Create the partial file. Raises UsageError if it can't be."""
        super().__init__(target)
        self._case, self._text = CaseRecorder(spec), text

    def _write(self, frame: Frame, segmentation: Segmentation | None) -> None:
        check_classes(self.target, self._case.spec, segmentation)
        self._case.add(frame, segmentation)

    def _last_bytes(self) -> bytes:
        return self._text(self._case).encode("utf-8", "backslashreplace")


def report_json(case: CaseRecorder) -> str:
    """Return the report as JSON."""
    return json_text(case.to_json(), indent=1) + "\n"


def report_csv(case: CaseRecorder) -> str:
    """Return the intervals and the points of the series as CSV.

    Columns: kind, name, first and last frame, start, end and length in seconds; of a series also the mean and the worst value.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["kind", "name", "first_frame", "last_frame", "start_s", "end_s", "seconds", "mean", "worst"])
    for kind, name, _, line in case.lines():
        for i in line.intervals:
            writer.writerow([kind, name, *_span(i), "", ""])
    for name in QUALITY_SERIES:
        for point in case.quality.points:
            values = (f"{value:.2f}" for value in (point.mean(name), point.worst[name]))
            writer.writerow(["series", name, *_span(point), *values])
    return text.getvalue()


def _span(part: Interval | QualityPoint) -> list[Any]:
    times = (part.start, part.end, part.end - part.start)
    return [part.first, part.last, *(f"{value:.3f}" for value in times)]


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
