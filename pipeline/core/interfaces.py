"""What the parts of a stream look like to each other: sources give frames, sinks take them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from cliprl.engines import ClassSpec
from cliprl.pipeline.core.color import Color
from cliprl.pipeline.core.frame import Frame, Plane
from cliprl.pipeline.core.segmentation import Segmentation

if TYPE_CHECKING:  # it loads libav
    from cliprl.pipeline.core.passthrough import Passthrough

# Where a source writes a picture: given (height, width) it returns NV12 planes (`allocate_planes`, or a ring's slot).
PlaneAllocator = Callable[[int, int], tuple[Plane, Plane]]


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """What is known of a stream before its first frame is used. Sizes in pixels; `frames` and `seconds` None where unknown.

    `live` sources can't wait: their ring drops the oldest frame. `bottom_field_first` tells
    the order of an interlaced stream's fields. `passthrough` is what an output video carries over beside the picture.
    """

    name: str
    height: int
    width: int
    time_base: Fraction
    rate: Fraction | None = None
    frames: int | None = None
    seconds: float | None = None
    color: Color = field(default_factory=Color)
    rotation: int = 0
    sample_aspect: Fraction | None = None
    interlaced: bool = False
    bottom_field_first: bool = False
    live: bool = False
    passthrough: Passthrough | None = field(default=None, repr=False, compare=False)
    notes: tuple[str, ...] = ()


class Source(Protocol):
    """Gives frames in presentation order. A context manager; `read` returns None at the end of the stream."""

    info: StreamInfo
    damaged: int  # frames that were decoded with errors, or lost to them, so far

    def read(self, allocate: PlaneAllocator = ...) -> Frame | None:
        """The next frame, its planes written into what `allocate(height, width)` returns."""
        ...

    def __iter__(self) -> Iterator[Frame]: ...

    def close(self) -> None:
        """Release the file or device; reading afterwards is an error."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Sink(Protocol):
    """Takes finished frames, in order. A context manager: leaving it finishes what it writes, so that it can be read."""

    def write(self, frame: Frame, segmentation: Segmentation | None) -> None:
        """Take one frame and what was seen in it; the planes may be reused by the caller as soon as this returns."""
        ...

    def close(self) -> None:
        """Finish the output. Calling it twice is harmless."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """What a sink is told when it is opened: the stream and the classes of the masks to come."""

    stream: StreamInfo
    classes: tuple[ClassSpec, ...]
