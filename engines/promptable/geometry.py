"""From an image to a network's input and back: the scaling of pixels, of prompt coordinates and of logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

# Mean and deviation of (R, G, B) in 0..255 that the SAM family is trained with (those of ImageNet).
MEAN = np.array([123.675, 116.28, 103.53], np.float32)
DEVIATION = np.array([58.395, 57.12, 57.375], np.float32)


@dataclass(frozen=True, slots=True)
class InputScaling:
    """The scaling of images of any size to a network's input of `height` x `width` pixels.

    With `keep_aspect` (SAM) the longer side is scaled to `height`, and the rest of the input, right or below, is padding.
    Otherwise (SAM 2) both sides are scaled on their own.
    """

    height: int
    width: int
    keep_aspect: bool

    def content(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of an image's content in the input."""
        if not self.keep_aspect:
            return self.height, self.width
        scale = self.height / max(height, width)
        return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))

    def resize(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the content uint8 (h, w, 3) of an image (H, W, 3), without padding."""
        height, width = self.content(*image.shape[:2])
        shrinks = height < image.shape[0] or width < image.shape[1]
        resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        return resized.astype(np.uint8, copy=False)

    def network_input(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the normalized input float32 (1, 3, height, width); padding is 0 after normalization."""
        content = self.resize(image)
        padded = np.zeros((self.height, self.width, 3), np.float32)
        padded[: content.shape[0], : content.shape[1]] = (content - MEAN) / DEVIATION
        return np.ascontiguousarray(padded.transpose(2, 0, 1)[None])

    def positions(self, points: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
        """Return positions (..., 2) x, y of an image of height x width in pixels of the input."""
        rows, columns = self.content(height, width)
        return points * np.array([columns / width, rows / height], np.float32)

    def image_logits(self, logits: NDArray[Any], height: int, width: int) -> NDArray[np.float32]:
        """Return logits (C, h, w) of the input, at any resolution, as float32 (C, height, width) of the image."""
        rows, columns = self.content(height, width)
        scaled = np.empty((len(logits), height, width), np.float32)
        for one, target in zip(logits.astype(np.float32), scaled, strict=True):
            content: NDArray[Any] = one
            if self.keep_aspect:
                content = cv2.resize(one, (self.width, self.height), interpolation=cv2.INTER_LINEAR)[:rows, :columns]
            target[:] = cv2.resize(content, (width, height), interpolation=cv2.INTER_LINEAR)
        return scaled


def part_prompts(
    points: NDArray[np.float32], labels: NDArray[np.int64], boxes: NDArray[np.float32]
) -> list[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """Split a prompt into those of its parts, one for each box, as points and labels of the SAM family.

    A box becomes its corners, labeled 2 and 3. A positive point belongs to the box whose center is nearest; negative
    points belong to all parts.
    """
    if not len(boxes):
        return [(points, labels)]
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    nearest = np.linalg.norm(points[:, None] - centers[None], axis=2).argmin(1) if len(points) else np.zeros(0, int)
    parts = []
    for number, box in enumerate(boxes):
        own = (labels == 0) | (nearest == number)
        parts.append(
            (np.concatenate([points[own], box.reshape(2, 2)]), np.concatenate([labels[own], np.array([2, 3])]))
        )
    return parts
