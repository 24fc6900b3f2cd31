"""Streams, classes and frames as JSON and as file names, the same in every sink."""

from __future__ import annotations

from typing import Any

from cliprl.engines import ClassSpec
from cliprl.pipeline.frame import Frame
from cliprl.pipeline.protocols import StreamInfo
from cliprl.pipeline.upright import upright_size


def describe_class(class_id: int, spec: ClassSpec) -> dict[str, Any]:
    """A class as JSON; `id` is its value in masks."""
    return {"id": class_id, "name": spec.name, "color": list(spec.color), "kind": spec.kind}


def describe_stream(info: StreamInfo) -> dict[str, Any]:
    """A stream as JSON: fractions as "numerator/denominator", null for what is unknown; the size as it is displayed."""
    height, width = upright_size(info)
    return {
        "name": info.name,
        "height": height,
        "width": width,
        "time_base": f"{info.time_base.numerator}/{info.time_base.denominator}",
        "rate": None if info.rate is None else f"{info.rate.numerator}/{info.rate.denominator}",
        "frames": info.frames,
        "seconds": info.seconds,
    }


def frame_name(frame: Frame) -> str:
    """The file name of a frame's mask: its index and its pts, "000012_36000.png"."""
    return f"{frame.index:06d}_{frame.pts}.png"
