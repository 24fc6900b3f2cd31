"""Protocols between the parts of a stream: source, preprocessor, segmenter, overlay, sink, and the stream as a whole."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from cliprl.engines import ClassSpec
from cliprl.pipeline.core.buffers import FrameRing, Policy
from cliprl.pipeline.core.color import ColorSpace
from cliprl.pipeline.core.frame import Frame, FrameContext, Plane, Stage
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.core.statistics import Summary
from cliprl.pipeline.core.viewport import Viewport

if TYPE_CHECKING:  # it loads libav
    from cliprl.pipeline.core.passthrough import Passthrough

# Returns the NV12 planes that a source writes a frame of (height, width) into: `allocate_planes`, or the slot of a ring.
PlaneAllocator = Callable[[int, int], tuple[Plane, Plane]]
OnFrame = Callable[[Frame, Segmentation | None], None]


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """Properties of a video stream that are known before its first frame is used.

    Sizes in pixels; `frames` and `seconds` are None if unknown. A `live` source cannot wait: its ring drops the oldest frame.
    `bottom_field_first` is the field order of an interlaced stream. `passthrough` holds the audio, tags and chapters for an
    output video.
    """

    name: str
    height: int
    width: int
    time_base: Fraction
    rate: Fraction | None = None
    frames: int | None = None
    seconds: float | None = None
    color: ColorSpace = field(default_factory=ColorSpace)
    rotation: int = 0
    sample_aspect: Fraction | None = None
    interlaced: bool = False
    bottom_field_first: bool = False
    live: bool = False
    passthrough: Passthrough | None = field(default=None, repr=False, compare=False)
    notes: tuple[str, ...] = ()


class ContextManager(Protocol):
    """An object that a `with` statement closes."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Source(ContextManager, Protocol):
    """Reads frames in presentation order. `read` returns None at the end of the stream. See `FrameSource` for the rest."""

    info: StreamInfo
    damaged: int
    skipped: int
    jumps: int
    origin: float
    waits: bool

    @property
    def stored(self) -> bool:
        """Whether a live stream comes in stored parts, such as those of HLS."""

    @property
    def waiting(self) -> int:
        """Packets of a live stream that have come and are not decoded yet."""

    @property
    def is_undecodable(self) -> bool:
        """Whether what a live stream sent since its last frame can't be decoded."""

    def read(self, allocate: PlaneAllocator = ...) -> Frame | None:
        """Return the next frame; its planes are written into the result of `allocate(height, width)`."""

    def __iter__(self) -> Iterator[Frame]: ...

    def close(self) -> None:
        """Release the file or device; reading afterwards is an error."""


class Sink(ContextManager, Protocol):
    """Writes finished frames in order. Leaving it finishes the output, so that it can be read."""

    def write(self, frame: Frame, segmentation: Segmentation | None) -> None:
        """Write one frame and its segmentation; the caller may reuse the planes as soon as this returns."""

    def close(self) -> None:
        """Finish the output. Calling it twice is harmless."""


class BaseSink(ABC):
    """A base class for sinks: the context manager, and what a stream can ask of a sink, with defaults.

    needs_planes: `write` reads the planes of the frame in host memory. frames: number of frames written. notes: remarks for the
    user, one line each.
    """

    needs_planes: bool = True
    frames: int = 0
    notes: Sequence[str] = ()

    @abstractmethod
    def write(self, frame: Frame, segmentation: Segmentation | None) -> None:
        """Write one frame: see `Sink`."""

    @abstractmethod
    def close(self) -> None:
        """Finish the output. Calling it twice is harmless."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Preprocessor(Protocol):
    """Makes the network input from a frame."""

    def prepare(self, frame: Frame, view: Viewport, out: NDArray[np.uint8]) -> None:
        """Write the network's RGB image, uint8 (H, W, 3), from the planes of the frame."""


class FrameOverlay(Protocol):
    """Draws segmentations into frames. `to_host`: the drawn planes are needed in host memory."""

    to_host: bool

    def draw(self, frame: Frame, segmentation: Segmentation | None, status: str | None = None) -> None:
        """Draw into the planes of the frame, in place."""


class FrameSegmenter(Protocol):
    """Segments the frames of one stream by a list of stages, each of which may run on its own thread, in frame order.

    `budget` in seconds, None for no limit; `steps` is the largest number of refinement steps. `waits_for_device`: the stages
    mostly wait for a device, so each may have a thread even where there are few processors.
    """

    steps: int
    budget: float | None
    waits_for_device: bool

    @property
    def notes(self) -> Sequence[str]:
        """Remarks on the run so far for the user, one line each."""

    @property
    def stages(self) -> Sequence[Stage[FrameContext]]:
        """The stages in order; after the last one the context has a segmentation."""

    def reset(self) -> None:
        """Forget the frames so far. A stream calls it when it begins."""

    def ring(self, slots: int, policy: Policy) -> FrameRing:
        """Create the ring of frame slots that the stages read from, in the memory of their device."""

    def default_overlay(self) -> FrameOverlay | None:
        """Return the overlay for a stream that draws nothing. None if the frames need no copy to host memory."""

    def settle(self) -> None:
        """Wait for all pending work of the device."""


class VideoStream(ContextManager, Protocol):
    """A source, its segmentation and its outputs as one run. Leaving it closes all of them."""

    @property
    def info(self) -> StreamInfo:
        """Properties of the source."""

    @property
    def description(self) -> str:
        """A few lines for the user on what this run consists of."""

    @property
    def paced(self) -> bool:
        """Whether frames are processed at the rate of the source, so that the source limits the frame rate."""

    @property
    def displays(self) -> bool:
        """Whether frames are displayed that outputs may lose."""

    @property
    def interrupted(self) -> bool:
        """Whether `stop` ended the run before its source did."""

    @property
    def written(self) -> list[int]:
        """Number of frames written to each output, in the order of the outputs."""

    def run(self, on_frame: OnFrame | None = None, *, frames: int | None = None) -> Summary:
        """Process the source to its end, or `frames` frames of it; `on_frame` is called with each finished frame."""

    def stop(self) -> None:
        """End early and in good order. May be called from any thread or a signal handler."""

    def summary(self) -> Summary:
        """Return the statistics of the run so far."""


@dataclass(frozen=True, slots=True)
class LabelStyle:
    """How label files name frames and describe masks.

    names: the names of a video's frames, see `FRAME_NAMES`. polygons: polygons instead of run lengths. frames: the folder of
    the exported frames, relative to the label file; "" if none are exported.
    """

    names: str = "frame"
    polygons: bool = False
    frames: str = ""


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """What a sink needs when it is opened: the stream, the classes of its masks, and the style of label files."""

    stream: StreamInfo
    classes: tuple[ClassSpec, ...]
    style: LabelStyle = LabelStyle()
