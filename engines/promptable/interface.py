"""The interface of a promptable network: an image is encoded once, then each object is segmented from its points and boxes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cliprl.engines.errors import UsageError

# The least side of an image and the most points or boxes of one object.
MIN_SIDE, MAX_PROMPTS = 2, 1024


@dataclass(frozen=True, slots=True)
class ImageEmbedding:
    """What a network computed from an image of `height` x `width` pixels. `tensors` is private to the network that made it."""

    height: int
    width: int
    tensors: Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class PromptedMasks:
    """Candidate masks of one object: logits float32 (C, H, W) at the image's size, the object above 0, and scores (C,).

    A score is the network's estimate of its mask's IoU with the object, in 0..1.
    """

    logits: NDArray[np.float32]
    scores: NDArray[np.float32]


class PromptableNetwork(Protocol):
    """A network that segments one object from points and boxes."""

    name: str

    def encode(self, image: NDArray[np.uint8]) -> ImageEmbedding:
        """Encode an image uint8 (H, W, 3) RGB. This is the slow half; `masks` may then be called many times."""
        ...

    def masks(
        self,
        embedding: ImageEmbedding,
        points: NDArray[np.float32],
        labels: NDArray[np.int64],
        boxes: NDArray[np.float32],
    ) -> PromptedMasks:
        """Segment one object.

        `points` float32 (N, 2) are x, y in pixels of the image; `labels` (N,) is 1 for a point on the object, 0 for one
        beside it. `boxes` float32 (M, 4) are x0, y0, x1, y1; several boxes hold parts of the one object. At least one
        box or positive point is needed, else UsageError is raised. Positions outside the image are clipped to it.
        """
        ...


def no_points() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return points and labels of a prompt that has none."""
    return np.zeros((0, 2), np.float32), np.zeros(0, np.int64)


def no_boxes() -> NDArray[np.float32]:
    """Return the boxes of a prompt that has none."""
    return np.zeros((0, 4), np.float32)


def check_prompted_image(image: NDArray[np.uint8]) -> None:
    """Raise UsageError for an array that is no image uint8 (H, W, 3)."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or min(image.shape[:2]) < MIN_SIDE:
        raise UsageError(
            f"an image to encode is {image.dtype} {image.shape}: give uint8 (H, W, 3) RGB, at least {MIN_SIDE} x {MIN_SIDE}"
        )


def prompt_arrays(
    embedding: ImageEmbedding, points: NDArray[Any], labels: NDArray[Any], boxes: NDArray[Any]
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]:
    """Check a prompt and return it as float32 (N, 2), int64 (N,) and float32 (M, 4), clipped to the image, corners sorted.

    Raises UsageError for wrong shapes or numbers, and for a prompt without a box or positive point.
    """
    points, boxes = np.asarray(points, np.float32), np.asarray(boxes, np.float32)
    labels = np.asarray(labels, np.int64)
    if points.shape != (len(labels), 2) or labels.ndim != 1 or boxes.shape != (len(boxes), 4):
        raise UsageError(
            f"a prompt has points {points.shape}, labels {labels.shape} and boxes {boxes.shape}: "
            "give (N, 2), (N,) and (M, 4)"
        )
    if not (np.isfinite(points).all() and np.isfinite(boxes).all() and np.isin(labels, (0, 1)).all()):
        raise UsageError("a prompt has a position that is no number, or a label that is neither 0 nor 1: correct it")
    if not len(boxes) and not labels.any():
        raise UsageError("a prompt has neither a box nor a positive point: give at least one")
    if len(points) + len(boxes) > MAX_PROMPTS:
        raise UsageError(f"a prompt has {len(points)} points and {len(boxes)} boxes: give at most {MAX_PROMPTS}")
    limits = np.array([embedding.width, embedding.height], np.float32)
    corners = np.clip(boxes.reshape(-1, 2, 2), 0, limits)
    boxes = np.concatenate([corners.min(1), corners.max(1)], axis=1)
    return np.clip(points, 0, limits), labels, boxes
