"""Labels at the frame's size, and the measures taken of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cliprl.pipeline.core.buffers import BufferPool
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.core.viewport import (
    Viewport,
    circle_viewport,
    fit_viewport,
    full_viewport,
    inside_cells,
    map_points,
    network_to_frame,
)
from cliprl.pipeline.overlay.class_statistics import class_statistics
from cliprl.pipeline.overlay.upsample import label_region, labels_at, labels_at_frame

NETWORK, GRID = (256, 320), (64, 80)


def segment(view: Viewport, logits: NDArray[np.floating]) -> Segmentation:
    """A segmentation of logits (K, h, w), background outside the picture."""
    weights = np.exp(logits - logits.max(axis=0))
    probabilities = (weights / weights.sum(axis=0)).astype(np.float32)
    labels = probabilities.argmax(axis=0).astype(np.uint8) * inside_cells(view, *probabilities.shape[1:])
    return Segmentation(labels, probabilities, view, 0.9, 2)


def blob(view: Viewport, x: float, y: float, radius: float) -> Segmentation:
    """Class 1 in a disc given in frame pixels, a linear ramp of logits across its edge; class 2 is nowhere."""
    columns, rows = np.meshgrid(np.arange(GRID[1]), np.arange(GRID[0]))
    centres = (np.stack([columns, rows], axis=-1) + 0.5) * (NETWORK[1] / GRID[1])
    in_frame = map_points(network_to_frame(view), centres)
    inside = (radius - np.hypot(in_frame[..., 0] - x, in_frame[..., 1] - y)) / 20
    return segment(view, np.stack([np.zeros_like(inside), inside, np.full_like(inside, -9)]))


def disc(height: int, width: int, x: float, y: float, radius: float) -> NDArray[np.bool_]:
    rows, columns = np.ogrid[:height, :width]
    return np.asarray((columns + 0.5 - x) ** 2 + (rows + 0.5 - y) ** 2 <= radius**2)


@pytest.mark.parametrize(("height", "width"), [(720, 1280), (577, 721), (1080, 1920)])
def test_boundaries_are_smooth_at_luma_and_at_chroma_size(height: int, width: int) -> None:
    view = full_viewport(height, width, *NETWORK)
    x, y, radius = width * 0.4, height * 0.55, height * 0.3
    truth = disc(height, width, x, y, radius)
    labels = labels_at_frame(blob(view, x, y, radius), height, width)
    assert labels.dtype == np.uint8
    assert labels.shape == (height, width)
    # The disc's edge is off by less than two pixels everywhere.
    assert not np.any((labels == 1) & ~disc(height, width, x, y, radius + 2))
    assert not np.any((labels != 1) & disc(height, width, x, y, radius - 2))
    half = labels_at(blob(view, x, y, radius), (height + 1) // 2, (width + 1) // 2)
    assert np.mean((half == 1) != truth[::2, ::2]) < 0.004


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_labels_follow_a_float_reference(data: st.DataObject) -> None:
    """Against bilinear interpolation computed point by point, wherever the two largest are not all but equal."""
    size = data.draw(st.tuples(st.integers(64, 400), st.integers(64, 400)), label="frame")
    left, top = data.draw(st.integers(0, size[1] // 3)), data.draw(st.integers(0, size[0] // 3))
    crop = (left, top, data.draw(st.integers(32, size[1] - left)), data.draw(st.integers(32, size[0] - top)))
    view = fit_viewport(size, NETWORK, crop)
    logits = np.random.default_rng(data.draw(st.integers(0, 99))).normal(size=(4, 12, 14))
    logits = np.repeat(np.repeat(logits, 6, axis=1), 6, axis=2)[:, : GRID[0], : GRID[1]]
    segmentation = segment(view, logits)
    expected, margin = reference(segmentation, *size)
    found = labels_at(segmentation, *size)
    rows, columns = slice(view.crop[1], view.crop[1] + view.crop[3]), slice(view.crop[0], view.crop[0] + view.crop[2])
    clear = (
        margin > 0.05 if min(view.crop[2:]) > 128 else margin > 0.3
    )  # where a cell is few pixels, half a pixel is much
    np.testing.assert_array_equal(found[rows, columns][clear], expected[clear])
    found[rows, columns] = 0
    assert not found.any()


def reference(segmentation: Segmentation, height: int, width: int) -> tuple[NDArray[np.intp], NDArray[np.floating]]:
    """Labels in the view's crop, and by how much the largest probability leads."""
    view, (rows, columns) = segmentation.view, segmentation.labels.shape
    (crop_width, crop_height), placed = view.crop[2:], view.placed
    cell_x, cell_y = view.network_width / columns, view.network_height / rows
    bounds = [
        placed[0] / cell_x,
        (placed[0] + placed[2]) / cell_x - 1,
        placed[1] / cell_y,
        (placed[1] + placed[3]) / cell_y - 1,
    ]
    x = (placed[0] + (np.arange(crop_width) + 0.5) * placed[2] / crop_width) / cell_x - 0.5
    y = (placed[1] + (np.arange(crop_height) + 0.5) * placed[3] / crop_height) / cell_y - 0.5
    x, y = np.clip(x, bounds[0], bounds[1]), np.clip(y, bounds[2], bounds[3])
    x0, y0 = np.floor(x).astype(int), np.floor(y).astype(int)
    x1, y1 = np.minimum(x0 + 1, columns - 1), np.minimum(y0 + 1, rows - 1)
    p, fx, fy = segmentation.probabilities, (x - x0)[None, None], (y - y0)[None, :, None]
    upper = p[:, y0][:, :, x0] * (1 - fx) + p[:, y0][:, :, x1] * fx
    lower = p[:, y1][:, :, x0] * (1 - fx) + p[:, y1][:, :, x1] * fx
    scaled = upper * (1 - fy) + lower * fy
    ordered = np.sort(scaled, axis=0)
    return scaled.argmax(axis=0), ordered[-1] - ordered[-2]


