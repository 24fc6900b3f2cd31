"""The map between frame and network, and the search for the endoscope's picture."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cliprl.pipeline.core.color import ColorSpace
from cliprl.pipeline.core.frame import Frame, allocate_planes
from cliprl.pipeline.core.viewport import (
    ALIGNMENT,
    MAX_STRETCH,
    Circle,
    Viewport,
    circle_viewport,
    fit_viewport,
    frame_to_network,
    full_viewport,
    inside_cells,
    map_points,
    network_to_frame,
)
from cliprl.pipeline.view import field_of_view, shape_fit
from cliprl.pipeline.view.field_of_view import (
    CONFIRMING_FRAMES,
    FieldOfViewDetector,
    FieldShape,
    shape_of,
)
from cliprl.pipeline.view.shape_fit import Ends

NETWORK = (256, 320)


@st.composite
def views(draw: st.DrawFn) -> Viewport:
    height, width = draw(st.integers(16, 2200)), draw(st.integers(16, 4000))
    left, top = draw(st.integers(0, width - 8)), draw(st.integers(0, height - 8))
    crop = (left, top, draw(st.integers(1, width - left)), draw(st.integers(1, height - top)))
    network = draw(st.sampled_from([(256, 320), (384, 480), (224, 224), (512, 640)]))
    return fit_viewport((height, width), network, crop)


@given(views(), st.lists(st.tuples(st.floats(-100, 4000), st.floats(-100, 4000)), min_size=1))
def test_there_and_back(view: Viewport, points: list[tuple[float, float]]) -> None:
    there = map_points(frame_to_network(view), np.array(points))
    np.testing.assert_allclose(map_points(network_to_frame(view), there), points, atol=1e-6)


@given(views())
def test_crop_lands_where_placed_and_is_fully_covered(view: Viewport) -> None:
    left, top, width, height = view.crop
    corners = map_points(frame_to_network(view), np.array([[left, top], [left + width, top + height]]))
    x, y, placed_width, placed_height = view.placed
    np.testing.assert_allclose(corners, [[x, y], [x + placed_width, y + placed_height]], atol=1e-9)
    assert 0 <= x <= x + placed_width <= view.network_width
    assert 0 <= y <= y + placed_height <= view.network_height
    assert 0 <= left <= left + width <= view.frame_width
    assert 0 <= top <= top + height <= view.frame_height
    assert left % 2 == top % 2 == 0
    assert all(v % ALIGNMENT == 0 for v in view.placed)


@given(views())
def test_aspect_is_kept_but_for_a_little(view: Viewport) -> None:
    assume(min(view.placed[2:]) >= 64)  # of a sliver, rounding to whole cells is a large part
    stretch = (view.placed[2] / view.crop[2]) / (view.placed[3] / view.crop[3])
    limit = MAX_STRETCH * (1 + ALIGNMENT / min(view.placed[2:]))
    assert 1 / limit <= stretch <= limit


def test_cells_of_a_circle() -> None:
    view = circle_viewport((720, 1280), NETWORK, (640.0, 400.0, 500.0))
    assert view.crop == (140, 0, 1000, 720)
    inside = inside_cells(view, 64, 80)
    centre = map_points(frame_to_network(view), np.array([640.0, 400.0])) / 4
    assert inside[int(centre[1]), int(centre[0])]
    assert not inside[0, 0]
    cell = (view.crop[2] / view.placed[2] * 4) * (view.crop[3] / view.placed[3] * 4)
    expected = cv2.countNonZero(_disc(720, 1280, (640.0, 400.0, 500.0)))
    assert inside.sum() * cell == pytest.approx(expected, rel=0.01)


def _disc(height: int, width: int, circle: Circle) -> NDArray[np.uint8]:
    y, x = np.ogrid[:height, :width]
    return ((x + 0.5 - circle[0]) ** 2 + (y + 0.5 - circle[1]) ** 2 <= circle[2] ** 2).astype(np.uint8)


def _inside(height: int, width: int, found: FieldShape) -> NDArray[np.uint8]:
    if len(found) == 3:
        return _disc(height, width, found)
    left, top, right, bottom = found
    y, x = np.ogrid[:height, :width]
    return ((x >= left) & (x < right) & (y >= top) & (y < bottom)).astype(np.uint8)


def _scene(height: int, width: int, circle: Circle, *, black: int, seed: int, noise: float) -> NDArray[np.uint8]:
    """Blotchy tissue in a disc on black, with noise and text in two corners."""
    rng = np.random.default_rng(seed)
    tissue = cv2.resize(rng.uniform(60, 200, (6, 9)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    luma = np.where(_disc(height, width, circle) > 0, np.clip(tissue, 45, 230), black).astype(np.uint8)
    scale = height / 720
    for y in (40, 80):
        cv2.putText(luma, "PATIENT 0042", (8, int(y * scale)), cv2.FONT_HERSHEY_SIMPLEX, scale, 200, 2)
    noisy = np.clip(np.rint(luma + rng.normal(0, noise, luma.shape)), 0, 255)
    return noisy.astype(np.uint8)


@settings(max_examples=40, deadline=None)
@given(
    size=st.sampled_from([(480, 640), (577, 721), (720, 1280)]),
    x=st.floats(0.42, 0.58),
    y=st.floats(0.35, 0.65),
    radius=st.floats(0.36, 0.75),
    noise=st.floats(0, 3),
    full_range=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_a_disc_on_black_is_found(
    size: tuple[int, int], x: float, y: float, radius: float, noise: float, full_range: bool, seed: int
) -> None:
    height, width = size
    circle = (x * width, y * height, radius * height)
    luma = _scene(height, width, circle, black=0 if full_range else 16, seed=seed, noise=noise)
    found = _found(luma, full_range=full_range)
    assert found is not None
    wrong = _inside(height, width, found) != _disc(height, width, circle)
    assert wrong.mean() < 0.02
    if radius < 0.66:  # beyond that so little is black, tips of corners or one alone, that many circles explain it
        assert len(found) == 3
        np.testing.assert_allclose(found, circle, atol=max(4, width / 200))


_DISC = (620.0, 390.0, 560.0)


@pytest.mark.parametrize("trouble", ["dark half", "vignette", "smoke", "glow", "menu bar", "inset"])
def test_a_disc_is_found_in_hard_scenes(trouble: str) -> None:
    y, x = np.mgrid[:720, :1280] / np.array([720, 1280])[:, None, None]
    inside = _disc(720, 1280, _DISC) > 0
    scene: NDArray[np.floating] = np.where(inside, 120.0, 16.0)
    if trouble == "dark half":
        scene = np.where(inside, np.clip((x - 0.35) * 300, 18, 220), 16.0)
    elif trouble == "vignette":
        scene = np.where(inside, 16 + 160 * np.clip(1 - 3 * (x - 0.48) ** 2 - (y - 0.54) ** 2, 0, 1), 16.0)
    elif trouble == "smoke":
        scene = np.where(inside, 190.0, 16.0)
    elif trouble == "glow":
        scene = np.where(inside, 200.0, 16 + 0.15 * cv2.GaussianBlur(inside * 200.0, (0, 0), 40))
    elif trouble == "menu bar":
        scene[:80] = 80
    else:
        scene[:300, 1000:] = 90
    luma = np.clip(np.rint(scene + np.random.default_rng(1).normal(0, 2, scene.shape)), 0, 255).astype(np.uint8)
    found = _found(luma, full_range=False)
    assert found is not None
    np.testing.assert_allclose(found, _DISC, atol=8)


@pytest.mark.parametrize("size", [(1, 1), (2, 400), (400, 2), (17, 33)])
def test_tiny_frames_are_seen_whole(size: tuple[int, int]) -> None:
    assert FieldOfViewDetector(*NETWORK).view_of(_frame(np.full(size, 90, np.uint8))) == full_viewport(*size, *NETWORK)


@pytest.mark.parametrize("bars", [(320, 28, 1280, 1024), (8, 0, 704, 576), (0, 60, 1280, 600), (0, 0, 1280, 720)])
def test_a_rectangle_inside_bars_is_found(bars: tuple[int, int, int, int]) -> None:
    left, top, width, height = bars
    luma = np.full((height + 2 * top, width + 2 * left), 20, np.uint8)
    luma[top : top + height, left : left + width] = _scene(height, width, (0, 0, 9999), black=16, seed=3, noise=2)
    found = _found(luma, full_range=False)
    assert found is not None
    np.testing.assert_allclose(found, (left, top, left + width, top + height), atol=4)


def _found(luma: NDArray[np.uint8], *, full_range: bool) -> FieldShape | None:
    return shape_of(shape_fit.find_ends(luma, full_range=full_range), max(luma.shape), None)


def _frame(luma: NDArray[np.uint8]) -> Frame:
    _, chroma = allocate_planes(*luma.shape)
    return Frame(luma, chroma, 0, Fraction(1, 25), 0, ColorSpace("bt709"))


def test_the_view_follows_a_moving_disc_and_does_not_jitter() -> None:
    detector, identities, errors = FieldOfViewDetector(*NETWORK), [], []
    for i in range(60):
        shift = max(i - 20, 0) * 2.0 if i < 40 else 40.0  # still, moving, still
        circle = (320 + shift, 240.0, 230.0)
        view = detector.view_of(_frame(_scene(480, 640, circle, black=16, seed=i // 30, noise=2)))
        assert view.circle is not None
        errors.append(np.abs(np.subtract(view.circle, circle)).max())
        identities.append(id(view))
    assert max(errors) < 5
    assert len(set(identities[:20])) == 1
    assert len(set(identities[41:])) == 1


def test_shapes_are_fitted_only_when_their_edge_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    fits = []

    def counted(ends: Ends, longer: int, last: FieldShape | None) -> FieldShape | None:
        fits.append(longer)
        return shape_of(ends, longer, last)

    monkeypatch.setattr(field_of_view, "shape_of", counted)
    detector = FieldOfViewDetector(*NETWORK)
    frames = [_frame(_scene(480, 640, (320.0, 240.0, 230.0), black=16, seed=i, noise=2)) for i in range(4)]
    frames.append(_frame(np.pad(np.full((400, 560), 120, np.uint8), 40, constant_values=16)))
    views = [detector.view_of(frame) for frame in frames]
    assert len(fits) == 2
    assert len({id(view) for view in views}) == 1
    for _ in range(CONFIRMING_FRAMES):
        views.append(detector.view_of(frames[-1]))
    assert views[-1].crop == (40, 40, 560, 400)
    assert len(fits) == 2 + CONFIRMING_FRAMES - 1


def test_dark_moment_keeps_view_and_lasting_change_replaces_it() -> None:
    detector = FieldOfViewDetector(*NETWORK)
    bright = _frame(_scene(480, 640, (320.0, 240.0, 230.0), black=16, seed=1, noise=2))
    view = detector.view_of(bright)
    black = _frame(np.full((480, 640), 17, np.uint8))
    small = _frame(_scene(480, 640, (320.0, 240.0, 150.0), black=16, seed=1, noise=2))
    assert all(detector.view_of(black) is view for _ in range(50))
    assert all(detector.view_of(small) is view for _ in range(CONFIRMING_FRAMES - 1))
    assert detector.view_of(bright) is view
    for _ in range(CONFIRMING_FRAMES):
        view = detector.view_of(small)
    assert view.circle is not None
    assert view.circle[2] == pytest.approx(150, abs=3)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 9999), st.integers(8, 128), st.floats(20, 900), st.floats(0.1, 6.28), st.sampled_from([0, 0.4, 3])
)
def test_circle_is_that_of_a_least_squares_solver(
    seed: int, count: int, radius: float, arc: float, noise: float
) -> None:
    rng = np.random.default_rng(seed)
    angle, spread = rng.uniform(0, arc, count), radius + rng.normal(0, noise, count)
    points = np.stack([700 + spread * np.cos(angle), 400 + spread * np.sin(angle)], axis=1)
    center = points.mean(axis=0)
    x, y = (points - center).T
    columns = np.stack([2 * x, 2 * y, np.ones_like(x)], axis=1)
    (a, b, c), *_ = np.linalg.lstsq(columns, x**2 + y**2, rcond=None)
    expected = (center[0] + a, center[1] + b, np.sqrt(c + a**2 + b**2))
    np.testing.assert_allclose(shape_fit._least_squares(points), expected, rtol=1e-6)


def test_points_on_a_line_give_a_circle_that_explains_nothing() -> None:
    points = np.stack([np.arange(20.0), np.full(20, 7.0)], axis=1)
    assert np.isfinite(shape_fit._least_squares(points)).all()


def side_of(places: NDArray[np.float64], outwards: int, tolerance: float) -> tuple[float, int] | None:
    """The outermost place that enough strips agree on, one side at a time; `places` (2, strips), NaN for none."""
    variants, strips = places[np.isfinite(places)], int(np.isfinite(places).any(axis=0).sum())
    near = np.abs(places[None] - variants[:, None, None]) <= tolerance
    counts = near.any(axis=1).sum(axis=1)
    agreed = np.flatnonzero(counts >= max(0.35 * strips, 3))
    if not len(agreed):
        return None
    best = agreed[(variants[agreed] * outwards).argmax()]
    return float(np.median(places[near[best]])), int(counts[best])


@settings(deadline=None, max_examples=80)
@given(seed=st.integers(0, 9999), jitter=st.sampled_from([0, 1, 4, 60]), missing=st.sampled_from([0, 0.3, 0.9]))
def test_sides_of_a_rectangle_are_those_found_one_by_one(seed: int, jitter: float, missing: float) -> None:
    rng = np.random.default_rng(seed)
    distances = np.abs(np.array([30.0, 40, 25, 0])[:, None, None] + rng.normal(0, jitter, (4, 2, 16)).round(1))
    distances[rng.random(distances.shape) < missing] = np.inf
    ends = shape_fit.place_ends(distances, (np.arange(16) * 30.0, np.arange(16) * 40.0), (480, 640), 2)
    along = [distances[0], 640 - distances[1], distances[2], 480 - distances[3]]
    sides = [
        side_of(np.where(np.isfinite(places), places, np.nan), outwards, 2.0)
        for places, outwards in zip(along, (-1, 1, -1, 1), strict=True)
    ]
    found = shape_fit.fit_rectangle(ends)
    assert (found is None) == (None in sides)
    if found is not None:
        known = [side for side in sides if side is not None]
        left, right, top, bottom = (place for place, _ in known)
        assert found.rectangle() == (left, top, right, bottom)
        assert found.share == sum(count for _, count in known) / ends.valid.any(axis=0).sum()


def test_another_frame_size_starts_anew() -> None:
    detector = FieldOfViewDetector(*NETWORK)
    detector.view_of(_frame(_scene(480, 640, (320.0, 240.0, 230.0), black=16, seed=1, noise=2)))
    view = detector.view_of(_frame(np.full((720, 1280), 16, np.uint8)))
    assert view == full_viewport(720, 1280, *NETWORK)


def _views_of(path: Path, count: int) -> list[Viewport]:
    detector, views = FieldOfViewDetector(*NETWORK), []
    with av.open(str(path)) as container:
        for image in container.decode(video=0):
            luma = image.to_ndarray(format="gray") if image.format.name == "gray" else _luma(image)
            views.append(detector.view_of(_frame(luma)))
            if len(views) == count:
                break
    return views


def _luma(image: av.VideoFrame) -> NDArray[np.uint8]:
    plane = image.planes[0]
    return np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: image.height, : image.width].copy()


def test_real_moving_circle(data_dir: Path) -> None:
    views = _views_of(data_dir / "clips/laparoscopy_720p25.mp4", 250)
    circles = np.array([v.circle for v in views])
    # The scope's disc is one and the same, only its place changes.
    np.testing.assert_allclose(circles[:, 2], 568, atol=4)
    assert np.ptp(circles[:, 0]) > 10
    assert len({id(v) for v in views}) < 20


def test_real_still_circle(data_dir: Path) -> None:
    views = _views_of(data_dir / "clips/sinus_1080p30.mp4", 100)
    np.testing.assert_allclose(views[-1].circle, (957, 525, 537), atol=4)
    assert len({id(v) for v in views}) <= 3


@pytest.mark.parametrize(
    ("clip", "crop"),
    [
        ("clips/davinci_1080p10.mp4", (320, 28, 1280, 1024)),
        ("clips/ophthalmic_1080p30.mp4", (0, 0, 1920, 1080)),
        ("endovis2015/robotic/D1/video.avi", (8, 0, 704, 576)),
        ("endovis2015/robotic/D2/video.avi", (8, 0, 704, 576)),
    ],
)
def test_real_rectangles(data_dir: Path, clip: str, crop: tuple[int, int, int, int]) -> None:
    views = _views_of(data_dir / clip, 20)
    assert views[-1].circle is None
    np.testing.assert_allclose(views[-1].crop, crop, atol=14)
    assert len({id(v) for v in views}) == 1
