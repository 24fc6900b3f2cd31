"""Check weights that a user brings: does a promptable network follow its prompts, does a text network follow its words?"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from cliprl.engines.promptable import PromptableNetwork, choose_mask, no_points
from cliprl.models.data.sample import instrument_classes
from cliprl.models.evaluation.scoring.ranking import auroc
from cliprl.models.labelling.saliency import SaliencyModel, SaliencySettings, saliency
from cliprl.models.network.network import ClipSegmenter
from cliprl.models.promptable.annotator import mask_iou
from cliprl.pipeline.synthetic import SCENE_CLASSES, SceneRenderer

# Scenes that no recipe trains on: see `UNSEEN_SEEDS` of the rendered data set.
_FIRST_SEED = 950000
_SIZE = 256, 320
# The phrase for the instruments, and words for things that no scene has.
_PHRASE, _ABSENT = "surgical instrument", ("a zebra", "a guitar", "a yellow bicycle", "a wooden chair")
# An instrument counts from this share of the image on.
_LEAST_SHARE = 0.01
# What must hold.
_MOST_SECONDS, _LEAST_RANK, _LEAST_AUROC, _LEAST_MARGIN, _MOST_OVERLAP = 2.0, 0.65, 0.7, 0.1, 0.3
_Image = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One part of the check: what was measured, its value, the limit, and whether it holds; `value` None was not measured."""

    name: str
    value: float | None
    rule: str
    passed: bool

    @property
    def verdict(self) -> str:
        """Return "pass", "FAIL", or "not checked"."""
        return "not checked" if self.value is None else "pass" if self.passed else "FAIL"


@dataclass(frozen=True, slots=True)
class CheckScene:
    """A rendered image uint8 (H, W, 3), the instrument at each pixel (0: none), and a sentence on what can be seen."""

    image: _Image
    ids: NDArray[np.uint8]
    caption: str

    def instruments(self) -> Iterator[NDArray[np.bool_]]:
        """Yield the mask (H, W) of each instrument that is large enough."""
        for number in np.unique(self.ids[self.ids > 0]):
            if (mask := self.ids == number).mean() >= _LEAST_SHARE:
                yield mask


def render_scenes(count: int) -> list[CheckScene]:
    """Render scenes with exact labels; every call renders the same."""
    is_instrument = instrument_classes(SCENE_CLASSES)
    scenes = []
    for number in range(count):
        renderer = SceneRenderer(_FIRST_SEED + number, *_SIZE)
        image, labels = renderer.render(1.0)
        ids = np.where(is_instrument[labels], renderer.instance_ids(1.0), 0).astype(np.uint8)
        scenes.append(CheckScene(image, ids, renderer.caption(1.0)))
    return scenes


def check_promptable(network: PromptableNetwork, scenes: Sequence[CheckScene]) -> list[CheckResult]:
    """Prompt a network with the box of each instrument, and with an equal box elsewhere in the image."""
    ious, boxes, overlaps, seconds = list[float](), list[float](), list[float](), list[float]()
    for scene in scenes:
        started = time.perf_counter()
        embedding = network.encode(scene.image)
        for truth in scene.instruments():
            box = _box_of(truth)
            mask, other = (
                choose_mask(network.masks(embedding, *no_points(), corners[None])).mask
                for corners in (box, _opposite(box, truth.shape))
            )
            ious.append(mask_iou(mask, truth.view(np.uint8)))
            boxes.append(truth.sum() / np.prod(box[2:] - box[:2]))
            overlaps.append(mask_iou(mask, other.view(np.uint8)))
        seconds.append(time.perf_counter() - started)
    box_iou = _mean(boxes)
    return [
        _least(
            "IoU of the mask for an instrument's box", _mean(ious), max(0.5, box_iou), f"the box itself: {box_iou:.2f}"
        ),
        _most("overlap with the mask for a box elsewhere", _mean(overlaps), _MOST_OVERLAP),
        _most("seconds a frame, promptable network", float(np.median(seconds)), _MOST_SECONDS),
    ]


def check_text(model: SaliencyModel, scenes: Sequence[CheckScene], settings: SaliencySettings) -> list[CheckResult]:
    """Compare the saliency of "surgical instrument" with that of absent things, and captions with the images they describe."""
    right, wrong, seconds = list[float](), list[float](), list[float]()
    for number, scene in enumerate(scenes):
        truth = scene.ids > 0
        if not _LEAST_SHARE <= truth.mean() < 1:
            continue
        started = time.perf_counter()
        right.append(_pointing(saliency(model, scene.image, _PHRASE, settings), truth))
        seconds.append(time.perf_counter() - started)
        wrong.append(_pointing(saliency(model, scene.image, _ABSENT[number % len(_ABSENT)], settings), truth))
    found = _mean(right)
    return [
        _retrieval(model, scenes),
        _least(f"AUROC of the saliency of '{_PHRASE}'", found, _LEAST_AUROC, "chance: 0.5"),
        _least("its margin over words for absent things", found - _mean(wrong), _LEAST_MARGIN),
        _most(f"seconds a frame, saliency {settings.method}", float(np.median(seconds)), _MOST_SECONDS),
    ]


def _retrieval(model: SaliencyModel, scenes: Sequence[CheckScene]) -> CheckResult:
    """Rank all captions for each image; the rank of the right one in 0..1, where 1 is the best and chance is 0.5."""
    name, rule = "rank of the right caption", f">= {_LEAST_RANK:g} (chance: 0.5)"
    if not isinstance(model.network, ClipSegmenter):
        return CheckResult(name, None, "a bundle has no embedding of a whole image", passed=True)
    captions = sorted({scene.caption for scene in scenes})
    with torch.no_grad():
        texts = model.network.encode_text(model.network.tokenize(captions))
        images = torch.cat([model.network.encode_image(torch.from_numpy(scene.image)[None]) for scene in scenes])
        similarity = (images @ texts.T).float().cpu().numpy()
    ranks = []
    for scene, row in zip(scenes, similarity, strict=True):
        own = captions.index(scene.caption)
        ranks.append(auroc(row[own : own + 1], np.delete(row, own)) or 0.0)
    return CheckResult(name, _mean(ranks), rule, _mean(ranks) >= _LEAST_RANK)


def _pointing(values: NDArray[np.float32], truth: NDArray[np.bool_]) -> float:
    return auroc(values[truth], values[~truth]) or 0.0


def _least(name: str, value: float, limit: float, remark: str = "") -> CheckResult:
    return CheckResult(name, value, f">= {limit:.2f}{f' ({remark})' if remark else ''}", value >= limit)


def _most(name: str, value: float, limit: float) -> CheckResult:
    return CheckResult(name, value, f"<= {limit:g}", value <= limit)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else 0.0


def _box_of(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
    return np.array([left, top, left + width, top + height], np.float32)


def _opposite(box: NDArray[np.float32], size: tuple[int, ...]) -> NDArray[np.float32]:
    """Return a box of half the sides in the corner of the image that is farthest from the center of `box`."""
    height, width = size
    x, y = (box[:2] + box[2:]) / 2
    sides = np.minimum((box[2:] - box[:2]) / 2, np.array([width, height]) / 3)
    left = 0.0 if x > width / 2 else width - sides[0]
    top = 0.0 if y > height / 2 else height - sides[1]
    return np.array([left, top, left + sides[0], top + sides[1]], np.float32)
