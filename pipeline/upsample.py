"""From the network's grid to the frame's: labels with smooth boundaries."""

from __future__ import annotations

import cv2
import numpy as np
from cliprl.pipeline.segmentation import Segmentation
from cliprl.pipeline.view import View
from numpy.typing import NDArray

_SUBPIXEL_BITS = 4


def labels_at_frame(segmentation: Segmentation, height: int, width: int) -> NDArray[np.uint8]:
    """Labels of every luma pixel, uint8 (height, width): see `labels_at`."""
    return labels_at(segmentation, height, width)


def labels_at(segmentation: Segmentation, height: int, width: int) -> NDArray[np.uint8]:
    """Labels in the frame's geometry at any size of the frame's aspect, such as that of its chroma: uint8 (height, width).

    The probabilities of the classes that occur in `segmentation.labels` are scaled up bilinearly, and the largest wins (of
    equals the lowest id), so that boundaries are smooth. 0 outside the view's crop and circle.
    """
    view = segmentation.view
    labels = np.zeros((height, width), np.uint8)
    cells, scaled, cut = _plan(view, segmentation.labels.shape, height, width)
    picture = labels[scaled[1] + cut[1] : scaled[1] + cut[3], scaled[0] + cut[0] : scaled[0] + cut[2]]
    if picture.size == 0:
        return labels
    region = (slice(cells[1], cells[3]), slice(cells[0], cells[2]))
    size = (scaled[2] - scaled[0], scaled[3] - scaled[1])
    present = np.flatnonzero(np.bincount(segmentation.labels[region].ravel(), minlength=1))
    _largest(segmentation.probabilities[:, *region], present, size, cut, picture)
    if view.circle is not None and labels.any():
        _cut_circle(labels, view)
    return labels


def _largest(
    probabilities: NDArray[np.float32],
    present: NDArray[np.intp],
    size: tuple[int, int],
    cut: tuple[int, int, int, int],
    labels: NDArray[np.uint8],
) -> None:
    """Write the class of the largest upsampled probability into `labels`, a contiguous-rowed view of the result."""
    labels[:] = present[0]
    if len(present) == 1:
        return
    rows, columns = slice(cut[1], cut[3]), slice(cut[0], cut[2])
    best = cv2.resize(probabilities[present[0]], size, interpolation=cv2.INTER_LINEAR)
    scaled, wins = np.empty_like(best), np.empty(best.shape, np.uint8)
    for class_id in present[1:]:
        cv2.resize(probabilities[class_id], size, scaled, interpolation=cv2.INTER_LINEAR)
        cv2.compare(scaled, best, cv2.CMP_GT, wins)
        cv2.max(best, scaled, best)
        np.copyto(labels, np.uint8(class_id), where=wins[rows, columns].view(np.bool_))


def _plan(
    view: View, grid: tuple[int, ...], height: int, width: int
) -> tuple[tuple[int, int, int, int], tuple[int, int, int, int], tuple[int, int, int, int]]:
    """What to scale where: the grid's cells that cover the picture, the target pixels these fill, and the picture's part of them.

    Each is (left, top, right, bottom); the last counts from the second's corner. Cells on the picture's edge may reach
    over it, hence the cut.
    """
    x = _plan_axis(view.placed[0::2], view.network_width, grid[1], view.crop[0::2], view.frame_width, width)
    y = _plan_axis(view.placed[1::2], view.network_height, grid[0], view.crop[1::2], view.frame_height, height)
    cells, scaled, cut = ((a[0], b[0], a[1], b[1]) for a, b in zip(x, y, strict=True))
    return cells, scaled, cut


def _plan_axis(
    placed: tuple[int, ...], network: int, cells: int, crop: tuple[int, ...], frame: int, target: int
) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    stride = network / cells
    first, last = int(placed[0] // stride), int(np.ceil((placed[0] + placed[1]) / stride))
    last = min(last, cells)
    # Chroma of an odd size is not target/frame times as large, but exactly half.
    ratio = 1 / max(round(frame / target), 1) if abs(frame / target - round(frame / target)) * target <= 2 else target / frame
    to_target = crop[1] / placed[1] * ratio
    start = round((first * stride - placed[0]) * to_target + crop[0] * ratio)
    stop = max(round((last * stride - placed[0]) * to_target + crop[0] * ratio), start + 1)
    low, high = round(crop[0] * ratio), min(round((crop[0] + crop[1]) * ratio), target)
    if crop[0] + crop[1] >= frame:
        high = target
    stop = max(stop, high)
    return (first, last), (start, stop), (low - start, high - start)


def _cut_circle(labels: NDArray[np.uint8], view: View) -> None:
    """Set to 0 what lies outside the view's circle."""
    raise NotImplementedError
