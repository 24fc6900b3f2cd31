"""Color and relief of tissue: from images of real mucosa, recolored, or from noise alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.engines import UsageError
from cliprl.models.data.io import files_below, read_image
from cliprl.models.data.raytraced.geometry import Rng

FloatPlane = NDArray[np.float32]
# Pixels along a side of a texture, which covers a little more than the camera sees.
TEXTURE_SIZE = 320
# A crop of an image is drawn again, at most so often, where pixels of it are darker than this.
TRIES, DARK_PIXEL = 12, 40


@dataclass(frozen=True, slots=True)
class TissueKind:
    """A kind of tissue: its mean sRGB color, how often it is drawn, and how lobular its relief is (0..1)."""

    color: tuple[int, int, int]
    share: float
    lobules: float = 0.0


TISSUES: Mapping[str, TissueKind] = {
    "mucosa": TissueKind((205, 120, 112), 3.0),
    "liver": TissueKind((105, 42, 36), 3.5),
    "bright liver": TissueKind((140, 60, 50), 2.5),
    "fat": TissueKind((222, 176, 98), 2.5, 0.8),
    "bowel": TissueKind((225, 172, 158), 2.2),
    "spleen": TissueKind((140, 88, 112), 0.7),
    "muscle": TissueKind((172, 44, 42), 1.5),
    "fascia": TissueKind((222, 200, 188), 1.3),
    "tendon": TissueKind((170, 160, 172), 0.5),
    "duct": TissueKind((150, 140, 128), 0.3),
    "vein": TissueKind((110, 85, 105), 0.3),
    "peritoneum": TissueKind((190, 150, 148), 2.0),
    "omentum": TissueKind((215, 150, 95), 1.6, 0.7),
    "scorched": TissueKind((128, 84, 62), 0.8),
    "gallbladder": TissueKind((128, 128, 98), 0.2),
}
# What strips that look like a shaft, and are none, are made of.
TISSUE_STRIPS = (
    "fascia",
    "fascia",
    "tendon",
    "tendon",
    "duct",
    "vein",
    "peritoneum",
    "bowel",
    "spleen",
    "fat",
    "mucosa",
    "muscle",
)


@dataclass(frozen=True, slots=True)
class Tissue:
    """A tissue surface: linear color float32 (N, N, 3), height of its relief (N, N) and how it shines."""

    color: FloatPlane
    relief: FloatPlane
    roughness: float
    specular: float
    clearcoat: float
    gloss: float


def noise(rng: Rng, size: int, octaves: Sequence[int], falloff: float = 0.5) -> FloatPlane:
    """Return smooth noise (size, size) of unit deviation: cells along a side by octave, each `falloff` times weaker."""
    total, weight = np.zeros((size, size), np.float32), 1.0
    for cells in octaves:
        grid = rng.standard_normal((cells, cells)).astype(np.float32)
        total += np.float32(weight) * cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC)
        weight *= falloff
    return np.asarray(total / (total.std() + 1e-6), np.float32)


def lobules(rng: Rng, size: int, count: int) -> FloatPlane:
    """Return the relief of fat (size, size) in 0..1: rounded cells with creases between them."""
    seeds = np.full((size, size), 255, np.uint8)
    seeds[tuple(rng.integers(0, size, (2, count)))] = 0
    distance = cv2.distanceTransform(seeds, cv2.DIST_L2, 3)
    return np.asarray(1 - np.minimum(distance / (1.6 * size / np.sqrt(count)), 1) ** 2, np.float32)


def threshold(plane: FloatPlane, level: float, sharpness: float) -> FloatPlane:
    """Return a soft mask (H, W, 1) of where `plane` exceeds `level`."""
    return np.asarray(1 / (1 + np.exp(-np.clip((plane - level) * sharpness, -30, 30))), np.float32)[..., None]


class TextureSource:
    """Draws tissue. `folder` holds images of mucosa without instruments; without one all color is procedural."""

    def __init__(self, folder: Path | None = None) -> None:
        """Raises UsageError where the folder holds no image."""
        self.images: list[Path] = []
        if folder is not None:
            self.images = sorted(files_below(folder))
            if not self.images:
                raise UsageError(f"'{folder}' holds no images: give --mucosa a folder of them, or leave it out")

    def crop(self, rng: Rng, size: int, share: float) -> FloatPlane:
        """Return a square part of an image, or noise, as sRGB float32 (size, size, 3) in 0..255."""
        if not self.images:
            tone = noise(rng, size, [3, 6, 12, 24, 48])[..., None] * np.array([14, 12, 11], np.float32)
            return np.asarray(np.clip(np.array([190, 110, 100]) + tone, 0, 255), np.float32)
        for _ in range(TRIES):
            image = read_image(self.images[int(rng.integers(len(self.images)))])
            height, width = image.shape[:2]
            side = max(8, int(min(height, width) * share))
            top, left = int(rng.uniform(0, 1) * (height - side)), int(rng.uniform(0, 1) * (width - side))
            part = image[top : top + side, left : left + side]
            # A dark corner of the image, or a box that was drawn into it, is no color of tissue.
            if (part.max(2) < DARK_PIXEL).mean() < 0.002:
                break
        part = np.ascontiguousarray(np.rot90(part, int(rng.integers(4))))
        return np.asarray(cv2.resize(part, (size, size), interpolation=cv2.INTER_CUBIC), np.float32)

    def tissue(self, rng: Rng, kinds: Sequence[str] = (), size: int = TEXTURE_SIZE) -> Tissue:
        """Draw a surface of one of `kinds`, or of two kinds that meet, with vessels, blood or scorch marks."""
        name = _kind(rng, kinds)
        color = self._albedo(rng, name, size)
        if not kinds and rng.random() < 0.45:
            edge = threshold(
                noise(rng, size, [int(rng.integers(2, 5)), 8, 16, 32], 0.6), rng.uniform(-0.3, 1), rng.uniform(2, 12)
            )
            color = color * (1 - edge) + self._albedo(rng, _kind(rng, ()), size) * edge
        if rng.random() < 0.3:
            color = _stained(rng, color, [[0.38, 0.03, 0.03], [0.52, 0.05, 0.05], [0.2, 0.02, 0.02]], 0.4)
        if rng.random() < 0.12:
            color = _stained(rng, color, [[0.12, 0.08, 0.05], [0.05, 0.04, 0.035], [0.3, 0.2, 0.1]], 1.1)
        wet = max(float(rng.random() ** 1.3), 0.02)
        linear = np.clip(color, 0.01, 0.97).astype(np.float32) ** np.float32(2.2)
        rough, specular, gloss = rng.uniform(0.22, 0.65), rng.uniform(0.25, 0.6), rng.uniform(0.55, 0.98)
        return Tissue(linear, _relief(rng, TISSUES[name].lobules, size), rough, specular, wet, gloss)

    def _albedo(self, rng: Rng, name: str, size: int) -> FloatPlane:
        """Return sRGB float32 (size, size, 3) in 0..1."""
        target = (
            np.array(TISSUES[name].color, np.float32) * np.exp(rng.normal(0, 0.07, 3)) * np.exp(rng.normal(0, 0.15))
        )
        if self.images and rng.random() < 0.78:
            color = self._recolored(rng, target, size)
        else:
            coarse = noise(rng, size, [3, 6, 12, 24, 48])[..., None]
            fine = noise(rng, size, [8, 16, 32, 64, 128], 0.7)[..., None]
            tint = np.array([1, 0.9, 0.8], np.float32)
            color = target * (1 + rng.uniform(0.03, 0.12) * coarse + rng.uniform(0.02, 0.08) * fine * tint)
        color = color * (1 + rng.uniform(0.0, 0.05) * noise(rng, size, [60, 120, 240], 0.8)[..., None])
        if rng.random() < 0.5:
            color = _vessels(rng, color)
        return np.asarray(np.clip(color / 255, 0.01, 0.97), np.float32)

    def _recolored(self, rng: Rng, target: NDArray[np.float64], size: int) -> FloatPlane:
        """Return a real image without its highlights and its light's falloff, in another color: (size, size, 3), 0..255."""
        texture = _without_highlights(self.crop(rng, size // 2, rng.uniform(0.35, 0.8)))
        texture = np.asarray(cv2.resize(texture, (size, size), interpolation=cv2.INTER_CUBIC), np.float32)
        detail = self.crop(rng, size, rng.uniform(0.3, 0.6)).mean(2)
        sharp = detail / (_blurred(detail, 0.03) + 10)
        light = _blurred(texture.mean(2), rng.uniform(0.1, 0.25))
        texture = texture / (light[..., None] / light.mean() + 1e-3) ** rng.uniform(0.6, 1)
        texture *= (np.clip(sharp, 0.6, 1.25) ** rng.uniform(0, 0.8))[..., None]
        mean = texture.reshape(-1, 3).mean(0)
        keep = rng.uniform(0, 1) if rng.random() < 0.5 else 0.0
        relative = np.clip(texture / (mean + 1e-3), 0.02, 4)
        return np.asarray(
            relative ** rng.uniform(0.7, 1.5) * (target * (1 - keep) + np.clip(mean, 40, 230) * keep), np.float32
        )


def _blurred(plane: FloatPlane, share: float) -> FloatPlane:
    """Blur a plane (N, N) by a share of its side, at a quarter of its resolution."""
    size = len(plane)
    small = cv2.resize(plane, (size // 4, size // 4), interpolation=cv2.INTER_AREA)
    soft = cv2.GaussianBlur(small, (0, 0), share * size / 4)
    return np.asarray(cv2.resize(soft, (size, size), interpolation=cv2.INTER_LINEAR), np.float32)


def _kind(rng: Rng, kinds: Sequence[str]) -> str:
    if kinds:
        return str(rng.choice(list(kinds)))
    shares = np.array([kind.share for kind in TISSUES.values()])
    return str(rng.choice(list(TISSUES), p=shares / shares.sum()))


def _without_highlights(texture: FloatPlane) -> FloatPlane:
    """Fill in the mirror images of the image's own lamp: the scene's light makes others."""
    dark = texture.min(2)
    bright = ((dark > 0.72 * np.percentile(dark, 99.5)) & (dark > 150)).astype(np.uint8)
    bright = cv2.dilate(bright, np.ones((5, 5), np.uint8)).astype(np.uint8)
    if not 0 < bright.mean() < 0.3:
        return texture
    filled = cv2.inpaint(np.clip(texture, 0, 255).astype(np.uint8), bright, 3, cv2.INPAINT_TELEA)
    return np.asarray(filled, np.float32)


def _vessels(rng: Rng, color: FloatPlane) -> FloatPlane:
    """Lay branching dark-red lines over part of the texture, in 0..255."""
    lines, where = noise(rng, len(color), [5, 10, 20], 0.6), noise(rng, len(color), [3, 6])
    share = np.exp(-((lines / rng.uniform(0.02, 0.07)) ** 2)) * np.clip(where, 0, 1) * rng.uniform(0.2, 0.8)
    return np.asarray(color * (1 - share[..., None]) + np.array([120, 20, 25]) * share[..., None], np.float32)


def _stained(rng: Rng, color: FloatPlane, stains: list[list[float]], level: float) -> FloatPlane:
    """Lay patches of one of the `stains` (sRGB, 0..1) over the texture."""
    field = noise(rng, len(color), [int(rng.integers(2, 7)), 12, 24, 48], 0.6)
    sharpness = np.exp(rng.uniform(np.log(1.5), np.log(14)))
    share = threshold(field, level + rng.uniform(0, 1.2), sharpness) * rng.uniform(0.3, 0.9)
    return np.asarray(color * (1 - share) + np.array(stains[rng.integers(len(stains))]) * share, np.float32)


def _relief(rng: Rng, lobular: float, size: int) -> FloatPlane:
    """Return the height of fine relief, (size, size), 0 at its lowest."""
    cells = [int(rng.integers(8, 26)), int(rng.integers(26, 64)), int(rng.integers(64, 128)), 230]
    height = noise(rng, size, cells, rng.uniform(0.35, 0.8))
    if rng.random() < lobular:
        height = 0.35 * height + 6 * lobules(rng, size, int(rng.integers(150, 900)))
    height *= np.clip(noise(rng, size, [3, 6, 12]) * 0.5 + rng.uniform(0.2, 0.9), 0.03, 1.5)
    depth = np.exp(rng.uniform(np.log(0.03), np.log(0.45)))
    return np.asarray((height - height.min()) / (np.ptp(height) + 1e-6) * depth * 4, np.float32)


def woven(rng: Rng) -> Tissue:
    """Return the surface of a gauze swab: white weave, perhaps soaked with blood."""
    threads = int(rng.integers(50, 110))
    y, x = np.mgrid[:TEXTURE_SIZE, :TEXTURE_SIZE].astype(np.float32) / TEXTURE_SIZE * np.float32(np.pi * threads)
    wave = 0.35 * noise(rng, TEXTURE_SIZE, [6, 14])
    weave = np.abs(np.sin(x + wave)) * 0.5 + np.abs(np.sin(y + wave)) * 0.5
    white = np.array([0.93, 0.91, 0.88], np.float32) * np.float32(rng.uniform(0.75, 1))
    color = np.asarray(white * (0.78 + 0.22 * weave[..., None]), np.float32)
    if rng.random() < 0.6:
        color = _stained(rng, color, [[0.5, 0.08, 0.08], [0.62, 0.25, 0.2], [0.35, 0.04, 0.04]], 0.1)
    return Tissue(
        np.clip(color, 0.01, 0.97) ** np.float32(2.2), weave * np.float32(rng.uniform(0.1, 0.4)), 0.75, 0.2, 0.02, 0.5
    )
