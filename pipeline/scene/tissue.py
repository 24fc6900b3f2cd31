"""The tissue of a scene: a textured, lit plate larger than the picture, made once and moved beneath the camera."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from cliprl.pipeline.scene.layout import Layer, lay_out
from cliprl.pipeline.scene.raster import (
    Field,
    Image,
    Shape,
    blur,
    cell_distance,
    fractal_noise,
    grid_noise,
    lookup,
    remap,
    resize,
    smoothstep,
)
from cliprl.pipeline.scene.vessels import draw_vessels


@dataclass(frozen=True, slots=True)
class Plate:
    """Lit tissue. rgb: uint8 (h, w, 3). labels: uint8 (h, w). regions: uint8 (h, w), indices into `phrases`."""

    rgb: Image
    labels: Image
    regions: Image
    phrases: tuple[str, ...]


@dataclass(slots=True)
class _Relief:
    """What the layers make together: which is on top, the height in pixels, and the light that reaches it."""

    regions: Image
    height: Field
    light: Field


def _stack(layers: list[Layer], shape: Shape) -> _Relief:
    regions = np.zeros(shape, np.uint8)
    height = np.zeros(layers[0].distance.shape, np.float32)
    light = np.full_like(height, layers[0].depth)
    for index, layer in enumerate(layers[1:], 1):
        inside = layer.distance > 0
        rise = np.clip(layer.distance / np.float32(layer.roundness), 0, 1)
        dome = np.sqrt(rise * (2 - rise)) * np.float32(layer.bulge * layer.roundness)
        near = np.exp(np.minimum(layer.distance, 0) / np.float32(0.4 * layer.roundness + 3))
        light *= 1 - np.float32(layer.shadow) * near
        np.copyto(light, np.float32(layer.depth), where=inside)
        np.copyto(height, dome, where=inside)
        np.copyto(regions, np.uint8(index), where=resize(layer.distance, shape) > 0)
    return _Relief(regions, resize(blur(height, 0.7), shape), resize(blur(light, 0.7), shape))


def _streaks(rng: np.random.Generator, shape: Shape, unit: float) -> Field:
    """Noise drawn out along one bent direction: fibres."""
    side = int(np.hypot(*shape)) + 2
    thin = fractal_noise(rng, (side, side // 8), unit * rng.uniform(0.008, 0.03), 3, 0.7)
    angle, bend = rng.uniform(0, np.pi), unit * rng.uniform(0.02, 0.15)
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    y, x = np.indices(shape, np.float32, sparse=True)
    wave = grid_noise(rng, shape, unit * 0.3) * np.float32(bend)
    along, across = c * x + s * y + wave, c * y - s * x + wave + side / 2
    return np.asarray(remap(thin, along / 8, across), np.float32)


class _Textures:
    """The noises that all organs of a scene share, each organ taking its own amount."""

    def __init__(self, rng: np.random.Generator, shape: Shape, unit: float) -> None:
        self.mottle = fractal_noise(rng, shape, unit * rng.uniform(0.08, 0.3), 4, 0.6)
        self.fold_cell = unit * rng.uniform(0.05, 0.2)
        self.fold = -np.abs(fractal_noise(rng, shape, self.fold_cell, 3, 0.5))
        self.lobule_cell = unit * rng.uniform(0.03, 0.12)
        jitter = grid_noise(rng, shape, self.lobule_cell) * np.float32(0.12)
        self.lobule = cell_distance(rng, shape, self.lobule_cell) + jitter
        self.fibre = _streaks(rng, shape, unit)
        self.fine_cell = max(unit * rng.uniform(0.008, 0.025), 2.0)
        self.fine = fractal_noise(rng, shape, self.fine_cell, 2, 0.6)


def _strength(rng: np.random.Generator, layers: list[Layer], name: str) -> Field:
    figures = np.array([getattr(layer.organ, name) for layer in layers])
    return np.asarray(figures * rng.uniform(0.4, 1.5, len(layers)), np.float32)


def _relief_of(rng: np.random.Generator, layers: list[Layer], relief: _Relief, noise: _Textures) -> Field:
    """The height of everything, in pixels: domes, folds, lobules, fibres and grain."""
    regions, height = relief.regions, relief.height
    height += noise.fold * lookup(_strength(rng, layers, "fold") * np.float32(0.22 * noise.fold_cell), regions)
    lumps = lookup(_strength(rng, layers, "lobule"), regions)
    height -= noise.lobule * noise.lobule * lumps * np.float32(0.35 * noise.lobule_cell)
    height += noise.fibre * lookup(_strength(rng, layers, "fibre"), regions) * np.float32(noise.fine_cell * 0.12)
    height += noise.fine * np.float32(rng.uniform(0.01, 0.07) * noise.fine_cell)
    return height


def _colour(rng: np.random.Generator, layers: list[Layer], regions: Image, noise: _Textures) -> Field:
    """Reflectance, float32 (h, w, 3) in 0..255."""
    mix = np.float32(0.5) + noise.mottle * lookup(_strength(rng, layers, "mottle") * np.float32(0.4), regions)
    mix += noise.fibre * lookup(_strength(rng, layers, "fibre") * np.float32(0.25), regions)
    mix -= smoothstep(0.3, 0.9, noise.lobule) * lookup(_strength(rng, layers, "lobule") * np.float32(0.5), regions)
    mix += noise.fine * np.float32(rng.uniform(0, 0.12))
    dark = np.array([layer.organ.dark for layer in layers], np.float32)
    light = np.array([layer.organ.light for layer in layers], np.float32)
    shift = rng.normal(0, 9, dark.shape).astype(np.float32)
    dark, span = dark * rng.uniform(0.8, 1.1) + shift, light - dark
    share = np.clip(mix, -0.4, 1.6)[..., None]
    return np.asarray(np.take(dark, regions, 0) + np.take(span, regions, 0) * share, np.float32)


def _highlights(rng: np.random.Generator, gx: Field, gy: Field, gloss: Field, noise: _Textures, unit: float) -> Field:
    """Wet highlights, 0..: where the surface, roughened, mirrors the scope's light."""
    height, width = noise.fine.shape
    y, x = np.indices((height, width), np.float32, sparse=True)
    lean = np.float32(rng.uniform(0.1, 0.7) / unit)
    ax, ay = rng.normal(0, 0.25, 2).astype(np.float32)
    rough = np.float32(rng.uniform(0.05, 0.5))
    fine = noise.fine * rough
    dx = gx + fine + (x - width / 2) * lean + ax
    dy = gy - fine + (y - height / 2) * lean + ay
    width2 = np.float32(rng.uniform(0.05, 0.25) ** 2)
    wet = smoothstep(rng.uniform(-1.2, 0.6), 1.5, noise.mottle)
    shine = np.exp(-(dx * dx + dy * dy) / width2) * wet * gloss
    return np.asarray(shine * np.float32(rng.uniform(0.5, 3)), np.float32)


