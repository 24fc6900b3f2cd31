"""JSON lines: the classes, the confidence and the latency of each frame."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cliprl.engines import UsageError
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.interfaces import OutputSpec
from cliprl.pipeline.core.nv12 import upright_box
from cliprl.pipeline.core.segmentation import Instances, Segmentation
from cliprl.pipeline.overlay.class_statistics import class_statistics, instance_statistics
from cliprl.pipeline.sinks.atomic_file import STDOUT
from cliprl.pipeline.sinks.json_text import json_text
from cliprl.pipeline.sinks.labels.frame_labels import check_classes
from cliprl.pipeline.sinks.labels.json_fields import (
    describe_class,
    describe_followed,
    describe_frame,
    describe_stream,
    frame_name,
    quality_values,
)
from cliprl.pipeline.sinks.partial_file_sink import PartialFileSink
from cliprl.pipeline.sinks.registry import EncoderSettings, register_sink

FORMAT_VERSION = 1
# A killed run loses at most what came in this many seconds.
FLUSH_SECONDS = 1.0


class EventSink(PartialFileSink):
    """JSON Lines, which a pipe or standard output ("stdout:") gets one by one. The first line is a header:

        {"format": "cliprl-events", "format_version": 1,
         "stream": {"name", "height", "width", "time_base": "1/90000", "rate": "25/1", "frames", "seconds"},
         "classes": [{"id", "name", "color": [R, G, B], "kind"}]}

    Then one line for each frame:

        {"index", "file_name", "mask_file_name", "pts", "seconds", "damaged": bool, "segmented": bool,
         "confidence": 0..1, "doubt": 0..1, "distance": number, "unsure": bool, "unfamiliar": bool,
         "steps": int, "moved": 0..1,
         "classes": {NAME: {"pixels": int, "share": 0..1, "box": [left, top, width, height]}},
         "image_quality": {"haze": 0..255, "brightness": 0..255, "noise": number},
         "presence": {NAME: 0..1},
         "instances": [{"id", "group", "class", "pixels", "share", "box", "confidence"}],
         "followed": {"state": "waiting" | "following" | "lost", "id": int or null},
         "captured_utc": "2026-12-01T09:30:00.125Z",
         "latency_ms": {STAGE: number, "age": number}}

    `file_name` is the image file's, null for a frame of a video; `mask_file_name` is what MaskSink calls its mask.
    `pixels` and `box` count in pixels of the frame as it is displayed, upright; `share` is of the field of view: see
    `class_statistics`. Only classes that occur are listed; `instances` only if the stream is tracked. "confidence" is the mean
    probability of the cells' classes, calibrated if the bundle has a calibration. "doubt" is the estimated probability that
    the instruments' mask is wrong, for a frame that shows an instrument; "distance" is the Mahalanobis distance from the
    frames that the bundle is for; "unsure" and "unfamiliar", whether they are at or above the bundle's thresholds. These four
    are absent for a bundle without a fitted confidence. Without `segmented` there are none of these, and no "steps", "moved" or
    "classes". `latency_ms` is the work of each stage that the frame passed; "age" is the time since it was captured, absent if
    that is unknown. "captured_utc" is when a frame of a live source was captured, without the camera's own delay, by this
    machine's clock as it was set when the line was written; absent for files.
    Lines reach a disk within a second. "presence" is the estimated probability that the frame shows a
    class that was named at run time, on the CPU; absent without such a class.
    "image_quality" is measured on the network input before restoration, on the CPU, in a bundle with a restoration: brightness
    of its darkest tenth, mean brightness, standard deviation of the noise; absent where it is not measured.
    """

    needs_planes = False

    def __init__(self, target: Path, spec: OutputSpec) -> None:
        """Create the partial file. Raises UsageError if it can't be."""
        super().__init__(target)
        self._spec, self._classes = spec, spec.classes
        self._lines = [_line(_header(spec))]
        self._flushed, self._pause = 0.0, FLUSH_SECONDS if self._file.seekable() else 0.0

    def _write(self, frame: Frame, segmentation: Segmentation | None) -> None:
        check_classes(self.target, self._spec, segmentation)
        event: dict[str, Any] = {
            **describe_frame(frame),
            "mask_file_name": frame_name(frame) if segmentation else None,
            "damaged": frame.damaged,
            "segmented": segmentation is not None,
        }
        if segmentation is not None:
            event |= {
                "confidence": round(segmentation.calibrated_confidence, 4),
                **_reliability(segmentation),
                "steps": segmentation.steps,
                "moved": round(segmentation.moved, 6),
                "classes": self._seen(frame, segmentation),
            }
            if segmentation.damage is not None:
                values = quality_values(segmentation.damage)
                event["image_quality"] = {name: round(value, 2) for name, value in values.items()}
            if segmentation.presence is not None:
                event["presence"] = {name: round(value, 4) for name, value in segmentation.presence.items()}
            if segmentation.instances is not None:
                event["instances"] = self._instances(frame, segmentation, segmentation.instances)
                if (followed := segmentation.instances.followed) is not None:
                    event["followed"] = describe_followed(followed)
        if self._spec.stream.live and "captured" in frame.times:
            event["captured_utc"] = _utc(frame.times["captured"])
        self._lines.append(_line(event | {"latency_ms": _latency(frame)}))
        if time.monotonic() - self._flushed >= self._pause:
            self._flush()

    def _seen(self, frame: Frame, segmentation: Segmentation) -> dict[str, Any]:
        return {
            self._classes[m.class_id].name: {
                "pixels": m.pixels,
                "share": round(m.share, 6),
                "box": list(upright_box(m.box, frame)),
            }
            for m in class_statistics(segmentation)
            if self._classes[m.class_id].kind != "background"
        }

    def _instances(self, frame: Frame, segmentation: Segmentation, instances: Instances) -> list[dict[str, Any]]:
        return [
            {
                "id": found.instance.id,
                "group": found.instance.name,
                "class": self._classes[found.instance.class_id].name,
                "pixels": found.pixels,
                "share": round(found.share, 6),
                "box": list(upright_box(found.box, frame)),
                "confidence": round(segmentation.confidence_over(instances.ids == found.instance.id), 4),
            }
            for found in instance_statistics(segmentation)
        ]

    def _flush(self) -> None:
        self._file.write(self._last_bytes())
        self._lines.clear()
        self._flushed = time.monotonic()

    def _last_bytes(self) -> bytes:
        return "".join(self._lines).encode()


