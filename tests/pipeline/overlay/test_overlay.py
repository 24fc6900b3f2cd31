"""The overlay: right colours in every colour space, and nothing touched that is not painted."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cliprl.engines import ClassSpec, UsageError
from cliprl.pipeline.core.color import WEIGHTS, ColorSpace, rgb_to_yuv_matrix, yuv_to_rgb_matrix
from cliprl.pipeline.core.frame import Frame, allocate_planes
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.core.viewport import Viewport, circle_viewport, full_viewport, inside_cells
from cliprl.pipeline.overlay.overlay import Overlay
from cliprl.pipeline.overlay.style import Style
from cliprl.pipeline.overlay.text import status_patch
from cliprl.pipeline.window.layout import panel

NETWORK, GRID = (256, 320), (64, 80)
COLORS = [ColorSpace(matrix, full_range) for matrix in WEIGHTS for full_range in (False, True)]
IDS = [f"{c.matrix}-{'full' if c.full_range else 'limited'}" for c in COLORS]
CLASSES = (
    ClassSpec("background", (9, 9, 9), "background"),
    ClassSpec("tool tip", (0, 255, 170), "instrument"),
    ClassSpec("shaft", (70, 150, 255), "instrument"),
    ClassSpec("tissue", (255, 200, 0), "tissue"),
)
BARS = np.array(
    [(192, 192, 192), (192, 192, 0), (0, 192, 192), (0, 192, 0), (192, 0, 192), (192, 0, 0), (0, 0, 192), (16, 16, 16)]
)
PLAIN = Style(contours=False, legend=False, status=False)
STATUS = "cliprl small · 3 steps · 14 ms · RESEARCH USE ONLY"


def segment(view: Viewport, labels: NDArray[np.integer]) -> Segmentation:
    """A segmentation that is sure of its labels (h, w), given for the whole network's picture."""
    probabilities = (labels[None] == np.arange(len(CLASSES))[:, None, None]).astype(np.float32)
    inside = inside_cells(view, *labels.shape)
    return Segmentation((labels * inside).astype(np.uint8), probabilities, view, 1.0, 1)


def halves() -> NDArray[np.integer]:
    """Background in the upper half of the grid, the three classes side by side in the lower."""
    labels = np.zeros(GRID, int)
    labels[32:] = 1 + np.arange(GRID[1]) * 3 // GRID[1]
    return labels


def color_bars(height: int, width: int, color: ColorSpace) -> Frame:
    """Eight upright bars, encoded by the formulas in float."""
    matrix, offset = rgb_to_yuv_matrix(color.matrix, color.full_range)
    yuv = np.rint(BARS @ matrix.T + offset).astype(np.uint8)
    luma, chroma = allocate_planes(height, width)
    bar = np.arange(width) // 2 * 2 * len(BARS) // width
    luma[:], chroma[:] = yuv[bar, 0], yuv[bar[::2], 1:]
    return Frame(luma, chroma, 0, Fraction(1, 25), 0, color)


def noise(height: int, width: int, color: ColorSpace | None = None, rotation: int = 0) -> Frame:
    rng = np.random.default_rng(height * width)
    luma, chroma = (rng.integers(0, 256, p.shape, np.uint8) for p in allocate_planes(height, width))
    return Frame(luma, chroma, 0, Fraction(1, 25), 0, color or ColorSpace(), rotation=rotation)


def copy(frame: Frame) -> Frame:
    return replace(frame, luma=frame.luma.copy(), chroma=frame.chroma.copy())


def changed(before: Frame, after: Frame) -> NDArray[np.bool_]:
    """Which luma pixels changed, or their chroma did."""
    height, width = before.luma.shape
    chroma = (before.chroma != after.chroma).any(axis=2).repeat(2, axis=0).repeat(2, axis=1)
    return np.asarray((before.luma != after.luma) | chroma[:height, :width])


def to_rgb(frame: Frame) -> NDArray[np.float64]:
    """The frame in RGB, unclipped, chroma repeated."""
    matrix, offset = yuv_to_rgb_matrix(frame.color.matrix, frame.color.full_range)
    height, width = frame.luma.shape
    chroma = frame.chroma.repeat(2, axis=0).repeat(2, axis=1)[:height, :width]
    return np.dstack([frame.luma, chroma]).astype(float) @ matrix.T + offset


@pytest.mark.parametrize("opacity", [0.1, 0.4, 0.73, 1.0])
@pytest.mark.parametrize("color", COLORS, ids=IDS)
def test_colors_are_right_within_two(color: ColorSpace, opacity: float) -> None:
    view = full_viewport(480, 640, 256, 320)
    frame = color_bars(480, 640, color)
    before = copy(frame)
    Overlay(CLASSES, replace(PLAIN, opacity=opacity)).draw(frame, segment(view, halves()))
    found, source = to_rgb(frame), to_rgb(before)
    compared = 0
    for class_id in (1, 2, 3):
        left = (class_id - 1) * 640 // 3 + 10
        area = (slice(260, 480), slice(left, left + 190))  # clear of the edges between classes
        expected = source[area] + opacity * (np.array(CLASSES[class_id].color) - source[area])
        # Edges of bars are clear of chroma's sharing: bars begin at even pixels.
        assert np.abs(found[area] - expected).max() <= 2
        compared += expected.size
    assert compared > 300_000


