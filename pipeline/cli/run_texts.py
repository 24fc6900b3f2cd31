"""The texts of a run: its description, and the status line of its frames."""

from __future__ import annotations

from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.segment.segmenter import Segmenter
from cliprl.pipeline.sources import FrameSource
from cliprl.pipeline.stream.stream import StatusText


def describe_run(source: FrameSource, segmenter: Segmenter) -> str:
    """Return a few lines on input, bundle and engine."""
    info, manifest = source.info, segmenter.bundle.manifest
    rate = f"{float(info.rate):g} FPS" if info.rate else "unknown rate"
    color = f"{info.color.matrix} {'full' if info.color.full_range else 'limited'} range"
    return (
        f"input   {info.name}: {info.width}x{info.height}, {rate}, {color}\n"
        f"bundle  {manifest.name}: {len(manifest.classes)} classes, {manifest.width}x{manifest.height}, {segmenter.steps} steps\n"
        f"engine  {segmenter.engine_name} on {segmenter.device}, {segmenter.precision}"
    )


def _followed(segmentation: Segmentation) -> str:
    """Return what the status line tells about the instrument that is followed."""
    followed = segmentation.instances.followed if segmentation.instances else None
    return "" if followed is None else f" · {followed.state}{f' #{followed.id}' if followed.id else ''}"


# A mask on a GPU is copied to the host for its mark, so that only every n-th frame is marked anew.
GPU_MARK_FRAMES = 8


def status_line(name: str, *, on_host: bool = True) -> StatusText:
    """Return the function that makes the status line of a frame, for the bundle `name`. `on_host`: masks are in host memory."""
    last = ""

    def line(frame: Frame, segmentation: Segmentation | None) -> str:
        nonlocal last
        if segmentation is None:
            return f"cliprl {name} · no segmentation"
        if on_host or frame.index % GPU_MARK_FRAMES == 0:
            last = segmentation.mark
        mark = f" · {last}" if last else ""
        spent = sum(frame.durations.get(stage, 0.0) for stage in ("prepare", "encode", "refine"))
        steps = "1 step" if segmentation.steps == 1 else f"{segmentation.steps} steps"
        return f"cliprl {name}{mark} · {steps} · {spent * 1000:.0f} ms{_followed(segmentation)} · research use only"

    return line
