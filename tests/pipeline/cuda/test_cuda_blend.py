"""The kernels that paint, run on the host, against the CPU's overlay."""

from __future__ import annotations

from copy import deepcopy
from fractions import Fraction

import numpy as np
import pytest
from gpu_host import launch, needs_compiler, pitched
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cliprl.engines import ClassSpec
from cliprl.pipeline.core.buffers import BufferPool
from cliprl.pipeline.core.color import WEIGHTS, ColorSpace
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.core.viewport import Viewport, circle_viewport, fit_viewport, full_viewport, inside_cells
from cliprl.pipeline.cuda.kernels.kernel_arguments import StampPart, StampPatches
from cliprl.pipeline.cuda.overlay import (
    OverlayBuffers,
    blend_arguments,
    ink_table,
    trace_arguments,
    upsample_arguments,
)
from cliprl.pipeline.overlay.overlay import Overlay, blend
from cliprl.pipeline.overlay.style import Style, overlay_colors
from cliprl.pipeline.overlay.upsample import labels_at

pytestmark = needs_compiler


COLORS = [ColorSpace(matrix, full_range) for matrix in WEIGHTS for full_range in (False, True)]
IDS = [f"{c.matrix}-{'full' if c.full_range else 'limited'}" for c in COLORS]
CLASSES = (
    ClassSpec("background", (9, 9, 9), "background"),
    ClassSpec("tool tip", (0, 255, 170), "instrument"),
    ClassSpec("shaft", (70, 150, 255), "instrument"),
    ClassSpec("tissue", (255, 200, 0), "tissue"),
)
SHOWN = frozenset({1, 2, 3})


