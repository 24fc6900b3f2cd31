"""The shape of a scene's tissue: its layers stacked, and the noises that give organs their textures."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from cliprl.pipeline.synthetic.raster import (
    Field,
    Image,
    RasterShape,
    blur,
    cell_distance,
    fractal_noise,
    grid_noise,
    remap,
    resize,
    smoothstep,
)
from cliprl.pipeline.synthetic.tissue.layout import DETAIL, Layer
from cliprl.pipeline.synthetic.tissue.organs import Organ


@dataclass(slots=True)
class Relief:
    """What the layers make together: which is on top (plate and layout sizes), the height in pixels, the light that falls."""

    regions: Image
    coarse: Image
    height: Field
    light: Field


def stack(rng: np.random.Generator, layers: list[Layer], shape: RasterShape, unit: float) -> Relief:
    """Lay the layers over one another, undermost first, each casting a soft shadow on those beneath."""
    regions = np.zeros(shape, np.uint8)
    size = layers[0].distance.shape
    coarse = np.zeros(size, np.uint8)
    height, light = np.zeros(size, np.float32), np.full(size, layers[0].depth, np.float32)
    lean = rng.normal(0, 0.05, 2) * unit / DETAIL
    beneath = np.float32(1 if rng.random() < 0.6 else rng.uniform(0, 1))  # below 1, layers end in cliffs
    soft = unit * rng.uniform(0.01, 0.1)
    for index, layer in enumerate(layers[1:], 1):
        inside = layer.distance > 0
        rise = np.clip(layer.distance / np.float32(layer.roundness), 0, 1)
        move = np.array([[1, 0, lean[0]], [0, 1, lean[1]]])
        cast = cv2.warpAffine(layer.distance, move, (size[1], size[0]), borderMode=cv2.BORDER_REPLICATE)
        light *= 1 - np.float32(layer.shadow) * smoothstep(-soft, soft, np.asarray(cast, np.float32))
        np.copyto(light, np.float32(layer.depth), where=inside)
        height *= np.where(inside, beneath, np.float32(1))
        height += rise * (2 - rise) * np.float32(layer.bulge * layer.roundness)
        np.copyto(coarse, np.uint8(index), where=inside)
        np.copyto(regions, np.uint8(index), where=resize(layer.distance, shape) > 0)
    return Relief(regions, coarse, height, np.asarray(blur(light, unit * 0.004), np.float32))


def _streaks(rng: np.random.Generator, shape: RasterShape, unit: float) -> Field:
    """Noise drawn out along one bent direction: fibres."""
    side = int(np.hypot(*shape)) + 2
    thin = fractal_noise(rng, (side, side // 8), unit * rng.uniform(0.008, 0.04), 3, 0.7)
    angle, bend = rng.uniform(0, np.pi), unit * rng.uniform(0.02, 0.15)
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    y, x = np.indices(shape, np.float32, sparse=True)
    wave = resize(grid_noise(rng, (shape[0] // 4, shape[1] // 4), unit * 0.08), shape) * np.float32(bend)
    along, across = c * x + s * y + wave, c * y - s * x + wave + side / 2
    return np.asarray(remap(thin, along / 8, across), np.float32)


def _lumps(rng: np.random.Generator, shape: RasterShape, cell: float) -> Field:
    """Distance from the middle of rounded lumps, in cells, a little uneven."""
    return cell_distance(rng, shape, cell) + grid_noise(rng, shape, cell) * np.float32(0.12)


def _folds(rng: np.random.Generator, shape: RasterShape, cell: float) -> Field:
    """Winding creases, 0 at their bottom and negative beside them or the reverse, made at a layout's size."""
    wrinkled = fractal_noise(rng, shape, cell, 4, 0.5)
    y, x = np.indices(shape, np.float32, sparse=True)
    bend = np.float32(cell * rng.uniform(0.1, 0.5))
    bent = remap(wrinkled, x + bend * grid_noise(rng, shape, cell), y + bend * grid_noise(rng, shape, cell))
    round_ = np.float32(rng.uniform(0.02, 0.5))
    return np.asarray(np.sqrt(bent * bent + round_ * round_) * np.float32(rng.choice([-1, 1])), np.float32)


class Textures:
    """The noises that all organs of a scene share, each organ taking its own amount. Coarse ones have the layout's size.

    Those that none of the `organs` shows are left blank.
    """

    def __init__(
        self, rng: np.random.Generator, organs: list[Organ], shape: RasterShape, unit: float, coarse: RasterShape
    ) -> None:
        cells = unit / DETAIL
        self.mottle = fractal_noise(rng, coarse, cells * rng.uniform(0.06, 0.3), 5, 0.62)
        self.tint = fractal_noise(rng, coarse, cells * rng.uniform(0.1, 0.4), 4, 0.6)
        self.fold_cell = unit * rng.uniform(0.05, 0.25)
        self.fold = _folds(rng, coarse, self.fold_cell / DETAIL)
        self.swell_cell = unit * rng.uniform(0.2, 0.6)
        self.swell = grid_noise(rng, coarse, self.swell_cell / DETAIL)
        self.lobule_cell = unit * rng.uniform(0.025, 0.12)
        lumpy, fibrous = max(organ.lobule for organ in organs) > 0, max(organ.fibre for organ in organs) > 0.1
        self.lobule = _lumps(rng, coarse, self.lobule_cell / DETAIL) if lumpy else np.zeros(coarse, np.float32)
        self.fibre = _streaks(rng, shape, unit) if fibrous else np.zeros(shape, np.float32)
        self.glint = fractal_noise(rng, coarse, max(cells * rng.uniform(0.01, 0.05), 2), 2, 0.6)
        self.fine_cell = max(unit * rng.uniform(0.005, 0.014), 1.5)
        self.fine = grid_noise(rng, shape, self.fine_cell)
