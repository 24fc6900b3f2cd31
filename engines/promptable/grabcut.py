"""GrabCut of OpenCV as a promptable network: colors and edges alone, without any weights."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.engines.promptable.interface import ImageEmbedding, PromptedMasks, check_prompted_image, prompt_arrays
from cliprl.engines.promptable.registry import register_promptable

# The longest side that is segmented, in pixels, and the logit of a pixel of the object.
LONGEST_SIDE, CERTAIN = 384, 4.0
ITERATIONS = 4
# Radii of a point's certain and of its possible neighborhood, as shares of the longest side.
CERTAIN_RADIUS, POSSIBLE_RADIUS = 0.008, 0.15
_BINS = 8


class GrabCut:
    """Two color mixtures and a graph cut (Rother et al. 2004). It returns one candidate.

    Its score is the distance of the color histograms inside and outside (Hellinger), for there is no predicted IoU.
    """

    name = "grabcut"

    def encode(self, image: NDArray[np.uint8]) -> ImageEmbedding:
        """Keep the image, at most `LONGEST_SIDE` pixels long."""
        check_prompted_image(image)
        height, width = image.shape[:2]
        scale = min(1.0, LONGEST_SIDE / max(height, width))
        size = (max(2, round(width * scale)), max(2, round(height * scale)))
        return ImageEmbedding(height, width, {"image": cv2.resize(image, size, interpolation=cv2.INTER_AREA)})

    def masks(
        self,
        embedding: ImageEmbedding,
        points: NDArray[np.float32],
        labels: NDArray[np.int64],
        boxes: NDArray[np.float32],
    ) -> PromptedMasks:
        """Cut the object out of its boxes, or out of the neighborhood of its points. Repeats are identical."""
        points, labels, boxes = prompt_arrays(embedding, points, labels, boxes)
        image = embedding.tensors["image"]
        scale = np.array([image.shape[1] / embedding.width, image.shape[0] / embedding.height], np.float32)
        trimap = _trimap(image.shape[:2], points * scale, labels, boxes * np.tile(scale, 2))
        if _can_be_cut(trimap):
            cv2.setRNGSeed(0)
            models = np.zeros((1, 65)), np.zeros((1, 65))
            cv2.grabCut(image, trimap, [0, 0, 1, 1], *models, ITERATIONS, cv2.GC_INIT_WITH_MASK)
        inside = np.isin(trimap, (cv2.GC_FGD, cv2.GC_PR_FGD))
        logits = np.where(inside, np.float32(CERTAIN), np.float32(-CERTAIN))
        resized = cv2.resize(logits, (embedding.width, embedding.height), interpolation=cv2.INTER_LINEAR)
        return PromptedMasks(resized.astype(np.float32)[None], np.array([_contrast(image, inside)], np.float32))


@register_promptable("grabcut")
def open_grabcut(argument: str, threads: int) -> GrabCut:
    """Return GrabCut; it takes neither an argument nor threads."""
    return GrabCut()


def _trimap(
    size: tuple[int, ...], points: NDArray[np.float32], labels: NDArray[np.int64], boxes: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """Return certain and possible object and background uint8 (H, W). Outside the boxes all is background."""
    longest = max(size)
    trimap = np.full(size, cv2.GC_BGD if len(boxes) else cv2.GC_PR_BGD, np.uint8)
    for x0, y0, x1, y1 in boxes:
        left, top, right, bottom = int(x0), int(y0), int(np.ceil(x1)), int(np.ceil(y1))
        trimap[top : max(bottom, top + 1), left : max(right, left + 1)] = cv2.GC_PR_FGD
    if not len(boxes):
        for point in points[labels == 1]:
            _disk(trimap, point, longest * POSSIBLE_RADIUS, cv2.GC_PR_FGD)
    for value, label in ((cv2.GC_FGD, 1), (cv2.GC_BGD, 0)):
        for point in points[labels == label]:
            _disk(trimap, point, longest * CERTAIN_RADIUS, value)
    return trimap


def _disk(trimap: NDArray[np.uint8], point: NDArray[np.float32], radius: float, value: int) -> None:
    height, width = trimap.shape
    center = min(int(point[0]), width - 1), min(int(point[1]), height - 1)
    cv2.circle(trimap, center, max(1, round(radius)), value, -1)


def _can_be_cut(trimap: NDArray[np.uint8]) -> bool:
    """GrabCut needs pixels of both kinds, and some that are undecided."""
    inside = np.count_nonzero(trimap & 1)
    return bool(0 < inside < trimap.size and (trimap >= cv2.GC_PR_BGD).any())


def _contrast(image: NDArray[np.uint8], inside: NDArray[np.bool_]) -> float:
    """Return the Hellinger distance, in 0..1, of the color histograms inside and outside; 0 if one is empty."""
    if inside.all() or not inside.any():
        return 0.0
    histograms = []
    for mask in (inside, ~inside):
        counts = cv2.calcHist([image], [0, 1, 2], mask.astype(np.uint8), [_BINS] * 3, [0, 256] * 3).ravel()
        histograms.append(counts / counts.sum())
    return float(np.sqrt(max(0.0, 1.0 - np.sqrt(histograms[0] * histograms[1]).sum())))