def seen(view: Viewport, grid: tuple[int, int], seed: int) -> Segmentation:
    """Random blobs of all classes, sure of themselves here and not there."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: grid[0], : grid[1]]
    waves = [
        np.sin(rows * rng.uniform(0.1, 0.6) + columns * rng.uniform(0.1, 0.6) + rng.uniform(0, 6)) for _ in CLASSES
    ]
    logits = np.stack(waves) * rng.uniform(1, 6) + rng.normal(0, 0.2, (len(CLASSES), *grid))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=0)
    labels = np.where(inside_cells(view, *grid), probabilities.argmax(axis=0), 0).astype(np.uint8)
    return Segmentation(labels, probabilities.astype(np.float32), view, 1.0, 1)


def noise(height: int, width: int, color: ColorSpace, seed: int, extra: int) -> Frame:
    rng = np.random.default_rng(seed)
    planes = (
        rng.integers(0, 256, shape).astype(np.uint8)
        for shape in ((height, width), (-(-height // 2), -(-width // 2), 2))
    )
    return Frame(*(pitched(plane, extra) for plane in planes), 0, Fraction(1, 25), 0, color)


def present_in(segmentation: Segmentation) -> NDArray[np.uint8]:
    """Which classes win a cell that the picture touches."""
    view, (rows, columns) = segmentation.view, segmentation.labels.shape
    from cliprl.pipeline.overlay.upsample import grid_spans

    x, y = grid_spans(view, (rows, columns), view.frame_height, view.frame_width)
    found = np.unique(segmentation.labels[y.cells, x.cells])
    return np.isin(np.arange(len(CLASSES)), found).astype(np.uint8)


class Painter:
    """The three kernels one after the other, as the device runs them."""

    def __init__(self, frame: Frame, segmentation: Segmentation, opacity: float, contour_width: float | None) -> None:
        size = frame.chroma.shape[:2]
        self.size, self.contour_width = size, contour_width
        self.labels, self.map = np.full(size, 9, np.uint8), np.full(size, 9, np.uint8)
        self.inks = ink_table(overlay_colors(CLASSES, SHOWN, opacity, frame.color))
        self.canvas = OverlayBuffers(*(array.ctypes.data for array in (self.labels, self.map, self.inks)))
        self.frame, self.seen = frame, segmentation

    def upsample(self) -> NDArray[np.uint8]:
        grid, present = self.seen.probabilities.shape, present_in(self.seen)
        pointers = (self.seen.probabilities.ctypes.data, present.ctypes.data)
        launch(upsample_arguments(self.seen.view, grid, self.size, *pointers, self.canvas))
        return self.labels

    def paint(self) -> None:
        self.upsample()
        launch(trace_arguments(self.seen.view, self.size, self.contour_width, self.canvas))
        planes = tuple((plane.ctypes.data, plane.strides[0]) for plane in (self.frame.luma, self.frame.chroma))
        launch(blend_arguments(planes, (self.frame.height, self.frame.width), self.canvas))


def compare(frame: Frame, segmentation: Segmentation, style: Style) -> None:
    expected = deepcopy(frame)
    Overlay(CLASSES, style).draw(expected, segmentation)
    painter = Painter(frame, segmentation, style.opacity, style.contour_width if style.contours else None)
    labels = painter.upsample()
    wrong = labels != labels_at(segmentation, *labels.shape)
    # Ties within a 65,535th may fall otherwise; a label there is no less right.
    assert wrong.mean() < 5e-4
    painter.paint()
    if not wrong.any():
        np.testing.assert_array_equal(frame.luma, expected.luma)
        np.testing.assert_array_equal(frame.chroma, expected.chroma)
    else:
        assert (frame.luma != expected.luma).mean() < 0.02


@pytest.mark.parametrize("color", COLORS, ids=IDS)
@pytest.mark.parametrize("contours", [True, False])
def test_it_looks_like_the_cpus(color: ColorSpace, contours: bool) -> None:
    view = full_viewport(360, 640, 256, 320)
    style = Style(contours=contours, legend=False, status=False)
    compare(noise(360, 640, color, 1, 13), seen(view, (64, 80), 3), style)


@pytest.mark.parametrize("lines", [90, 721, 1081])
@pytest.mark.parametrize("contour_width", [0.4, 1.0, 1.7, 3.0])
def test_contours_of_every_width(lines: int, contour_width: float) -> None:
    width = lines + 31
    view = circle_viewport((lines, width), (256, 320), (width / 2, lines / 2, lines * 0.45))
    style = Style(legend=False, status=False, contour_width=contour_width)
    compare(noise(lines, width, ColorSpace(), 1, 5), seen(view, (64, 80), lines), style)


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(16, 200),
    width=st.integers(16, 200),
    extra=st.integers(0, 40),
    seed=st.integers(0, 999),
    opacity=st.floats(0.05, 1),
    round_=st.booleans(),
    data=st.data(),
)
def test_any_size_view_and_opacity(
    height: int, width: int, extra: int, seed: int, opacity: float, round_: bool, data: st.DataObject
) -> None:
    if round_:
        radius = min(height, width) * data.draw(st.floats(0.2, 0.7))
        view = circle_viewport((height, width), (64, 80), (width / 2 + 0.3, height / 2 - 0.2, radius))
    else:
        left, top = data.draw(st.integers(0, width - 8)), data.draw(st.integers(0, height - 8))
        crop = (left, top, data.draw(st.integers(8, width - left)), data.draw(st.integers(8, height - top)))
        view = fit_viewport((height, width), (64, 80), crop)
    style = Style(legend=False, status=False, opacity=opacity)
    color = data.draw(st.sampled_from(COLORS))
    compare(noise(height, width, color, seed, extra), seen(view, (16, 20), seed), style)


def test_what_is_not_painted_stays() -> None:
    view = full_viewport(120, 160, 64, 80)
    frame = noise(120, 160, ColorSpace(), 1, 0)
    before = deepcopy(frame)
    labels = np.zeros((16, 20), np.uint8)
    probabilities = np.stack([np.ones((16, 20)), *(np.zeros((16, 20)),) * 3]).astype(np.float32)
    Painter(frame, Segmentation(labels, probabilities, view, 1.0, 0), 0.5, 1.0).paint()
    np.testing.assert_array_equal(frame.luma, before.luma)
    np.testing.assert_array_equal(frame.chroma, before.chroma)


@settings(deadline=None)
@given(seed=st.integers(0, 99), height=st.integers(1, 20), width=st.integers(1, 30), extra=st.integers(0, 9))
def test_a_patch_is_blended_as_on_the_cpu(seed: int, height: int, width: int, extra: int) -> None:
    rng = np.random.default_rng(seed)
    plane = pitched(rng.integers(0, 256, (height, width)).astype(np.uint8), extra)
    keep = rng.integers(0, 257, (height, width)).astype(np.uint16)
    add = rng.integers(0, 65536, (height, width)).astype(np.uint16)
    expected = plane.copy()
    blend(expected, keep, add, BufferPool())
    half, pointers = height // 2, (plane, keep, add)
    parts = (StampPart * 4)(
        *(
            StampPart(*(array[rows].ctypes.data for array in pointers), plane.strides[0], width, len(plane[rows]))
            for rows in (slice(half), slice(half, None))
        )
    )
    launch(StampPatches(width, height, parts))
    np.testing.assert_array_equal(plane, expected)
