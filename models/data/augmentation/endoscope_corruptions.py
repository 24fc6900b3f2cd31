"""Corruptions of endoscopic images: noise, blur, darkness and smoke, at severities 0..5."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.models.data.sample import Image

EndoscopeCorruption = Callable[[NDArray[np.float32], float, np.random.Generator], NDArray[np.float32]]


def _noise(image: NDArray[np.float32], severity: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Sensor noise: normal, sigma 14 code values a step of severity."""
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    return image + np.float32(14 * severity) * noise


def _blur(image: NDArray[np.float32], severity: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Camera motion: the mean along a line of 4 pixels a step of severity (at 320 pixels across), in any direction."""
    length = max(1, round(4 * severity * image.shape[1] / 320))
    kernel = np.zeros((2 * length + 1, 2 * length + 1), np.float32)
    angle = rng.uniform(0, np.pi)
    reach = np.array([np.cos(angle), np.sin(angle)]) * length / 2
    start, end = np.rint(length - reach), np.rint(length + reach)
    cv2.line(kernel, (int(start[0]), int(start[1])), (int(end[0]), int(end[1])), 1.0)
    return cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT).astype(np.float32)


def _darkness(image: NDArray[np.float32], severity: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """A failing light: gain 0.68 to the power of severity, and the noise of a dark sensor."""
    dark = image * np.float32(0.68**severity)
    return dark + np.float32(2.5 * severity) * rng.standard_normal(image.shape, dtype=np.float32)


def _smoke(image: NDArray[np.float32], severity: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Smoke of electrocautery: a gray cloud, of density up to 0.17 a step of severity."""
    height, width = image.shape[:2]
    cloud = sum(
        cv2.resize(rng.random((2**n, 2**n), dtype=np.float32), (width, height), interpolation=cv2.INTER_CUBIC) / 2**n
        for n in (1, 2, 3)
    )
    density = np.clip(0.17 * severity * (0.4 + cloud), 0, 0.95).astype(np.float32)[..., None]
    return image * (1 - density) + np.float32(rng.uniform(150, 225)) * density


CORRUPTIONS: Mapping[str, EndoscopeCorruption] = {
    "noise": _noise,
    "blur": _blur,
    "darkness": _darkness,
    "smoke": _smoke,
}


def apply_corruption(image: Image, kind: str, severity: float, rng: np.random.Generator) -> Image:
    """Corrupt uint8 (H, W, 3) RGB. `kind` is a key of CORRUPTIONS; severity 0 returns the image unchanged."""
    if severity <= 0:
        return image
    worse = CORRUPTIONS[kind](image.astype(np.float32), severity, rng)
    return np.clip(np.rint(worse), 0, 255).astype(np.uint8)