def test_absent_classes_and_pixels_outside_the_circle_are_excluded() -> None:
    view = circle_viewport((480, 640), NETWORK, (320.0, 240.0, 200.0))
    logits = np.zeros((3, *GRID))
    logits[1] = 1
    segmentation = segment(view, logits)
    labels = labels_at_frame(segmentation, 480, 640)
    np.testing.assert_array_equal(labels[disc(480, 640, 320, 240, 198)], 1)
    np.testing.assert_array_equal(labels[~disc(480, 640, 320, 240, 202)], 0)


VIEWS = [
    full_viewport(720, 1280, *NETWORK),
    circle_viewport((720, 1280), NETWORK, (628.0, 400.0, 568.0)),
    fit_viewport((577, 721), NETWORK, (33, 20, 620, 500)),
    full_viewport(96, 128, *NETWORK),
]


@pytest.mark.parametrize("view", VIEWS)
def test_regions_hold_all_labels_of_their_classes(view: Viewport) -> None:
    logits = np.zeros((4, *GRID), np.float32)
    for class_id, (row, column) in ((1, (20, 15)), (1, (40, 60)), (2, (24, 20)), (3, (50, 30))):
        logits[class_id, row : row + 5, column : column + 9] = 3
    segmentation, size = segment(view, logits), (view.frame_height // 2, view.frame_width // 2)
    whole, joined = labels_at(segmentation, *size), np.zeros(size, np.uint8)
    region = label_region(segmentation, {1, 3}, *size, 3, BufferPool())
    assert region is not None
    joined[region.rows, region.columns] = region.labels
    for class_id in (1, 3):
        wrong = (whole == class_id) != (joined == class_id)
        assert (whole == class_id).any()
        assert not wrong.any()


def test_regions_leave_out_what_is_not_asked_for() -> None:
    logits = np.zeros((3, *GRID), np.float32)
    logits[1, 10:20, 10:20], logits[2, 50:54, 60:70] = 3, 3
    segmentation = segment(VIEWS[0], logits)
    assert label_region(segmentation, {7}, 360, 640, 3, BufferPool()) is None
    region = label_region(segmentation, {1}, 360, 640, 3, BufferPool())
    assert region is not None
    assert region.labels.size < 360 * 640 / 4
    crop = fit_viewport((720, 1280), NETWORK, (200, 100, 800, 500))
    region = label_region(segment(crop, np.stack([np.zeros(GRID), np.ones(GRID)])), {1}, 360, 640, 3, BufferPool())
    assert region is not None
    assert region[1:] == (slice(49, 301), slice(99, 501))  # a bare line about the crop
    assert not region.labels[[0, -1]].any()
    region = label_region(segmentation, {1}, 360, 640, 3, BufferPool())
    assert region is not None
    assert set(np.unique(region.labels)) == {0, 1}


def test_measures_scale_to_the_frame() -> None:
    view = fit_viewport((1080, 1920), NETWORK, (320, 28, 1280, 1024))
    measures = class_statistics(blob(view, 900.0, 500.0, 200.0))
    assert [m.class_id for m in measures] == [0, 1]
    area = np.pi * 200**2
    assert measures[1].pixels == pytest.approx(area, rel=0.02)
    assert measures[1].share == pytest.approx(area / (1280 * 1024), rel=0.02)
    assert sum(m.share for m in measures) == pytest.approx(1)
    cell = 16
    np.testing.assert_allclose(measures[1].box, (700, 300, 400, 400), atol=cell)
    assert measures[0].box == (320, 28, 1280, 1024)


def test_padding_and_black_corners_do_not_count_as_picture() -> None:
    view = circle_viewport((720, 1280), NETWORK, (640.0, 360.0, 300.0))
    (whole,) = class_statistics(segment(view, np.stack([np.ones(GRID), np.zeros(GRID)])))
    assert whole.class_id == 0
    assert whole.pixels == pytest.approx(np.pi * 300**2, rel=0.01)
    assert whole.share == 1
