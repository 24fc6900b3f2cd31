"""Scores of a bundle's manifest, each with its definition and its test frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cliprl.engines import Bundle
from cliprl.models.evaluation.evaluation import Predictor, iterate_samples
from cliprl.models.evaluation.image_segmenter import ImageSegmenter
from cliprl.models.evaluation.scoring.confusion_counts import ConfusionCounts
from cliprl.models.evaluation.scoring.iou import DEFINITIONS
from cliprl.models.evaluation.scoring.ratio_metric import RatioMetric, mean_of_ratios
from cliprl.models.training.run_datasets import TestDataset
from cliprl.pipeline.overlay.upsample import labels_at_frame

DIGITS = 4
POOLED = "pooled"
BACKGROUND_MIOU, FOREGROUND_MIOU = "dataset_miou_with_background", "dataset_miou_without_background"
FALSE_ALARMS = "share of pixels called instrument, where none is"
UNION_IOU = "dataset IoU of 'instrument', all instrument classes as one"


def score_bundle(
    bundle: Bundle,
    tests: Sequence[TestDataset],
    every: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Mapping[str, Any]:
    """Score the base (no refinement) and the refined result (the bundle's default steps), in f32 on the CPU, on every
    `every`-th frame of each set. `progress` is called with the number of scored frames and their total.

    Returns entries by title: {definition, use, frames by sequence, base, refined}; both are {"pooled": score, sequence: score}.
    """
    sides = {"base": 0, "refined": bundle.manifest.steps}
    total, done = len(sides) * sum(len(range(0, len(test.data), every)) for test in tests), 0
    counts: dict[str, list[ConfusionCounts]] = {}

    def tick() -> None:
        nonlocal done
        done += 1
        progress(done, total)

    for side, steps in sides.items():
        predictor = ImageSegmenter(bundle, steps=steps, precision="f32")
        counts[side] = [count_pixels(predictor, test, every, tick) for test in tests]
    return {
        title: entry
        for number, test in enumerate(tests)
        for title, entry in _entries(test, {side: found[number] for side, found in counts.items()})
    }


def count_pixels(predictor: Predictor, test: TestDataset, every: int, tick: Callable[[], None]) -> ConfusionCounts:
    """Return the pixel counts of the predictions for every `every`-th frame of a test set, at the truth's size."""
    counts = ConfusionCounts(len(test.classes.classes))
    for _, sample, _ in iterate_samples(test.data, range(0, len(test.data), every), predictor.reset):
        truth = test.classes.truth[sample.labels]
        found = test.classes.scored(labels_at_frame(predictor.segment(sample.image), *truth.shape), truth)
        counts.add(truth, found, sample.sequence)
        tick()
    return counts


def _entries(test: TestDataset, counts: Mapping[str, ConfusionCounts]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the scores of a test set: of "instrument", or of its classes with and without the background."""
    if test.empty:
        return [(test.title, _entry(test, FALSE_ALARMS, counts, false_alarm_share))]
    if test.union:
        return [(f"{test.title}, instrument", _entry(test, UNION_IOU, counts, DEFINITIONS[FOREGROUND_MIOU].metric))]
    found = [DEFINITIONS[key] for key in (BACKGROUND_MIOU, FOREGROUND_MIOU)]
    return [(f"{test.title}, {d.title}", _entry(test, f"{d.title}: {d.rule}", counts, d.metric)) for d in found]


def false_alarm_share(counts: ConfusionCounts) -> RatioMetric:
    """Return the share of pixels called instrument, for frames without instruments."""
    return mean_of_ratios(counts.predicted[:, 1:], counts.predicted.sum(1, keepdims=True))


def _entry(
    test: TestDataset,
    definition: str,
    counts: Mapping[str, ConfusionCounts],
    make: Callable[[ConfusionCounts], RatioMetric],
) -> Mapping[str, Any]:
    (first, *_) = counts.values()
    names = first.sequences
    values = {side: _values(make(found), names) for side, found in counts.items()}
    frames = {name: names.count(name) for name in dict.fromkeys(names)}
    return {"definition": definition, **({"use": test.use} if test.use else {}), "frames": frames, **values}


def _values(score: RatioMetric, sequences: Sequence[str]) -> dict[str, float | None]:
    """Return the score of all frames and of each sequence; None (JSON has no NaN) if it is undefined."""
    parts = {POOLED: score.value(), **score.by_sequence(sequences)}
    return {name: round(value, DIGITS) if value == value else None for name, value in parts.items()}
