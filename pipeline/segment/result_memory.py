"""The last result as a share of that of a noisy frame: noise differs from frame to frame, the scene hardly does."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

# Motion is measured at this many pixels of a cell of the grid, each way.
PIXELS = 2


class ResultMemory:
    """Mixes the logits of a noisy frame with the last result, moved with the image, if that was of a noisy frame too.

    `share` (0..1) is that of the last result, which holds the results before it in the same way.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        self.forget()

    def forget(self) -> None:
        """Keep nothing for the next frame."""
        self._last: tuple[NDArray[np.float32], NDArray[np.uint8]] | None = None

    def mix(self, logits: NDArray[np.float32], image: NDArray[np.uint8], is_related: bool) -> NDArray[np.float32]:
        """Return the result float32 (1, K, h, w) of a noisy frame with the network input `image`, uint8 (H, W, 3).

        It is `logits` where the last frame was not noisy, or shows another scene.
        """
        height, width = logits.shape[2:]
        small = cv2.resize(image, (PIXELS * width, PIXELS * height), interpolation=cv2.INTER_AREA)
        gray = np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), np.uint8)
        mixed = logits.copy()
        if self._last is not None and is_related and self._last[0].shape == logits.shape:
            mixed *= 1 - self._share
            mixed += self._share * self._moved(*self._last, gray)
        self._last = mixed, gray
        return mixed

    def _moved(
        self, logits: NDArray[np.float32], before: NDArray[np.uint8], gray: NDArray[np.uint8]
    ) -> NDArray[np.float32]:
        height, width = logits.shape[2:]
        nothing: Any = None  # an array here would be an initial estimate
        flow = cv2.resize(self._flow.calc(gray, before, nothing), (width, height), interpolation=cv2.INTER_AREA)
        y, x = np.indices((height, width), np.float32)
        across, down = x + flow[..., 0] / PIXELS, y + flow[..., 1] / PIXELS
        planes = [cv2.remap(one, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) for one in logits[0]]
        return np.stack(planes).astype(np.float32)[None]
