"""Scores of a network for a class that it knows by a word, beside words that no caption has."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cliprl.engines import ClassSpec, UsageError
from cliprl.models.data.sample import Image
from cliprl.models.data.sets.rendered import RenderedScenes
from cliprl.models.evaluation.scoring.ranking import auroc
from cliprl.models.network.decoder import FEATURE_STRIDES
from cliprl.models.network.network import ClipSegmenter
from cliprl.models.studies.words.named_scenes import NamedClass
from cliprl.pipeline.synthetic import SCENE_CLASSES

# Logits (K, h, w) of an image by classes.
LogitsOf = Callable[[Image, Sequence[ClassSpec]], NDArray[np.float32]]
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
def grid_logits(
    network: ClipSegmenter, image: Image, text: Tensor, size: tuple[int, int] | None = None
) -> NDArray[np.float32]:
    """Return the logits (K, h, w) of classes by their text embeddings (K, E), for an image uint8 (H, W, 3).

    The input has `size` (height, width), by default that of the network, which decides the cells: means of smaller ones.
    """
    height, width = size or network.size
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    logits: NDArray[np.float32] = network(torch.from_numpy(resized[None]), text)[1][0].float().numpy()
    cells = tuple(-(-side // FEATURE_STRIDES[0]) for side in network.size)
    if logits.shape[1:] != cells:
        logits = np.stack([cv2.resize(one, cells[::-1], interpolation=cv2.INTER_AREA) for one in logits])
    return logits


def score_named(
    logits_of: LogitsOf,
    unseen: RenderedScenes,
    classes: Sequence[ClassSpec],
    left_out: Sequence[NamedClass],
    known: Sequence[ClassSpec],
) -> list[dict[str, float]]:
    """Score left-out classes at the cells of all scenes: Dice (mean of scenes that show it), IoU, AUC, IoU of unknown words.

    "others" is the mean IoU of the `known` classes, among all others. A word competes with the `classes` besides its own.
    """
    words = [one.spec for one in left_out]
    named = {spec.name for spec in words}
    unknown = [ClassSpec(phrase, (0, 0, 0), "prompted", (phrase,)) for phrase in UNKNOWN_WORDS]
    specs = [*(spec for spec in classes if spec.name not in named), *words, *unknown]
    samples = (unseen[index] for index in range(len(unseen)))
    pairs = [(logits_of(sample.image, specs), sample.labels) for sample in samples]
    logits = np.stack([found for found, _ in pairs])
    size = logits.shape[:1:-1]
    truths = np.array(
        [cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST_EXACT) for _, labels in pairs], np.uint8
    )
    present = {spec.name for spec in classes}
    return [_measures(logits, truths, specs, one, [s.name for s in known], present) for one in left_out]


def _measures(
    logits: NDArray[np.float32],
    truths: NDArray[np.uint8],
    specs: Sequence[ClassSpec],
    one: NamedClass,
    known: Sequence[str],
    present: Collection[str],
) -> dict[str, float]:
    """logits (n, K, h, w) of `specs`; truths (n, h, w). The words compete with the classes `present` besides `one`."""
    truth = truths == one.number
    if truth.all() or not truth.any():
        raise UsageError("the scored scenes show nothing of the class: raise scoring.scenes")
    names, codes = [spec.name for spec in specs], [spec.name for spec in SCENE_CLASSES]
    rivals = [names.index(name) for name in present if name != one.left_out.name]
    words = [names.index(one.left_out.name), *(names.index(word) for word in UNKNOWN_WORDS)]
    odds = np.moveaxis(logits[:, words] - logits[:, rivals].max(1)[:, None], 1, 0)
    labels = np.where(odds[0] > 0, words[0], np.array(rivals)[logits[:, rivals].argmax(1)])
    pairs = [(labels == names.index(name), truths == codes.index(name)) for name in known]
    return {
        "Dice": float(np.nanmean([dice(*pair) for pair in zip(odds[0] > 0, truth, strict=True)])),
        "IoU": iou(odds[0] > 0, truth),
        "AUC": auroc(odds[0][truth], odds[0][~truth]) or 0.0,
        "unknown words": float(np.mean([iou(each > 0, truth) for each in odds[1:]])),
        "others": float(np.mean([iou(*pair) for pair in pairs if pair[1].any()])),
    }
