"""Parts of instruments as sprites: an outline becomes a bevelled, engraved, shaded image with soft borders.

Outlines are in units of the instrument's diameter, x along its axis towards the tip, y across, the joint at (0, 0).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.pipeline.synthetic.instruments.shading import ShadingMap, shade
from cliprl.pipeline.synthetic.raster import Field, Image, blur, fractal_noise, grid_noise, smoothstep

Points = NDArray[np.float64]  # (N, 2)
PAD = 2


@dataclass(frozen=True)
class Sprite:
    """The image of a part. rgba: uint8 (h, w, 4), color times alpha. origin: the joint, in its pixels. scale: pixels a unit."""

    rgba: Image
    origin: tuple[float, float]
    scale: float

    @cached_property
    def to_units(self) -> NDArray[np.float64]:
        """The matrix (3, 3) from pixels to units."""
        scale, (x, y) = self.scale, self.origin
        return np.array([[1 / scale, 0, -x / scale], [0, 1 / scale, -y / scale], [0, 0, 1]])

    @cached_property
    def corners(self) -> NDArray[np.float64]:
        """The four corners as homogeneous positions in pixels, (3, 4)."""
        height, width = self.rgba.shape[:2]
        return np.array([[0, width, width, 0], [0, 0, height, height], [1, 1, 1, 1]], np.float64)


@dataclass(slots=True)
class Outline:
    """The shape of a part: filled `bodies`, `holes` through them, `grooves` (lines), round `pins` and dark `pits` (x, y, radius).

    bevel: the width of its rounded border, in units. barrel: it is round about its axis instead.
    """

    bodies: list[Points]
    holes: list[Points] = field(default_factory=list)
    grooves: list[Points] = field(default_factory=list)
    pins: list[tuple[float, float, float]] = field(default_factory=list)
    bevel: float = 0.25
    barrel: bool = False
    pits: list[tuple[float, float, float]] = field(default_factory=list)


def ribbon(center: Points, width: Points) -> Points:
    """The outline of a band about a line of points (N, 2) with a half width at each (N,)."""
    ahead = np.gradient(center, axis=0)
    ahead /= np.linalg.norm(ahead, axis=1, keepdims=True) + 1e-9
    sideways = np.stack([-ahead[:, 1], ahead[:, 0]], 1) * width[:, None]
    return np.concatenate([center + sideways, (center - sideways)[::-1]])


def ellipse(x: float, y: float, rx: float, ry: float) -> Points:
    """An ellipse's outline."""
    turn = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    return np.stack([x + rx * np.cos(turn), y + ry * np.sin(turn)], 1)


class Paper:
    """A pixel grid about an outline."""

    def __init__(self, outline: Outline, scale: float) -> None:
        points = np.concatenate(outline.bodies)
        low, high = points.min(0), points.max(0)
        size = np.ceil((high - low) * scale).astype(int) + 2 * PAD + 1
        self.scale, self.shape = scale, (int(size[1]), int(size[0]))
        self.origin = (float(PAD - low[0] * scale), float(PAD - low[1] * scale))

    def pixels(self, points: Points) -> NDArray[np.int32]:
        """Fixed-point pixels, as OpenCV's `shift=4` takes them."""
        return np.round((np.asarray(points) * self.scale + self.origin) * 16).astype(np.int32)

    def fill(self, image: Image, points: Points, value: int) -> None:
        """A filled polygon with soft borders."""
        cv2.fillPoly(image, [self.pixels(points)], value, cv2.LINE_AA, 4)


def _bevel(mask: Image, bevel: float) -> Field:
    """A flat body with borders rounded over `bevel` pixels."""
    rise = np.minimum(cv2.distanceTransform((mask > 127).astype(np.uint8), cv2.DIST_L2, 5) / np.float32(bevel), 1)
    return np.asarray(blur(np.sqrt(rise * (2 - rise)) * np.float32(bevel), 0.15 * bevel), np.float32)


