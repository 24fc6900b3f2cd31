"""Corruptions behind the sensor: tone, color, geometry, compression."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

FloatImage = NDArray[np.float32]


def brightness(image: FloatImage, severity: int, rng: np.random.Generator) -> FloatImage:
    """Added to the value of hue, saturation and value."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    hsv[..., 2] = np.clip(hsv[..., 2] + (0.1, 0.2, 0.3, 0.4, 0.5)[severity - 1], 0, 1)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB).astype(np.float32)


def saturate(image: FloatImage, severity: int, rng: np.random.Generator) -> FloatImage:
    """Less color (1 and 2), or more of it."""
    factor, more = ((0.3, 0.0), (0.1, 0.0), (2.0, 0.0), (5.0, 0.1), (20.0, 0.2))[severity - 1]
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    hsv[..., 1] = np.clip(hsv[..., 1] * factor + more, 0, 1)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB).astype(np.float32)


def contrast(image: FloatImage, severity: int, rng: np.random.Generator) -> FloatImage:
    """Each channel drawn to its own mean."""
    kept = np.float32((0.4, 0.3, 0.2, 0.1, 0.05)[severity - 1])
    mean = image.mean((0, 1), dtype=np.float64).astype(np.float32)
    return np.asarray((image - mean) * kept + mean, np.float32)


def elastic_transform(image: FloatImage, severity: int, rng: np.random.Generator) -> FloatImage:
    """Small smooth displacements. The labels stay as they are, as in the published benchmarks."""
    strength = 250 * (0.05, 0.065, 0.085, 0.1, 0.12)[severity - 1]
    height, width = image.shape[:2]
    dx, dy = (_wobble(height, width, rng) * np.float32(strength) for _ in range(2))
    y, x = np.mgrid[:height, :width].astype(np.float32)
    moved = cv2.remap(image, x + dx, y + dy, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return moved.astype(np.float32)


def _wobble(height: int, width: int, rng: np.random.Generator) -> FloatImage:
    raw = rng.uniform(-0.005 * height, 0.005 * height, (height, width)).astype(np.float32)
    reach = [2 * int(3 * 0.01 * n + 0.5) + 1 for n in (width, height)]
    soft = cv2.GaussianBlur(raw, reach, 0.01 * width, sigmaY=0.01 * height, borderType=cv2.BORDER_REFLECT)
    return soft.astype(np.float32)


def pixelate(image: FloatImage, severity: int, rng: np.random.Generator) -> FloatImage:
    """Shrunk, and enlarged again without smoothing."""
    share = (0.6, 0.5, 0.4, 0.3, 0.25)[severity - 1]
    height, width = image.shape[:2]
    small = cv2.resize(image, (int(width * share), int(height * share)), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST).astype(np.float32)


def jpeg_compression(image: FloatImage, severity: int, rng: np.random.Generator) -> FloatImage:
    """JPEG of low quality."""
    quality = (25, 18, 15, 10, 7)[severity - 1]
    levels = np.rint(cv2.cvtColor(image, cv2.COLOR_RGB2BGR) * 255).astype(np.uint8)
    _, data = cv2.imencode(".jpg", levels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)
    return np.asarray(decoded).astype(np.float32) / np.float32(255)
