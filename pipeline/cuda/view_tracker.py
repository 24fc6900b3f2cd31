"""Track the field of view on the GPU, one frame behind, so that no thread waits for the host to fit its shape."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cliprl.pipeline.core.viewport import Viewport
from cliprl.pipeline.cuda.gpu_api import CudaStream, Event, Gpu
from cliprl.pipeline.cuda.kernels.kernel_arguments import EndsOf, FrameData, Levels, Strips
from cliprl.pipeline.view.field_of_view import JITTER, FieldOfViewDetector
from cliprl.pipeline.view.shape_fit import (
    BAR_DROP,
    BAR_RISE,
    BRIGHT_SHARE,
    IMAGE_RISE,
    LINES,
    STRIPS,
    Ends,
    cell_size,
    first_lines,
    has_strips,
    place_ends,
)

# The shape of the distances that the last kernel writes: from each strip, those of `StripLayout.ends`.
DISTANCES = (2 * STRIPS, 4)
# Share of the strips' ends that may move without a new fit: text and dark places, which no fit follows.
_STRAY = 1 / 16
# Room for the cells of a strip: a frame has fewer along its longer side, whatever its size.
MOST_CELLS = 720


@dataclass(frozen=True, slots=True)
class StripLayout:
    """The layout of the strips on a frame: cells across and down, and pixels per cell."""

    height: int
    width: int
    cell: int
    across: int
    down: int

    @classmethod
    def of(cls, height: int, width: int) -> StripLayout | None:
        """Return the layout for a frame of (height, width); None where it is too small."""
        if not has_strips(height, width):
            return None
        cell = cell_size(height, width)
        return cls(height, width, cell, width // cell, len(range(cell // 2, height, cell)))

    def write(self, data: FrameData, *, full_range: bool) -> None:
        """Write the layout where the launches read it."""
        data.across, data.down, data.cell = self.across, self.down, self.cell
        nominal = 0.0 if full_range else 16.0
        data.lowest, data.highest = nominal - BAR_DROP, nominal + BAR_RISE
        data.first[:] = [*first_lines(self.height).tolist(), *first_lines(self.width).tolist()]

    def ends(self, distances: NDArray[np.float64]) -> Ends:
        """Convert the distances (2 * STRIPS, 4) of the last launch to positions in the frame."""
        sides = np.where(distances < 0, np.inf, distances).reshape(2, STRIPS, 2, 2).transpose(0, 2, 3, 1)
        return place_ends(
            sides.reshape(4, 2, STRIPS), _places(self.height, self.width), (self.height, self.width), self.cell
        )


@lru_cache(maxsize=4)
def _places(*size: int) -> tuple[NDArray[np.float64], ...]:
    """The middle of each strip across, then of each strip down, on a frame of (height, width)."""
    return tuple(np.asarray(first_lines(length) + LINES / 2, np.float64) for length in size)


def strip_launches(frame: int, memory: tuple[int, int, int]) -> tuple[Strips, Levels, EndsOf]:
    """Return the three launches, in order. `frame` is the address of `FrameData`; `memory` the addresses of cells float32
    (2 * STRIPS, MOST_CELLS), brightness float32 (2 * STRIPS + 1) and distances float64 `DISTANCES`."""
    cells, bright, distances = memory
    strips = 2 * STRIPS
    return (
        Strips(MOST_CELLS, strips, frame, STRIPS, LINES, cells),
        Levels(MOST_CELLS, strips + 1, frame, cells, STRIPS, 0, bright),
        EndsOf(4, strips, frame, cells, bright, STRIPS, MOST_CELLS, BRIGHT_SHARE, IMAGE_RISE, distances),
    )


class ViewTracker:
    """Track the views of one stream's frames. Strip distances, about 1 KB, are downloaded before the networks run.

    The first frame, and the first of a new size, is waited for. Any other frame gets the view of the latest frame whose distances
    have arrived, usually the one before: the field of view moves less in a frame than the detector tolerates.
    """

    def __init__(self, gpu: Gpu, detector: FieldOfViewDetector, frame: int) -> None:
        self._gpu, self._detector, self.read = gpu, detector, gpu.event()
        # A part of the pinned memory, at an address that torch's allocator does not know: when it frees memory that was used in a
        # capture, it records an event on the stream of that capture, where another may be under way.
        self._host = gpu.pinned((2, *DISTANCES), np.float64)[1]
        self._distances = gpu.empty(DISTANCES, np.float64)
        self._bright, self._cells = (
            gpu.empty((2 * STRIPS + 1,), np.float32),
            gpu.empty((2 * STRIPS, MOST_CELLS), np.float32),
        )
        memory = (gpu.address(self._cells), gpu.address(self._bright), gpu.address(self._distances))
        self._launches = strip_launches(frame, memory)
        self._fitted = np.full(DISTANCES, np.nan)
        self.layout: StripLayout | None = None
        self._pending = False
        self._view: Viewport | None = None

    def reset(self, detector: FieldOfViewDetector) -> None:
        """Forget the field of view before another stream, after waiting for the download under way."""
        self._gpu.synchronize(self.read)
        self._pending, self._view, self._detector = False, None, detector
        self._fitted[:] = np.nan

    def resize(self, height: int, width: int) -> bool:
        """Forget the field of view if the next frame is the first of its size; return whether it is."""
        if self._view is not None and (self._view.frame_height, self._view.frame_width) == (height, width):
            return False
        # Distances of a frame of another size are useless; wait, since the next ones take their place.
        self._gpu.synchronize(self.read)
        self._pending, self.layout = False, StripLayout.of(height, width)
        self._fitted[:] = np.nan
        self._view = self._detector.follow(None, (height, width))
        return True

    def scan(self, stream: CudaStream) -> None:
        """Enqueue the launches and the download for the frame whose numbers were sent last."""
        for arguments in self._launches:
            self._gpu.launch(arguments, stream)
        self._gpu.copy(self._host, self._distances, stream)

    @property
    def wants_scan(self) -> bool:
        """Whether the next frame is to be scanned: it has strips, and no distances are on their way."""
        return self.layout is not None and not self._pending

    def scanned(self, stream: CudaStream) -> Event:
        """Note that a scan was enqueued; return the event that completes with it."""
        self._gpu.record(self.read, stream)
        self._pending = True
        return self.read

    def view(self, *, wait: bool = False) -> Viewport:
        """Return the view by the latest distances; `wait` for those on their way."""
        if self._pending and wait:
            self._gpu.synchronize(self.read)
        if self._pending and (wait or self._gpu.done(self.read)):
            self._follow()
        assert self._view is not None, "call `resize` first"
        return self._view

    def _follow(self) -> None:
        self._pending = False
        if self.layout is None or not self._moved(max(self.layout.height, self.layout.width)):
            return
        self._view = self._detector.follow(self.layout.ends(self._host), (self.layout.height, self.layout.width))
        np.copyto(self._fitted, self._host)

    def _moved(self, longer: int) -> bool:
        """Whether the strips' ends have moved since the last fit: more of them than stray, by more than the detector ignores."""
        if self._view is None or self._detector.undecided:
            return True
        still = np.abs(self._host - self._fitted) <= JITTER * longer
        return bool(np.count_nonzero(still) < (1 - _STRAY) * still.size)
