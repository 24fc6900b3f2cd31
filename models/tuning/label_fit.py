"""Find out whether all masks are wrong in one way: displaced, inverted, mirrored, turned, or of other frames.

Held-out frames cannot show such a fault, because their masks have it too. The network's own masks can, if they fit the labels
well as soon as the fault is undone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import lap
import numpy as np
from numpy.typing import NDArray

from cliprl.engines import Bundle
from cliprl.models.data.image_mask_dataset import LabelledDataset
from cliprl.models.data.label_mapping import map_to_instrument
from cliprl.models.data.sample import evenly_spaced
from cliprl.models.evaluation.image_segmenter import ImageSegmenter
from cliprl.pipeline.overlay.upsample import labels_at_frame

# The size to which masks are reduced, the largest displacement as a share of the width, and the most frames that are compared.
_SIZE, _REACH, _MOST_FRAMES = (72, 96), 0.3, 200
# A fault counts from this IoU on: below, the network does not know the scene well enough to judge masks.
_CONVINCING = 0.5

_Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class LabelFit:
    """IoU of the network's instruments with the labels as they are, and with each fault undone, by its description."""

    iou: float
    undone: Mapping[str, float]

    def fault(self, points: float) -> str | None:
        """Return the fault without which masks fit best, if they then fit convincingly and by more than `points` better."""
        name = max(self.undone, key=lambda key: self.undone[key])
        found = self.undone[name]
        return name if found >= _CONVINCING and 100 * (found - self.iou) > points else None


def measure_label_fit(bundle: Bundle, dataset: LabelledDataset) -> LabelFit | None:
    """Compare a bundle's masks with those of a data set whose labels index its classes; None without any instrument."""
    segmenter = ImageSegmenter(bundle, precision="f32")
    table = map_to_instrument(bundle.manifest.classes, bundle.manifest.classes, ())
    pairs = []
    for index in evenly_spaced(len(dataset), _MOST_FRAMES):
        segmenter.reset()
        sample = dataset[index]
        truth = table.truth[sample.labels]
        found = table.predicted[labels_at_frame(segmenter.segment(sample.image), *truth.shape)]
        if (truth == 1).any():
            pairs.append((_reduced(found == 1), _reduced(truth == 1)))
    return label_fit(*(np.stack(side) for side in zip(*pairs, strict=True))) if pairs else None


def label_fit(found: _Mask, truth: _Mask) -> LabelFit:
    """Compare masks bool (N, h, w) of a network with labels."""
    moved, (down, right) = best_displacement(found, truth)
    size = found.shape[1:]
    undone = {
        f"displaced by {round(-100 * right)} % of the width to the right and {round(-100 * down)} % of the height down": moved,
        "inverted": _iou(found, ~truth),
        "mirrored": _iou(found, truth[:, :, ::-1]),
        "upside down": _iou(found, truth[:, ::-1]),
        "turned by 180 degrees": _iou(found, truth[:, ::-1, ::-1]),
        "turned to the right": _iou(found, _stretched(truth.swapaxes(1, 2)[:, ::-1], size)),
        "turned to the left": _iou(found, _stretched(truth.swapaxes(1, 2)[:, :, ::-1], size)),
        "with rows and columns swapped": _iou(found, _stretched(truth.swapaxes(1, 2), size)),
        "those of other frames": _reordered_iou(found, truth),
    }
    return LabelFit(_iou(found, truth), undone)


def best_displacement(found: _Mask, truth: _Mask) -> tuple[float, tuple[float, float]]:
    """Return the IoU after the one best displacement of all masks of `truth`, and that displacement.

    found, truth: bool (N, h, w). displacement: down and to the right, as shares of height and width. Pixels that leave the image
    do not count; at least half of all pixels stay inside.
    """
    height, width = found.shape[1:]
    reach = int(_REACH * width)
    ones = np.ones((height, width), np.bool_)
    overlap, inside = (
        sum(_correlated(image, mask, reach) for image, mask in zip(images, truth, strict=True))
        for images in (found, [ones] * len(truth))
    )
    iou = overlap / np.maximum(found.sum() + inside - overlap, 1)
    iou[2 * inside < truth.sum()] = 0
    down, right = np.unravel_index(int(np.argmax(iou)), iou.shape)
    return float(iou[down, right]), (int(down - reach) / height, int(right - reach) / width)


def _correlated(image: _Mask, mask: _Mask, reach: int) -> NDArray[np.int64]:
    """Return the pixels that image and mask share at each displacement of the mask, from -reach to reach on both axes."""
    padded = np.pad(image.astype(np.float32), reach)
    return np.rint(cv2.matchTemplate(padded, mask.astype(np.float32), cv2.TM_CCORR)).astype(np.int64)


def _reordered_iou(found: _Mask, truth: _Mask) -> float:
    """Return the IoU after the labels are given to the frames that they fit best, one to each."""
    one, other = (side.reshape(len(side), -1).astype(np.float32) for side in (found, truth))
    overlap = one @ other.T
    union = one.sum(1)[:, None] + other.sum(1)[None] - overlap
    _, columns, _ = lap.lapjv(1 - overlap / np.maximum(union, 1))
    rows = np.arange(len(found))
    return float(overlap[rows, columns].sum() / max(1.0, union[rows, columns].sum()))


def _iou(one: _Mask, other: _Mask) -> float:
    return float((one & other).sum() / max(1, (one | other).sum()))


def _stretched(masks: _Mask, size: tuple[int, ...]) -> _Mask:
    """Stretch masks of square images, bool (N, w, h), after a quarter turn to the size (h, w) to which masks are reduced."""
    return np.stack([_reduced(mask, size) for mask in masks])


def _reduced(mask: _Mask, size: tuple[int, ...] = _SIZE) -> _Mask:
    return cv2.resize(mask.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST_EXACT) > 0
