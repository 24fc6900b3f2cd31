"""The temporal prior of refinement, and the restoration of a damaged input before it is encoded."""

from __future__ import annotations

import time
from functools import reduce
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.engines import RestorationSpec
from cliprl.pipeline.core.segmentation import DamageEstimate
from cliprl.pipeline.core.viewport import Viewport
from cliprl.pipeline.segment.input_filters import brighten, denoise, subtract_haze
from cliprl.pipeline.segment.refinement import CostEstimate
from cliprl.pipeline.view.grid_warp import warp_grid

# Mean absolute difference (0..255) of two network inputs above which the second belongs to another shot.
CUT = 32.0
# Every n-th pixel is enough to tell a cut.
THUMBNAIL_STRIDE = 4
# The image is compared with the last one at this size (width, height), without structures wider than DETAIL_WIDTH of its pixels.
COMPARED, DETAIL_WIDTH = (40, 32), 3.0
# Correlation below which the last image shows another scene; and the variance of a pixel that says nothing.
RELATED, FLAT = 0.6, 0.25
# The network input is measured at every n-th pixel.
MEASURED = 2
# Median magnitude of the residual on noise of standard deviation 1 (Immerkaer, 1996).
MEDIAN_OF_NOISE = 6 * 0.6745
# An input with fewer pixels than this share inside the field of view is not measured.
LEAST_INSIDE = 0.05
# Share of the pixels, the darkest ones, whose brightest is the haze.
DARKEST = 0.1
# The estimate for an input that is not measured: it counts as undamaged.
UNMEASURED = DamageEstimate(0.0, 255.0, 0.0)


class TemporalPrior:
    """The logits of the last frame, as the temporal prior of the next.

    Left out at a cut, for an image of another scene, and when the frame size changes; warped when the view (the endoscope's
    circle) has moved. change: the mean absolute difference (0..255) between the last two inputs given to `is_cut`.
    """

    def __init__(self) -> None:
        self._logits: NDArray[np.float32] | None = None
        self.change = 0.0
        self._view: Viewport | None = None
        self._thumb: NDArray[np.uint8] | None = None
        self._compared: NDArray[np.uint8] | None = None

    def is_cut(self, image: NDArray[np.uint8]) -> bool:
        """Whether `image`, uint8 (H, W, 3), starts another shot than the last one given."""
        thumb = image[::THUMBNAIL_STRIDE, ::THUMBNAIL_STRIDE].copy()
        previous, self._thumb = self._thumb, thumb
        self.change = 0.0 if previous is None else difference(previous, thumb)
        return self.change > CUT

    def is_related(self, image: NDArray[np.uint8], *, compare: bool = True) -> bool:
        """Whether `image`, uint8 (H, W, 3), shows the scene of the last one given, moved a little at most.

        Without `compare` it is only remembered for the next one, and counts as related.
        """
        small = np.asarray(cv2.resize(image, COMPARED, interpolation=cv2.INTER_AREA), np.uint8)
        previous, self._compared = self._compared, small
        return not compare or (previous is not None and correlation(previous, small) >= RELATED)

    def recall(self, base: NDArray[Any], view: Viewport, cut: bool) -> NDArray[Any]:
        """The prior for a frame seen through `view`: float32 like `base` (1, K, h, w); `base` itself where there is none."""
        if self._logits is None or self._view is None or cut or self._logits.shape != base.shape:
            return base
        if (view.frame_height, view.frame_width) != (self._view.frame_height, self._view.frame_width):
            return base
        if (view.crop, view.placed) == (self._view.crop, self._view.placed):
            return self._logits
        return warp_grid(self._logits, self._view, view)

    def keep(self, logits: NDArray[Any], view: Viewport) -> None:
        """Remember a frame's logits (1, K, h, w); they are copied."""
        if self._logits is None or self._logits.shape != logits.shape:
            self._logits = np.empty(logits.shape, np.float32)
        np.copyto(self._logits, logits)
        self._view = view


