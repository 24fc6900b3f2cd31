"""From radiance to a video frame: exposure, vignette, blood, smoke, blur, noise, the field of view's edge and burnt-in text."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.models.data.raytraced.geometry import Rng
from cliprl.models.data.raytraced.render import Rendered
from cliprl.models.data.raytraced.textures import noise, threshold

FloatPlane = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class RenderedPasses:
    """A finished frame: image uint8 (H, W, 3) RGB, labels and instances uint8 (H, W) of all that is in view of the lens,
    and bool (H, W) where the dark surround or burnt-in text covers it.

    `layer` uint8 (H, W, 4) RGBA holds the instruments alone, before smoke, blur and noise, with their coverage.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    instances: NDArray[np.uint8]
    covered: NDArray[np.bool_]
    layer: NDArray[np.uint8]


def develop(rendered: list[Rendered], seed: tuple[int, ...]) -> list[RenderedPasses]:
    """Turn the frames of one scene into images: everything but sensor noise is the same in all of them."""
    exposure = None
    frames = []
    for number, one in enumerate(rendered):
        rng = np.random.default_rng(seed)
        grain = np.random.default_rng((*seed, 1 + number))
        exposure = exposure or _Exposure.draw(rng.spawn(1)[0], one.radiance)
        frames.append(_developed(one, exposure, rng, grain, number))
    return frames


@dataclass(frozen=True, slots=True)
class _Exposure:
    """Gain, shoulder of the tone curve, vignette, saturation, white balance (3,) and gamma."""

    gain: float
    shoulder: float
    vignette: float
    saturation: float
    balance: NDArray[np.float64]
    gamma: float

    @classmethod
    def draw(cls, rng: Rng, radiance: FloatPlane) -> _Exposure:
        reference = np.percentile(radiance.mean(2), rng.uniform(80, 96))
        gain = np.exp(rng.normal(0, 0.3)) * rng.uniform(0.27, 0.65) / max(float(reference), 1e-4)
        balance = np.exp(rng.normal(0, [0.06, 0.04, 0.08]))
        return cls(
            gain, rng.uniform(0.1, 0.5), rng.uniform(0, 0.5), rng.uniform(0.72, 1.12), balance, rng.uniform(1.9, 2.5)
        )

    def apply(self, radiance: FloatPlane) -> FloatPlane:
        """Return display values 0..1, (H, W, 3)."""
        bright = radiance * np.float32(self.gain)
        bright = bright * (1 + self.shoulder * 0.6) / (1 + bright * self.shoulder)
        height, width = bright.shape[:2]
        y, x = np.mgrid[:height, :width].astype(np.float32)
        radius = np.hypot(x - width / 2, y - height / 2) / (width / 2)
        bright *= np.clip(1 - self.vignette * radius**2, 0, 1)[..., None]
        mean = bright.mean(2, keepdims=True)
        colored = (mean + (bright - mean) * self.saturation) * self.balance
        return np.asarray(np.clip(colored, 0, 1) ** (1 / self.gamma), np.float32)


def _developed(one: Rendered, exposure: _Exposure, rng: Rng, grain: Rng, number: int) -> RenderedPasses:
    image = exposure.apply(one.radiance)
    if rng.random() < 0.18:
        image = _bloody(rng, image, one.coverage)
    layer = np.dstack([image * (one.coverage[..., None] > 0), one.coverage])
    if rng.random() < 0.2:
        image = _smoke(rng, image, number)
    image = _focus(rng, image, one.depth) if rng.random() < 0.25 else image
    image = _blur(rng, image)
    if rng.random() < 0.3:
        image = image + rng.uniform(0.2, 0.9) * (image - cv2.GaussianBlur(image, (0, 0), 1.2))
    strength = rng.uniform(0.002, 0.02)
    image = image + grain.normal(0, strength, image.shape) * (0.4 + 0.6 * (1 - np.clip(image, 0, 1)))
    finished = np.clip(image * 255, 0, 255).astype(np.uint8)
    covered = _circle(rng, finished) | _text(rng, finished)
    alone = np.clip(np.rint(layer * 255), 0, 255).astype(np.uint8)
    return RenderedPasses(finished, one.labels, one.instances, covered, alone)


def _bloody(rng: Rng, image: FloatPlane, coverage: FloatPlane) -> FloatPlane:
    """Smear blood over parts of the instruments."""
    height, width = coverage.shape
    field = noise(rng, max(height, width), [5, 10, 20, 60], 0.6)[:height, :width]
    share = threshold(field, rng.uniform(0.7, 1.9), rng.uniform(2, 7)) * coverage[..., None] * rng.uniform(0.3, 0.85)
    red = image.mean(2, keepdims=True) * np.array([1.1, 0.16, 0.14]) + np.array([0.06, 0.005, 0.005])
    return np.asarray(image * (1 - share) + red * share, np.float32)


