"""From a saliency map to prompts, and from these to a mask: clean-up, components, boxes, points, and the choice of masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.engines import UsageError
from cliprl.engines.promptable import ChosenMask, ImageEmbedding, PromptableNetwork, choose_mask

CLEAN_UPS = ("kmeans", "otsu")
CLUSTERS, ATTEMPTS = 2, 2
SaliencyMap = NDArray[np.float32]
BoolMap = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class PromptSettings:
    """How prompts are made of a map.

    `clean_up` is "kmeans" or "otsu". Components of less than `least_share` of the image, and those beyond the `objects`
    largest, are dropped. Boxes grow by `margin` of their sides. `positive` and `negative` are the numbers of points;
    points of a kind are at least `spacing` of the image's longer side apart. `least_score` is the least score of a
    mask that is kept (see `choose_mask`). With `use_boxes` false the points prompt alone.
    """

    clean_up: str = "kmeans"
    least_share: float = 0.002
    objects: int = 6
    margin: float = 0.05
    positive: int = 3
    negative: int = 2
    spacing: float = 0.05
    least_score: float = 0.1
    use_boxes: bool = True


@dataclass(frozen=True, slots=True)
class ObjectPrompt:
    """The prompt of one object: points float32 (N, 2), labels (N,), boxes float32 (M, 4); and its `region` bool (H, W)."""

    points: NDArray[np.float32]
    labels: NDArray[np.int64]
    boxes: NDArray[np.float32]
    region: BoolMap


def clean_saliency(saliency: SaliencyMap, clean_up: str = "kmeans") -> BoolMap:
    """Return the salient part, bool (H, W), of a map float32 (H, W) in 0..1, small specks and holes removed.

    "kmeans" takes the brighter of two clusters of values, "otsu" what is above Otsu's threshold. A constant map has no
    salient part. Raises UsageError for another name.
    """
    if clean_up not in CLEAN_UPS:
        raise UsageError(f"unknown clean-up '{clean_up}': one of {', '.join(CLEAN_UPS)}")
    values = np.round(np.clip(saliency, 0, 1) * 255).astype(np.uint8)
    if values.min() == values.max():
        return np.zeros(values.shape, bool)
    threshold = _kmeans_threshold(values) if clean_up == "kmeans" else cv2.threshold(values, 0, 255, cv2.THRESH_OTSU)[0]
    mask: NDArray[Any] = (values > threshold).astype(np.uint8)
    side = max(3, min(values.shape) // 64 | 1)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    for operation in (cv2.MORPH_OPEN, cv2.MORPH_CLOSE):
        mask = np.asarray(cv2.morphologyEx(mask, operation, kernel))
    return mask > 0


def _kmeans_threshold(values: NDArray[np.uint8]) -> float:
    """Return the value halfway between the centers of two clusters of 1,024 quantiles."""
    cv2.setRNGSeed(0)
    samples = np.quantile(values, np.linspace(0, 1, 1024)).astype(np.float32)[:, None]
    stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 50, 0.1)
    labels = np.zeros((len(samples), 1), np.int32)
    centers = cv2.kmeans(samples, CLUSTERS, labels, stop, ATTEMPTS, cv2.KMEANS_PP_CENTERS)[2]
    return float(np.mean(centers))


def object_prompts(saliency: SaliencyMap, settings: PromptSettings) -> list[ObjectPrompt]:
    """Return a prompt for each component of the salient part of a map float32 (H, W) in 0..1, the largest first."""
    salient = clean_saliency(saliency, settings.clean_up)
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(salient.astype(np.uint8), connectivity=8)
    areas = statistics[1:, cv2.CC_STAT_AREA]
    order = [int(n) + 1 for n in np.argsort(-areas) if areas[n] >= settings.least_share * salient.size]
    return [_prompt_of(saliency, labels == number, salient, settings) for number in order[: settings.objects]]


def _prompt_of(saliency: SaliencyMap, region: BoolMap, salient: BoolMap, settings: PromptSettings) -> ObjectPrompt:
    height, width = region.shape
    left, top, columns, rows = cv2.boundingRect(region.astype(np.uint8))
    grow_x, grow_y = settings.margin * columns, settings.margin * rows
    box = np.array([left - grow_x, top - grow_y, left + columns + grow_x, top + rows + grow_y], np.float32)
    box = np.clip(box, 0, np.array([width, height] * 2, np.float32))
    # Inner points first: a maximum at the edge of a coarse map may lie beside the object.
    depth = cv2.distanceTransform(region.astype(np.uint8), cv2.DIST_L2, 3)
    inner = saliency * np.minimum(1, depth / max(1.0, float(depth.max()) / 2))
    positive = _maxima(np.where(region, inner, -1), settings.positive, settings.spacing)
    around = np.zeros(region.shape, bool)
    x0, y0, x1, y1 = (int(value) for value in (left - columns, top - rows, left + 2 * columns, top + 2 * rows))
    around[max(0, y0) : y1, max(0, x0) : x1] = True
    negative = _maxima(np.where(around & ~salient, 1 - saliency, -1), settings.negative, settings.spacing)
    points = np.concatenate([positive, negative])
    labels = np.repeat(np.array([1, 0]), [len(positive), len(negative)])
    boxes = box[None] if settings.use_boxes else np.zeros((0, 4), np.float32)
    return ObjectPrompt(points, labels, boxes, region)


def _maxima(values: NDArray[Any], count: int, spacing: float) -> NDArray[np.float32]:
    """Return up to `count` positions (n, 2) x, y of the largest values that are not negative, spaced apart."""
    left = values.astype(np.float32)
    radius = max(1, round(spacing * max(left.shape)))
    found: list[tuple[int, int]] = []
    while len(found) < count:
        _, largest, _, position = cv2.minMaxLoc(left)
        if largest < 0:
            break
        found.append((int(position[0]), int(position[1])))
        cv2.circle(left, found[-1], radius, -1.0, -1)
    return np.array(found, np.float32).reshape(-1, 2)


@dataclass(frozen=True, slots=True)
class SaliencyMask:
    """A mask bool (H, W) made of a saliency map, the prompts it was made with, and the choice for each that was kept."""

    mask: BoolMap
    prompts: tuple[ObjectPrompt, ...]
    chosen: tuple[ChosenMask, ...]

    @property
    def score(self) -> float:
        """The mean score of the kept masks; 0 without one."""
        return float(np.mean([one.score for one in self.chosen])) if self.chosen else 0.0


def prompted_mask(
    network: PromptableNetwork, embedding: ImageEmbedding, saliency: SaliencyMap, settings: PromptSettings
) -> SaliencyMask:
    """Prompt a network with each component of a map float32 (H, W), and return the union of the chosen masks.

    Of a prompt's candidates the one that agrees best with the component's saliency is chosen; one below `least_score`
    is left out. Run the presence test first: a map of an absent thing has a maximum too.
    """
    prompts = object_prompts(saliency, settings)
    union, chosen = np.zeros(saliency.shape, bool), []
    for prompt in prompts:
        near = saliency * _around(prompt.region)
        best = choose_mask(network.masks(embedding, prompt.points, prompt.labels, prompt.boxes), near)
        if best.score >= settings.least_score:
            union |= best.mask
            chosen.append(best)
    return SaliencyMask(union, tuple(prompts), tuple(chosen))


def _around(region: BoolMap) -> BoolMap:
    """Return a component with its surroundings, as far as a sixteenth of the image: a coarse map ends within the object."""
    side = max(3, min(region.shape) // 16 | 1)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    return np.asarray(cv2.dilate(region.astype(np.uint8), kernel)) > 0
