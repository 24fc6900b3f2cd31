"""The options of `cliprl-stream` for label files, and the folder of frames that `--export-frames` adds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from cliprl.engines import UsageError
from cliprl.pipeline.cli.options import in_output
from cliprl.pipeline.core.interfaces import LabelStyle
from cliprl.pipeline.sinks.registry import SINKS, find_sink


class FrameNames(StrEnum):
    """Names of a video's frames in label files."""

    FRAME = "frame"
    PTS = "pts"
    CLIP = "clip"


ExportFrames = Annotated[
    bool,
    in_output(
        "--export-frames",
        hidden=True,
        help="Also write the frames without the overlay, as PNG, into [cyan]NAME.frames/[/] beside the labels "
        "([cyan].coco.json[/], [cyan].cvat.xml[/], [cyan].labelstudio.json[/]).",
    ),
]
Names = Annotated[
    FrameNames,
    in_output(
        hidden=True,
        help="Names of a video's frames in label files: frame_000012.png as CVAT's video tasks count, 000012_PTS.png as masks "
        "are called, or CLIP_000012.png.",
    ),
]
Polygons = Annotated[bool, in_output("--polygons", hidden=True, help="Polygons instead of run lengths in label files.")]


def with_exported_frames(targets: Sequence[str], style: LabelStyle) -> tuple[tuple[str, ...], LabelStyle]:
    """Add a folder of frames beside the first label file of `targets`, and tell the label files.

    Raises UsageError if no target is a label file that refers to frames.
    """
    for target in targets:
        kind = find_sink(target)
        if kind is not None and kind.refers_to_frames:
            suffix = next(suffix for suffix in kind.suffixes if target.lower().endswith(suffix))
            folder = f"{target[: -len(suffix)]}.frames/"
            return (*targets, folder), replace(style, frames=Path(folder).name)
    raise _without_labels("--export-frames writes beside", frames=False)


def check_label_style(targets: Sequence[str], style: LabelStyle) -> None:
    """Raise UsageError for options of label files where no target is one."""
    kinds = [kind for target in targets if (kind := find_sink(target))]
    refers = any(kind.refers_to_frames for kind in kinds)
    if style.polygons and not refers:
        raise _without_labels("--polygons is for", frames=False)
    if style.names != LabelStyle().names and not refers and not any(kind.writes_frames for kind in kinds):
        raise _without_labels(f"--names {style.names} is for", frames=True)


def _without_labels(option: str, *, frames: bool) -> UsageError:
    """An error for an option of label files, or of folders of `frames` too."""
    kinds = [kind for kind in SINKS if kind.refers_to_frames or (frames and kind.writes_frames)]
    names = ", ".join(kind.shown for kind in kinds)
    return UsageError(f"{option} label files, and no output is one: give -o NAME with one of {names}")


def writes_frames(targets: Sequence[str]) -> str | None:
    """Return the first output that holds frames without the overlay; None if there is none."""
    kinds = ((target, find_sink(target)) for target in targets)
    return next((target for target, kind in kinds if kind and kind.writes_frames), None)
