"""The corruptions by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from cliprl.engines import UsageError
from cliprl.models.data.augmentation.common_corruptions import blur, digital, noise, weather
from cliprl.models.data.sample import Image

FloatImage = NDArray[np.float32]
# Takes an image (H, W, 3) in 0..1, a severity 1..5 and a generator; the result is clipped to 0..1 afterwards.
CorruptionFunction = Callable[[FloatImage, int, np.random.Generator], FloatImage]

COMMON: Mapping[str, CorruptionFunction] = {
    "gaussian_noise": noise.gaussian_noise,
    "shot_noise": noise.shot_noise,
    "impulse_noise": noise.impulse_noise,
    "defocus_blur": blur.defocus_blur,
    "glass_blur": blur.glass_blur,
    "motion_blur": blur.motion_blur,
    "zoom_blur": blur.zoom_blur,
    "snow": weather.snow,
    "frost": weather.frost,
    "fog": weather.fog,
    "brightness": digital.brightness,
    "contrast": digital.contrast,
    "elastic_transform": digital.elastic_transform,
    "pixelate": digital.pixelate,
    "jpeg_compression": digital.jpeg_compression,
}
FURTHER: Mapping[str, CorruptionFunction] = {
    "speckle_noise": noise.speckle_noise,
    "gaussian_blur": blur.gaussian_blur,
    "spatter": weather.spatter,
    "saturate": digital.saturate,
}
SEVERITIES = (1, 2, 3, 4, 5)


def apply_common_corruption(image: Image, kind: str, severity: int, rng: np.random.Generator) -> Image:
    """Return a corrupted copy of uint8 (H, W, 3) RGB. Raises UsageError for an unknown kind or severity."""
    corruption = COMMON.get(kind) or FURTHER.get(kind)
    if corruption is None:
        raise UsageError(f"no corruption '{kind}': one of {', '.join([*COMMON, *FURTHER])}")
    if severity not in SEVERITIES:
        raise UsageError(f"severity {severity} of {kind} is not one of 1 to 5")
    worse = corruption(image.astype(np.float32) / np.float32(255), severity, rng)
    return np.rint(np.clip(worse, 0, 1) * 255).astype(np.uint8)
