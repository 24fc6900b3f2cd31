"""The kernels that look at a frame, remember, refine and label, run on the host, against their NumPy references."""

from __future__ import annotations

from ctypes import addressof
from dataclasses import replace

import numpy as np
import pytest
from gpu_host import launch, needs_compiler, pitched
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cliprl.bench.fixtures import timecode
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.core.viewport import Viewport, circle_viewport, full_viewport, inside_cells
from cliprl.pipeline.cuda.geometry import set_planes, set_view, warp_of
from cliprl.pipeline.cuda.kernels.kernel_arguments import (
    Advance,
    Begin,
    Classify,
    CountLines,
    CutRows,
    FrameData,
    JoinCells,
    MarkCells,
    MeasureRegions,
    Recall,
    Regions,
    Total,
    Warp,
)
from cliprl.pipeline.cuda.view_tracker import DISTANCES, MOST_CELLS, StripLayout, strip_launches
from cliprl.pipeline.segment.decision import InstrumentRegions, merge_unsure, segmentation_of
from cliprl.pipeline.segment.refinement import SETTLED
from cliprl.pipeline.segment.temporal_prior import TemporalPrior
from cliprl.pipeline.view.shape_fit import STRIPS, Ends, find_ends

pytestmark = needs_compiler


def endoscope(height: int, width: int, seed: int, kind: str) -> NDArray[np.uint8]:
    """A disc or a box on black, with noise, text in a corner and dark places."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    luma = rng.integers(14, 22, (height, width)).astype(float)
    scene = 90 + 60 * np.sin(x / 19 + seed) * np.cos(y / 23) + rng.normal(0, 12, (height, width))
    if kind == "disc":
        inside = (x - width * 0.52) ** 2 + (y - height * 0.48) ** 2 < (min(height, width) * 0.46) ** 2
    else:
        inside = (x > width * 0.1) & (x < width * 0.93) & (y > height * 0.02)
    luma[inside] = scene[inside]
    luma[: height // 12, : width // 6] = 200
    return np.clip(luma, 0, 255).astype(np.uint8)


def ends_by_kernel(luma: NDArray[np.uint8], full_range: bool) -> Ends:
    layout = StripLayout.of(*luma.shape)
    assert layout is not None
    data, distances = FrameData(), np.full(DISTANCES, 7.0)
    layout.write(data, full_range=full_range)
    set_planes(data, ((luma.ctypes.data, luma.strides[0]), (0, 0)))
    cells, bright = np.zeros((2 * STRIPS, MOST_CELLS), np.float32), np.zeros(2 * STRIPS + 1, np.float32)
    for arguments in strip_launches(addressof(data), (cells.ctypes.data, bright.ctypes.data, distances.ctypes.data)):
        launch(arguments)
    return layout.ends(distances)


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(16, 300),
    width=st.integers(16, 300),
    extra=st.integers(0, 50),
    seed=st.integers(0, 999),
    kind=st.sampled_from(["disc", "box"]),
    full_range=st.booleans(),
)
def test_ends_of_any_picture(height: int, width: int, extra: int, seed: int, kind: str, full_range: bool) -> None:
    luma = pitched(endoscope(height, width, seed, kind), extra)
    for found, expected in zip(ends_by_kernel(luma, full_range), find_ends(luma, full_range=full_range), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(720, 1280), (1080, 1920), (1081, 1441)])
@pytest.mark.parametrize("kind", ["disc", "box"])
def test_ends_of_large_pictures(size: tuple[int, int], kind: str) -> None:
    luma = endoscope(*size, 5, kind)
    for found, expected in zip(ends_by_kernel(luma, False), find_ends(luma, full_range=False), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_a_frame_too_small_has_no_strips() -> None:
    assert StripLayout.of(15, 400) is None


@given(height=st.integers(16, 9000), width=st.integers(16, 9000))
def test_cells_of_any_frame_have_room(height: int, width: int) -> None:
    layout = StripLayout.of(height, width)
    assert layout is None or max(layout.across, layout.down) <= MOST_CELLS


@given(number=st.integers(0, 2**32 - 1), extra=st.integers(0, 40), noise=st.integers(0, 60), seed=st.integers(0, 99))
@settings(deadline=None)
def test_a_code_comes_back(number: int, extra: int, noise: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    plane = rng.integers(0, 256, (timecode.BLOCK + 3, timecode.BITS * timecode.BLOCK + 5)).astype(np.uint8)
    drawn, expected = pitched(plane, extra), plane.copy()
    timecode.draw_number(expected, number)
    bits = timecode.bits_of(number)
    launch(timecode.write_arguments((drawn.ctypes.data, drawn.strides[0]), bits.ctypes.data))
    np.testing.assert_array_equal(drawn, expected)
    drawn[:] = np.clip(drawn + rng.integers(-noise, noise + 1, drawn.shape), 0, 255)
    read = np.zeros(timecode.BITS, np.uint8)
    launch(timecode.read_arguments((drawn.ctypes.data, drawn.strides[0]), read.ctypes.data))
    assert timecode.number_of(read) == timecode.read(drawn) == number


def test_what_is_no_code_is_none() -> None:
    for value in (0, 16, 128, 235, 255):
        assert timecode.read(np.full((20, 400), value, np.uint8)) is None
    with pytest.raises(ValueError, match="is not a time code"):
        timecode.bits_of(1 << 32)


@given(seed=st.integers(0, 99), change=st.integers(0, 60), height=st.integers(4, 70), width=st.integers(4, 90))
@settings(deadline=None)
def test_a_cut_is_the_memorys(seed: int, change: int, height: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 180, (1, height, width, 3)).repeat(3, axis=0).astype(np.uint8)
    images[1:] += np.uint8(change)
    memory, fresh, cut = TemporalPrior(), np.ones(1, np.int32), np.zeros(1, np.int32)
    rows, columns = -(-height // 4), -(-width // 4)
    thumb, sums, present = np.zeros((rows, columns, 3), np.uint8), np.zeros(rows, np.uint32), np.ones(5, np.uint8)
    data = FrameData(present=present.ctypes.data)
    for index, image in enumerate(images):
        expected = memory.is_cut(image)
        pointers = (thumb.ctypes.data, sums.ctypes.data)
        launch(CutRows(rows, 1, image.ctypes.data, width, columns, 4, 0, *pointers))
        flags = (fresh.ctypes.data, cut.ctypes.data, addressof(data))
        launch(Begin(1, 1, sums.ctypes.data, rows, 5, 32.0 * rows * columns * 3, 0, *flags))
        assert cut[0] == (index == 0 or expected)
        assert not fresh[0]
        assert not present.any()


def recalled(
    last: NDArray[np.float32], base: NDArray[np.float32], old: Viewport, new: Viewport, cut: int
) -> NDArray[np.float32]:
    _, classes, rows, columns = last.shape
    data, flag, prior = FrameData(), np.array([cut], np.int32), np.empty_like(last)
    data.warp = Warp(*warp_of(old, new, (rows, columns)))
    pointers = (base.ctypes.data, last.ctypes.data, addressof(data), flag.ctypes.data)
    launch(Recall(columns, classes * rows, *pointers, rows, 0, prior.ctypes.data))
    return prior


@given(seed=st.integers(0, 99), dx=st.floats(-60, 60), dy=st.floats(-40, 40), scale=st.floats(0.8, 1.2))
@settings(deadline=None)
def test_the_prior_is_the_memorys(seed: int, dx: float, dy: float, scale: float) -> None:
    rng = np.random.default_rng(seed)
    grid = np.linspace(0, 6, 20)
    smooth = np.sin(grid + rng.uniform(0, 6)) * np.cos(np.linspace(0, 4, 16))[:, None]
    last = np.stack([smooth, 1 - smooth, smooth**2])[None].astype(np.float32) * 4
    base = rng.normal(0, 1, last.shape).astype(np.float32)
    old = circle_viewport((480, 640), (64, 80), (320.0, 240.0, 190.0))
    new = circle_viewport((480, 640), (64, 80), (320.0 + dx, 240.0 + dy, 190.0 * scale))
    memory = TemporalPrior()
    memory.keep(last, old)
    # OpenCV may place a sample to the nearest 32nd of a cell.
    np.testing.assert_allclose(recalled(last, base, old, new, 0), memory.recall(base, new, False), atol=0.06)
    np.testing.assert_array_equal(recalled(last, base, old, new, 1), base)
    np.testing.assert_array_equal(recalled(last, base, new, new, 0), last)


def test_steps_are_taken_until_the_mask_has_settled() -> None:
    shares, size = [0.4, 0.2, SETTLED / 2, 0.3], 12
    refined = np.arange(len(shares) * size, dtype=np.float32).reshape(len(shares), size)
    states = np.zeros(
        len(shares) + 1, np.dtype([("moved", "f4"), ("steps", "i4"), ("settled", "i4"), ("unused", "i4")])
    )
    logits = np.full(size, -1, np.float32)
    for step, share in enumerate(shares):
        moved = np.array([share], np.float32)
        before, after = (states[i : i + 1].ctypes.data for i in (step, step + 1))
        pointers = (refined[step].ctypes.data, moved.ctypes.data, before, after)
        launch(Advance(size, 1, *pointers, SETTLED, 0, logits.ctypes.data))
    np.testing.assert_array_equal(logits, refined[2])
    assert states["steps"].tolist() == [0, 1, 2, 3, 3]
    assert states["settled"].tolist() == [0, 0, 0, 1, 1]
    assert states["moved"][-1] == np.float32(SETTLED / 2)


@given(seed=st.integers(0, 99), classes=st.integers(2, 20), rows=st.integers(2, 20), columns=st.integers(2, 24))
@settings(deadline=None)
def test_labels_and_counts_are_numpys(seed: int, classes: int, rows: int, columns: int) -> None:
    rng = np.random.default_rng(seed)
    view = replace(full_viewport(90, 120, rows * 4, columns * 4), circle=(60.0, 45.0, 44.0))
    logits = rng.normal(0, 5, (classes, rows, columns)).astype(np.float32)
    inside, data = inside_cells(view, rows, columns), FrameData()
    set_view(data, view, (rows, columns))
    region = (columns // 4, 0, columns, rows - 1)
    data.touched_left, data.touched_top, data.touched_right, data.touched_bottom = region
    probabilities, confidence = np.empty_like(logits), np.empty((rows, columns), np.float32)
    labels, present = np.empty((rows, columns), np.uint8), np.zeros(classes, np.uint8)
    data.probabilities, data.labels, data.present = (a.ctypes.data for a in (probabilities, labels, present))
    launch(Classify(columns, rows, logits.ctypes.data, classes, 0, 0, addressof(data), confidence.ctypes.data))
    powers = np.exp(logits - logits.max(axis=0))
    np.testing.assert_allclose(probabilities, powers / powers.sum(axis=0), atol=1e-6)
    np.testing.assert_array_equal(labels, np.where(inside, logits.argmax(axis=0), 0))
    touched = labels[region[1] : region[3], region[0] : region[2]]
    np.testing.assert_array_equal(present, np.isin(np.arange(classes), touched))
    lines, totals = np.empty((rows, classes + 2), np.float32), np.empty(classes + 2, np.float32)
    pointers = (addressof(data), confidence.ctypes.data)
    launch(CountLines(classes + 2, rows, *pointers, columns, 0, lines.ctypes.data))
    launch(Total(classes + 2, 1, lines.ctypes.data, rows, 0, totals.ctypes.data))
    np.testing.assert_array_equal(totals[:-2], np.bincount(labels.ravel(), minlength=classes))
    assert totals[-2] == pytest.approx(float(probabilities.max(axis=0)[inside].sum()), rel=1e-4)
    assert totals[-1] == inside.sum()


@given(
    seed=st.integers(0, 99),
    parts=st.sets(st.integers(0, 63), min_size=2),
    share=st.floats(0.1, 1),
    rest=st.integers(1, 5),
)
@settings(deadline=None, max_examples=40)
def test_unsure_parts_are_merged_as_on_the_cpu(seed: int, parts: set[int], share: float, rest: int) -> None:
    rng, (rows, columns), ids = np.random.default_rng(seed), (7, 9), tuple(sorted(parts))
    classes = min(ids[-1] + rest, 64)
    logits = rng.normal(0, 2, (classes, rows, columns)).astype(np.float32)
    view, data = circle_viewport((90, 120), (rows * 4, columns * 4), (60.0, 45.0, 44.0)), FrameData()
    set_view(data, view, (rows, columns))
    data.touched_right, data.touched_bottom = columns, rows
    planes, labels = np.empty((classes + 1 + len(ids), rows, columns), np.float32), np.empty((rows, columns), np.uint8)
    confidence, present = np.empty((rows, columns), np.float32), np.zeros(classes + 1, np.uint8)
    data.probabilities, data.labels, data.present = (a.ctypes.data for a in (planes, labels, present))
    pointers = (addressof(data), confidence.ctypes.data)
    launch(Classify(columns, rows, logits.ctypes.data, classes, 0, 0, *pointers))
    plain = Segmentation(labels.copy(), planes[:classes].copy(), view, 0.0, 0)
    expected, sure = merge_unsure(plain, ids, share), confidence.copy()
    launch(Classify(columns, rows, logits.ctypes.data, classes, share, sum(1 << part for part in ids), *pointers))
    np.testing.assert_array_equal(planes[: classes + 1], expected.probabilities)
    np.testing.assert_array_equal(planes[classes + 1 :], plain.probabilities[list(ids)])
    np.testing.assert_array_equal(labels, expected.labels)
    np.testing.assert_array_equal(confidence, sure)
    np.testing.assert_array_equal(present > 0, np.isin(np.arange(classes + 1), [*plain.labels, *labels]))


GRIDS = [(64, 80), (96, 120)]
RULE = InstrumentRegions(members=(1, 2), others=(0, 3), threshold=0.4, share=0.006)


def shape_of(name: str, rows: int, columns: int) -> NDArray[np.bool_]:
    """Cells whose connected regions are hard to find."""
    y, x = np.mgrid[:rows, :columns]
    v, u = y - rows / 2, x - columns / 2
    shapes = {
        "random": np.random.default_rng(0).random((rows, columns)) < 0.45,
        "diagonals": ((x + y) % 2 == 0) & (x < columns / 2),
        "specks": (x % 3 == 0) & (y % 3 == 0),
        "ring": np.abs(np.hypot(u, v) - rows / 4) < 1,
        "comb": (x % 2 == 0) | (y == rows * 3 // 4),
        "spiral": np.cos(np.arctan2(v, u) + np.hypot(u, v)) > 0.5,
        "none": np.zeros((rows, columns), bool),
    }
    return shapes[name]


def decided(logits: NDArray[np.float32], view: Viewport, rule: InstrumentRegions) -> Segmentation:
    """What the kernels decide on logits (K, rows, columns)."""
    classes, *grid = logits.shape
    data, size = FrameData(), grid[::-1]
    set_view(data, view, (grid[0], grid[1]))
    probabilities, confidence = np.empty_like(logits), np.empty(grid, np.float32)
    labels, present = np.empty(grid, np.uint8), np.zeros(classes, np.uint8)
    data.probabilities, data.labels, data.present = (a.ctypes.data for a in (probabilities, labels, present))
    roots, sizes = np.full((2, *grid), 7, np.int32)
    scratch, least = (roots.ctypes.data, sizes.ctypes.data), rule.share * labels.size
    regions = Regions.of(rule.members, rule.others, rule.threshold, least, *scratch)
    launch(MarkCells(*size, logits.ctypes.data, classes, 0, addressof(data), regions))
    launch(JoinCells(*size, roots.ctypes.data))
    launch(MeasureRegions(*size, *scratch))
    pointers = (addressof(data), confidence.ctypes.data)
    launch(Classify(*size, logits.ctypes.data, classes, 0, 0, *pointers, regions))
    return Segmentation(labels, probabilities, view, float(confidence[confidence > 0].mean()), 0)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("circle", [False, True])
@pytest.mark.parametrize("shape", ["random", "diagonals", "specks", "ring", "comb", "spiral", "none"])
def test_instruments_are_decided_by_regions_as_on_the_cpu(shape: str, circle: bool, grid: tuple[int, int]) -> None:
    size, sizes = (90, 150), (grid[0] * 4, grid[1] * 4)
    view = circle_viewport(size, sizes, (75.0, 45.0, 44.0)) if circle else full_viewport(*size, *sizes)
    rng, cells = np.random.default_rng(1), shape_of(shape, *grid)
    logits = rng.normal(0, 1, (5, *grid)).astype(np.float32)
    logits[1:3] += np.where(cells ^ (rng.random(grid) < 0.002), 6, -6).astype(np.float32)
    logits[4] += 6 * (rng.random(grid) < 0.02)  # a class of neither group
    found, expected = decided(logits, view, RULE), segmentation_of(logits, view, 0, 0.0, RULE)
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-6)
    assert found.confidence == pytest.approx(expected.confidence, rel=1e-5)
    instruments = np.isin(found.labels, RULE.members)
    assert instruments.any() == (shape not in ("specks", "none"))
    dropped = np.isin(segmentation_of(logits, view, 0, 0.0).labels, RULE.members) & ~instruments
    assert dropped.any()


@given(seed=st.integers(0, 99), threshold=st.floats(0.1, 0.9), share=st.floats(0, 0.2), spread=st.floats(0.1, 20))
@settings(deadline=None, max_examples=30)
def test_regions_of_any_logits_are_the_cpus(seed: int, threshold: float, share: float, spread: float) -> None:
    view, rule = (
        circle_viewport((90, 120), (64, 80), (60.0, 45.0, 44.0)),
        replace(RULE, threshold=threshold, share=share),
    )
    logits = np.random.default_rng(seed).normal(0, spread, (5, 16, 20)).astype(np.float32)
    found, expected = decided(logits, view, rule), segmentation_of(logits, view, 0, 0.0, rule)
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-6)
