"""Collects what a report tells, frame by frame, in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from cliprl.engines import ClassSpec
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.interfaces import OutputSpec
from cliprl.pipeline.core.nv12 import upright_size
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.overlay.class_statistics import class_statistics
from cliprl.pipeline.overlay.palette import overlay_classes
from cliprl.pipeline.sinks.frame_image import FrameConverter
from cliprl.pipeline.sinks.labels.frame_labels import frame_labels
from cliprl.pipeline.sinks.labels.json_fields import describe_class, describe_stream
from cliprl.pipeline.sinks.report.image_quality import QualitySeries
from cliprl.pipeline.sinks.report.timeline import PresenceTimeline
from cliprl.pipeline.view.privacy_guard import BodyGuard

FORMAT_VERSION = 1
# A class is in view if it has this share of the endoscope's view; a frame of less confidence is listed as doubtful.
LEAST_SHARE, LOW_CONFIDENCE = 0.001, 0.7
# The camera has stalled if the next frame comes this many times later than usual, and this many seconds.
_STALL_FACTOR, _STALL_SECONDS = 3.0, 0.2
# Images of doubtful frames: how many, seconds between two, and width in pixels. Stalls that are listed.
THUMBNAILS, _APART, _WIDTH, _MOST_STALLS = 8, 1.0, 240, 1000


@dataclass(slots=True)
class DoubtfulFrame:
    """A frame of low confidence: index, seconds, confidence, and its image as JPEG."""

    index: int
    seconds: float
    confidence: float
    image: bytes


class CaseRecorder:
    """Timelines of classes, instruments and the endoscope outside the body; image quality, stalls, frames of low confidence."""

    def __init__(self, spec: OutputSpec) -> None:
        self.spec = spec
        self.classes: dict[int, PresenceTimeline] = {}
        self.instruments: dict[int, tuple[str, PresenceTimeline]] = {}
        self.outside, self.stalls, self.number_of_stalls = PresenceTimeline(), list[tuple[float, float]](), 0
        self.doubtful: list[DoubtfulFrame] = []
        self.quality = QualitySeries()
        self.frames = self.segmented = self.damaged = self.low = 0
        self.tracked = False
        self.start = self.end = 0.0
        self._guard, self._converter = BodyGuard(), FrameConverter()
        self._last: float | None = None
        self._period = float(1 / spec.stream.rate) if spec.stream.rate else 0.04
        self._length = self._period  # of the newest frame, in seconds

    def add(self, frame: Frame, segmentation: Segmentation | None) -> None:
        """Add a frame, as the overlay has drawn it."""
        self._time(frame)
        self.damaged += frame.damaged
        painted = np.zeros((1, 1), bool)
        if segmentation is not None:
            self.segmented += 1
            self._view(frame, segmentation)
            painted = np.rot90(frame_labels(frame, segmentation) > 0, -(frame.rotation // 90))
        if self._guard.update(frame, np.ascontiguousarray(painted)):
            self.outside.add(frame.index, frame.seconds, self._length)

    def _time(self, frame: Frame) -> None:
        gap = 0.0 if self._last is None else frame.seconds - self._last
        if self._last is None:
            self.start = frame.seconds
        elif gap > max(_STALL_FACTOR * self._period, _STALL_SECONDS):
            self.number_of_stalls += 1
            if len(self.stalls) < _MOST_STALLS:
                self.stalls.append((self._last, gap))
        elif gap > 0:
            self._period += 0.1 * (gap - self._period)
        self._last, self.frames = frame.seconds, self.frames + 1
        self._length = float(frame.duration * frame.time_base) or self._period
        self.end = frame.seconds + self._length

    def _view(self, frame: Frame, segmentation: Segmentation) -> None:
        for found in class_statistics(segmentation):
            spec = self.spec.classes[found.class_id]
            if found.share >= LEAST_SHARE and spec.kind != "background" and spec.shown:
                line = self.classes.setdefault(found.class_id, PresenceTimeline())
                line.add(frame.index, frame.seconds, self._length)
        if segmentation.instances is not None:
            self.tracked = True
            for item in segmentation.instances.items:
                self.instruments.setdefault(item.id, (item.name, PresenceTimeline()))[1].add(
                    frame.index, frame.seconds, self._length
                )
        if segmentation.damage is not None:
            self.quality.add(frame.index, frame.seconds, self._length, segmentation.damage)
        if segmentation.confidence < LOW_CONFIDENCE:
            self.low += 1
            self._keep(frame, segmentation.confidence)

    def _keep(self, frame: Frame, confidence: float) -> None:
        """Keep the images of the least confident frames, no two of one moment."""
        near = [one for one in self.doubtful if abs(one.seconds - frame.seconds) < _APART]
        rivals = near or (self.doubtful if len(self.doubtful) >= THUMBNAILS else [])
        if rivals:
            worst = max(rivals, key=lambda one: one.confidence)
            if worst.confidence <= confidence:
                return
            self.doubtful.remove(worst)
        self.doubtful.append(DoubtfulFrame(frame.index, frame.seconds, confidence, self._thumbnail(frame)))

    def _thumbnail(self, frame: Frame) -> bytes:
        height, width = upright_size(frame)
        image = self._converter.convert(frame, (frame.luma, frame.chroma), width, height)
        size = (_WIDTH, min(max(round(height * _WIDTH / width), 1), 4 * _WIDTH))
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        return cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 70])[1].tobytes()

    @property
    def number_of_instruments(self) -> int:
        """How many instruments were in view."""
        return sum(bool(line.intervals) for _, line in self.instruments.values())

    def lines(self) -> list[tuple[str, str, tuple[int, int, int], PresenceTimeline]]:
        """Return kind, name, color (as in the overlay) and timeline of everything that was in view."""
        colors: Sequence[ClassSpec] = overlay_classes(self.spec.classes)
        found = [("class", colors[i].name, colors[i].color, line) for i, line in sorted(self.classes.items())]
        gray = (90, 90, 90)
        found += [("instrument", f"#{i} {name}", gray, line) for i, (name, line) in sorted(self.instruments.items())]
        return [*found, ("view", "outside the body", (200, 60, 60), self.outside)]

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON: see the schema "report"."""
        return {
            "format": "cliprl-report",
            "format_version": FORMAT_VERSION,
            "stream": describe_stream(self.spec.stream),
            "classes": [describe_class(i, spec) for i, spec in enumerate(self.spec.classes)],
            "frames": self.frames,
            "segmented": self.segmented,
            "damaged": self.damaged,
            "tracked": self.tracked,
            "start": self.start,
            "end": self.end,
            "timelines": [
                {
                    "kind": kind,
                    "name": name,
                    "seconds_in_view": round(line.seconds, 4),
                    "intervals": [
                        {"first": i.first, "last": i.last, "start": round(i.start, 4), "end": round(i.end, 4)}
                        for i in line.intervals
                    ],
                }
                for kind, name, _, line in self.lines()
                if line.intervals or kind == "view"
            ],
            "image_quality": self.quality.to_json(),
            "stalls": [{"after": round(after, 4), "seconds": round(gap, 4)} for after, gap in self.stalls],
            "low_confidence": {
                "below": LOW_CONFIDENCE,
                "frames": self.low,
                "share": round(self.low / max(self.segmented, 1), 6),
                "examples": [
                    {"index": one.index, "seconds": one.seconds, "confidence": round(one.confidence, 4)}
                    for one in sorted(self.doubtful, key=lambda one: one.index)
                ],
            },
        }
