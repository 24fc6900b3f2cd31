"""The decision which class each cell of the network's grid has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.engines import Manifest
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.core.viewport import Viewport, inside_cells

# Smaller probabilities are rounding errors.
SMALLEST = np.float32(1e-9)


@dataclass(frozen=True, slots=True)
class InstrumentRegions:
    """Decides what is instrument by connected regions of cells, not by the likeliest class of each cell alone.

    members, others: ids of the instruments, and of background and tissue. threshold, share: see `RegionSpec`.
    """

    members: tuple[int, ...]
    others: tuple[int, ...]
    threshold: float
    share: float

    @classmethod
    def of(cls, manifest: Manifest) -> Self | None:
        """Return the rule of a bundle; None for one without, without instruments or without background and tissue."""
        kinds = [spec.kind for spec in manifest.classes]
        members = tuple(i for i, kind in enumerate(kinds) if kind == "instrument")
        others = tuple(i for i, kind in enumerate(kinds) if kind in ("background", "tissue"))
        if not (manifest.regions and members and others):
            return None
        return cls(members, others, manifest.regions.threshold, manifest.regions.share)

    def apply(self, probabilities: NDArray[np.float32], inside: NDArray[np.bool_]) -> None:
        """Change probabilities (K, h, w), in place, so that the largest of each cell is that of the class decided on.

        P and Q are the sums of instruments and others, p and q the largest of each. A cell `inside` the view is instrument where
        P (1 - t) > Q t, in a region, 8-connected, of enough cells. There the others are divided, and elsewhere the instruments
        multiplied, by (1 - t) P q / (t p Q): the likeliest instrument exceeds the likeliest other where P is above the
        threshold t, and shares within both groups stay. In a region that is too small, instruments have 0.
        """
        members, others = list(self.members), list(self.others)
        ours, rest = probabilities[members], probabilities[others]
        total, remaining = ours.sum(axis=0), rest.sum(axis=0)
        odds = np.float32(1 / self.threshold - 1)
        found = (odds * total > remaining) & inside
        _, regions, statistics, _ = cv2.connectedComponentsWithStats(found.view(np.uint8), connectivity=8)
        large = statistics[:, cv2.CC_STAT_AREA] >= self.share * found.size
        large[0] = True
        factor = odds * total / np.maximum(ours.max(axis=0), SMALLEST)
        factor *= rest.max(axis=0) / np.maximum(remaining, SMALLEST)
        if not large.all():
            factor *= large[regions]
            found &= large[regions]
        ours *= np.where(found, np.float32(1), factor)
        rest /= np.where(found, np.maximum(factor, SMALLEST), np.float32(1))
        probabilities[members], probabilities[others] = ours, rest
        probabilities /= probabilities.sum(axis=0)


def softmax(logits: NDArray[Any]) -> NDArray[Any]:
    """Return the probabilities of logits (..., K, h, w)."""
    probabilities = np.exp(logits - logits.max(axis=-3, keepdims=True))
    return np.asarray(probabilities / probabilities.sum(axis=-3, keepdims=True))


def segmentation_of(
    logits: NDArray[Any], view: Viewport, steps: int, moved: float, regions: InstrumentRegions | None = None
) -> Segmentation:
    """Return the segmentation of logits (K, h, w) seen through a view; `regions` decides what is instrument in it."""
    probabilities = softmax(logits)
    inside = inside_cells(view, *logits.shape[1:])
    if regions is not None:
        regions.apply(probabilities, inside)
    highest = probabilities.max(axis=0)
    labels = _winners(probabilities, highest) * inside
    confidence = float(highest[inside].mean()) if inside.any() else 0.0
    return Segmentation(labels, probabilities, view, confidence, steps, moved)


def _winners(chances: NDArray[Any], highest: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the first class with the highest value of each cell, in a sixth of numpy's time; 0 where that is not a number."""
    count = len(chances)
    ranks = (chances == highest).view(np.uint8)
    ranks *= np.arange(count, 0, -1, dtype=np.uint8)[:, None, None]
    return np.asarray((count - ranks.max(axis=0)) % count, np.uint8)


def merge_unsure(found: Segmentation, parts: Sequence[int], share: float) -> Segmentation:
    """Return a segmentation with one more class, the last: the union of `parts` (class ids), in cells whose part is unsure.

    There no part has `share` of their summed probability. The union takes that of the likeliest one, so that its outline is where
    it was, and the others' is divided evenly among the parts.
    """
    chances = found.probabilities[list(parts)]
    total, largest = chances.sum(axis=0), chances.max(axis=0)
    unsure = largest < share * total
    probabilities = np.concatenate([found.probabilities, (largest * unsure)[None]])
    np.copyto(chances, (total - largest) / len(parts), where=unsure)
    probabilities[list(parts)] = chances
    merged = np.arange(256, dtype=np.uint8)  # the class of an unsure cell, by its likeliest one
    merged[list(parts)] = len(found.probabilities)
    labels = np.where(unsure, cv2.LUT(found.labels, merged), found.labels)
    return replace(found, labels=labels, probabilities=probabilities, unmerged=found, parts=tuple(parts))
