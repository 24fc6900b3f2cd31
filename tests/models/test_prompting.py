"""Prompts from saliency: components, points and boxes lie where they should, and masks are better than the map they come from."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from cliprl.engines import UsageError
from cliprl.engines.promptable import open_promptable
from cliprl.models.labelling.prompting import CLEAN_UPS, PromptSettings, clean_saliency, object_prompts, prompted_mask
from cliprl.pipeline.segment.presence import UNCALIBRATED, fit_presence, presence_evidence

RNG = np.random.default_rng(0)


def scene() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two gray disks on red: image, mask, and a blurred, noisy saliency map of the disks."""
    mask = np.zeros((120, 160), np.uint8)
    cv2.circle(mask, (45, 50), 22, 1, -1)
    cv2.circle(mask, (120, 80), 16, 1, -1)
    image = np.where(mask[..., None] > 0, [150, 150, 155], [170, 60, 50]) + RNG.normal(0, 8, (120, 160, 3))
    blurred = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 9)
    saliency = blurred / blurred.max() + RNG.normal(0, 0.03, mask.shape).astype(np.float32)
    return image.clip(0, 255).astype(np.uint8), mask > 0, saliency.clip(0, 1).astype(np.float32)


def overlap(found: np.ndarray, truth: np.ndarray) -> float:
    return float((found & truth).sum() / (found | truth).sum())


@pytest.mark.parametrize("clean_up", CLEAN_UPS)
def test_clean_up_finds_the_salient_part(clean_up: str) -> None:
    _, truth, saliency = scene()
    assert overlap(clean_saliency(saliency, clean_up), truth) > 0.6
    assert not clean_saliency(np.full((20, 30), 0.5, np.float32), clean_up).any()


def test_prompts_lie_in_and_beside_their_components() -> None:
    _, truth, saliency = scene()
    prompts = object_prompts(saliency, PromptSettings())
    assert len(prompts) == 2
    assert prompts[0].region.sum() > prompts[1].region.sum()
    for prompt in prompts:
        assert prompt.labels.tolist() == [1, 1, 1, 0, 0]
        for (x, y), label in zip(prompt.points.astype(int), prompt.labels, strict=True):
            assert truth[y, x] == (label == 1)
        rows, columns = np.nonzero(prompt.region)
        x0, y0, x1, y1 = prompt.boxes[0]
        assert x0 <= columns.min() < columns.max() < x1
        assert y0 <= rows.min() < rows.max() < y1


def test_small_components_and_surplus_ones_are_dropped() -> None:
    saliency = np.zeros((100, 100), np.float32)
    for number in range(5):
        saliency[10:20, 20 * number : 20 * number + 10 + number] = 1
    saliency[60:63, 60:63] = 1
    assert len(object_prompts(saliency, PromptSettings())) == 5
    kept = object_prompts(saliency, PromptSettings(objects=2, use_boxes=False))
    assert [int(prompt.region.sum()) for prompt in kept] == pytest.approx([140, 130], abs=6)
    assert kept[0].boxes.shape == (0, 4)


def test_prompted_masks_are_better_than_the_map() -> None:
    image, truth, saliency = scene()
    network = open_promptable("grabcut")
    found = prompted_mask(network, network.encode(image), saliency, PromptSettings())
    assert len(found.chosen) == 2
    assert overlap(found.mask, truth) > overlap(clean_saliency(saliency), truth) + 0.05
    assert 0 < found.score <= 1
    strict = prompted_mask(network, network.encode(image), saliency, PromptSettings(least_score=1.1))
    assert not strict.mask.any()
    assert strict.score == 0


def test_unknown_clean_ups_are_one_line() -> None:
    with pytest.raises(UsageError, match="one of kmeans, otsu"):
        clean_saliency(np.zeros((4, 4), np.float32), "crf")


def test_presence_rejects_absent_things_at_the_asked_rate() -> None:
    present = np.arange(400) < 150
    evidence = RNG.normal(0, 1, 400) + np.where(present, 4.0, 0.0) - 1.0
    test = fit_presence(evidence, present)
    decided = np.array([test.is_present(value) for value in evidence])
    assert (~decided[~present]).mean() >= 0.95
    assert decided[present].mean() >= 0.95
    assert test.probability(10) > 0.95
    assert test.probability(-10) < 0.05
    with pytest.raises(ValueError, match="frames without it"):
        fit_presence(evidence[present], present[present])


def test_presence_evidence_is_the_largest_margins_in_view() -> None:
    margins = np.full((40, 50), -2.0)
    margins[0, :10] = 6
    assert presence_evidence(margins) == 6
    assert UNCALIBRATED.is_present(presence_evidence(margins))
    inside = np.ones((40, 50), bool)
    inside[0] = False
    assert presence_evidence(margins, inside) == -2
    assert not UNCALIBRATED.is_present(presence_evidence(margins, inside))
    assert not UNCALIBRATED.is_present(presence_evidence(margins, np.zeros_like(inside)))