def difference(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> float:
    """Return the mean absolute difference, 0..255, of two images of one shape."""
    return float(cv2.norm(before, after, cv2.NORM_L1)) / before.size


def correlation(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> float:
    """Return the correlation of the details of two small images (h, w, 3), where neither is black; 1 if both are flat."""
    inside = cv2.erode(np.minimum(before.max(axis=2), after.max(axis=2)), np.ones((5, 5), np.uint8)) > 0
    one, other = (
        (gray - cv2.GaussianBlur(gray, (0, 0), DETAIL_WIDTH))[inside]
        for gray in (image.mean(axis=2, dtype=np.float32) for image in (before, after))
    )
    flat = FLAT * max(1, len(one))
    return float((one @ other + flat) / np.sqrt((one @ one + flat) * (other @ other + flat)))


def estimate_damage(image: NDArray[np.uint8]) -> DamageEstimate:
    """Measure an image uint8 (H, W, 3) where it is not black; `UNMEASURED` if almost all of it is."""
    green = cv2.extractChannel(image, 1)
    # The product of second derivatives along both axes is Immerkaer's kernel.
    residual = cv2.Sobel(green, cv2.CV_16S, 2, 2, ksize=3)[1:-1:MEASURED, 1:-1:MEASURED]
    # In OpenCV, because numpy takes ten times as long to pick pixels of three bytes.
    size = (residual.shape[1], residual.shape[0])
    pixels = cv2.resize(image[1:-1, 1:-1], size, interpolation=cv2.INTER_NEAREST)
    inside = pixels[..., 1] > 0
    if np.count_nonzero(inside) < LEAST_INSIDE * inside.size:
        return UNMEASURED
    noise = quantile(np.abs(residual[inside]), 0.5) / MEDIAN_OF_NOISE
    mean = sum(cv2.mean(pixels, inside.view(np.uint8))[:3]) / 3
    darkest = reduce(cv2.min, cv2.split(pixels))[inside][::MEASURED]
    return DamageEstimate(noise, mean, quantile(darkest, DARKEST))


def quantile(values: NDArray[Any], share: float) -> float:
    """Return the quantile of integers (n,), interpolated linearly: as `np.quantile`, in a fifth of the time."""
    place = share * (len(values) - 1)
    low = int(place)
    high = min(low + 1, len(values) - 1)
    ordered = np.partition(values, (low, high))
    return float(ordered[low] + (place - low) * (int(ordered[high]) - int(ordered[low])))


class InputRestoration:
    """Restores damaged network inputs: noise is filtered, a dark input is brightened, and haze is subtracted.

    found: the estimate for the last input, before restoration; None if it was not measured.
    """

    def __init__(self, spec: RestorationSpec, size: tuple[int, int] | None = None) -> None:
        """`size` (height, width): the input size that the thresholds were chosen at; a larger input is measured at that size."""
        self._spec, self._size, self._cost = spec, size, CostEstimate()
        self.found: DamageEstimate | None = None

    def __call__(self, image: NDArray[np.uint8], deadline: float | None = None) -> bool:
        """Restore `image`, uint8 (H, W, 3), in place. Return whether it was noisy or hazy.

        It is left as it is where the filter would end after `deadline`, a `time.monotonic()` in seconds.
        """
        spec, found = self._spec, estimate_damage(self._reduced(image))
        self.found = None if found is UNMEASURED else found
        if found.noise > spec.noise * found.mean:
            if self._cost.in_time(deadline):
                start = time.monotonic()
                denoise(image, spec, found if self._size in (None, image.shape[:2]) else estimate_damage(image))
                self._cost.learn(start)
            return True
        if found.mean < spec.dark:
            brighten(image, spec, found)
        elif found.haze > spec.haze:
            subtract_haze(image, spec, found.haze)
            return True
        return False

    def _reduced(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if self._size is None or image.shape[0] * image.shape[1] <= self._size[0] * self._size[1]:
            return image
        # As the frame itself is reduced: by halves, then without averaging, so that as much of the noise is left.
        way = cv2.INTER_AREA if image.shape[0] >= 2 * self._size[0] else cv2.INTER_CUBIC
        return np.asarray(cv2.resize(image, self._size[::-1], interpolation=way), np.uint8)
