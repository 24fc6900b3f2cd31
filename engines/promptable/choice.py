"""Choice among the candidate masks of a prompt: predicted IoU, stability, and agreement with a saliency map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cliprl.engines.promptable.interface import PromptedMasks

# A mask is stable if it is much the same at thresholds this far below and above 0, as in SAM's mask generator.
STABILITY_OFFSET = 1.0


@dataclass(frozen=True, slots=True)
class ChosenMask:
    """The best candidate: mask bool (H, W), its number among the candidates, and its scores in 0..1.

    `agreement` is the soft IoU with the saliency, 1 without one; `score` is the product of the other three.
    """

    mask: NDArray[np.bool_]
    index: int
    predicted_iou: float
    stability: float
    agreement: float
    score: float


def choose_mask(masks: PromptedMasks, saliency: NDArray[np.float32] | None = None) -> ChosenMask:
    """Return the candidate with the largest product of predicted IoU, stability and agreement with `saliency`.

    `saliency` is float32 (H, W) in 0..1.
    """
    rated = []
    for index, (logits, score) in enumerate(zip(masks.logits, masks.scores, strict=True)):
        predicted = float(np.clip(score, 0, 1))
        stable, agreement = stability(logits), 1.0 if saliency is None else soft_iou(logits > 0, saliency)
        rated.append((predicted * stable * agreement, -index, predicted, stable, agreement))
    product, negative, predicted, stable, agreement = max(rated)
    return ChosenMask(masks.logits[-negative] > 0, -negative, predicted, stable, agreement, product)


def stability(logits: NDArray[np.float32]) -> float:
    """Return the IoU of a mask's logits (H, W) above and below 0 by the offset; 0 for an empty mask."""
    larger = np.count_nonzero(logits > -STABILITY_OFFSET)
    return np.count_nonzero(logits > STABILITY_OFFSET) / larger if larger else 0.0


def soft_iou(mask: NDArray[np.bool_], saliency: NDArray[np.float32]) -> float:
    """Return the sum of minima over the sum of maxima of a mask and a map in 0..1; 0 if both are empty."""
    inside, total = float(saliency[mask].sum()), float(saliency.sum())
    union = np.count_nonzero(mask) + total - inside
    return inside / union if union else 0.0
