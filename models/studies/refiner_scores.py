"""Score the refiners of a study on the pipeline's path, with cached outputs of the base."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from cliprl.engines import Bundle, CompiledBundle, Manifest
from cliprl.models.config.config import Recipe
from cliprl.models.data.sample import hash_of_frames
from cliprl.models.evaluation.evaluation import iterate_samples
from cliprl.models.evaluation.image_segmenter import ImageSegmenter
from cliprl.models.evaluation.scoring.bootstrap import BLOCK_FRAMES
from cliprl.models.evaluation.scoring.confusion_counts import ConfusionCounts
from cliprl.models.evaluation.scoring.iou import dataset_miou, dataset_miou_foreground
from cliprl.models.evaluation.scoring.ratio_metric import RatioMetric
from cliprl.models.evaluation.torch_predictor import ModuleEngine
from cliprl.models.export.export import GRID_STRIDE
from cliprl.models.network.network import ClipSegmenter
from cliprl.models.network.text import class_embeddings
from cliprl.models.network.weights import weights_digest
from cliprl.models.training.checkpoint import read_checkpoint, save_checkpoint
from cliprl.models.training.run_datasets import RunDatasets, TestDataset
from cliprl.pipeline.overlay.upsample import labels_at_frame

REFINER_SCORES = ("instrument IoU", "dataset mIoU", "IoU of consecutive masks")


class EncodedFrame(ModuleEngine):
    """The base as a caching encoder: an image is encoded once for all refiners."""

    def __init__(self, network: ClipSegmenter) -> None:
        super().__init__(network, ("features", "logits"))
        self.network = network
        self._known: dict[bytes, Mapping[str, NDArray[Any]]] = {}

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        """Run the base, or return its cached output."""
        key = hashlib.blake2b(inputs["image"].tobytes(), digest_size=16).digest()
        if key not in self._known:
            found = super().run(inputs)
            self._known[key] = {"features": found["features"].astype(np.float16), "logits": found["logits"].copy()}
        known = self._known[key]
        return {"features": known["features"].astype(np.float32), "logits": known["logits"]}


@dataclass(frozen=True, slots=True)
class Tally:
    """The counts of one refiner on one test set: of classes, of instrument or not, and of consecutive masks."""

    classes: ConfusionCounts
    instrument: ConfusionCounts
    consecutive: ConfusionCounts

    def metric(self) -> dict[str, RatioMetric]:
        """Return the metric of each of MEASURES; all but the last have one row for each frame of `classes`."""
        scores = (
            dataset_miou_foreground(self.instrument),
            dataset_miou(self.classes),
            dataset_miou_foreground(self.consecutive),
        )
        return dict(zip(REFINER_SCORES, scores, strict=True))

    def values(self) -> dict[str, float]:
        """Each of MEASURES."""
        return {name: one.value() for name, one in self.metric().items()}

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, the inverse of `from_json`."""
        return {part.name: getattr(self, part.name).to_json() for part in fields(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """A tally that `to_json` wrote."""
        return cls(*(ConfusionCounts.from_json(data[part.name]) for part in fields(cls)))


def load_or_score(
    path: Path, step: torch.nn.Module, encoded: EncodedFrame, sets: RunDatasets, recipe: Recipe
) -> list[Tally]:
    """The tallies that lie at `path`, where they are of these weights and sets; else they are made and put there."""
    settings = {"sets": [test.title for test in sets.tests], "every": recipe.scoring.every}
    settings |= {"steps": recipe.curriculum.reinforcement.unroll[1], "weights": weights_digest(encoded.network, step)}
    if content := [hash_of_frames(test.data, recipe.scoring.every) for test in sets.tests if not test.use]:
        settings |= {"content": content}
    there = read_checkpoint(path) if path.is_file() else {}
    if there.get("settings") == settings:
        return [Tally.from_json(data) for data in there["tallies"]]
    tallies = score_datasets(step, encoded, sets, recipe)
    save_checkpoint(path, {"settings": settings, "tallies": [tally.to_json() for tally in tallies]})
    return tallies


def score_datasets(step: torch.nn.Module, encoded: EncodedFrame, sets: RunDatasets, recipe: Recipe) -> list[Tally]:
    """Tallies of every set of the recipe's tests; sequences are blocks of frames."""
    size, network = recipe.network, encoded.network
    with torch.no_grad():
        text = class_embeddings(network, sets.classes).numpy()
    steps = recipe.curriculum.reinforcement.unroll[1]
    manifest = Manifest(recipe.name, sets.classes, size.height, size.width, GRID_STRIDE, steps)
    engines = CompiledBundle(encoded, ModuleEngine(step, ("refined", "moved")), {})
    predictor = ImageSegmenter(Bundle(Path(), manifest, text), engines=engines)
    return [_tally(predictor, test, recipe.scoring.every) for test in sets.tests]


def _tally(predictor: ImageSegmenter, test: TestDataset, every: int) -> Tally:
    classes = test.classes.classes
    kinds = np.full(256, 255, np.uint8)
    kinds[: len(classes)] = [spec.kind == "instrument" for spec in classes]
    tally = Tally(ConfusionCounts(len(classes)), ConfusionCounts(2), ConfusionCounts(2))
    last = None
    for index, sample, fresh in iterate_samples(test.data, range(0, len(test.data), every), predictor.reset):
        truth, block = test.classes.truth[sample.labels], f"{sample.sequence} {index // BLOCK_FRAMES}"
        found = test.classes.scored(labels_at_frame(predictor.segment(sample.image), *truth.shape), truth)
        tally.classes.add(truth, found, block)
        tally.instrument.add(kinds[truth], kinds[found], block)
        if last is not None and not fresh:
            tally.consecutive.add(last, kinds[found], block)
        last = kinds[found]
    return tally
