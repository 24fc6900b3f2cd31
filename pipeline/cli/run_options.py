"""The options of a run, its description, and the status line of its frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cliprl.engines import ClassSpec, size_of, size_text
from cliprl.pipeline.cli.class_selection import select_classes
from cliprl.pipeline.cli.correction_options import CorrectionOptions
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.interfaces import LabelStyle
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.live.factory import LiveOptions
from cliprl.pipeline.overlay.style import Style
from cliprl.pipeline.segment.segmenter import Segmenter
from cliprl.pipeline.sources import FrameSource
from cliprl.pipeline.stream.stream import StatusText


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """The options of one run. `outputs` empty: a video beside the input. The help of the command describes each."""

    source: str
    outputs: tuple[str, ...]
    overwrite: bool
    frames: int | None
    bundle: str
    steps: int | None
    budget_ms: float | None
    device: str
    precision: str
    threads: int
    prompts: tuple[str, ...]
    classes: tuple[str, ...] | None
    opacity: float
    contours: bool
    legend: bool
    status: bool
    crf: int
    preset: str
    trace: Path | None
    web: str | None
    window: bool
    live: LiveOptions
    labels: LabelStyle = field(default_factory=LabelStyle)
    export_frames: bool = False
    ids: bool = False
    follow: str | None = None
    tracker: Path | None = None
    exemplars: tuple[str, ...] = ()
    corrections: CorrectionOptions | None = None
    encoders: int = 0
    input_size: str | None = None
    web_url: str = ""

    @property
    def watched(self) -> bool:
        """Whether the run is displayed or recorded: then it takes the live path and writes no file without -o."""
        return self.web is not None or self.window or self.live.recording

    def style(self, classes: Sequence[ClassSpec]) -> Style:
        """Return how the overlay is drawn, for a bundle with these classes. Raises UsageError for an unknown class."""
        return Style(
            opacity=self.opacity,
            contours=self.contours,
            legend=self.legend,
            status=self.status,
            shown=None if self.classes is None else select_classes(self.classes, classes),
        )


def describe_run(source: FrameSource, segmenter: Segmenter) -> str:
    """Return a few lines on input, bundle and engine."""
    info, manifest, size = source.info, segmenter.bundle.manifest, size_text(size_of(segmenter.bundle))
    rate = f"{float(info.rate):g} FPS" if info.rate else "unknown rate"
    color = f"{info.color.matrix} {'full' if info.color.full_range else 'limited'} range"
    return (
        f"input   {info.name}: {info.width}x{info.height}, {rate}, {color}\n"
        f"bundle  {manifest.name}: {len(segmenter.classes)} classes, {size}, {segmenter.steps} steps\n"
        f"engine  {segmenter.engine_name} on {segmenter.device}, {segmenter.precision}"
    )


# Only every n-th frame of a video is marked anew: to assess a mask takes as long as to decide it, and one on a GPU is copied
# to the host for it.
MARK_FRAMES = 8


def status_line(name: str, mark_frames: int = MARK_FRAMES) -> StatusText:
    """Return the function that makes the status line of a frame, for the bundle `name`.

    Every `mark_frames`-th frame is marked anew, and the others as the last of these.
    """
    last = ""

    def line(frame: Frame, segmentation: Segmentation | None) -> str:
        nonlocal last
        if segmentation is None:
            return f"cliprl {name} · no segmentation"
        if frame.index % mark_frames == 0:
            last = segmentation.mark
        mark = f" · {last}" if last else ""
        spent = sum(frame.durations.get(stage, 0.0) for stage in ("prepare", "encode", "refine"))
        instances = segmentation.instances
        followed = ""
        if instances is not None and instances.followed:
            from cliprl.pipeline.tracking.follow import followed_text

            followed = f" · {followed_text(instances)}"
        steps = "1 step" if segmentation.steps == 1 else f"{segmentation.steps} steps"
        return f"cliprl {name}{mark} · {steps} · {spent * 1000:.0f} ms{followed} · research use only"

    return line
