"""Corruptions between scene and lens: fog, snow, frost, drops and mud."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.models.data.augmentation.common_corruptions.blur import smear, smooth, zoomed

FloatImage = NDArray[np.float32]
WATER, MUD = np.array([175, 238, 238], np.float32) / 255, np.array([63, 42, 20], np.float32) / 255
# Color and range of brightness of the original's photographs.
ICE, ICE_LEVEL = np.array([0.83, 0.93, 1.0], np.float32), (0.4, 0.85)


def fog(image: FloatImage, severity: int, rng: np.random.Generator) -> FloatImage:
    """A cloud of fractal density, the brightest light kept as it was."""
    density, decay = ((1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4))[severity - 1]
    height, width = image.shape[:2]
    cloud = np.float32(density) * plasma(max(height, width), decay, rng)[:height, :width, None]
    brightest = image.max()
    return np.asarray((image + cloud) * (brightest / (brightest + np.float32(density))), np.float32)


def frost(image: FloatImage, severity: int, rng: np.random.Generator) -> FloatImage:
    """Ice crystals over a darkened image; drawn as ridges of fractal noise, where the original pastes photographs."""
    kept, added = ((1.0, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))[severity - 1]
    height, width = image.shape[:2]
    coarse, fine = (plasma(max(height, width), decay, rng)[:height, :width] for decay in (1.7, 1.2))
    crystals = (1 - np.abs(2 * fine - 1)) ** 3 - np.float32(0.5) + coarse - np.float32(0.5)
    ice = np.clip(np.float32(rng.uniform(*ICE_LEVEL)) + np.float32(0.4) * crystals, 0, 1)
    return np.asarray(np.float32(kept) * image + np.float32(added) * ice[..., None] * ICE, np.float32)


def snow(image: FloatImage, severity: int, rng: np.random.Generator) -> FloatImage:
    """Flakes drawn out by their fall, before a whitened scene."""
    mean, spread, zoom, least, radius, sigma, kept = (
        (0.1, 0.3, 3.0, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2.0, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4.0, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    )[severity - 1]
    flakes = zoomed(rng.normal(mean, spread, image.shape[:2]).astype(np.float32), zoom)
    flakes = np.clip(np.where(flakes < least, np.float32(0), flakes), 0, 1)
    flakes = smear(flakes, radius, sigma, rng.uniform(-135, -45))[..., None]
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None]
    whitened = np.maximum(image, gray * np.float32(1.5) + np.float32(0.5))
    scene = np.float32(kept) * image + np.float32(1 - kept) * whitened
    return np.asarray(scene + flakes + np.rot90(flakes, 2), np.float32)


def spatter(image: FloatImage, severity: int, rng: np.random.Generator) -> FloatImage:
    """Drops of water on the lens (1 to 3), or of mud (4 and 5)."""
    mean, spread, sigma, least, strength = (
        (0.65, 0.3, 4, 0.69, 0.6),
        (0.65, 0.3, 3, 0.68, 0.6),
        (0.65, 0.3, 2, 0.68, 0.5),
        (0.65, 0.3, 1, 0.65, 1.5),
        (0.67, 0.4, 1, 0.65, 1.5),
    )[severity - 1]
    liquid = smooth(rng.normal(mean, spread, image.shape[:2]).astype(np.float32), sigma)
    if severity <= 3:
        drops = _drops(np.where(liquid < least, np.float32(0), liquid))
        return (image + np.float32(strength) * drops[..., None] * WATER).astype(np.float32)
    mud = smooth((liquid > least).astype(np.float32), strength)
    mud = np.where(mud < 0.8, np.float32(0), mud)[..., None]
    return (image * (1 - mud) + mud * MUD).astype(np.float32)


def _drops(liquid: FloatImage) -> FloatImage:
    """Return the brightness of drops, at most 1: embossed by the distance to their edges."""
    thickness = np.clip(liquid * 255, 0, 255).astype(np.uint8)
    distance = np.minimum(cv2.distanceTransform(255 - cv2.Canny(thickness, 50, 150), cv2.DIST_L2, 5), 20)
    level = cv2.equalizeHist(cv2.blur(distance, (3, 3)).astype(np.uint8))
    emboss = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]], np.float32)
    light = thickness * cv2.blur(cv2.filter2D(level, cv2.CV_8U, emboss), (3, 3)).astype(np.float32)
    return (light / max(float(light.max()), 1.0)).astype(np.float32)


def plasma(size: int, decay: float, rng: np.random.Generator) -> FloatImage:
    """A fractal height map (n, n) in 0..1, n the power of two from `size` on, by the diamond-square method on a torus.

    The random part of each finer step is smaller by `decay` squared.
    """
    side = 1 << max(1, (size - 1).bit_length())
    heights, step, amplitude = np.zeros((side, side), np.float32), side, 1.0
    while step >= 2:
        half = step // 2
        corners = heights[::step, ::step]
        middles = _mean(_pairs(_pairs(corners, 0, -1), 1, -1), amplitude, rng)
        heights[half::step, half::step] = middles
        heights[::step, half::step] = _mean(_pairs(corners, 1, -1) + _pairs(middles, 0, 1), amplitude, rng)
        heights[half::step, ::step] = _mean(_pairs(corners, 0, -1) + _pairs(middles, 1, 1), amplitude, rng)
        step, amplitude = half, amplitude / decay**2
    heights -= heights.min()
    return (heights / max(float(heights.max()), 1e-6)).astype(np.float32)


def _pairs(heights: FloatImage, axis: int, way: int) -> FloatImage:
    """Each height plus its neighbor's."""
    return (heights + np.roll(heights, way, axis)).astype(np.float32)


def _mean(four: NDArray[np.floating], amplitude: float, rng: np.random.Generator) -> FloatImage:
    """The mean of four heights whose sum is given, plus a random part."""
    return (four / 4 + rng.uniform(-amplitude, amplitude, four.shape)).astype(np.float32)
