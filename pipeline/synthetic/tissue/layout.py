"""Where the organs of a scene lie: layers of blobs, walls, tubes, coils and pools, each a signed distance field."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from cliprl.pipeline.synthetic.raster import Field, RasterShape, fractal_noise
from cliprl.pipeline.synthetic.tissue.organs import ORGANS, THEMES, Organ

DETAIL = 2  # layouts are made at this fraction of the plate's resolution: their borders are smooth


@dataclass(frozen=True, slots=True)
class Layer:
    """One piece of tissue. `distance` (plate / DETAIL): pixels of the plate to its border, positive inside.

    roundness: the radius in pixels over which it bulges at its border. bulge: height of that, relative to the radius.
    depth: brightness by its distance from the scope, about 0.4 (far) to 1.1 (near). shadow: darkness beside it, 0..1.
    """

    organ: Organ
    distance: Field
    roundness: float
    bulge: float
    depth: float
    shadow: float


class Lattice:
    """Coordinates of a layout's cells, bent by noise so that no shape is regular. Units: the image's shorter side."""

    def __init__(self, rng: np.random.Generator, shape: RasterShape, unit: float) -> None:
        self.shape = (-(-shape[0] // DETAIL), -(-shape[1] // DETAIL))
        self.unit = unit
        height, width = self.shape
        self._cells = unit / DETAIL
        y = (np.arange(height, dtype=np.float32) - np.float32(height / 2)) / np.float32(self._cells)
        x = (np.arange(width, dtype=np.float32) - np.float32(width / 2)) / np.float32(self._cells)
        self.reach = (float(x[-1]), float(y[-1]))
        bend, cell = rng.uniform(0.02, 0.09), rng.uniform(0.25, 0.6) * self._cells
        self.x = x[None, :] + np.float32(bend) * fractal_noise(rng, self.shape, cell, 4)
        self.y = y[:, None] + np.float32(bend) * fractal_noise(rng, self.shape, cell, 4)

    def point(self, rng: np.random.Generator, spread: float = 0.8) -> tuple[float, float]:
        """A random place on the plate, within `spread` of its half sides from the center."""
        return rng.uniform(-spread, spread) * self.reach[0], rng.uniform(-spread, spread) * self.reach[1]

    def blob(self, rng: np.random.Generator) -> Field:
        """An egg of any size and direction."""
        cx, cy = self.point(rng)
        long, angle = np.exp(rng.uniform(np.log(0.1), np.log(0.9))), rng.uniform(0, np.pi)
        short = long * rng.uniform(0.2, 1)
        c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        dx, dy = self.x - np.float32(cx), self.y - np.float32(cy)
        u, v = (c * dx + s * dy) / np.float32(long), (c * dy - s * dx) / np.float32(short)
        return (1 - np.sqrt(u * u + v * v)) * np.float32(short)

    def side(self, rng: np.random.Generator) -> Field:
        """Everything on one side of a bent line."""
        cx, cy = self.point(rng, 0.6)
        angle, curve = rng.uniform(0, 2 * np.pi), np.float32(rng.normal(0, 1.0))
        c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        dx, dy = self.x - np.float32(cx), self.y - np.float32(cy)
        along = c * dy - s * dx
        return c * dx + s * dy + curve * along * along

    def _path(self, rng: np.random.Generator, start: tuple[float, float], angle: float, length: float) -> Field:
        """Points of a wandering path of `length`, (N, 2), in units."""
        turns = np.cumsum(rng.normal(0, 0.12, 40)) + angle
        steps = length / 40 * np.stack([np.cos(turns), np.sin(turns)], 1)
        return (np.cumsum(steps, 0) + start).astype(np.float32)

    def _around(self, path: Field, radius: float) -> Field:
        """A tube of `radius` about a path: its distance field."""
        canvas = np.full(self.shape, 255, np.uint8)
        cells = path * self._cells + np.array([self.shape[1] / 2, self.shape[0] / 2])
        cv2.polylines(canvas, [np.round(cells * 16).astype(np.int32)], False, 0, 1, cv2.LINE_8, 4)
        away = np.minimum(cv2.distanceTransform(canvas, cv2.DIST_L2, 3), 1e4).astype(np.float32)  # 1e4: nowhere near
        return np.float32(radius) - away / np.float32(self._cells)

    def tube(self, rng: np.random.Generator) -> Field:
        """A duct or vessel right through the image, thin or thick."""
        angle, (cx, cy) = rng.uniform(0, 2 * np.pi), self.point(rng, 0.5)
        start = (cx - 0.9 * np.cos(angle), cy - 0.9 * np.sin(angle))
        return self._around(self._path(rng, start, angle, 2.2), float(np.exp(rng.uniform(np.log(0.012), np.log(0.14)))))

    def coil(self, rng: np.random.Generator) -> Field:
        """Neighboring loops, such as those of the bowel."""
        radius, angle, (x, y) = rng.uniform(0.06, 0.17), rng.uniform(0, 2 * np.pi), self.point(rng, 0.6)
        loops = []
        for _ in range(int(rng.integers(2, 6))):
            loops.append(self._around(self._path(rng, (x, y), angle, rng.uniform(0.4, 1.3)), radius))
            x, y = x - 1.7 * radius * np.sin(angle), y + 1.7 * radius * np.cos(angle)
            angle += rng.normal(0, 0.25)
        return np.asarray(np.maximum.reduce(loops), np.float32)

    def pool(self, rng: np.random.Generator) -> Field:
        """Ragged patches, gathered about a place."""
        cx, cy = self.point(rng, 0.6)
        patch = fractal_noise(rng, self.shape, rng.uniform(0.06, 0.4) * self._cells, 3)
        away = np.hypot(self.x - np.float32(cx), self.y - np.float32(cy)) / np.float32(rng.uniform(0.1, 0.45))
        return np.asarray(0.05 * (patch + 1 - 1.6 * away), np.float32)


def lay_out(rng: np.random.Generator, shape: RasterShape, unit: float) -> list[Layer]:
    """The layers of one scene, undermost first, for a plate of `shape`; `unit` is the image's shorter side in pixels."""
    lattice, theme = Lattice(rng, shape, unit), THEMES[rng.integers(len(THEMES))]
    few = rng.choice(theme, int(rng.integers(1, 6)))  # folds of one or two organs, or many organs
    names = [str(name) for name in rng.choice(few, int(rng.integers(1, 13)))]
    names += [name for name, odds in _EXTRAS.items() if rng.random() < odds]
    ground = ORGANS[theme[min(int(rng.exponential(1.2)), len(theme) - 1)]]
    layers = [Layer(ground, np.full(lattice.shape, unit, np.float32), unit, 0, rng.uniform(0.6, 1), 0)]
    swollen = rng.uniform(0.1, 0.8)
    for name in names:
        kind = str(rng.choice(ORGANS[name].shapes))
        distance = np.asarray(getattr(lattice, kind)(rng) * np.float32(unit), np.float32)
        layers.append(_layer(rng, ORGANS[name], kind, distance, swollen))
    return layers


def _layer(rng: np.random.Generator, organ: Organ, kind: str, distance: Field, swollen: float) -> Layer:
    """Return a layer of `kind`; pools are flat, all others are rounded over a part of their size."""
    deepest = max(float(distance.max()), 4.0)
    if kind == "pool":
        return Layer(organ, distance, deepest, 0.02, rng.uniform(0.6, 1.0), 0.0)
    roundness = deepest * rng.uniform(0.35, 1.1)
    return Layer(organ, distance, roundness, swollen * rng.uniform(0.3, 1), rng.uniform(0.55, 1.1), rng.uniform(0, 0.5))


_EXTRAS = {"blood": 0.2, "char": 0.08, "cavity": 0.25, "gauze": 0.04, "covered kidney": 0.06, "intestine": 0.06}
