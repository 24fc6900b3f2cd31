"""How an overlay looks, and the tables of its colors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cliprl.engines import ClassSpec, UsageError
from cliprl.pipeline.core.color import ColorSpace, rgb_to_yuv_matrix

# A label's value in the painter's map is label + LEVEL * (0 in the fill, 1 on the contour's soft inner edge, 2 on its core).
LABEL_LUMA = 85
# Blending is in 256ths: a pixel p becomes (p * keep + add) >> 8, with keep = 256 - 256 a and add = 256 a c + 128 for a class of
# color c at opacity a. That is round(p + a (c - p)) to within a 512th. Keep 256 and add 128 leave a pixel as it is.


@dataclass(frozen=True, slots=True)
class OverlayColors:
    """Tables (256,) of uint16 over the painter's map: what to keep of a pixel, and what to add to Y, Cb and Cr."""

    keep: NDArray[np.uint16]
    add: tuple[NDArray[np.uint16], NDArray[np.uint16], NDArray[np.uint16]]


def overlay_colors(
    classes: Sequence[ClassSpec], shown: frozenset[int], opacity: float, color: ColorSpace
) -> OverlayColors:
    """The tables for classes painted at `opacity` (0..1) in a frame of this color space; those not shown are left alone."""
    matrix, offset = rgb_to_yuv_matrix(color.matrix, color.full_range)
    alpha, yuv = np.zeros(256), np.zeros((256, 3))
    for class_id in shown:
        for level, a in enumerate((opacity, (1 + opacity) / 2, 1.0)):
            alpha[class_id + LABEL_LUMA * level] = np.rint(a * 256)
            yuv[class_id + LABEL_LUMA * level] = np.clip(matrix @ classes[class_id].color + offset, 0, 255)
    add = np.rint(alpha[:, None] * yuv + 128).astype(np.uint16)
    return OverlayColors((256 - alpha).astype(np.uint16), (add[:, 0].copy(), add[:, 1].copy(), add[:, 2].copy()))


@dataclass(frozen=True, slots=True)
class Style:
    """How an overlay looks. Raises UsageError for values out of range.

    opacity: 0 (frames pass untouched, text and all) to 1 (classes hide what is under them). contours: draw the classes'
    borders at full opacity, `contour_width` pixels wide in an image of 360 lines of chroma and wider in larger ones.
    legend, status: draw them. shown: names of the classes to paint, None for all that the bundle shows; a background class
    never is.
    """

    opacity: float = 0.4
    contours: bool = True
    contour_width: float = 1.0
    legend: bool = True
    status: bool = True
    shown: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.opacity <= 1:
            raise UsageError(f"opacity {self.opacity:g} is out of range: give 0 (nothing) to 1 (opaque)")
        if not 0 < self.contour_width <= 20:
            raise UsageError(f"contour width {self.contour_width:g} is out of range: give more than 0, and at most 20")


def shown_classes(classes: Sequence[ClassSpec], names: Sequence[str] | None) -> frozenset[int]:
    """The ids of the classes to paint. Raises UsageError for a name that is not among them."""
    known = {spec.name: i for i, spec in enumerate(classes) if spec.kind != "background"}
    for name in names or ():
        if name not in known:
            raise UsageError(f"unknown class '{name}': one of {', '.join(known)}")
    chosen = (name for name, i in known.items() if classes[i].shown) if names is None else names
    return frozenset(known[name] for name in chosen)
