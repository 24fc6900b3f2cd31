"""Where the classes of a segmentation lie in the frame, and how large they are."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.pipeline.core.segmentation import Instance, Segmentation
from cliprl.pipeline.core.viewport import Box, Viewport, inside_cells


@dataclass(frozen=True, slots=True)
class ClassStatistics:
    """One class in one frame, measured on the network's grid.

    pixels: its area in luma pixels of the frame. share: its part of the endoscope's image, 0..1.
    box: (left, top, width, height) of all of it, in luma pixels of the frame, as fine as the grid's cells.
    """

    class_id: int
    pixels: int
    share: float
    box: Box


def class_statistics(segmentation: Segmentation) -> list[ClassStatistics]:
    """Measure every class that occurs in the image, the background too, by ascending id."""
    view, (rows, columns) = segmentation.view, segmentation.labels.shape
    inside = inside_cells(view, rows, columns)
    counts = np.bincount(segmentation.labels[inside])
    total = max(int(counts.sum()), 1)
    cell = _cell_area(view, rows, columns)
    return [
        ClassStatistics(
            int(class_id),
            round(int(counts[class_id]) * cell),
            int(counts[class_id]) / total,
            _box((segmentation.labels == class_id) & inside, view),
        )
        for class_id in np.flatnonzero(counts)
    ]


@dataclass(frozen=True, slots=True)
class InstanceStatistics:
    """One instrument in one frame, measured as `ClassStatistics` are."""

    instance: Instance
    pixels: int
    share: float
    box: Box


def instance_statistics(segmentation: Segmentation) -> list[InstanceStatistics]:
    """Measure the instruments of a tracked frame, by ascending id."""
    if segmentation.instances is None:
        return []
    view, (rows, columns) = segmentation.view, segmentation.labels.shape
    total, cell = max(int(np.count_nonzero(inside_cells(view, rows, columns))), 1), _cell_area(view, rows, columns)
    ids = segmentation.instances.ids
    return [
        InstanceStatistics(item, round(item.cells * cell), min(item.cells / total, 1.0), _box(ids == item.id, view))
        for item in segmentation.instances.items
    ]


def _cell_area(view: Viewport, rows: int, columns: int) -> float:
    """Area of a cell of the grid in luma pixels of the frame."""
    return (view.crop[2] / view.placed[2] * view.network_width / columns) * (
        view.crop[3] / view.placed[3] * view.network_height / rows
    )


def _box(mask: NDArray[np.bool_], view: Viewport) -> Box:
    """The frame's pixels that hold the cells set in `mask`, which is not empty; cut at the view's crop."""
    column, row, columns, rows = cv2.boundingRect(mask.view(np.uint8))
    x0, x1 = _range(column, columns, view.network_width / mask.shape[1], view.placed[::2], view.crop[::2])
    y0, y1 = _range(row, rows, view.network_height / mask.shape[0], view.placed[1::2], view.crop[1::2])
    return x0, y0, x1 - x0, y1 - y0


def _range(first: int, cells: int, cell: float, placed: tuple[int, ...], crop: tuple[int, ...]) -> tuple[int, int]:
    """Return the first and the end of the frame's pixels along an axis that some cells of the grid cover, cut at the crop."""
    scale, end = crop[1] / placed[1], crop[0] + crop[1]
    shift = crop[0] - placed[0] * scale
    low, high = (round(min(max(edge * cell * scale + shift, crop[0]), end)) for edge in (first, first + cells))
    return low, high