@pytest.mark.parametrize("size", [(480, 640), (361, 481), (96, 128), (1080, 1920)])
def test_background_keeps_every_bit(size: tuple[int, int]) -> None:
    frame = noise(*size)
    before = copy(frame)
    Overlay(CLASSES, replace(PLAIN, contours=True)).draw(frame, segment(full_viewport(*size, *NETWORK), halves()))
    touched = changed(before, frame)
    assert not touched[: size[0] // 2 - 4].any()
    assert touched[size[0] // 2 + 4 :].mean() > 0.9


def test_text_that_is_not_utf_8_is_drawn() -> None:
    """OpenCV crashes on it: a name of a file or a folder may stand in a status line, on a card or in the window."""
    wanted, given = (status_patch(text, 18, ColorSpace()) for text in ("rec\\udce9", "rec\udce9"))
    np.testing.assert_array_equal(given.luma_add, wanted.luma_add)
    np.testing.assert_array_equal(panel((("rec\udce9",),), 18), panel((("rec\\udce9",),), 18))


def test_opacity_zero_keeps_every_bit_text_and_all() -> None:
    frame = noise(361, 481)
    before = copy(frame)
    Overlay(CLASSES, Style(opacity=0)).draw(frame, segment(full_viewport(361, 481, *NETWORK), halves()), STATUS)
    assert not changed(before, frame).any()


@settings(max_examples=30, deadline=None)
@given(
    height=st.integers(2, 400),
    width=st.integers(2, 400),
    rotation=st.sampled_from([0, 90, 180, 270]),
    width_of_contour=st.floats(0.5, 8),
    seed=st.integers(0, 99),
)
def test_any_size_is_drawn(height: int, width: int, rotation: int, width_of_contour: float, seed: int) -> None:
    # A few pixels could all be background, of which nothing is drawn.
    labels = np.random.default_rng(seed).integers(int(min(height, width) < 8), 4, GRID)
    frame = noise(height, width, rotation=rotation)
    before = copy(frame)
    overlay = Overlay(CLASSES, Style(contour_width=width_of_contour))
    overlay.draw(frame, segment(full_viewport(height, width, *NETWORK), labels), STATUS)
    assert changed(before, frame).any()


def test_white_on_white_does_not_wrap() -> None:
    white = (
        ClassSpec("background", (0, 0, 0), "background"),
        *(replace(c, color=(255, 255, 255)) for c in CLASSES[1:]),
    )
    frame = noise(480, 640, ColorSpace("bt709", True))
    frame.luma[:], frame.chroma[:] = 255, 128
    Overlay(white, replace(PLAIN, contours=True, opacity=0.37)).draw(
        frame, segment(full_viewport(480, 640, *NETWORK), halves())
    )
    assert frame.luma.min() == 255
    assert np.abs(frame.chroma.astype(int) - 128).max() == 0


def test_contours_are_opaque_thin_and_inside_their_class() -> None:
    frame = noise(720, 1280, ColorSpace("bt709"))
    labels = np.zeros(GRID, int)
    labels[20:44, 20:60] = 2
    before = copy(frame)
    overlay = Overlay(CLASSES, replace(PLAIN, contours=True, opacity=0.2))
    overlay.draw(frame, segment(full_viewport(720, 1280, *NETWORK), labels))
    target = rgb_to_yuv_matrix("bt709", False)[0] @ CLASSES[2].color + rgb_to_yuv_matrix("bt709", False)[1]
    opaque = np.abs(frame.chroma - target[1:]).max(axis=2) <= 1
    row = np.flatnonzero(opaque[180])
    assert 2 <= len(row) <= 6
    assert row[-1] - row[0] == pytest.approx(40 * 8, abs=4)
    assert changed(before, frame)[:, 640].sum() < 24 * 15 + 8


def test_the_edge_of_the_scope_is_no_contour() -> None:
    view = circle_viewport((480, 640), NETWORK, (320.0, 240.0, 200.0))
    tissue = segment(view, np.full(GRID, 3))
    with_contours, without = noise(480, 640), noise(480, 640)
    Overlay(CLASSES, replace(PLAIN, contours=True)).draw(with_contours, tissue)
    Overlay(CLASSES, PLAIN).draw(without, tissue)
    assert not changed(with_contours, without).any()


def test_only_the_classes_asked_for_are_painted() -> None:
    view = full_viewport(480, 640, *NETWORK)
    frame = noise(480, 640)
    before = copy(frame)
    Overlay(CLASSES, replace(PLAIN, shown=("shaft",))).draw(frame, segment(view, halves()))
    columns = np.flatnonzero(changed(before, frame).any(axis=0))
    assert columns[0] > 640 // 3 - 12
    assert columns[-1] < 1280 // 3 + 12


def test_misuse_is_answered_in_one_line() -> None:
    with pytest.raises(UsageError, match=r"unknown class 'scalpel': one of tool tip, shaft, tissue$"):
        Overlay(CLASSES, Style(shown=("shaft", "scalpel")))
    with pytest.raises(UsageError, match="unknown class 'background'"):
        Overlay(CLASSES, Style(shown=("background",)))
    with pytest.raises(UsageError, match=r"opacity 1.5 is out of range"):
        Style(opacity=1.5)
    with pytest.raises(UsageError, match=r"contour width 0 is out of range"):
        Style(contour_width=0)


def _text_area(frame: Frame, style: Style, status: str | None, segmentation: Segmentation | None) -> NDArray[np.bool_]:
    """Where text was drawn, in the picture as it is displayed."""
    before = copy(frame)
    Overlay(CLASSES, style).draw(frame, segmentation, status)
    return np.asarray(np.rot90(changed(before, frame), frame.rotation // 90))


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_text_stands_upright_in_the_displayed_picture(rotation: int) -> None:
    frame = noise(480, 640, rotation=rotation)
    area = _text_area(frame, Style(), STATUS, None)
    rows, columns = np.flatnonzero(area.any(axis=1)), np.flatnonzero(area.any(axis=0))
    height = len(area)
    assert rows[0] > height * 0.9 - 20
    assert rows[-1] < height - 4
    assert columns[0] < 16
    assert columns[-1] - columns[0] > 8 * (rows[-1] - rows[0])


def test_status_needs_no_segmentation_and_can_be_turned_off() -> None:
    assert _text_area(noise(480, 640), Style(), STATUS, None).any()
    assert not _text_area(noise(480, 640), Style(status=False), STATUS, None).any()
    assert not _text_area(noise(480, 640), Style(), None, None).any()


def test_the_legend_names_the_classes_in_view() -> None:
    view = full_viewport(480, 640, *NETWORK)
    style = replace(PLAIN, legend=True, opacity=1 / 255)

    def height_of_legend(labels: NDArray[np.integer]) -> int:
        area = _text_area(noise(480, 640), style, None, segment(view, labels))
        return int(area[:240, :60].any(axis=1).sum())

    one = np.zeros(GRID, int)
    one[40:, :] = 2
    assert height_of_legend(np.zeros(GRID, int)) == 0
    assert height_of_legend(halves()) > 2 * height_of_legend(one) > 40


def test_swatches_have_the_colors_of_the_classes() -> None:
    frame = noise(720, 1280, ColorSpace("bt709"))
    Overlay(CLASSES, replace(PLAIN, legend=True)).draw(frame, segment(full_viewport(720, 1280, *NETWORK), halves()))
    corner = to_rgb(frame)[:200:2, :80:2].reshape(-1, 3)
    for spec in CLASSES[1:]:
        assert np.abs(corner - spec.color).max(axis=1).min() <= 2


def test_a_style_may_change_between_frames() -> None:
    overlay, view = Overlay(CLASSES, PLAIN), full_viewport(480, 640, *NETWORK)
    frame = noise(480, 640)
    overlay.draw(frame, segment(view, halves()))
    overlay.style = replace(PLAIN, opacity=1.0)
    overlay.draw(frame, segment(view, halves()))
    np.testing.assert_allclose(to_rgb(frame)[400, 20], CLASSES[1].color, atol=2)


def test_the_same_frame_is_always_drawn_the_same() -> None:
    overlay, segmentation = Overlay(CLASSES), segment(full_viewport(361, 481, *NETWORK), halves())
    first, second = noise(361, 481), noise(361, 481)
    overlay.draw(first, segmentation, STATUS)
    overlay.draw(noise(720, 1280), segment(full_viewport(720, 1280, *NETWORK), np.full(GRID, 3)), "something else")
    overlay.draw(second, segmentation, STATUS)
    assert not changed(first, second).any()


def test_stripes_leave_no_seams(monkeypatch: pytest.MonkeyPatch) -> None:
    segmentation = segment(full_viewport(361, 481, *NETWORK), np.random.default_rng(5).integers(0, 4, GRID))
    in_stripes, whole = noise(361, 481), noise(361, 481)
    Overlay(CLASSES).draw(in_stripes, segmentation, STATUS)
    monkeypatch.setattr("cliprl.pipeline.overlay.overlay._STRIPE", 10_000)
    Overlay(CLASSES).draw(whole, segmentation, STATUS)
    assert not changed(in_stripes, whole).any()


def test_an_array_is_no_frame_to_draw_into() -> None:
    with pytest.raises(UsageError, match=r"a ndarray is no frame: give one of a source, or frame_of_image"):
        Overlay((ClassSpec("tool", (0, 255, 0), "instrument"),)).draw(np.zeros((64, 80, 3), np.uint8), None)  # type: ignore[arg-type]
