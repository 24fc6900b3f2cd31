"""The temporal prior follows the endoscope's circle, and is forgotten where it would mislead."""

from __future__ import annotations

import numpy as np
import pytest

from cliprl.pipeline.core.viewport import Viewport, circle_viewport, full_viewport
from cliprl.pipeline.segment.temporal_prior import TemporalPrior

NETWORK = (256, 320)


def logits_of(mask: np.ndarray) -> np.ndarray:
    return np.stack([np.where(mask, -4.0, 4.0), np.where(mask, 4.0, -4.0)])[None].astype(np.float32)


def grid_of_object(view: Viewport, box: tuple[float, float, float, float]) -> np.ndarray:
    """Which cells of a 64x80 grid lie in `box` (x0, y0, x1, y1) of the frame."""
    from cliprl.pipeline.core.viewport import map_points, network_to_frame

    x, y = np.meshgrid((np.arange(80) + 0.5) * 4, (np.arange(64) + 0.5) * 4)
    points = map_points(network_to_frame(view), np.stack([x, y], -1))
    return (
        (points[..., 0] >= box[0]) & (points[..., 0] < box[2]) & (points[..., 1] >= box[1]) & (points[..., 1] < box[3])
    )


@pytest.mark.parametrize(("x", "y", "radius"), [(700, 400, 300), (640, 360, 320), (560, 340, 250)])
def test_the_prior_lies_on_the_object_though_the_circle_moved(x: float, y: float, radius: float) -> None:
    box = (580.0, 300.0, 740.0, 420.0)
    before = circle_viewport((720, 1280), NETWORK, (640.0, 360.0, 300.0))
    after = circle_viewport((720, 1280), NETWORK, (x, y, radius))
    memory = TemporalPrior()
    memory.keep(logits_of(grid_of_object(before, box)), before)
    base = np.zeros((1, 2, 64, 80), np.float32)
    moved = memory.recall(base, after, cut=False)[0].argmax(0).astype(bool)
    expected = grid_of_object(after, box)
    overlap = (moved & expected).sum() / (moved | expected).sum()
    assert overlap > 0.9


def test_an_unchanged_view_gives_the_very_logits() -> None:
    view = full_viewport(720, 1280, *NETWORK)
    memory = TemporalPrior()
    kept = np.random.default_rng(0).normal(size=(1, 3, 64, 80)).astype(np.float32)
    memory.keep(kept, view)
    np.testing.assert_array_equal(memory.recall(np.zeros_like(kept), view, cut=False), kept)


@pytest.mark.parametrize("why", ["first frame", "cut", "other frame size", "other classes"])
def test_where_there_is_no_prior_the_base_is_given(why: str) -> None:
    view = full_viewport(720, 1280, *NETWORK)
    memory = TemporalPrior()
    if why != "first frame":
        memory.keep(np.ones((1, 2 + (why == "other classes"), 64, 80), np.float32), view)
    seen = full_viewport(480, 640, *NETWORK) if why == "other frame size" else view
    base = np.zeros((1, 2, 64, 80), np.float32)
    assert memory.recall(base, seen, cut=why == "cut") is base


def test_a_cut_is_told_from_motion() -> None:
    random = np.random.default_rng(1)
    scene = np.full((*NETWORK, 3), 90, np.uint8)
    scene[60:200, 80:250] = (190, 60, 50)
    noisy = np.clip(np.roll(scene, 6, 1).astype(int) + random.integers(-8, 9, scene.shape), 0, 255).astype(np.uint8)
    other = np.full((*NETWORK, 3), (30, 160, 170), np.uint8)
    memory = TemporalPrior()
    assert not memory.is_cut(scene)
    assert not memory.is_cut(noisy)
    assert memory.is_cut(other)
    assert not memory.is_cut(other)
