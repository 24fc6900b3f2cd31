"""Streams, classes and frames as JSON and as file names, for all sinks."""

from __future__ import annotations

from typing import Any

from cliprl.engines import ClassSpec
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.interfaces import StreamInfo
from cliprl.pipeline.core.nv12 import upright_size
from cliprl.pipeline.sources.errors import redact


def describe_class(class_id: int, spec: ClassSpec) -> dict[str, Any]:
    """A class as JSON; `id` is its value in masks."""
    return {"id": class_id, "name": spec.name, "color": list(spec.color), "kind": spec.kind}


def describe_stream(info: StreamInfo) -> dict[str, Any]:
    """A stream as JSON: fractions as "numerator/denominator", null for what is unknown; the size as it is displayed."""
    height, width = upright_size(info)
    return {
        "name": redact(info.name),
        "height": height,
        "width": width,
        "time_base": f"{info.time_base.numerator}/{info.time_base.denominator}",
        "rate": None if info.rate is None else f"{info.rate.numerator}/{info.rate.denominator}",
        "frames": info.frames,
        "seconds": info.seconds,
    }


def describe_frame(frame: Frame) -> dict[str, Any]:
    """Which frame it is, as JSON: the image file it was read from (null for a video's), its index and its time."""
    return {
        "file_name": frame.file.name if frame.file else None,
        "index": frame.index,
        "pts": frame.pts,
        "seconds": frame.seconds,
    }


def frame_name(frame: Frame) -> str:
    """The file name of a frame's mask: that of its image file with ".png", else its index and its pts, "000012_36000.png"."""
    return f"{frame.file.stem}.png" if frame.file else f"{frame.index:06d}_{frame.pts}.png"


def image_name(frame: Frame) -> str:
    """The file name of a frame as annotation tools match it: the image file's own, or "frame_000012.png" for a video's.

    CVAT numbers the frames of a video so, from 0, as does `ffmpeg -i VIDEO -start_number 0 frame_%06d.png`.
    """
    return frame.file.name if frame.file else f"frame_{frame.index:06d}.png"
