"""The filters of a damaged network input. A frame without damage passes none of them."""

from __future__ import annotations

from functools import reduce

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.engines import RestorationSpec
from cliprl.pipeline.core.segmentation import DamageEstimate

# The brightness of the darkest tenth of an input that no haze explains.
BLACK = 30.0
# For uneven haze: the side, in pixels, of the squares whose darkest pixel counts, and the brightness that no haze explains there.
VEILED_SIDE, VEILED_BLACK = 9, 10.0
# Its haze is smoothed at this size (width, height), by this deviation.
SMOOTHED, SMOOTHED_BY = (40, 32), 3.0


def denoise(image: NDArray[np.uint8], spec: RestorationSpec, found: DamageEstimate) -> None:
    """Filter the noise of an image uint8 (H, W, 3), in place; a dark one is brightened."""
    gain = max(1.0, spec.light / found.mean)
    strength = spec.strength * found.noise * gain
    bright = cv2.convertScaleAbs(image, alpha=gain)
    cv2.fastNlMeansDenoisingColored(bright, image, strength, strength, spec.patch, spec.search)


def brighten(image: NDArray[np.uint8], spec: RestorationSpec, found: DamageEstimate) -> None:
    """Brighten a dark image uint8 (H, W, 3), in place."""
    cv2.convertScaleAbs(image, image, max(1.0, spec.light / found.mean))


def subtract_haze(image: NDArray[np.uint8], spec: RestorationSpec, haze: float) -> None:
    """Subtract haze from an image uint8 (H, W, 3), in place: `haze`, or with an uneven restoration that around each pixel."""
    if spec.uneven:
        _subtract_veil(image, spec.clearing)
        return
    veil = round(spec.clearing * max(0.0, haze - BLACK))
    cv2.convertScaleAbs(np.maximum(image, veil) - np.uint8(veil), image, 255 / (255 - veil))


def _subtract_veil(image: NDArray[np.uint8], share: float) -> None:
    """Subtract `share` of the haze around each pixel.

    It is the smoothed brightness of the darkest channel and pixel of small squares, as in the dark channel prior (2009).
    """
    lowest, inside = reduce(cv2.min, cv2.split(image)), cv2.threshold(image[..., 1], 0, 255, cv2.THRESH_BINARY)[1]
    darkest = cv2.erode(cv2.max(lowest, cv2.bitwise_not(inside)), np.ones((VEILED_SIDE, VEILED_SIDE), np.uint8))
    total, weight = (
        cv2.GaussianBlur(
            cv2.resize(plane.astype(np.float32), SMOOTHED, interpolation=cv2.INTER_AREA), (0, 0), SMOOTHED_BY
        )
        for plane in (cv2.bitwise_and(darkest, inside), inside)
    )
    haze = np.maximum(255 * total / np.maximum(weight, 1) - VEILED_BLACK, 0)
    veil = np.asarray(cv2.resize(share * haze, image.shape[1::-1], interpolation=cv2.INTER_LINEAR))[..., None]
    image[:] = np.clip((image - veil) * (255 / (255 - veil)) + 0.5, 0, 255)
