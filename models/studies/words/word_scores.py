"""Scores of a network for a class that it knows by a word, beside words that no caption has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cliprl.engines import ClassSpec, UsageError
from cliprl.models.data.sample import Image
from cliprl.models.data.sets.rendered import RenderedScenes
from cliprl.models.evaluation.scoring.ranking import auroc
from cliprl.models.network.network import ClipSegmenter
from cliprl.models.network.text import class_embeddings
from cliprl.models.studies.words.named_scenes import NamedClass
from cliprl.pipeline.synthetic import SCENE_CLASSES

# Words that no caption of a scene and no prompt has: what any unknown word would get.
UNKNOWN_WORDS = ("a zebra", "a guitar", "a yellow bicycle", "a wooden chair")
# A scene shows the class from this share of its pixels on; captions name no smaller instrument.
_SHOWN = 0.0015


def dice(mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Return the Dice coefficient of two masks of any shape; NaN where the truth is too small to count."""
    if truth.mean() < _SHOWN:
        return float("nan")
    return float(2 * np.count_nonzero(mask & truth) / (np.count_nonzero(mask) + np.count_nonzero(truth)))


def iou(mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Return the intersection over union of two masks of any shape, of which one is not empty."""
    return float((mask & truth).sum() / (mask | truth).sum())


@torch.no_grad()
def grid_logits(network: ClipSegmenter, image: Image, text: Tensor) -> NDArray[np.float32]:
    """Return the logits (K, h, w) of classes by their text embeddings (K, E), for an image uint8 (H, W, 3)."""
    height, width = network.size
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    logits: NDArray[np.float32] = network(torch.from_numpy(resized[None]), text)[1][0].float().numpy()
    return logits


@torch.no_grad()
def score_word(
    network: ClipSegmenter,
    unseen: RenderedScenes,
    classes: Sequence[ClassSpec],
    one: NamedClass,
    known: Sequence[ClassSpec],
) -> dict[str, float]:
    """Score the class at the cells of all scenes: Dice (mean of the scenes that show it), IoU, AUC, IoU of unknown words.

    "others" is the mean IoU of the `known` classes, among all others. A word competes with the `classes` besides its own.
    """
    others = [spec for spec in classes if spec.name != one.left_out.name]
    words = [ClassSpec(phrase, (0, 0, 0), "prompted", (phrase,)) for phrase in (one.prompt, *UNKNOWN_WORDS)]
    text = class_embeddings(network, [*others, *words])
    labels, truths, odds = [], [], []
    for index in range(len(unseen)):
        sample = unseen[index]
        logits = grid_logits(network, sample.image, text)
        best = logits[: len(others)].max(0)
        odds.append(logits[len(others) :] - best)
        labels.append(np.where(odds[-1][0] > 0, len(others), logits[: len(others)].argmax(0)))
        truths.append(cv2.resize(sample.labels, best.shape[::-1], interpolation=cv2.INTER_NEAREST))
    return _measures(np.stack(labels), np.stack(truths), np.stack(odds, 1), others, one, known)


def _measures(
    labels: NDArray[Any],
    truths: NDArray[np.uint8],
    odds: NDArray[np.float32],
    others: Sequence[ClassSpec],
    one: NamedClass,
    known: Sequence[ClassSpec],
) -> dict[str, float]:
    """labels, truths (n, h, w); odds (words, n, h, w) of each word against the best other class."""
    truth = truths == one.number
    if truth.all() or not truth.any():
        raise UsageError("the scored scenes show nothing of the class: raise scoring.scenes")
    names, codes = [spec.name for spec in others], [spec.name for spec in SCENE_CLASSES]
    pairs = [(labels == names.index(spec.name), truths == codes.index(spec.name)) for spec in known]
    return {
        "Dice": float(np.nanmean([dice(*pair) for pair in zip(odds[0] > 0, truth, strict=True)])),
        "IoU": iou(odds[0] > 0, truth),
        "AUC": auroc(odds[0][truth], odds[0][~truth]) or 0.0,
        "unknown words": float(np.mean([iou(each > 0, truth) for each in odds[1:]])),
        "others": float(np.mean([iou(*pair) for pair in pairs if pair[1].any()])),
    }
