"""Blur of lens, glass and motion."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

FloatImage = NDArray[np.float32]


def gaussian_blur(image: FloatImage, severity: int, rng: np.random.Generator) -> FloatImage:
    """A Gaussian, sigma in pixels."""
    return smooth(image, (1, 2, 3, 4, 6)[severity - 1])


def defocus_blur(image: FloatImage, severity: int, rng: np.random.Generator) -> FloatImage:
    """The mean over a disc, its edge smoothed."""
    radius, edge = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))[severity - 1]
    reach = max(8, radius)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disc = (x**2 + y**2 <= radius**2).astype(np.float32)
    size = 3 if radius <= 8 else 5
    return _filter(image, cv2.GaussianBlur(disc / disc.sum(), (size, size), edge), cv2.BORDER_REFLECT_101)


def glass_blur(image: FloatImage, severity: int, rng: np.random.Generator) -> FloatImage:
    """Each pixel is taken from a few pixels away, several times, between two Gaussians."""
    sigma, reach, times = ((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2))[severity - 1]
    image = smooth(image, sigma)
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    for _ in range(times):
        dx, dy = rng.integers(-reach, reach, (2, height, width)).astype(np.float32)
        image = cv2.remap(image, x + dx, y + dy, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT).astype(np.float32)
    return smooth(image, sigma)


def motion_blur(image: FloatImage, severity: int, rng: np.random.Generator) -> FloatImage:
    """Along a line within 45 degrees of the horizontal, fading like a Gaussian."""
    radius, sigma = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))[severity - 1]
    return smear(image, radius, sigma, rng.uniform(-45, 45))


def zoom_blur(image: FloatImage, severity: int, rng: np.random.Generator) -> FloatImage:
    """The mean of the image and of zooms into its middle."""
    most, step = ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))[severity - 1]
    factors = np.arange(1, most, step)
    total = image.copy()
    for factor in factors:
        total += zoomed(image, float(factor))
    return total / np.float32(len(factors) + 1)


def smooth(image: FloatImage, sigma: float) -> FloatImage:
    """A Gaussian of four sigma reach, the edge repeated outside."""
    return cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE).astype(np.float32)


def smear(image: FloatImage, radius: int, sigma: float, degrees: float) -> FloatImage:
    """Add up copies shifted along a line of 2 `radius` + 1 pixels, each weighted by half a Gaussian of `sigma`."""
    length = 2 * radius + 1
    weights = np.exp(-(np.arange(length) ** 2) / (2 * sigma**2))
    kernel = np.zeros((2 * length + 1, 2 * length + 1), np.float32)
    angle = np.deg2rad(degrees)
    for i, weight in enumerate(weights / weights.sum()):
        dy, dx = np.ceil(i * np.sin(angle) - 0.5), np.ceil(i * np.cos(angle) - 0.5)
        kernel[length + int(dy), length + int(dx)] += weight
    return _filter(image, kernel, cv2.BORDER_REPLICATE)


def zoomed(image: FloatImage, factor: float) -> FloatImage:
    """The middle of an image (H, W[, 3]), enlarged to the whole size."""
    height, width = image.shape[:2]
    h, w = int(np.ceil(height / factor)), int(np.ceil(width / factor))
    top, left = (height - h) // 2, (width - w) // 2
    part = np.ascontiguousarray(image[top : top + h, left : left + w])
    return cv2.resize(part, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.float32)


def _filter(image: FloatImage, kernel: cv2.typing.MatLike, border: int) -> FloatImage:
    return cv2.filter2D(image, -1, kernel, borderType=border).astype(np.float32)
