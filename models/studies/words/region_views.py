"""Square views of a region of an image: the whole region, and the tip of the instrument."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.models.data.sample import Image

# The side of a view in pixels, and the reach of a whole one in lengths of the region's box.
VIEW_SIDE, _REACH = 128, 1.2
# A view of a tip is this number of the region's widths wide, within limits in pixels of the image.
_TIP_WIDTHS, _TIP_SIDES = 4.0, (48, 150)
# The part of a region's cells that is an end of it, and how far the tip lies from the middle of its view, in sides.
_END, _INWARD = 1 / 12, 0.25
# The share of an image's contrast that is left around the region.
_AROUND = 0.4


@dataclass(frozen=True, slots=True)
class RegionViews:
    """Views uint8 (n, side, side, 3), the masks bool (n, side, side) of their regions, and label codes uint8 (n,)."""

    images: Image
    masks: NDArray[np.bool_]
    codes: NDArray[np.uint8]


def region_view(image: Image, cells: NDArray[np.bool_]) -> tuple[Image, NDArray[np.bool_]]:
    """Return a square view of an image uint8 (H, W, 3) about a region, bool (h, w), and the region's mask in it."""
    scale = _cell_size(image, cells)
    left, top, across, down = cv2.boundingRect(cells.astype(np.uint8))
    size = np.array([across, down]) * scale
    return _square(image, cells, np.array([left, top]) * scale + size / 2, size.max() * _REACH + 8)


def tip_view(image: Image, cells: NDArray[np.bool_]) -> tuple[Image, NDArray[np.bool_]]:
    """Return a view as `region_view`, of the end of the region that is nearer to the middle of the image, as tips are."""
    scale, middle = _cell_size(image, cells), np.array(image.shape[1::-1]) / 2
    points = (np.argwhere(cells)[:, ::-1] + 0.5) * scale
    center = points.mean(0)
    axis = np.linalg.eigh((points - center).T @ (points - center))[1][:, 1]
    along = (points - center) @ axis
    width = len(points) * scale.prod() / (np.ptp(along) + scale.mean())
    order, count = np.argsort(along), max(1, int(_END * len(points)))
    tip = min((points[order[:count]].mean(0), points[order[-count:]].mean(0)), key=lambda p: np.abs(p - middle).sum())
    side, inward = float(np.clip(_TIP_WIDTHS * width, *_TIP_SIDES)), center - tip
    length = max(float(np.linalg.norm(inward)), 1e-6)
    return _square(image, cells, tip + inward / length * min(length, _INWARD * side), side)


# Networks that look at regions take these in turn.
REGION_VIEWS = (region_view, tip_view)


def _cell_size(image: Image, cells: NDArray[np.bool_]) -> NDArray[np.float64]:
    return np.asarray(np.array(image.shape[1::-1]) / np.array(cells.shape[::-1]), np.float64)


def _square(
    image: Image, cells: NDArray[np.bool_], center: NDArray[np.float64], side: float
) -> tuple[Image, NDArray[np.bool_]]:
    height, width = image.shape[:2]
    matrix = np.hstack([np.eye(2) * side / VIEW_SIDE, (center - side / 2)[:, None]])
    if side > 1.5 * VIEW_SIDE:
        image = cv2.GaussianBlur(image, (0, 0), 0.5 * side / VIEW_SIDE).astype(np.uint8)
    large = cv2.resize(cells.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    view, mask = (
        cv2.warpAffine(one, matrix, (VIEW_SIDE, VIEW_SIDE), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        for one in (image, large)
    )
    return view.astype(np.uint8), mask > 0.5


def shaded(view: Image, mask: NDArray[np.bool_]) -> Image:
    """Return a view uint8 (H, W, 3) with less contrast around the region (H, W)."""
    share = _AROUND + (1 - _AROUND) * cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 2)[..., None]
    return np.asarray(view * share + 110 * (1 - share), np.uint8)
