"""The tissue of a scene: a textured, lit plate larger than the image, made once and moved beneath the camera."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.pipeline.synthetic.raster import Field, Image, RasterShape, blur, resize, smoothstep, spread
from cliprl.pipeline.synthetic.tissue.heightmap import Textures, stack
from cliprl.pipeline.synthetic.tissue.layout import DETAIL, Layer, lay_out
from cliprl.pipeline.synthetic.tissue.vessels import draw_vessels


@dataclass(frozen=True, slots=True)
class Plate:
    """Lit tissue. rgb: uint8 (h, w, 3). labels: uint8 (h, w). regions: uint8 (h, w), indices into `phrases`."""

    rgb: Image
    labels: Image
    regions: Image
    phrases: tuple[str, ...]


class _Tissue:
    """Works out the look of one plate, step by step. Strengths are per layer, each a little off its organ's."""

    def __init__(self, rng: np.random.Generator, layers: list[Layer], shape: RasterShape, unit: float) -> None:
        self._rng, self._layers, self._shape, self._unit = rng, layers, shape, unit
        self.relief = stack(rng, layers, shape, unit)
        self._noise = Textures(rng, [layer.organ for layer in layers], shape, unit, self.relief.height.shape)
        self._melt = rng.uniform(0, 0.006) * unit / DETAIL  # how far organs run into each other

    def _strength(self, name: str, scale: float = 1.0) -> Field:
        """How much of `name` there is, at the layout's size."""
        figures = np.array([getattr(layer.organ, name) for layer in self._layers])
        return self._spread(figures * self._rng.uniform(0.4, 1.5, len(figures)) * scale)

    def _spread(self, figures: NDArray[np.floating]) -> Field:
        """A figure per layer (K,) or (K, 3), at the layout's size, soft at borders."""
        return np.asarray(blur(np.take(figures.astype(np.float32), self.relief.coarse, 0), self._melt), np.float32)

    def height(self) -> Field:
        """The height of everything, in pixels: domes, swells, folds, lobules, fibres and grain."""
        noise, rng = self._noise, self._rng
        coarse = self.relief.height + noise.swell * np.float32(noise.swell_cell * rng.uniform(0.0, 0.3))
        coarse += noise.fold * self._strength("fold", rng.uniform(0.05, 0.4) * noise.fold_cell)
        coarse -= noise.lobule * noise.lobule * self._strength("lobule", rng.uniform(0.2, 0.6) * noise.lobule_cell)
        self._hollow(coarse)
        self._recess()
        height = resize(np.asarray(blur(coarse, 0.8), np.float32), self._shape)
        height += noise.fibre * resize(self._strength("fibre", 0.12 * noise.fine_cell), self._shape)
        height += noise.fine * np.float32(rng.uniform(0.005, 0.06) * noise.fine_cell)
        return height

    def _hollow(self, height: Field) -> None:
        """Less light where the tissue lies lower than what is around it."""
        sigma = self._unit * self._rng.uniform(0.015, 0.06)
        small = resize(height, (height.shape[0] // 4 + 1, height.shape[1] // 4 + 1))
        around = resize(np.asarray(blur(small, sigma / (4 * DETAIL)), np.float32), (height.shape[0], height.shape[1]))
        depth = (height - around) * np.float32(self._rng.uniform(0.2, 1.6) / sigma)
        self.relief.light *= np.clip(1 + depth, 0.35, 1.2)

    def _recess(self) -> None:
        """Parts of the scene lie so far from the scope that they are dark."""
        if self._rng.random() < 0.6:
            low = self._rng.uniform(-0.2, 1.0)
            far = smoothstep(low, low + self._rng.uniform(0.5, 1.5), self._noise.swell)
            self.relief.light *= 1 - far * np.float32(self._rng.uniform(0.2, 0.9))

    def grain(self) -> Field:
        """Brightness of fibres and of the finest texture, about 1; float32 (h, w)."""
        fibre = resize(self._strength("fibre", 0.2), self._shape) * self._noise.fibre
        fine = self._noise.fine * np.float32(self._rng.uniform(0, 0.06))
        return np.asarray(1 + np.clip(fibre + fine, -0.6, 0.6), np.float32)

    def color(self) -> Field:
        """Reflectance, float32 (h, w, 3) in 0..255."""
        noise, rng = self._noise, self._rng
        mix = np.float32(0.5) + noise.mottle * self._strength("mottle", rng.uniform(0.1, 0.4))
        mix -= smoothstep(0.3, 0.9, noise.lobule) * self._strength("lobule", 0.5)
        organs = [layer.organ for layer in self._layers]
        dark = np.array([organ.dark for organ in organs]) * rng.uniform(0.8, 1.1)
        light = np.array([organ.light for organ in organs], np.float32)
        kin = rng.uniform(0, 0.6)  # how much alike the organs of this scene look
        dark, light = dark + (dark.mean(0) - dark) * kin, light + (light.mean(0) - light) * kin
        shift = rng.normal(0, 6, dark.shape) + rng.normal(0, 6, (len(organs), 1))
        base = self._spread(dark + shift) + self._spread(light - dark) * np.clip(mix, -0.4, 1.6)[..., None]
        return resize(self._stain(base), self._shape)

    def _stain(self, base: Field) -> Field:
        """Washes of blood, bile or whitish film over organs of all kinds, and a drift of hue."""
        rng, noise = self._rng, self._noise
        hue = np.array([0.02, -0.03, -0.03], np.float32) * np.float32(rng.uniform(0, 3))
        base = base * (1 + hue * np.clip(noise.tint, -2, 2)[..., None])
        if rng.random() < 0.6:
            wash = np.array(_WASHES[rng.integers(len(_WASHES))], np.float32)
            low = rng.uniform(-0.4, 1.2)
            share = smoothstep(low, low + rng.uniform(0.3, 1.5), noise.mottle - noise.tint) * np.float32(
                rng.uniform(0.2, 0.85)
            )
            base = base + (wash - base) * share[..., None]
        return np.asarray(base, np.float32)

    def vessels(self, color: Field) -> Field:
        """`color` with vessels painted on it."""
        return draw_vessels(self._rng, color, resize(np.clip(self._strength("vessel"), 0, 1), self._shape), self._unit)

    def highlights(self, gx: Field, gy: Field) -> Field:
        """Wet highlights, 0..: where the surface, roughened, mirrors the scope's light."""
        rng, (height, width) = self._rng, self._shape
        gloss = self._strength("gloss") * smoothstep(rng.uniform(-1.6, 0.4), 1.5, self._noise.mottle)
        gloss *= np.minimum(self.relief.light * 1.5, 1) * np.float32(np.exp(rng.uniform(-0.7, 1.6)))
        y, x = np.indices((height, width), np.float32, sparse=True)
        lean = np.float32(rng.uniform(0.1, 0.9) / self._unit)
        ax, ay = rng.normal(0, 0.25, 2).astype(np.float32)
        fine = self._noise.fine * np.float32(rng.uniform(0.0, 0.15))
        glint = resize(self._noise.glint, self._shape) * np.float32(rng.uniform(0.03, 0.4))
        other = np.roll(glint, (height // 3, width // 3), (0, 1))
        dx = gx + fine + glint + ((x - width / 2) * lean + ax)
        dy = gy - fine + other + ((y - height / 2) * lean + ay)
        width2 = np.float32(rng.uniform(0.06, 0.3) ** 2)
        return np.asarray(np.exp((dx * dx + dy * dy) / -width2) * resize(gloss, self._shape), np.float32)


_WASHES = ((120, 12, 14), (150, 25, 22), (85, 8, 14), (150, 105, 40), (225, 195, 185), (110, 60, 35), (190, 90, 85))


def _slope(height: Field) -> tuple[Field, Field]:
    """The gradient of a relief, clipped where layers meet."""
    gx = cv2.Sobel(height, cv2.CV_32F, 1, 0, scale=0.125)
    gy = cv2.Sobel(height, cv2.CV_32F, 0, 1, scale=0.125)
    return np.asarray(np.clip(gx, -2.5, 2.5), np.float32), np.asarray(np.clip(gy, -2.5, 2.5), np.float32)


def build_plate(rng: np.random.Generator, shape: RasterShape, unit: float) -> Plate:
    """The tissue of one scene. `shape`: the plate's size in pixels; `unit`: the image's shorter side in pixels."""
    layers = lay_out(rng, shape, unit)
    tissue = _Tissue(rng, layers, shape, unit)
    gx, gy = _slope(tissue.height())
    color = tissue.vessels(tissue.color())
    lx, ly = rng.normal(0, 0.4, 2).astype(np.float32)
    facing = (1 - gx * lx - gy * ly) / np.sqrt((1 + gx * gx + gy * gy) * (1 + lx * lx + ly * ly))
    ambient = np.float32(rng.uniform(0.05, 0.5))
    light = resize(tissue.relief.light, shape) * (ambient + (1 - ambient) * np.maximum(facing, 0)) * tissue.grain()
    shine = spread(tissue.highlights(gx, gy) * np.float32(255))
    lit = cv2.add(cv2.multiply(color, spread(light)), shine, dtype=cv2.CV_8U)
    labels = np.array([layer.organ.label for layer in layers], np.uint8)[tissue.relief.regions]
    rgb = np.asarray(blur(lit, rng.uniform(0, 0.002) * unit), np.uint8)
    return Plate(rgb, labels, tissue.relief.regions, tuple(layer.organ.phrase for layer in layers))
