"""The frame format of the whole pipeline, the context of a frame on its way through the stages, and the durations of a run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from cliprl.engines import UsageError
from cliprl.pipeline.core.color import ColorSpace
from cliprl.pipeline.core.segmentation import DamageEstimate, Segmentation, ZoomedRegion
from cliprl.pipeline.core.statistics import MAX_SAMPLES, STAGES, Summary, latencies_of
from cliprl.pipeline.core.viewport import Viewport

if TYPE_CHECKING:
    import av

Plane = NDArray[np.uint8]


def allocate_planes(height: int, width: int) -> tuple[Plane, Plane]:
    """Uninitialized NV12 planes: luma (H, W) and chroma (ceil(H/2), ceil(W/2), 2) with Cb before Cr."""
    return np.empty((height, width), np.uint8), np.empty(((height + 1) // 2, (width + 1) // 2, 2), np.uint8)


def allocate_image(height: int, width: int) -> tuple[tuple[Plane, Plane], av.VideoFrame | None]:
    """Planes as of `allocate_planes`, and libav's frame of the same memory; None for a size whose lines libav pads."""
    import av  # not at the start of a program: not all use it

    image = av.VideoFrame(width, height, "nv12")
    planes: Any = image.planes
    if height % 2 or planes[0].line_size != width:
        return allocate_planes(height, width), None
    luma, chroma = (np.frombuffer(plane, np.uint8) for plane in planes)
    return (luma.reshape(height, width), chroma.reshape(height // 2, width // 2, 2)), image


@dataclass(frozen=True, slots=True)
class ImageFile:
    """The image file that a frame was read from.

    name: path relative to the folder that holds all files of the list, with "/" as separator. stem: base name for files that
    belong to this image; it has no folders, and no suffix where it is unique in the list without one.
    """

    name: str
    stem: str


@dataclass(slots=True)
class Frame:
    """One video frame. The stages of a stream blend into its planes and add to its times; they do not copy it.

    luma: uint8 (H, W). chroma: uint8 (ceil(H/2), ceil(W/2), 2), Cb then Cr.
    pts: presentation time in units of `time_base` seconds; `duration` in the same units, 0 if unknown.
    rotation: counter-clockwise rotation for display, in degrees (0, 90, 180, 270).
    file: the image file it was read from; None for a frame of a video or a camera.
    image: libav's frame of the slot, whose memory luma and chroma are unless they were replaced (see `shared_image`).
    original: luma and chroma before the overlay was drawn, if a sink needs them (see `KeepOriginal`).
    position: seconds from the start of the file, of a frame that `Playback` has read; its pts ascend across seeks.
    times: `time.monotonic()` in seconds at the end of each completed stage, by name ("captured", "encode", "write", ...).
    durations: seconds that each stage worked on the frame, waiting excluded. threads: name of the thread that did the work.
    """

    luma: Plane
    chroma: Plane
    pts: int
    time_base: Fraction
    index: int
    color: ColorSpace = field(default_factory=ColorSpace)
    duration: int = 0
    rotation: int = 0
    sample_aspect: Fraction | None = None
    interlaced: bool = False
    damaged: bool = False
    slot: int = -1
    file: ImageFile | None = None
    image: av.VideoFrame | None = None
    original: tuple[Plane, Plane] | None = None
    position: float | None = None
    times: dict[str, float] = field(default_factory=dict)
    durations: dict[str, float] = field(default_factory=dict)
    threads: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.check_planes()

    def check_planes(self) -> None:
        """Raise UsageError for planes that are no NV12: some would give wrong masks without an error."""
        planes = (self.luma, self.chroma)
        luma, chroma = (getattr(plane, "dtype", type(plane).__name__) for plane in planes)
        size, half = (getattr(plane, "shape", ()) for plane in planes)
        halves = (*((side + 1) // 2 for side in size), 2)
        if half != halves or len(size) != 2 or 0 in size or not luma == chroma == np.uint8:
            raise UsageError(
                f"frame {self.index} has luma {luma} {size} and chroma {chroma} {half}: give uint8 arrays of the shapes (H, W) "
                "and (ceil(H/2), ceil(W/2), 2), Cb before Cr"
            )

    @property
    def height(self) -> int:
        """Height of the luma plane in pixels."""
        return len(self.luma)

    @property
    def width(self) -> int:
        """Width of the luma plane in pixels."""
        return int(self.luma.shape[1])

    @property
    def seconds(self) -> float:
        """Presentation time in seconds."""
        return float(self.pts * self.time_base)

    @property
    def shared_image(self) -> av.VideoFrame | None:
        """libav's frame with the same memory as luma and chroma, which an encoder can read without a copy; or None."""
        image = self.image
        return image if image is not None and image.planes[0].buffer_ptr == self.luma.ctypes.data else None

    def mark(self, stage: str) -> None:
        """Record that the frame has just completed `stage`."""
        self.times[stage] = time.monotonic()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the work of one stage on this frame."""
        start = time.monotonic()
        yield
        self.mark(name)
        self.threads[name] = threading.current_thread().name
        self.durations[name] = self.times[name] - start

    def elapsed(self, start: str, end: str) -> float:
        """Return the seconds between two recorded stages; NaN if one is missing."""
        return self.times.get(end, float("nan")) - self.times.get(start, float("nan"))


Item = TypeVar("Item")
# Marks a named range of work for a profiler: a context manager that is entered on the thread that does the work.
Profiler = Callable[[str], AbstractContextManager[object]]


@dataclass(frozen=True, slots=True)
class Stage(Generic[Item]):
    """A named step of work on each item of a stream. `run` changes the item in place.

    at_once: how many items it may work on at a time, where several threads share the stages.
    """

    name: str
    run: Callable[[Item], None]
    at_once: int = 1


@dataclass(slots=True, eq=False)
class FrameContext:
    """One frame on its way through the stages of a stream.

    Each stage reads the fields that earlier stages set. The arrays are reused: they are valid until the segmenter has
    processed as many further frames as it has buffers.

    view, image, is_cut: set by "prepare". image is the network input, uint8 (1, H, W, 3); is_cut is true where a new shot starts.
    damaged, is_related: set by "prepare": whether the frame is to be refined, and whether its scene is that of the frame before.
    damage: set by "prepare": the measured damage of the network input; None if it was not measured.
    features (1, D, h, w), logits (1, K, h, w): set by "encode"; the logits are those before refinement.
    zooms, zoomed: whether a small region is looked at again ("prepare"), and what it is then ("encode"); None without one.
    segmentation: set by "refine"; None in a stream without a segmenter.
    device_state: for a segmenter whose device still works on the frame; None on the CPU.
    """

    frame: Frame
    profiler: Profiler = nullcontext
    segmentation: Segmentation | None = None
    device_state: Any = None
    view: Viewport = field(init=False)
    image: NDArray[np.uint8] = field(init=False)
    is_cut: bool = field(init=False)
    damaged: bool = True
    damage: DamageEstimate | None = None
    is_related: bool = True
    zooms: bool = False
    zoomed: ZoomedRegion | None = None
    features: NDArray[Any] = field(init=False)
    logits: NDArray[Any] = field(init=False)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the work of one stage on this frame, and mark it for the profiler."""
        with self.profiler(name), self.frame.stage(name):
            yield


class StatisticsRecorder:
    """Collects one number a stage a frame, without growing."""

    def __init__(self) -> None:
        self._samples: NDArray[np.float32] = np.full((len(STAGES) + 1, MAX_SAMPLES), np.nan, np.float32)
        self._started = time.monotonic()
        self._cpu_started = time.process_time()
        self._ended: tuple[float, float] | None = None
        self.frames = self.damaged = self.steps = self.segmented = 0

    def add(self, frame: Frame, segmentation: Segmentation | None) -> None:
        """Count a frame that has passed every stage."""
        column = self.frames % MAX_SAMPLES
        for row, stage in enumerate(STAGES):
            self._samples[row, column] = frame.durations.get(stage, np.nan)
        self._samples[-1, column] = frame.elapsed("captured", "write")
        self.frames += 1
        self.damaged += frame.damaged
        if segmentation is not None:
            self.segmented += 1
            self.steps += segmentation.steps

    def end(self) -> None:
        """End the run: later frames are not counted."""
        self._ended = self._ended or (time.monotonic(), time.process_time())

    def summary(self, *, dropped: int, damaged: int, interrupted: bool, notes: Iterable[str]) -> Summary:
        """Return the statistics of the run so far. `damaged` is the source's own count, which includes lost frames."""
        now, cpu = self._ended or (time.monotonic(), time.process_time())
        return Summary(
            frames=self.frames,
            seconds=now - self._started,
            cpu_seconds=cpu - self._cpu_started,
            dropped=dropped,
            damaged=max(damaged, self.damaged),
            mean_steps=self.steps / self.segmented if self.segmented else 0.0,
            interrupted=interrupted,
            latency=latencies_of(self._samples[:, : self.frames]),
            notes=tuple(notes),
        )
