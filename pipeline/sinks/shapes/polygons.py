"""Masks as polygons, with few vertices and a bounded error; holes are cut open along a seam."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

BoolMask = NDArray[np.bool_]
# One closed ring, float64 (N, 2): x, y.
Ring = NDArray[np.float64]
# Largest distances in pixels between a contour and its polygon; the first one that keeps the IoU is used.
TOLERANCES = (1.0, 0.5, 0.25, 0.0)
MIN_IOU = 0.995


def edge_polygons(mask: BoolMask) -> list[Ring]:
    """Return polygons in the continuous coordinates of COCO and CVAT: pixel (x, y) spans x..x+1, y..y+1.

    mask: bool (H, W). Each connected part is one polygon. Their union has an IoU of at least `MIN_IOU` with the mask, measured
    with COCO's rasterization; only a seam between holes may cost more.
    """
    # Contours of the mask at twice its size run a quarter of a pixel inside each edge: no pixel center lies on them.
    return _polygons(mask, 2, lambda ring: (ring + 0.5) / 2, edge_mask)


def center_polygons(mask: BoolMask) -> list[Ring]:
    """Return polygons whose vertices are the indices of border pixels, as `cv2.fillPoly` draws them; else as `edge_polygons`."""
    return _polygons(mask, 1, lambda ring: ring, center_mask)


def edge_mask(polygons: Sequence[Ring], height: int, width: int) -> BoolMask:
    """Return the pixels whose centers lie in any of the polygons: bool (height, width)."""
    from pycocotools import mask as coco_mask

    flat: Any = [polygon.astype(float).ravel().tolist() for polygon in polygons if len(polygon) >= 3]
    if not flat:
        return np.zeros((height, width), bool)
    return np.asarray(coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(flat, height, width)))).astype(bool)


def center_mask(polygons: Sequence[Ring], height: int, width: int) -> BoolMask:
    """Return the pixels that `cv2.fillPoly` fills, borders included, for each polygon: bool (height, width)."""
    canvas = np.zeros((height, width), np.uint8)
    for polygon in polygons:
        cv2.fillPoly(canvas, [np.floor(polygon).astype(np.int32)], 1)
    return canvas.astype(bool)


def _polygons(
    mask: BoolMask, scale: int, place: Callable[[Ring], Ring], draw: Callable[[Sequence[Ring], int, int], BoolMask]
) -> list[Ring]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return []
    top, left = int(rows[0]), int(columns[0])
    part = mask[top : rows[-1] + 1, left : columns[-1] + 1]
    contours = _contours(part.astype(np.uint8).repeat(scale, 0).repeat(scale, 1))
    polygons: list[Ring] = []
    for tolerance in TOLERANCES:
        polygons = [place(_joined(outer, holes, tolerance * scale)) for outer, holes in contours]
        if _iou(draw(polygons, *part.shape), part) >= MIN_IOU:
            break
    return [polygon + np.array((left, top), np.float64) for polygon in polygons]


def _contours(image: NDArray[np.uint8]) -> list[tuple[Any, list[Any]]]:
    """Return the outer contour of each part of the image, with the contours of its holes."""
    contours, tree = cv2.findContours(image, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    holes: dict[int, list[Any]] = {i: [] for i, (*_, parent) in enumerate(tree[0]) if parent < 0}
    for contour, (*_, parent) in zip(contours, tree[0], strict=True):
        if parent >= 0:
            holes[int(parent)].append(contour)
    return [(contours[i], inside) for i, inside in holes.items()]


def _joined(outer: Any, holes: Sequence[Any], tolerance: float) -> Ring:
    """Return one ring that runs along the outer contour and along each hole, over a seam at their nearest points."""
    ring, others = _simple(outer, tolerance), [_simple(hole, tolerance) for hole in holes]
    for hole in sorted(others, key=lambda hole: _nearest(ring, hole)[2]):
        here, there, _ = _nearest(ring, hole)
        loop = np.concatenate([hole[there:], hole[: there + 1]])
        ring = np.concatenate([ring[: here + 1], loop, ring[here:]])
    while len(ring) < 3:
        ring = np.concatenate([ring, ring[-1:]])
    return ring


def _simple(contour: Any, tolerance: float) -> Ring:
    simple = cv2.approxPolyDP(contour, tolerance, True) if tolerance else contour
    return np.asarray(simple if len(simple) >= 3 else contour, np.float64).reshape(-1, 2)


def _nearest(ring: Ring, hole: Ring) -> tuple[int, int, float]:
    """Return the indices of the nearest vertices of both, and their squared distance."""
    best = (0, 0, float("inf"))
    for j, point in enumerate(hole):
        squares = ((ring - point) ** 2).sum(axis=1)
        i = int(squares.argmin())
        if squares[i] < best[2]:
            best = (i, j, float(squares[i]))
    return best


def _iou(one: BoolMask, other: BoolMask) -> float:
    union = np.count_nonzero(one | other)
    return np.count_nonzero(one & other) / union if union else 1.0