def _line(value: dict[str, Any]) -> str:
    return json_text(value) + "\n"


def _header(spec: OutputSpec) -> dict[str, Any]:
    return {
        "format": "cliprl-events",
        "format_version": FORMAT_VERSION,
        "stream": describe_stream(spec.stream),
        "classes": [describe_class(i, spec) for i, spec in enumerate(spec.classes)],
    }


def _reliability(segmentation: Segmentation) -> dict[str, Any]:
    found = segmentation.reliability
    if found is None:
        return {}
    return {
        "doubt": round(found.doubt, 4),
        "distance": round(found.distance, 3),
        "unsure": found.unsure,
        "unfamiliar": found.unfamiliar,
    }


def _latency(frame: Frame) -> dict[str, float]:
    """Milliseconds of each stage, and since capture."""
    stages = {name: round(seconds * 1000, 3) for name, seconds in frame.durations.items()}
    captured = frame.times.get("captured")
    return stages if captured is None else stages | {"age": round((time.monotonic() - captured) * 1000, 3)}


def _utc(moment: float) -> str:
    """A time of `time.monotonic()` in UTC, by the system clock as it is now set."""
    then = datetime.now(UTC) - timedelta(seconds=time.monotonic() - moment)
    return f"{then:%Y-%m-%dT%H:%M:%S}.{then.microsecond // 1000:03d}Z"


@register_sink(suffixes=(".jsonl",), prefixes=(STDOUT,), shown=f".jsonl {STDOUT}", help="one line of JSON per frame")
def open_jsonl(target: str, spec: OutputSpec, settings: EncoderSettings) -> EventSink:
    """Open a file of JSON lines, or standard output for them."""
    if target.startswith(STDOUT) and target != STDOUT:
        raise UsageError(
            f"'{target}' names no kind of output: write {STDOUT} without more, or ./{target}.jsonl for a file"
        )
    return EventSink(Path(target), spec)
