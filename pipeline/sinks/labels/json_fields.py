"""Streams, classes and frames as JSON and as file names, for all sinks."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any

from cliprl.engines import ClassSpec
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.interfaces import OutputSpec, StreamInfo
from cliprl.pipeline.core.nv12 import upright_size
from cliprl.pipeline.core.segmentation import DamageEstimate, Followed
from cliprl.pipeline.sources.errors import redact

# Bytes of a clip's name in the names of its frames.
_LONGEST_CLIP = 100


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


def quality_values(found: DamageEstimate) -> dict[str, float]:
    """The measured damage of a network input by the names that files use: haze, brightness and noise, 0..255."""
    return {"haze": found.haze, "brightness": found.mean, "noise": found.noise}


def describe_followed(followed: Followed) -> dict[str, Any]:
    """The instrument that is followed, as JSON: its state, and its id, null where it has none."""
    return {"state": followed.state.value, "id": followed.id or None}


def frame_name(frame: Frame) -> str:
    """The file name of a frame's mask: that of its image file with ".png", else its index and its pts, "000012_36000.png"."""
    return f"{frame.file.stem}.png" if frame.file else f"{frame.index:06d}_{frame.pts}.png"


def image_name(frame: Frame, spec: OutputSpec) -> str:
    """The file name of a frame as annotation tools match it: the image file's own, or one of `FRAME_NAMES` for a video's.

    If frames are exported, it is `exported_name`.
    """
    return frame.file.name if frame.file and not spec.style.frames else exported_name(frame, spec)


def exported_name(frame: Frame, spec: OutputSpec) -> str:
    """The file name of an exported frame, a PNG in a folder without others below it."""
    return f"{frame.file.stem if frame.file else _FRAME_STEMS[spec.style.names](frame, spec)}.png"


def _clip_stem(frame: Frame, spec: OutputSpec) -> str:
    name = unicodedata.normalize("NFC", PurePath(redact(spec.stream.name).split("?")[0]).stem)
    kept = "".join(one if one in "_.-" or unicodedata.category(one)[0] in "LMN" else " " for one in name)
    clip = "_".join(kept.split()).strip("_").encode()[:_LONGEST_CLIP].decode(errors="ignore")
    return f"{clip or 'clip'}_{frame.index:06d}"


_FRAME_STEMS: Mapping[str, Callable[[Frame, OutputSpec], str]] = {
    "frame": lambda frame, spec: f"frame_{frame.index:06d}",
    "pts": lambda frame, spec: f"{frame.index:06d}_{frame.pts}",
    "clip": _clip_stem,
}
# Names of a video's frames: "frame" frame_000012.png, which CVAT's video tasks match (numbered from 0, as by
# `ffmpeg -i VIDEO -start_number 0 frame_%06d.png`); "pts" 000012_36000.png, as masks are called; "clip" CLIP_000012.png, which
# stays unique in a folder with the frames of several clips.
FRAME_NAMES = tuple(_FRAME_STEMS)
