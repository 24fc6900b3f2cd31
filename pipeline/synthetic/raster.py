"""Typed images and fields, and the few raster operations that the whole scene is made of."""

from __future__ import annotations

import math
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Field = NDArray[np.float32]
RasterShape = tuple[int, int]  # height, width in pixels


def resize(field: Field, shape: RasterShape, cubic: bool = False) -> Field:
    """`field` (h, w[, C]) at another size, by linear or cubic interpolation."""
    mode = cv2.INTER_CUBIC if cubic else cv2.INTER_LINEAR
    return cast(Field, cv2.resize(field, (shape[1], shape[0]), interpolation=mode))


def blur(field: NDArray[Any], sigma: float) -> NDArray[Any]:
    """A Gaussian blur of `sigma` pixels; below a fifth of a pixel the input itself."""
    return field if sigma < 0.2 else cv2.GaussianBlur(field, (0, 0), sigma)


def grid_noise(rng: np.random.Generator, shape: RasterShape, cell: float) -> Field:
    """Smooth noise of unit variance at its lattice, whose bumps are `cell` pixels apart."""
    return fractal_noise(rng, shape, cell, 1)


def fractal_noise(rng: np.random.Generator, shape: RasterShape, cell: float, octaves: int, gain: float = 0.5) -> Field:
    """A sum of `octaves` smooth noises, each half as wide and `gain` times as strong as the one before.

    The sum is built on growing lattices, and only the last is brought to full size. Octaves finer than a pixel are left out.
    """
    cell = max(cell, 1.0)
    octaves = max(1, min(octaves, int(np.log2(cell)) + 1))
    rows, columns = int(shape[0] / cell) + 4, int(shape[1] / cell) + 4
    total = rng.standard_normal((rows, columns), dtype=np.float32)
    for octave in range(1, octaves):
        rows, columns = 2 * rows, 2 * columns
        finer = rng.standard_normal((rows, columns), dtype=np.float32)
        total = resize(total, (rows, columns), cubic=True) + finer * np.float32(gain**octave)
    pitch = cell / 2 ** (octaves - 1)
    grown = resize(total, (int(rows * pitch) + 1, int(columns * pitch) + 1), cubic=True)
    top, left = int(rng.uniform(0, cell)), int(rng.uniform(0, cell))
    return grown[top : top + shape[0], left : left + shape[1]]


def cell_distance(rng: np.random.Generator, shape: RasterShape, cell: float) -> Field:
    """Distance to the nearest of scattered points, in units of `cell` pixels: the relief of lobules (Worley's F1)."""
    height, width = shape
    seeds = np.ones(shape, np.uint8)
    step = max(cell, 2.0)
    ys, xs = np.mgrid[0 : height / step, 0 : width / step]
    ys = ((ys + rng.uniform(0, 1, ys.shape)) * step).astype(int).ravel()
    xs = ((xs + rng.uniform(0, 1, xs.shape)) * step).astype(int).ravel()
    inside = (ys < height) & (xs < width)
    seeds[ys[inside], xs[inside]] = 0
    return cast(Field, cv2.distanceTransform(seeds, cv2.DIST_L2, 5)) / np.float32(step)


def lookup(table: NDArray[np.float32], index: Image) -> Field:
    """`table` (K,) at each of `index` (h, w)."""
    full = np.zeros(256, np.float32)
    full[: len(table)] = table
    return cast(Field, cv2.LUT(index, full))


def look_up(image: NDArray[Any], table: NDArray[Any]) -> Image:
    """Apply a table for each channel, uint8 (1, 256, C), to an image (h, w, C): by channel, twice as fast as all at once."""
    channels = [cv2.LUT(part, table[..., index].copy()) for index, part in enumerate(cv2.split(image))]
    return cast(Image, cv2.merge(channels))


def spread(field: Field) -> Field:
    """`field` (h, w) as three equal channels: OpenCV works on these several times faster than numpy broadcasts."""
    return cast(Field, cv2.merge([field, field, field]))


def smoothstep(low: float, high: float, value: Field) -> Field:
    """0 below `low`, 1 above `high`, a smooth S between."""
    x = np.clip((value - np.float32(low)) / np.float32(high - low), 0, 1)
    return cast(Field, x * x * (3 - 2 * x))


def remap(field: NDArray[Any], x: Field, y: Field) -> NDArray[Any]:
    """`field` read at the pixel positions (x, y), linearly, reflected at its borders."""
    return cv2.remap(field, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


class Wander:
    """A smooth wandering value: a sum of slow sines, of about `amplitude` at most, with a period near `period` seconds."""

    def __init__(self, rng: np.random.Generator, amplitude: float, period: float) -> None:
        weight = amplitude * np.array([0.6, 0.3, 0.1])
        rate = 2 * np.pi / (period * np.array([1.0, 0.47, 0.21]) * rng.uniform(0.8, 1.3, 3))
        phase = rng.uniform(0, 2 * np.pi, 3)
        self._waves: tuple[tuple[float, float, float], ...] = tuple(
            zip(weight.tolist(), rate.tolist(), phase.tolist(), strict=True)
        )

    def __call__(self, t: float) -> float:
        """The value at `t` seconds."""
        return sum(weight * math.sin(rate * t + phase) for weight, rate, phase in self._waves)