def _slope(height: Field) -> tuple[Field, Field]:
    """The gradient of a relief, clipped where layers meet."""
    gx = cv2.Sobel(height, cv2.CV_32F, 1, 0, scale=0.125)
    gy = cv2.Sobel(height, cv2.CV_32F, 0, 1, scale=0.125)
    return np.asarray(np.clip(gx, -2.5, 2.5), np.float32), np.asarray(np.clip(gy, -2.5, 2.5), np.float32)


def build_plate(rng: np.random.Generator, shape: Shape, unit: float) -> Plate:
    """The tissue of one scene. `shape`: the plate's size in pixels; `unit`: the picture's shorter side in pixels."""
    layers = lay_out(rng, shape, unit)
    relief, noise = _stack(layers, shape), _Textures(rng, shape, unit)
    regions = relief.regions
    height = _relief_of(rng, layers, relief, noise)
    colour = _colour(rng, layers, regions, noise)
    vessels = _strength(rng, layers, "vessel")
    draw_vessels(rng, colour, lookup(np.clip(vessels, 0, 1), regions), unit)
    gx, gy = _slope(height)
    lx, ly = rng.normal(0, 0.35, 2).astype(np.float32)
    facing = (1 - gx * lx - gy * ly) / np.sqrt((1 + gx * gx + gy * gy) * (1 + lx * lx + ly * ly))
    ambient = np.float32(rng.uniform(0.1, 0.45))
    colour *= (relief.light * (ambient + (1 - ambient) * np.maximum(facing, 0)))[..., None]
    gloss = lookup(_strength(rng, layers, "gloss"), regions) * np.minimum(relief.light * 1.5, 1)
    colour += (_highlights(rng, gx, gy, gloss, noise, unit) * 255)[..., None]
    labels = np.array([layer.organ.label for layer in layers], np.uint8)[regions]
    rgb = np.clip(blur(colour, rng.uniform(0, 0.002) * unit), 0, 255).astype(np.uint8)
    return Plate(rgb, labels, regions, tuple(layer.organ.phrase for layer in layers))
