"""Scores under their own names (there is no bare "mIoU" here)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.engines import Bundle, ClassSpec, compile_engine
from cliprl.models.data.sample import Dataset, Image, allowed_classes, instrument_classes

Labels = NDArray[np.uint8]
# A picture of the network's size, uint8 (H, W, 3), to probabilities float32 (K, h, w); True marks a new sequence.
Predictor = Callable[[Image, bool], NDArray[np.float32]]
# Changes the picture of a frame, whose index it is told, before it is seen.
Change = Callable[[Image, int], Image]

DATASET_IOU = "dataset IoU: intersection and union pooled over all pixels of all frames"
DATASET_MIOU = (
    "dataset mIoU: dataset IoU of each class, mean over the classes present in the truth, background included"
)


class ConfusionCounts:
    """Pooled intersections and unions of classes, and of the union of all instrument classes."""

    def __init__(self, classes: Sequence[ClassSpec]) -> None:
        self.instrument = instrument_classes(classes)
        sets = allowed_classes(classes)
        may, may_not = np.any(sets & self.instrument, 1), np.any(sets & ~self.instrument, 1)
        self.is_tool: NDArray[np.bool_] = np.asarray(may & ~may_not)
        self.is_known: NDArray[np.bool_] = np.asarray(may ^ may_not)
        self.counts = np.zeros((len(classes), len(classes)), np.int64)
        self.tool = np.zeros((2, 2), np.int64)

    def add(self, truth: Labels, found: Labels) -> None:
        """Count a frame: truth in label codes, found in classes, of one shape."""
        size = len(self.counts)
        exact = truth < size
        pairs = truth[exact].astype(np.int64) * size + found[exact]
        self.counts += np.bincount(pairs, minlength=size * size).reshape(size, size)
        known = self.is_known[truth]
        cells = 2 * self.is_tool[truth[known]].astype(np.int64) + self.instrument[found[known]]
        self.tool += np.bincount(cells, minlength=4).reshape(2, 2)

    def instrument_iou(self) -> float:
        """Dataset IoU of "instrument", the union of the instrument classes; NaN where neither side has any."""
        union = self.tool.sum() - self.tool[0, 0]
        return float(self.tool[1, 1] / union) if union else float("nan")

    def instrument_share(self) -> float:
        """Share of known pixels that are called instrument."""
        return float(self.tool[:, 1].sum() / max(1, self.tool.sum()))

    def class_iou(self) -> NDArray[np.float64]:
        """Dataset IoU of each class, float64 (K,); NaN for a class that the truth has not."""
        overlap = np.diag(self.counts).astype(np.float64)
        truth = self.counts.sum(1)
        union = truth + self.counts.sum(0) - overlap
        return np.where(truth > 0, overlap / np.maximum(union, 1), np.nan)

    def dataset_miou(self) -> float:
        """Mean of `class_iou` over the classes present in the truth, background included."""
        return float(np.nanmean(self.class_iou()))


def score(
    predict: Predictor,
    dataset: Dataset,
    classes: Sequence[ClassSpec],
    size: tuple[int, int],
    change: Change | None = None,
) -> ConfusionCounts:
    """Score every frame, scaled to `size` (height, width) by area and then, if given, changed by `change(image, index)`.

    Probabilities are scaled to the truth's size linearly, as the overlay does, and the largest one is the label.
    """
    counts, sequence = ConfusionCounts(classes), ""
    for index in range(len(dataset)):
        sample = dataset[index]
        image = cv2.resize(sample.image, size[::-1], interpolation=cv2.INTER_AREA).astype(np.uint8)
        image = change(image, index) if change else image
        probabilities = predict(image, sample.sequence != sequence)
        sequence = sample.sequence
        counts.add(sample.labels, _largest(probabilities, sample.labels.shape))
    return counts


def _largest(probabilities: NDArray[np.float32], shape: tuple[int, ...]) -> Labels:
    wide = [cv2.resize(p, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR) for p in probabilities]
    return np.asarray(np.argmax(wide, 0), np.uint8)


def bundle_predictor(bundle: Bundle, steps: int, precision: str = "f32") -> Predictor:
    """Predict with a bundle's engines on the CPU, `steps` refinement steps a frame, the last frame's result as prior."""
    manifest, text = bundle.manifest, bundle.embeddings
    picture = (1, manifest.height, manifest.width, 3)
    grid = (1, len(text), manifest.height // manifest.stride, manifest.width // manifest.stride)
    encoder = compile_engine(bundle.encoder, precision=precision, shapes={"image": picture, "text": text.shape})
    depth = encoder.run({"image": np.zeros(picture, np.uint8), "text": text})["features"].shape
    shapes = {"features": depth, "logits": grid, "base": grid, "prior": grid}
    refiner = compile_engine(bundle.refiner, precision=precision, shapes=shapes)
    memory: list[NDArray[np.float32]] = []

    def predict(image: Image, first: bool) -> NDArray[np.float32]:
        seen = encoder.run({"image": np.ascontiguousarray(image[None]), "text": text})
        features, base = seen["features"].copy(), seen["logits"].copy()
        prior = base if first or not memory else memory[0]
        logits = base
        for _ in range(steps):
            state = {"features": features, "logits": logits, "base": base, "prior": prior}
            logits = refiner.run(state)["refined"].copy()
        memory[:] = [logits]
        powers = np.exp(logits[0] - logits[0].max(0))
        return np.asarray(powers / powers.sum(0), np.float32)

    return predict
