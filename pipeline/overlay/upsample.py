"""From the network's grid to the frame's: labels with smooth boundaries."""

from __future__ import annotations

import math
import threading
from collections.abc import Collection
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.pipeline.core.buffers import BufferPool
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.core.viewport import Box, Circle, Viewport


def labels_at_frame(segmentation: Segmentation, height: int, width: int) -> NDArray[np.uint8]:
    """Return the label of each pixel of a frame of this size, uint8 (height, width): the index of its class.

    0, the background, outside the field of view. The frame is as it was decoded, not turned upright. See `labels_at`.
    """
    return labels_at(segmentation, height, width).copy()


def labels_at(
    segmentation: Segmentation, height: int, width: int, scratch: BufferPool | None = None
) -> NDArray[np.uint8]:
    """Labels in the frame's geometry at any size of the frame's aspect, such as that of its chroma: uint8 (height, width).

    The probabilities of the classes that occur in `segmentation.labels` are scaled up bilinearly, and the largest wins (of
    equals the lowest id), so that boundaries are smooth. 0 outside the view's crop and circle. The array lies in `scratch`,
    or else in memory of this thread's: the next call overwrites it.
    """
    scratch = scratch or _local.scratch
    x, y = grid_spans(segmentation.view, segmentation.labels.shape, height, width)
    labels = scratch.array("labels", (height, width))
    labels.fill(0)
    present = np.flatnonzero(np.bincount(segmentation.labels[y.cells, x.cells].ravel()))
    labels[y.target, x.target] = _labels_of(segmentation, present, x, y, (height, width), scratch)
    return labels


class BoxLabels(NamedTuple):
    """A part of the frame's geometry: its labels, uint8 (rows, columns), and where it lies."""

    labels: NDArray[np.uint8]
    rows: slice
    columns: slice


def label_region(
    segmentation: Segmentation, classes: Collection[int], height: int, width: int, margin: int, scratch: BufferPool
) -> BoxLabels | None:
    """Return `labels_at` for the box of the cells of `classes` with `margin` pixels about it; None without such cells."""
    wanted = np.zeros(256, np.uint8)
    wanted[list(classes)] = 1
    x, y = grid_spans(segmentation.view, segmentation.labels.shape, height, width)
    cells = segmentation.labels[y.cells, x.cells]
    left, top, columns, rows = cv2.boundingRect(cv2.LUT(cells, wanted))
    if not columns:
        return None
    present = np.flatnonzero(np.bincount(cells.ravel()))
    x, y = _part(x, left, left + columns, margin), _part(y, top, top + rows, margin)
    # With a bare line about it, into which the paint's edges are smoothed.
    lines, places = (slice(max(s.start - 1, 0), min(s.stop + 1, n)) for s, n in ((y.target, height), (x.target, width)))
    labels = scratch.array("labels", (lines.stop - lines.start, places.stop - places.start))
    labels.fill(0)
    inner = labels[y.target.start - lines.start :, x.target.start - places.start :]
    found = _labels_of(segmentation, present, x, y, (height, width), scratch)
    inner[: len(found), : found.shape[1]] = found
    return BoxLabels(labels, lines, places)


def _labels_of(
    segmentation: Segmentation,
    present: NDArray[np.intp],
    x: Span,
    y: Span,
    size: tuple[int, int],
    scratch: BufferPool,
) -> NDArray[np.uint8]:
    """The labels, of the classes `present`, at the pixels `y.target`, `x.target` of a geometry of `size` (height, width)."""
    winners = _largest(segmentation.probabilities[:, y.cells, x.cells], present, (x.length, y.length), scratch)
    labels = winners[y.part, x.part]
    if segmentation.view.circle is not None:
        np.bitwise_and(labels, image_mask(segmentation.view, *size)[y.target, x.target], out=labels)
    return labels


class _Local(threading.local):
    def __init__(self) -> None:
        self.scratch = BufferPool()


_local = _Local()


def _largest(
    probabilities: NDArray[np.float32], present: NDArray[np.intp], size: tuple[int, int], scratch: BufferPool
) -> NDArray[np.uint8]:
    """The class of `present` with the largest probability (K, h, w) at each pixel of `size` (width, height)."""
    shape = (size[1], size[0])
    labels, wins = scratch.array("winners", shape), scratch.array("wins", shape)
    best, scaled = scratch.array("best", shape, np.uint16), scratch.array("scaled", shape, np.uint16)
    labels.fill(present[0])
    best.fill(0)
    for class_id in present if len(present) > 1 else ():
        cv2.resize(_quantised(probabilities[class_id]), size, scaled, interpolation=cv2.INTER_LINEAR)
        cv2.compare(scaled, best, cv2.CMP_GT, wins)
        cv2.max(best, scaled, best)
        # Ids ascend: where this class wins, its id is larger than the one there.
        np.bitwise_and(wins, np.uint8(class_id), out=wins)
        np.maximum(labels, wins, out=labels)
    return labels


def _quantised(probability: NDArray[np.float32]) -> NDArray[np.uint16]:
    """In 65,535ths: as good as float for a boundary, and half the memory to move."""
    return np.asarray(np.rint(probability * np.float32(65535)), np.uint16)


