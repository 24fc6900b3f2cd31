"""Scan the edges of the field of view on the GPU: the input of `cliprl.pipeline.view.edge_scan`, about 1 KB a frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cliprl.pipeline.cuda.kernels.kernel_arguments import EndsOf, Levels, Strips
from cliprl.pipeline.view.edge_scan import (
    BAR_DROP,
    BAR_RISE,
    BRIGHT_SHARE,
    LINES,
    PICTURE_RISE,
    STRIPS,
    Ends,
    cell_size,
    first_lines,
    has_strips,
    place_ends,
)

# What the kernels write, by name: cells of the longer strips, brightness of each strip and of the bars, distances.
DISTANCES = (2 * STRIPS, 4)


@dataclass(frozen=True, slots=True)
class StripLayout:
    """How the strips lie on a frame of a size: cells across and down, and pixels a cell."""

    height: int
    width: int
    cell: int
    across: int
    down: int

    @classmethod
    def of(cls, height: int, width: int) -> StripLayout | None:
        """The layout for a frame of (height, width); None where it is too small or too narrow for any."""
        if not has_strips(height, width):
            return None
        cell = cell_size(height, width)
        return cls(height, width, cell, width // cell, len(range(cell // 2, height, cell)))

    @property
    def longer(self) -> int:
        """Cells of the longer kind of strip."""
        return max(self.across, self.down)

    def first(self) -> NDArray[np.int32]:
        """First line of each strip across, first column of each strip down: int32 (2 * STRIPS)."""
        return np.concatenate([first_lines(self.height), first_lines(self.width)]).astype(np.int32)

    def launches(
        self, luma: tuple[int, int], full_range: bool, first: int, memory: tuple[int, int, int]
    ) -> tuple[Strips, Levels, EndsOf]:
        """The three launches, in order. `luma` is address and pitch; `memory` the addresses of cells float32
        (2 * STRIPS, longer), brightness float32 (2 * STRIPS + 1) and distances float64 `DISTANCES`."""
        cells, bright, distances = memory
        counts = (STRIPS, self.across, self.down)
        nominal = 0.0 if full_range else 16.0
        limits = (nominal - BAR_DROP, nominal + BAR_RISE)
        longer, strips = self.longer, 2 * STRIPS
        return (
            Strips(longer, strips, *luma, *counts, self.cell, LINES, first, cells),
            Levels(max(longer, 2 * strips), strips + 1, cells, *counts, longer, *limits, bright),
            EndsOf(4, strips, cells, bright, *counts, longer, self.cell, 0, BRIGHT_SHARE, PICTURE_RISE, distances),
        )

    def ends(self, distances: NDArray[np.float64]) -> Ends:
        """The ends in the frame, from the distances (2 * STRIPS, 4) that the last launch wrote."""
        sides = np.where(distances < 0, np.inf, distances).reshape(2, STRIPS, 2, 2).transpose(0, 2, 3, 1)
        places = tuple(np.asarray(first_lines(length) + LINES / 2, np.float64) for length in (self.height, self.width))
        return place_ends(sides.reshape(4, 2, STRIPS), places, (self.height, self.width), self.cell)
