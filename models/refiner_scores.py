"""How the study's refiners are scored: on the pipeline's own path, the base's outputs kept between them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cliprl.engines import Bundle, CliprlError, Manifest, Pair
from cliprl.models.config import Recipe
from cliprl.models.evaluation import samples
from cliprl.models.export import STRIDE
from cliprl.models.network import ClipSegmenter
from cliprl.models.network_predictor import TorchEngine
from cliprl.models.predictor import Predictor
from cliprl.models.scoring.bootstrap import LEVEL, RESAMPLES
from cliprl.models.scoring.counts import Counts, rows_of
from cliprl.models.scoring.iou import dataset_miou, dataset_miou_foreground
from cliprl.models.sets import Scored, Sets
from cliprl.models.text import class_embeddings
from cliprl.pipeline.upsample import labels_at_frame

# Neighbouring frames are near copies: intervals draw whole blocks of so many frames again.
BLOCK = 25
MEASURES = ("instrument IoU", "dataset mIoU", "IoU of consecutive masks")


class Encoded(TorchEngine):
    """The base as an encoder that remembers: a picture is encoded once for all refiners."""

    def __init__(self, network: ClipSegmenter) -> None:
        super().__init__(network, ("features", "logits"))
        self.network = network
        self._known: dict[bytes, Mapping[str, NDArray[Any]]] = {}

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        """As before, or what was found the first time."""
        key = hashlib.blake2b(inputs["image"].tobytes(), digest_size=16).digest()
        if key not in self._known:
            found = super().run(inputs)
            self._known[key] = {"features": found["features"].astype(np.float16), "logits": found["logits"].copy()}
        known = self._known[key]
        return {"features": known["features"].astype(np.float32), "logits": known["logits"]}


@dataclass(frozen=True, slots=True)
class Tally:
    """What one refiner made of one set: the counts of its classes, of instrument or not, and of consecutive masks."""

    classes: Counts
    instrument: Counts
    consecutive: Counts

    def values(self) -> dict[str, float]:
        """Each of MEASURES."""
        scores = (
            dataset_miou_foreground(self.instrument),
            dataset_miou(self.classes),
            dataset_miou_foreground(self.consecutive),
        )
        return {name: one.value() for name, one in zip(MEASURES, scores, strict=True)}


def score(step: torch.nn.Module, encoded: Encoded, sets: Sets, recipe: Recipe) -> list[Tally]:
    """Tallies of every set of the recipe's tests; sequences are blocks of frames."""
    size, network = recipe.network, encoded.network
    with torch.no_grad():
        text = class_embeddings(network, sets.classes).numpy()
    steps = recipe.curriculum.reinforcement.unroll[1]
    manifest = Manifest(recipe.name, sets.classes, size.height, size.width, STRIDE, steps)
    engines = Pair(encoded, TorchEngine(step, ("refined", "moved")), {})
    predictor = Predictor(Bundle(Path(), manifest, text), engines=engines)
    return [_tally(predictor, test, recipe.scoring.every) for test in sets.tests]


def _tally(predictor: Predictor, test: Scored, every: int) -> Tally:
    classes = test.classes.classes
    kinds = np.full(256, 255, np.uint8)
    kinds[: len(classes)] = [spec.kind == "instrument" for spec in classes]
    tally = Tally(Counts(len(classes)), Counts(2), Counts(2))
    last = None
    for index, sample, fresh in samples(test.data, list(range(0, len(test.data), every))):
        if fresh:
            predictor.reset()
            last = None
        truth, block = test.classes.truth[sample.labels], f"{sample.sequence} {index // BLOCK}"
        found = test.classes.found[labels_at_frame(predictor.see(sample.image), *truth.shape)]
        tally.classes.add(truth, found, block)
        tally.instrument.add(kinds[truth], kinds[found], block)
        if last is not None:
            tally.consecutive.add(last, kinds[found], block)
        last = kinds[found]
    return tally


def gain(arms: Sequence[Tally], base: Tally, seed: int = 0) -> tuple[float, float, float]:
    """By how much the instrument IoU of an arm, the mean over its seeds, is above the base's, and the bootstrap interval of
    that over blocks of frames."""
    rows = list(rows_of(base.instrument.sequences).values())
    sums = [np.stack([_pixels(t)[r].sum(0) for r in rows]) for t in (*arms, base)]
    draws = np.random.default_rng(seed).multinomial(len(rows), np.full(len(rows), 1 / len(rows)), RESAMPLES)
    draws = np.concatenate([np.ones((1, len(rows)), draws.dtype), draws])
    *found, reference = (np.divide(*np.moveaxis(np.tensordot(draws, s, axes=1), -1, 0)) for s in sums)
    gains = np.mean(found, axis=0) - reference
    low, high = np.quantile(gains[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(gains[0]), float(low), float(high)


def _pixels(tally: Tally) -> NDArray[np.float64]:
    counts = tally.instrument
    return np.stack([counts.overlap[:, 1], counts.union[:, 1]], axis=-1).astype(np.float64)


def write(folder: Path, recipe: Recipe, sets: Sets, tallies: Mapping[str, list[list[Tally]]]) -> None:
    """The tables, as Markdown and as JSON. `tallies` are by arm, seed and set; the first arm is the base."""
    titles = [test.title for test in sets.tests]
    base = next(iter(tallies.values()))
    arms = {
        name: {
            title: {
                "seeds": [seed[n].values() for seed in seeds],
                "gain in instrument IoU": gain([seed[n] for seed in seeds], base[0][n]),
            }
            for n, title in enumerate(titles)
        }
        for name, seeds in tallies.items()
    }
    steps = {
        "base": recipe.supervised.steps,
        "refiner": recipe.reinforcement.steps,
        "batch": recipe.reinforcement.batch,
    }
    result = {"recipe": recipe.name, "steps": steps, "frames of a block": BLOCK, "arms": arms}
    try:
        (folder / "study.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        (folder / "study.md").write_text(table(result, titles), encoding="utf-8")
    except OSError as error:
        raise CliprlError(f"{folder} can't be written ({error.strerror}): free space or give another --out") from error


def table(result: Mapping[str, Any], titles: Sequence[str]) -> str:
    """A table for each measure: a line an arm, a column a set."""
    lines = []
    for measure in MEASURES:
        lines += [f"**{measure}**", "", f"| refiner | {' | '.join(titles)} |", "|---|" + "---|" * len(titles)]
        for name, columns in result["arms"].items():
            cells = [_cell(columns[title], measure) for title in titles]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        lines.append("")
    steps, seeds = result["steps"], len(next(iter(next(iter(result["arms"].values())).values()))["seeds"])
    head = (
        f"Base: {steps['base']} steps. Refiners: {steps['refiner']} steps of {steps['batch']}, {seeds} seeds, of which the "
        f"mean and the range are given; in brackets the gain over the base in points, with its 95 % interval over blocks of "
        f"{result['frames of a block']} frames."
    )
    return "\n".join([head, "", *lines])


def _cell(entry: Mapping[str, Any], measure: str) -> str:
    values = [seed[measure] for seed in entry["seeds"]]
    text = f"{np.mean(values):.3f}"
    if len(set(values)) > 1:
        text += f" ({min(values):.3f}–{max(values):.3f})"
    if measure == MEASURES[0] and any(entry["gain in instrument IoU"]):
        middle, low, high = (100 * value for value in entry["gain in instrument IoU"])
        text += f" [{middle:+.1f}: {low:+.1f} to {high:+.1f}]"
    return text
