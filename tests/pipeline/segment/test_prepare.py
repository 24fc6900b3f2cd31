"""The network's picture, made straight from the planes."""

from __future__ import annotations

from fractions import Fraction

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from cliprl.pipeline.core.color import WEIGHTS, ColorSpace, rgb_to_yuv_matrix
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.viewport import (
    Viewport,
    circle_viewport,
    fit_viewport,
    frame_to_network,
    full_viewport,
    map_points,
)
from cliprl.pipeline.segment.segmenter import CpuPreprocessor

NETWORK = (256, 320)
COLORS = [ColorSpace(matrix, full_range) for matrix in WEIGHTS for full_range in (False, True)]


def encode(rgb: NDArray[np.floating], color: ColorSpace) -> Frame:
    """A frame of an RGB picture (H, W, 3) in 0..255, by the formulas in float."""
    height, width = rgb.shape[:2]
    matrix, offset = rgb_to_yuv_matrix(color.matrix, color.full_range)
    yuv = rgb @ matrix.T + offset
    padded = np.pad(yuv[..., 1:], ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    chroma = (padded[::2, ::2] + padded[1::2, ::2] + padded[::2, 1::2] + padded[1::2, 1::2]) / 4
    planes = (np.clip(np.rint(v), 0, 255).astype(np.uint8) for v in (yuv[..., 0], chroma))
    return Frame(*planes, 0, Fraction(1, 25), 0, color)


def smooth(x: NDArray[np.floating], y: NDArray[np.floating]) -> NDArray[np.float64]:
    """A picture given as a function of the place (0..1), so that its resampling is known exactly."""
    return np.stack([128 + 100 * np.sin(3 * x + y), 128 + 100 * np.cos(4 * y - x), 90 + 80 * x * y], axis=-1)


def prepared(frame: Frame, view: Viewport) -> NDArray[np.uint8]:
    out = np.full((*NETWORK, 3), 77, np.uint8)
    CpuPreprocessor().prepare(frame, view, out)
    return out


PLACES = [
    ((577, 721), (0, 0, 721, 577)),
    ((240, 300), (20, 10, 250, 200)),
    ((720, 1280), (0, 0, 1280, 720)),
    ((1080, 1920), (320, 28, 1280, 1024)),
    ((2160, 3840), (0, 0, 3840, 2160)),
    ((1084, 1400), (20, 2, 1358, 1082)),  # half of it has odd sizes
]


# Small pictures in all colors, large ones, which take a second each, in one.
@pytest.mark.parametrize(
    ("color", "size", "crop"),
    [
        *((color, *place) for place in PLACES[:2] for color in COLORS),
        *((color, *place) for place, color in zip(PLACES[2:], COLORS, strict=False)),
    ],
)
def test_smooth_pictures_come_out_as_in_float(
    color: ColorSpace, size: tuple[int, int], crop: tuple[int, int, int, int]
) -> None:
    (height, width), view = size, fit_viewport(size, NETWORK, crop)
    y, x = (np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width
    found = prepared(encode(smooth(*np.meshgrid(x, y)), color), view)
    left, top, placed_width, placed_height = view.placed
    x = (view.crop[0] + (np.arange(placed_width) + 0.5) * view.crop[2] / placed_width) / width
    y = (view.crop[1] + (np.arange(placed_height) + 0.5) * view.crop[3] / placed_height) / height
    difference = found[top : top + placed_height, left : left + placed_width] - smooth(*np.meshgrid(x, y))
    # A bilinear filter can't follow the picture beyond the outermost pixels' centres; and the frame is itself rounded.
    assert np.abs(difference[2:-2, 2:-2]).max() <= 2.25
    found[top : top + placed_height, left : left + placed_width] = 0
    assert not found.any()


def test_planes_of_odd_sizes_are_halved_by_two(monkeypatch: pytest.MonkeyPatch) -> None:
    resize, factors = cv2.resize, list[tuple[float, float]]()

    def noted(source: NDArray[np.uint8], size: tuple[int, int] | None, *rest: object, **options: int) -> object:
        if options.get("interpolation") == cv2.INTER_AREA and size is not None:
            factors.append((source.shape[1] / size[0], source.shape[0] / size[1]))
        return resize(source, size, *rest, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(cv2, "resize", noted)
    size = (2157, 3838)
    planes = np.full(size, 99, np.uint8), np.full((1079, 1919, 2), 99, np.uint8)
    prepared(Frame(*planes, 0, Fraction(1, 25), 0), fit_viewport(size, NETWORK, (0, 0, 3406, 2157)))
    assert len(factors) == 3 + 2 * 2  # luma, and both planes of chroma
    assert set(factors) == {(2.0, 2.0)}


def test_fine_patterns_become_grey_and_do_not_alias() -> None:
    rgb = np.zeros((720, 1280, 3))
    rgb[:, ::2] = 255
    found = prepared(encode(rgb, ColorSpace("bt709", True)), full_viewport(720, 1280, *NETWORK))
    image = found[32:224].astype(float)
    assert abs(image.mean() - 127.5) < 2
    assert image.std() < 4


def test_a_spot_lands_where_the_view_says() -> None:
    rgb = np.zeros((720, 1280, 3))
    cv2.circle(rgb, (900, 300), 12, (255, 40, 40), -1)
    view = fit_viewport((720, 1280), NETWORK, (300, 60, 800, 600))
    found = prepared(encode(rgb, ColorSpace("bt709")), view).astype(float)
    for channel in (0, 1):  # luma and chroma agree on the place
        weights = found[..., channel]
        rows, columns = np.indices(weights.shape) + 0.5
        centre = [(columns * weights).sum() / weights.sum(), (rows * weights).sum() / weights.sum()]
        expected = map_points(frame_to_network(view), np.array([900.5, 300.5]))
        np.testing.assert_allclose(centre, expected, atol=0.15)


def test_outside_the_circle_all_is_black() -> None:
    rgb = np.full((480, 640, 3), 200.0)
    found = prepared(encode(rgb, ColorSpace("bt601")), circle_viewport((480, 640), NETWORK, (320.0, 240.0, 200.0)))
    assert not found[:20, :50].any()
    np.testing.assert_allclose(found[128, 160], 200, atol=2)


def test_planes_that_are_parts_of_larger_ones_do() -> None:
    frame = encode(np.random.default_rng(1).uniform(0, 255, (480, 640, 3)), ColorSpace("bt601"))
    wide = Frame(
        np.pad(frame.luma, ((0, 0), (0, 64)))[:, :640],
        np.pad(frame.chroma, ((0, 0), (0, 32), (0, 0)))[:, :320],
        0,
        Fraction(1, 25),
        0,
        frame.color,
    )
    view = full_viewport(480, 640, *NETWORK)
    np.testing.assert_array_equal(prepared(wide, view), prepared(frame, view))
