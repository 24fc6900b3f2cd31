"""The scores that a bundle's manifest carries, each with what it is and on what it was measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cliprl.engines import Bundle
from cliprl.models.config import ScoringConfig
from cliprl.models.data.corrupt import CORRUPTIONS, corrupt
from cliprl.models.data.sample import Dataset, Image
from cliprl.models.data.unseen import EmptyVideo, RigidImages, RoboticVideo
from cliprl.models.score import DATASET_IOU, DATASET_MIOU, Change, ConfusionCounts, bundle_predictor, score

SEVERITIES = (2.0, 4.0)
DIGITS = 3


def score_bundle(bundle: Bundle, scenes: Dataset, config: ScoringConfig) -> Mapping[str, Any]:
    """Score the base (no refinement) and the refined result (the bundle's default steps), in f32 on the CPU."""
    scores: dict[str, Any] = {
        "rendered scenes, seeds not trained on": {
            "definition": DATASET_MIOU,
            "frames": len(scenes),
            **_both(bundle, lambda steps: _rounded(_count(bundle, scenes, steps).dataset_miou())),
        }
    }
    if config.endovis2015:
        scores |= _real_scores(bundle, Path(config.endovis2015), config.every)
    if config.empty:
        video = EmptyVideo(Path(config.empty), config.every)
        scores[f"false alarms on {video.name}, which shows no instrument"] = {
            "definition": "share of pixels called instrument",
            "frames": len(video),
            **_both(bundle, lambda steps: _rounded(_count(bundle, video, steps).instrument_share(), 5)),
        }
    return scores


def _both(bundle: Bundle, value: Callable[[int], Any]) -> dict[str, Any]:
    return {"base": value(0), "refined": value(bundle.manifest.steps)}


def _count(bundle: Bundle, dataset: Dataset, steps: int, change: Change | None = None) -> ConfusionCounts:
    size = (bundle.manifest.height, bundle.manifest.width)
    return score(bundle_predictor(bundle, steps), dataset, bundle.manifest.classes, size, change)


def _real_scores(bundle: Bundle, folder: Path, every: int) -> Mapping[str, Any]:
    """Instrument IoU on the four EndoVis 2015 sets, pooled, and on corrupted frames of D2."""
    videos = [RoboticVideo(folder / "robotic" / name, every) for name in ("D1", "D2")]
    images = [RigidImages(folder / "rigid" / name) for name in ("OP1", "OP3")]
    sets: Sequence[Dataset] = [*videos, *images]
    values = _both(bundle, lambda steps: _ious([_count(bundle, s, steps) for s in sets], sets))
    scores: dict[str, Any] = {
        "instrument on EndoVis 2015, never trained on, but looked at while this was developed": {
            "definition": f"{DATASET_IOU}; the union of the instrument classes",
            "frames": {s.name: len(s) for s in sets},
            **values,
        }
    }
    for severity in SEVERITIES:
        scores[f"instrument on D2 corrupted at severity {severity:g}"] = {
            "definition": f"{DATASET_IOU}; the union of the instrument classes; the video in as many stretches as corruptions",
            "corruptions": list(CORRUPTIONS),
            "frames": len(videos[1]),
            "base": _corrupted(bundle, videos[1], 0, severity),
            "refined": _corrupted(bundle, videos[1], bundle.manifest.steps, severity),
        }
    return scores


def _ious(counts: Sequence[ConfusionCounts], sets: Sequence[Dataset]) -> dict[str, float]:
    """Each set's IoU, and that of all their pixels together."""
    values = {s.name: _rounded(c.instrument_iou()) for s, c in zip(sets, counts, strict=True)}
    together = counts[0]
    for other in counts[1:]:
        together.tool += other.tool
    return values | {"pooled": _rounded(together.instrument_iou())}


def _corrupted(bundle: Bundle, dataset: Dataset, steps: int, severity: float) -> float:
    kinds = list(CORRUPTIONS)
    stretch = max(1, len(dataset) // len(kinds))

    def change(image: Image, index: int) -> Image:
        kind = kinds[min(index // stretch, len(kinds) - 1)]
        return corrupt(image, kind, severity, np.random.default_rng(index))

    return _rounded(_count(bundle, dataset, steps, change).instrument_iou())


def _rounded(value: float, digits: int = DIGITS) -> float:
    return round(float(value), digits)