def _smoke(rng: Rng, image: FloatPlane, number: int) -> FloatPlane:
    """Lay pale clouds over the frame; they drift by a few pixels until the next one."""
    height, width = image.shape[:2]
    drift = rng.normal(0, 4, 2) * number
    cloud = cv2.resize(rng.uniform(0, 1, (4, 5)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    moved = cv2.warpAffine(
        cloud, np.array([[1, 0, drift[0]], [0, 1, drift[1]]]), (width, height), borderMode=cv2.BORDER_REPLICATE
    )
    share = np.clip(moved, 0, 1)[..., None] * rng.uniform(0.1, 0.7)
    return np.asarray(image * (1 - share) + np.array([0.78, 0.75, 0.74]) * rng.uniform(0.5, 1) * share, np.float32)


def _focus(rng: Rng, image: FloatPlane, depth: FloatPlane) -> FloatPlane:
    """Blur what lies far before or behind the plane in focus."""
    plane = float(np.percentile(depth, rng.uniform(40, 90))) + 1e-3
    away = np.clip(np.abs(np.log(np.maximum(depth, 1) / plane)) * rng.uniform(0.6, 1.6) - 0.15, 0, 1)
    sigma = rng.uniform(1, 3)
    share = cv2.GaussianBlur(away.astype(np.float32), (0, 0), sigma)[..., None]
    return np.asarray(image * (1 - share) + cv2.GaussianBlur(image, (0, 0), sigma) * share, np.float32)


def _blur(rng: Rng, image: FloatPlane) -> FloatPlane:
    """Blur as a lens that is out of focus does, as motion does, or as little as any camera does."""
    kind = rng.random()
    if kind < 0.1:
        return np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.8, 2.5)), np.float32)
    if kind < 0.2:
        length, half = int(rng.integers(3, 10)), 10
        line = np.zeros((2 * half + 1, 2 * half + 1), np.float32)
        line[half, half - length // 2 : half + length // 2 + 1] = 1
        turned = cv2.warpAffine(line, cv2.getRotationMatrix2D((half, half), rng.uniform(0, 180), 1), line.shape)
        return np.asarray(cv2.filter2D(image, -1, turned / turned.sum()), np.float32)
    return np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.35, 0.8)), np.float32)


def _circle(rng: Rng, image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """In a third of the scenes, darken all outside of a circle; or now and then, bars at the sides. Return where, (H, W)."""
    height, width = image.shape[:2]
    kind = rng.random()
    y, x = np.mgrid[:height, :width].astype(np.float32)
    center, radius = rng.uniform(0.44, 0.56, 2) * [width, height], rng.uniform(0.42, 0.58) * width
    if kind < 0.33:
        outside = np.hypot(x - center[0], y - center[1]) - radius
    elif kind < 0.39:
        outside = np.abs(x - width / 2) - rng.uniform(0.42, 0.49) * width
    else:
        return np.zeros((height, width), bool)
    edge = np.clip(outside / rng.uniform(1, 5) + 0.5, 0, 1)[..., None]
    image[...] = image * (1 - edge) + edge * rng.uniform(0, 14)
    return np.asarray(edge[..., 0] > 0.5)


def _text(rng: Rng, image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """In one scene of twelve, write a few words near the edge. Return the glyphs' pixels, (H, W)."""
    height, width = image.shape[:2]
    glyphs = np.zeros((height, width), np.uint8)
    if rng.random() < 0.08:
        color = np.array([(255, 255, 255), (80, 255, 80), (255, 230, 60), (90, 200, 255)][rng.integers(4)])
        for _ in range(int(rng.integers(1, 4))):
            words = "".join(rng.choice(list("ABCDEFGHKLMNPRSTUXZ0123456789:/-. "), int(rng.integers(3, 14))))
            left = int(rng.uniform(0.02, 0.7) * width)
            line = int((rng.uniform(0.05, 0.16) if rng.random() < 0.5 else rng.uniform(0.86, 0.98)) * height)
            cv2.putText(
                glyphs, words, (left, line), cv2.FONT_HERSHEY_SIMPLEX, rng.uniform(0.28, 0.5), 255, 1, cv2.LINE_AA
            )
        share = glyphs[..., None] / 255
        image[...] = image * (1 - share) + color * share
    return np.asarray(glyphs > 127)
