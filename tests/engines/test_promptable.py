"""Promptable networks: prompts are checked, kinds are found by name, and GrabCut cuts a planted object out."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from cliprl.engines import UsageError
from cliprl.engines.promptable import (
    ImageEmbedding,
    PromptedMasks,
    choose_mask,
    no_boxes,
    no_points,
    open_promptable,
    prompt_arrays,
)


def scene(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A gray ellipse on reddish noise: image and mask."""
    noise = np.random.default_rng(0).normal(0, 8, (height, width, 3))
    mask = np.zeros((height, width), np.uint8)
    cv2.ellipse(mask, (width // 2, height // 2), (width // 5, height // 4), 0, 0, 360, 1, -1)
    image = np.where(mask[..., None] > 0, np.float64([150, 150, 155]), np.float64([170, 60, 50])) + noise
    return image.clip(0, 255).astype(np.uint8), mask > 0


def overlap(found: np.ndarray, truth: np.ndarray) -> float:
    return float((found & truth).sum() / (found | truth).sum())


@pytest.mark.parametrize("size", [(96, 128), (513, 700)])
def test_grabcut_cuts_an_object_out_of_its_box(size: tuple[int, int]) -> None:
    image, truth = scene(*size)
    network = open_promptable("grabcut")
    x, y, w, h = cv2.boundingRect(truth.astype(np.uint8))
    box = np.float32([[x - 4, y - 4, x + w + 4, y + h + 4]])
    masks = network.masks(network.encode(image), *no_points(), box)
    assert masks.logits.shape == (1, *size)
    assert masks.logits.dtype == np.float32
    assert overlap(choose_mask(masks).mask, truth) > 0.95
    again = network.masks(network.encode(image), *no_points(), box)
    assert np.array_equal(masks.logits, again.logits)


def test_grabcut_takes_points_alone() -> None:
    image, truth = scene(96, 128)
    network = open_promptable("grabcut")
    points, labels = np.float32([[64, 48], [5, 5], [120, 90]]), np.int64([1, 0, 0])
    masks = network.masks(network.encode(image), points, labels, no_boxes())
    assert overlap(choose_mask(masks).mask, truth) > 0.9


def test_grabcut_of_a_box_around_everything_does_not_fail() -> None:
    network = open_promptable("grabcut")
    embedding = network.encode(np.zeros((2, 3, 3), np.uint8))
    masks = network.masks(embedding, *no_points(), np.float32([[0, 0, 3, 2]]))
    assert (masks.logits > 0).all()
    assert masks.scores.tolist() == [0.0]


def test_prompts_are_clipped_and_corners_sorted() -> None:
    points, labels, boxes = prompt_arrays(
        ImageEmbedding(10, 20, {}), np.array([[-3, 50.0]]), np.array([1]), np.array([[30, 8, 2, -1]])
    )
    assert points.tolist() == [[0, 10]]
    assert labels.tolist() == [1]
    assert boxes.tolist() == [[2, 0, 20, 8]]


@pytest.mark.parametrize(
    ("points", "labels", "boxes", "message"),
    [
        (np.zeros((0, 2)), np.zeros(0), np.zeros((0, 4)), "neither a box nor a positive point"),
        (np.zeros((1, 2)), np.zeros(1), np.zeros((0, 4)), "neither a box nor a positive point"),
        (np.zeros((2, 2)), np.ones(1), np.zeros((0, 4)), r"points \(2, 2\), labels \(1,\)"),
        (np.full((1, 2), np.nan), np.ones(1), np.zeros((0, 4)), "no number"),
        (np.zeros((1, 2)), np.full(1, 2), np.zeros((0, 4)), "neither 0 nor 1"),
        (np.zeros((2000, 2)), np.ones(2000), np.zeros((0, 4)), "at most 1024"),
    ],
)
def test_bad_prompts_are_one_line(points: np.ndarray, labels: np.ndarray, boxes: np.ndarray, message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        prompt_arrays(ImageEmbedding(10, 20, {}), points, labels, boxes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("spec", "message"),
    [("grabcat", "do you mean 'grabcut'"), ("grabcut:x", "not of the form grabcut"), ("", "give one of grabcut")],
)
def test_unknown_kinds_are_one_line(spec: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_promptable(spec)


def test_images_of_another_type_are_refused() -> None:
    with pytest.raises(UsageError, match="float32"):
        open_promptable("grabcut").encode(np.zeros((4, 4, 3), np.float32))  # type: ignore[arg-type]


def test_choice_weighs_score_stability_and_saliency() -> None:
    logits = np.full((3, 8, 8), -5, np.float32)
    logits[0, :2], logits[1, :4], logits[2, :4] = 5, 5, 0.5
    scores, saliency = np.float32([0.9, 0.8, 0.95]), np.zeros((8, 8), np.float32)
    saliency[:4] = 1
    masks = PromptedMasks(logits, scores)
    assert choose_mask(masks).index == 0
    chosen = choose_mask(masks, saliency)
    assert (chosen.index, chosen.agreement, chosen.stability) == (1, 1.0, 1.0)
    assert choose_mask(PromptedMasks(logits[2:], scores[2:])).stability == 0
