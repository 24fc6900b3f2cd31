"""The options of `cliprl-stream` for label files."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from cliprl.pipeline.cli.options import in_output


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
