"""What lies between the scene and its recording: camera, scope, lens, smoke, sensor."""

from __future__ import annotations

import cv2
import numpy as np

from cliprl.pipeline.synthetic.instruments.rgba_layer import Matrix, rotation_2d, shift
from cliprl.pipeline.synthetic.raster import Image, RasterShape, Wander, blur, fractal_noise, resize

OVERSCAN = 1.25  # the tissue plate's size, in images


class CameraPath:
    """A hand-held scope: it drifts, turns and breathes over the tissue plate."""

    def __init__(self, rng: np.random.Generator, shape: RasterShape, plate: RasterShape) -> None:
        self._shape, self._plate = shape, plate
        spare = (OVERSCAN - 1) / 2
        self._x = Wander(rng, shape[1] * spare * rng.uniform(0.05, 0.6), rng.uniform(6, 16))
        self._y = Wander(rng, shape[0] * spare * rng.uniform(0.05, 0.6), rng.uniform(6, 16))
        self._turn, self._zoom = Wander(rng, rng.uniform(0, 0.08), 11), Wander(rng, rng.uniform(0.005, 0.06), 4)

    def matrix(self, t: float) -> Matrix:
        """From the plate's pixels to the image's."""
        zoom = 1.06 + self._zoom(t)
        to_center = shift(-self._plate[1] / 2 + self._x(t), -self._plate[0] / 2 + self._y(t))
        return shift(self._shape[1] / 2, self._shape[0] / 2) @ rotation_2d(self._turn(t), zoom, zoom) @ to_center


class Scope:
    """The endoscope's image in the frame (a circle, a bordered rectangle, or all of it) and how its light falls off."""

    def __init__(self, rng: np.random.Generator, shape: RasterShape) -> None:
        height, width = shape
        unit = min(shape)
        self._shape, self._circle = shape, rng.random() < 0.5
        self._radius = unit * (rng.uniform(0.44, 0.56) if rng.random() < 0.5 else rng.uniform(0.56, 0.85))
        off = unit * 0.06
        self._x, self._y = width / 2 + rng.uniform(-off, off), height / 2 + rng.uniform(-off, off)
        drift = unit * rng.uniform(0, 0.03)
        self._dx, self._dy = Wander(rng, drift, 5), Wander(rng, drift, 5)
        self._side = int(width * rng.uniform(0.005, 0.15)) if rng.random() < 0.35 else 0
        self._edge = 0.2 + rng.uniform(0, 0.006) * unit
        self.black = rng.integers(0, 16, 3).astype(np.uint8) if rng.random() < 0.4 else np.zeros(3, np.uint8)
        self.gain = self._falloff(rng)

    def _falloff(self, rng: np.random.Generator) -> Image:
        """The light over the image, uint8 (H, W, 3), 170 meaning unchanged."""
        height, width = self._shape
        unit = min(self._shape)
        x = (np.arange(width, dtype=np.float32) - np.float32(width * rng.uniform(0.3, 0.7))) / np.float32(unit)
        y = (np.arange(height, dtype=np.float32) - np.float32(height * rng.uniform(0.3, 0.7))) / np.float32(unit)
        away = x[None, :] ** 2 + y[:, None] ** 2
        gain = np.float32(rng.uniform(0.9, 1.4)) / (1 + np.float32(rng.uniform(0.1, 2.6)) * away)
        tint = 1 + rng.normal(0, 0.03, 3).astype(np.float32)
        return np.asarray(np.clip(gain[..., None] * tint * np.float32(170), 0, 255), np.uint8)

    def mask(self, t: float) -> Image | None:
        """Where the image is: uint8 (H, W), 255 inside; None where it is everywhere."""
        height, width = self._shape
        if not self._circle and not self._side:
            return None
        mask = np.zeros(self._shape, np.uint8)
        if self._circle:
            center = (round((self._x + self._dx(t)) * 16), round((self._y + self._dy(t)) * 16))
            cv2.circle(mask, center, round(self._radius * 16), 255, -1, cv2.LINE_AA, 4)
        else:
            mask[self._side // 4 : height - self._side // 4, self._side : width - self._side] = 255
        return np.asarray(blur(mask, self._edge), np.uint8)


class Smoke:
    """Drifting smoke, in some scenes. `density` is 0 where there is none."""

    def __init__(self, rng: np.random.Generator, shape: RasterShape) -> None:
        self.density = rng.uniform(0.15, 0.75) if rng.random() < 0.2 else 0.0
        self._shape = shape
        coarse = (max(shape[0] // 8, 4), max(shape[1] // 8, 4))
        puffs = fractal_noise(rng, (2 * coarse[0], 2 * coarse[1]), max(min(coarse) * 0.6, 2), 4)
        self._puffs = np.clip((puffs + np.float32(rng.uniform(-0.2, 1.6))) * np.float32(110 * self.density), 0, 235)
        self._color = np.asarray(rng.uniform(120, 235) + rng.normal(0, 6, 3), np.float64)
        self._dx, self._dy = Wander(rng, coarse[1] * 0.4, 7), Wander(rng, coarse[0] * 0.4, 7)
        self._coarse = coarse

    def blow(self, rgb: Image, t: float) -> Image:
        """`rgb` with smoke in front of it."""
        if not self.density:
            return rgb
        rows, columns = self._coarse
        move = shift(self._dx(t) - columns / 2, self._dy(t) - rows / 2)[:2]
        piece = cv2.warpAffine(self._puffs, move, (columns, rows), borderMode=cv2.BORDER_REFLECT_101)
        dense = resize(np.asarray(piece, np.float32), self._shape).astype(np.uint8)
        dense3 = cv2.cvtColor(dense, cv2.COLOR_GRAY2BGR)
        veil = cv2.transform(dense, self._color[:, None] / 255)
        return np.asarray(cv2.add(cv2.multiply(rgb, cv2.bitwise_not(dense3), scale=1 / 255), veil), np.uint8)


class Dirt:
    """Droplets and smears on the lens: they stay in the image while the scene moves."""

    def __init__(self, rng: np.random.Generator, shape: RasterShape) -> None:
        self._veil: Image | None = None
        if rng.random() > 0.15:
            return
        spots = np.zeros(shape, np.uint8)
        unit = min(shape)
        for _ in range(int(rng.integers(1, 12))):
            at = (int(rng.uniform(0, shape[1])), int(rng.uniform(0, shape[0])))
            axes = (int(unit * rng.uniform(0.01, 0.12)) + 1, int(unit * rng.uniform(0.01, 0.08)) + 1)
            cv2.ellipse(spots, at, axes, rng.uniform(0, 180), 0, 360, int(rng.uniform(60, 230)), -1)
        spots = np.asarray(blur(spots, unit * rng.uniform(0.005, 0.03)), np.uint8)
        self._veil = np.asarray(cv2.cvtColor(spots, cv2.COLOR_GRAY2BGR), np.uint8)
        self._sigma = unit * rng.uniform(0.015, 0.04)
        self._lift = rng.uniform(-25, 35)

    def smear(self, rgb: Image) -> Image:
        """`rgb` seen through it."""
        if self._veil is None:
            return rgb
        small = cv2.resize(rgb, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
        lifted = np.clip(blur(small, self._sigma / 4) + self._lift, 0, 255).astype(np.uint8)
        soft = cv2.resize(lifted, (rgb.shape[1], rgb.shape[0]))
        clear = cv2.multiply(rgb, cv2.bitwise_not(self._veil), scale=1 / 255)
        return np.asarray(cv2.add(clear, cv2.multiply(soft, self._veil, scale=1 / 255)), np.uint8)