class Span(NamedTuple):
    """Along one axis: the grid's cells that cover the image, the pixels they scale to, and which of these are the image."""

    cells: slice
    length: int
    part: slice
    target: slice


# Pixels by which the edge of a part may miss the edge of a cell: rounding errors only, so that its labels are those of the whole.
_MISS = 1e-6


@lru_cache(maxsize=8)
def _edges(cells: int, length: int) -> NDArray[np.intp]:
    """Which of `cells` that scale to `length` pixels begin on the edge of a pixel: there an image can be scaled in parts."""
    places = np.arange(cells + 1) * (length / cells)
    return np.flatnonzero(np.abs(places - np.rint(places)) <= _MISS)


def _part(span: Span, first: int, last: int, margin: int) -> Span:
    """The part of a span from cell `first` up to `last`, counted from its own first, with a cell and `margin` pixels about it."""
    cells = span.cells.stop - span.cells.start
    scale, edges = span.length / cells, _edges(cells, span.length)
    reach = 1 + math.ceil(margin / scale)
    first = int(edges[edges.searchsorted(max(first - reach, 0), "right") - 1])
    last = int(edges[edges.searchsorted(min(last + reach, cells))])
    start, stop = round(first * scale), round(last * scale)
    low, high = max(span.part.start, start), min(span.part.stop, stop)
    offset = span.target.start - span.part.start
    within = slice(span.cells.start + first, span.cells.start + last)
    return Span(within, stop - start, slice(low - start, high - start), slice(offset + low, offset + high))


def _ratio(frame: int, target: int) -> float:
    """Target pixels per frame pixel. Chroma of an odd size counts one sample more, and yet is exactly half as dense."""
    step = max(round(frame / target), 1)
    return 1 / step if -(-frame // step) == target else target / frame


def grid_spans(view: Viewport, grid: tuple[int, int], height: int, width: int) -> tuple[Span, Span]:
    """How a grid (rows, columns) over the network input lies on the frame at any size of its aspect: along x, along y."""
    rows, columns = grid
    x = _span(view.placed[0::2], view.network_width, columns, view.crop[0::2], view.frame_width, width)
    y = _span(view.placed[1::2], view.network_height, rows, view.crop[1::2], view.frame_height, height)
    return x, y


def _span(placed: tuple[int, ...], network: int, cells: int, crop: tuple[int, ...], frame: int, target: int) -> Span:
    stride, ratio = network / cells, _ratio(frame, target)
    first, last = int(placed[0] // stride), min(math.ceil((placed[0] + placed[1]) / stride), cells)
    per_network_pixel = crop[1] / placed[1] * ratio
    low = round(crop[0] * ratio)
    high = target if crop[0] + crop[1] == frame else round((crop[0] + crop[1]) * ratio)
    # Cells on the image's edge may reach over it: they are scaled whole, then cut.
    start = min(round(crop[0] * ratio + (first * stride - placed[0]) * per_network_pixel), low)
    stop = max(round(crop[0] * ratio + (last * stride - placed[0]) * per_network_pixel), high, start + 1)
    return Span(slice(first, last), stop - start, slice(low - start, high - start), slice(low, high))


@lru_cache(maxsize=4)
def image_mask(view: Viewport, height: int, width: int, margin: int = 0) -> NDArray[np.uint8]:
    """255 where the view's image lies, in the frame's geometry at any size of its aspect, 0 elsewhere: uint8 (height, width).

    `margin` pixels are taken off its edge, but not where this is the frame's own.
    """
    mask = np.zeros((height, width), np.uint8)
    left, top, right, bottom = image_box(view, height, width, margin)
    mask[top:bottom, left:right] = 255
    if view.circle is not None:
        x, y, radius = disc_at(view, height, width, margin)
        across, down = (np.arange(width) + 0.5 - x) ** 2, (np.arange(height) + 0.5 - y) ** 2
        np.multiply(mask, across <= (radius**2 - down)[:, None], out=mask)
    mask.setflags(write=False)
    return mask


def image_box(view: Viewport, height: int, width: int, margin: int) -> Box:
    """Return left, top, right and bottom of the view's crop, without `margin` pixels, at any size of the frame's aspect."""
    left, right = _inset(view.crop[0], view.crop[2], view.frame_width, _ratio(view.frame_width, width), margin)
    top, bottom = _inset(view.crop[1], view.crop[3], view.frame_height, _ratio(view.frame_height, height), margin)
    return left, top, right, bottom


def disc_at(view: Viewport, height: int, width: int, margin: int) -> Circle:
    """Return the disc of a view that has one, without `margin` pixels, at any size of the frame's aspect."""
    assert view.circle is not None
    ratio_x, ratio_y = _ratio(view.frame_width, width), _ratio(view.frame_height, height)
    x, y, radius = view.circle
    return x * ratio_x, y * ratio_y, max(radius * ratio_x - margin, 0)


def _inset(start: int, length: int, frame: int, ratio: float, margin: int) -> tuple[int, int]:
    low = round(start * ratio) + (margin if start > 0 else 0)
    return low, max(round((start + length) * ratio) - margin, low) if start + length < frame else math.ceil(
        frame * ratio
    )