def _barrel(mask: Image) -> Field:
    """A body round about its axis: in each column a half circle over the mask's extent."""
    solid = mask > 127
    rows = len(mask)
    top, bottom = solid.argmax(0).astype(np.float32), rows - solid[::-1].argmax(0).astype(np.float32)
    middle, half = (top + bottom) / 2, np.where(solid.any(0), (bottom - top) / 2, 1)
    across = (np.arange(rows, dtype=np.float32)[:, None] + np.float32(0.5) - middle) / half
    return np.asarray(np.sqrt(np.clip(1 - across * across, 0.02, 1)) * half, np.float32)


def _height(paper: Paper, outline: Outline, mask: Image) -> Field:
    """Relief in pixels: rounded towards the border, with pins standing out and grooves cut in."""
    height = _barrel(mask) if outline.barrel else _bevel(mask, max(outline.bevel * paper.scale, 1.0))
    marks = np.zeros(paper.shape, np.uint8)
    thick = max(1, round(0.04 * paper.scale))
    for x, y, radius in outline.pins:
        cv2.circle(
            marks, paper.pixels(np.array([x, y])).tolist(), round(radius * paper.scale * 16), 255, -1, cv2.LINE_AA, 4
        )
    for groove in outline.grooves:
        cv2.polylines(marks, [paper.pixels(groove)], False, 90, thick, cv2.LINE_AA, 4)
    marked = blur(marks, 0.6).astype(np.float32)
    return np.asarray(height + marked * np.float32(0.1 * paper.scale / 255), np.float32)


def cut_sprite(rng: np.random.Generator, outline: Outline, scale: float, material: ShadingMap, angle: float) -> Sprite:
    """Make a part of `material` at `scale` pixels a unit, lit as it stands in the image, turned by `angle`."""
    paper = Paper(outline, scale)
    mask = np.zeros(paper.shape, np.uint8)
    for body in outline.bodies:
        paper.fill(mask, body, 255)
    for hole in outline.holes:
        paper.fill(mask, hole, 0)
    height = blur(_height(paper, outline, mask), 0.5 + 0.01 * scale)
    gx = cv2.Sobel(height, cv2.CV_32F, 1, 0, scale=0.125)
    gy = cv2.Sobel(height, cv2.CV_32F, 0, 1, scale=0.125)
    norm = np.sqrt(1 + gx * gx + gy * gy)
    color = shade(material, np.asarray(-gx / norm, np.float32), np.asarray(-gy / norm, np.float32), angle)
    color *= (1 + np.float32(0.12) * grid_noise(rng, paper.shape, scale * 0.3))[..., None]
    pits = np.zeros(paper.shape, np.uint8)
    for x, y, radius in outline.pits:
        paper.fill(pits, ellipse(x, y, radius, radius), 220)
    color *= 1 - pits[..., None] / np.float32(255)
    soil(rng, color, scale * rng.uniform(0.2, 1))
    return finish(color, mask, paper)


def soil(rng: np.random.Generator, color: Field, cell: float) -> None:
    """Blood or tissue clinging to a part, in place, in blots of `cell` pixels; many parts stay clean."""
    if rng.random() > 0.3:
        return
    low = rng.uniform(-0.3, 1.5)
    share = smoothstep(low, low + rng.uniform(0.2, 1.0), fractal_noise(rng, color.shape[:2], cell, 3))
    blood = np.array(_SOILS[rng.integers(len(_SOILS))], np.float32)
    wet = blood * (0.5 + color.mean(2, keepdims=True) / 130)
    color += (wet - color) * share[..., None] * np.float32(rng.uniform(0.3, 0.9))


_SOILS = ((120, 15, 15), (90, 10, 12), (150, 60, 50), (140, 95, 45), (60, 30, 22))


def finish(color: Field, mask: Image, paper: Paper) -> Sprite:
    """A sprite of `color` (h, w, 3), 0..255, within a soft `mask`."""
    rgba = np.empty((*mask.shape, 4), np.uint8)
    alpha = mask.astype(np.float32) / np.float32(255)
    rgba[..., :3] = np.clip(color, 0, 255) * alpha[..., None]
    rgba[..., 3] = mask
    return Sprite(rgba, paper.origin, paper.scale)
