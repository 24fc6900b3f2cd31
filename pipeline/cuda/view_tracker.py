"""Track the field of view on the GPU, one frame behind, so that no thread waits for the host to fit its shape."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.viewport import Viewport
from cliprl.pipeline.cuda.gpu_api import CudaStream, Gpu
from cliprl.pipeline.cuda.kernels.kernel_arguments import EndsOf, Levels, Strips
from cliprl.pipeline.cuda.ring import CudaRing
from cliprl.pipeline.cuda.upload import UploadBuffers
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

# What the kernels write, by name: cells of the longer strips, brightness of each strip and of the bars, distances.
DISTANCES = (2 * STRIPS, 4)
# Share of the strips' ends that may move without a new fit: text and dark places, which no fit follows.
_STRAY = 1 / 16


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

    @property
    def longer(self) -> int:
        """The number of cells of the longer strips."""
        return max(self.across, self.down)

    def first(self) -> NDArray[np.int32]:
        """Return the first line of each strip across and the first column of each strip down: int32 (2 * STRIPS)."""
        return np.concatenate([first_lines(self.height), first_lines(self.width)]).astype(np.int32)

    def launches(
        self, luma: tuple[int, int], full_range: bool, first: int, memory: tuple[int, int, int]
    ) -> tuple[Strips, Levels, EndsOf]:
        """Return the three launches, in order. `luma` is address and pitch; `memory` the addresses of cells float32
        (2 * STRIPS, longer), brightness float32 (2 * STRIPS + 1) and distances float64 `DISTANCES`."""
        cells, bright, distances = memory
        counts = (STRIPS, self.across, self.down)
        nominal = 0.0 if full_range else 16.0
        limits = (nominal - BAR_DROP, nominal + BAR_RISE)
        longer, strips = self.longer, 2 * STRIPS
        return (
            Strips(longer, strips, *luma, *counts, self.cell, LINES, first, cells),
            Levels(max(longer, 2 * strips), strips + 1, cells, *counts, longer, *limits, bright),
            EndsOf(4, strips, cells, bright, *counts, longer, self.cell, 0, BRIGHT_SHARE, IMAGE_RISE, distances),
        )

    def ends(self, distances: NDArray[np.float64]) -> Ends:
        """Convert the distances (2 * STRIPS, 4) of the last launch to positions in the frame."""
        sides = np.where(distances < 0, np.inf, distances).reshape(2, STRIPS, 2, 2).transpose(0, 2, 3, 1)
        places = tuple(np.asarray(first_lines(length) + LINES / 2, np.float64) for length in (self.height, self.width))
        return place_ends(sides.reshape(4, 2, STRIPS), places, (self.height, self.width), self.cell)


class ViewTracker:
    """Track the views of one stream's frames. Strip distances, about 1 KB, are downloaded on a separate stream.

    The first frame, and the first of a new size, is waited for. Any other frame gets the view of the latest frame whose distances
    have arrived, usually the one before: the field of view moves less in a frame than the detector tolerates.
    """

    def __init__(self, gpu: Gpu, detector: FieldOfViewDetector, stream: CudaStream) -> None:
        self._gpu, self._detector = gpu, detector
        self._stream, self._read = stream, gpu.event()
        self._uploads = UploadBuffers(gpu, self._stream)
        self._distances, self._host = gpu.empty(DISTANCES, np.float64), gpu.pinned(DISTANCES, np.float64)
        self._fitted = np.full(DISTANCES, np.nan)
        self._bright = gpu.empty((2 * STRIPS + 1,), np.float32)
        self._layout: StripLayout | None = None
        self._cells = None
        self._pending = False
        self._view: Viewport | None = None

    def reset(self, detector: FieldOfViewDetector) -> None:
        """Forget the field of view before another stream, after waiting for the download under way."""
        self._gpu.synchronize(self._read)
        self._pending, self._view, self._detector = False, None, detector
        self._fitted[:] = np.nan

    def view_of(self, frame: Frame, ring: CudaRing) -> Viewport:
        """Return the view of the next frame."""
        size = (frame.height, frame.width)
        fresh = self._view is None or (self._view.frame_height, self._view.frame_width) != size
        if not fresh and self._pending and self._gpu.done(self._read):
            self._follow()
        if fresh:
            self._resize(*size)
        if not self._pending:
            self._scan(frame, ring)
        if fresh:
            self._gpu.synchronize(self._read)
            self._follow()
        assert self._view is not None
        return self._view

    def _resize(self, height: int, width: int) -> None:
        # Distances of a frame of another size are useless; wait, since their memory is replaced.
        self._gpu.synchronize(self._read)
        self._pending, self._layout = False, StripLayout.of(height, width)
        self._fitted[:] = np.nan
        self._view = self._detector.follow(None, (height, width))
        if self._layout is not None:
            self._cells = self._gpu.empty((2 * STRIPS, self._layout.longer), np.float32)
            self._uploads.send("first", self._layout.first())

    def _scan(self, frame: Frame, ring: CudaRing) -> None:
        if self._layout is None:
            return
        gpu, slot = self._gpu, ring.enter(frame, self._stream)
        memory = (gpu.address(self._cells), gpu.address(self._bright), gpu.address(self._distances))
        luma = (gpu.address(slot.luma), frame.width)
        first = self._uploads.address("first")
        for arguments in self._layout.launches(luma, frame.color.full_range, first, memory):
            gpu.launch(arguments, self._stream)
        ring.leave(frame, self._stream)
        gpu.copy(self._host, self._distances, self._stream)
        gpu.record(self._read, self._stream)
        self._pending = True

    def _follow(self) -> None:
        if self._layout is not None and self._pending:
            self._pending = False
            size = (self._layout.height, self._layout.width)
            if not self._moved(max(size)):
                return
            self._view = self._detector.follow(self._layout.ends(self._host), size)
            np.copyto(self._fitted, self._host)

    def _moved(self, longer: int) -> bool:
        """Whether the strips' ends have moved since the last fit: more of them than stray, by more than the detector ignores."""
        if self._view is None or self._detector.undecided:
            return True
        still = np.abs(self._host - self._fitted) <= JITTER * longer
        return bool(np.count_nonzero(still) < (1 - _STRAY) * still.size)
