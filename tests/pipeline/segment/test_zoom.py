"""A small region is segmented again in an enlarged part of the frame."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from typer.testing import CliRunner

from cliprl.engines import Bundle, Engine, RegionSpec, open_bundle
from cliprl.models.studies.confidence import zoom_study
from cliprl.models.studies.confidence.zoom_study import choose_size, small_windows
from cliprl.pipeline import Segmenter, frame_of_image, labels_at_frame
from cliprl.pipeline.core.frame import FrameContext
from cliprl.pipeline.core.segmentation import ZoomedRegion
from cliprl.pipeline.core.viewport import fit_viewport, map_points, network_to_frame
from cliprl.pipeline.segment.result_memory import ZoomMemory
from cliprl.pipeline.segment.segmenter import CpuPreprocessor
from cliprl.pipeline.segment.zoom import LOOK_AROUND, LOOK_EVERY, RegionZoom
from cliprl.pipeline.view.enlarged import enlarged_view

GRID = (64, 80)


def texture(seed: int, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Smooth spots of all brightnesses: neither dark nor hazy nor noisy."""
    noise = cv2.GaussianBlur(np.random.default_rng(seed).normal(size=(*shape, 3)), (0, 0), 6)
    return np.clip(120 + 60 * noise / noise.std(), 0, 255).astype(np.uint8)


TEXTURE = texture(4, (576, 720))


class Encoder:
    """Gives the same logits for every image, and keeps the images."""

    def __init__(self, instrument: float) -> None:
        self.logits = np.full((1, 12, *GRID), -9, np.float32)
        self.logits[0, 1] = instrument
        self.images: list[NDArray[np.uint8]] = []

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        """Return the logits."""
        self.images.append(inputs["image"].copy())
        return {"logits": self.logits}


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    opened = open_bundle("small")
    return replace(opened, manifest=replace(opened.manifest, regions=RegionSpec(0.4, 0.006, 0.012)))


def context_of(region: tuple[slice, slice], logit: float = 3.0, index: int = 0, shift: int = 0) -> FrameContext:
    """A frame whose grid is sure background but for a region, where the first instrument has `logit`."""
    context = FrameContext(frame_of_image(np.roll(TEXTURE, shift, axis=1), index))
    context.view = fit_viewport((576, 720), (256, 320), (0, 0, 720, 576))
    context.image, context.is_cut = np.zeros((1, 256, 320, 3), np.uint8), False
    CpuPreprocessor().prepare(context.frame, context.view, context.image[0])
    context.logits = np.full((1, 12, *GRID), -9, np.float32)
    context.logits[0, 0] = 9
    context.logits[(0, 0, *region)] = 0
    context.logits[(0, 1, *region)] = logit
    return context


def zoomed(bundle: Bundle, context: FrameContext, encoder: Encoder) -> ZoomedRegion | None:
    return RegionZoom(bundle, cast(Engine, encoder))(context, CpuPreprocessor())


def test_a_small_region_is_looked_at_again(bundle: Bundle) -> None:
    encoder = Encoder(5.0)
    found = zoomed(bundle, context_of(np.s_[20:24, 30:36]), encoder)
    assert found is not None
    assert (found.rows, found.columns) == (
        slice(20 - LOOK_AROUND, 24 + LOOK_AROUND),
        slice(30 - LOOK_AROUND, 36 + LOOK_AROUND),
    )
    assert (found.logits == encoder.logits[0, :, :1, :1]).all()
    assert found.cells.all()
    # The image is the middle of the frame, twice as large: rows 6 to 38 of 64 and columns 13 to 53 of 80.
    part = cv2.resize(TEXTURE[54:342, 116:476], (320, 256), interpolation=cv2.INTER_AREA).astype(int)
    assert np.abs(part - encoder.images[0][0]).mean() < 6


@pytest.mark.parametrize(
    ("region", "logit"),
    [(np.s_[20:28, 30:38], 3.0), (np.s_[20:21, 30:33], 3.0), (np.s_[20:24, 30:36], 0.2)],
    ids=["large", "crumb", "improbable"],
)
def test_other_regions_are_left_alone(bundle: Bundle, region: tuple[slice, slice], logit: float) -> None:
    encoder = Encoder(5.0)
    assert zoomed(bundle, context_of(region, logit), encoder) is None
    assert not encoder.images


def test_of_a_slanted_region_the_corners_are_left(bundle: Bundle) -> None:
    context = context_of(np.s_[20:21, 30:31])
    for step in range(20):
        context.logits[0, :2, 20 + step, 30 + step] = 0, 3
    found = zoomed(bundle, context, Encoder(5.0))
    assert found is not None
    assert found.cells[:9, :9].all()
    assert not found.cells[0, 15:].any()
    mixed = ZoomMemory()
    context.zoomed = found
    logits = mixed(context)
    assert logits[0, 1, 20, 30] == 5
    assert logits[0, 1, 17, 45] == -9


def test_the_part_stays_inside_the_image(bundle: Bundle) -> None:
    encoder = Encoder(5.0)
    found = zoomed(bundle, context_of(np.s_[60:64, 75:80]), encoder)
    assert found is not None
    assert (found.rows, found.columns) == (slice(60 - LOOK_AROUND, 64), slice(75 - LOOK_AROUND, 80))
    part = cv2.resize(TEXTURE[288:, 360:], (320, 256), interpolation=cv2.INTER_AREA).astype(int)
    assert np.abs(part - encoder.images[0][0]).mean() < 6
    # An image narrower than the part has no room for it.
    context = context_of(np.s_[20:24, 36:42])
    context.view = fit_viewport((576, 720), (256, 320), (0, 0, 240, 576))
    assert zoomed(bundle, context, encoder) is None


def test_without_time_nothing_is_looked_at(bundle: Bundle) -> None:
    encoder, context = Encoder(5.0), context_of(np.s_[20:24, 30:36])
    zoom = RegionZoom(bundle, cast(Engine, encoder))
    assert zoom(context, CpuPreprocessor(), time.monotonic() - 1) is None
    assert not encoder.images
    assert zoom(context, CpuPreprocessor(), time.monotonic() + 60) is not None


def test_bundles_that_cannot_zoom_do_without(bundle: Bundle) -> None:
    engine = cast(Engine, Encoder(5.0))
    assert RegionZoom.of(bundle, engine) is not None
    odd = replace(bundle.manifest, height=252)  # 63 rows
    assert RegionZoom.of(replace(bundle, manifest=odd), engine) is None
    for rule in (None, RegionSpec(0.4, 0.006)):
        assert RegionZoom.of(replace(bundle, manifest=replace(bundle.manifest, regions=rule)), engine) is None


@given(st.integers(33, 4000), st.integers(33, 4000), st.floats(0, 1), st.floats(0, 1))
def test_a_part_lies_where_its_cells_are(height: int, width: int, down: float, across: float) -> None:
    view = fit_viewport((height, width), (256, 320), (0, 0, width, height))
    left, top, placed_width, placed_height = (n // 4 for n in view.placed)
    assume(placed_width >= 40 and placed_height >= 32)
    part = (left + round(across * (placed_width - 40)), top + round(down * (placed_height - 32)), 40, 32)
    enlarged = enlarged_view(view, part, GRID)
    assert enlarged.crop[0] >= 0
    assert enlarged.crop[0] + enlarged.crop[2] <= width
    assert enlarged.crop[1] >= 0
    assert enlarged.crop[1] + enlarged.crop[3] <= height
    for corner in ((0, 0), (320, 256)):
        place = np.array([part[0] * 4 + corner[0] / 2, part[1] * 4 + corner[1] / 2])
        exact = map_points(network_to_frame(view), place)
        assert np.abs(map_points(network_to_frame(enlarged), np.array(corner, float)) - exact).max() <= 1.01


def test_frames_between_take_the_last_result_moved(bundle: Bundle) -> None:
    memory, region = ZoomMemory(), np.s_[20:24, 30:36]
    first = context_of(region)
    first.zoomed = ZoomedRegion(
        slice(16, 28), slice(26, 40), np.full((12, 12, 14), 7, np.float32), np.ones((12, 14), bool)
    )
    assert (memory(first)[0, :, 16:28, 26:40] == 7).all()
    for index in range(1, LOOK_EVERY):
        found = memory(context_of(region, index=index, shift=9 * index))[0, 2] == 7
        # Of 9 cells of 80 a frame, in pixels of 720 to 80 columns: one column a frame.
        middle = np.argwhere(found).mean(axis=0)
        assert np.abs(middle - (21.5, 32.5 + index)).max() < 1
        assert 100 < np.count_nonzero(found) < 240
    late = context_of(region, index=LOOK_EVERY)
    assert memory(late) is late.logits
    assert memory.last is None


@pytest.mark.parametrize("change", ["cut", "looked at again", "frame left out"])
def test_an_old_result_is_given_up(change: str) -> None:
    memory, region = ZoomMemory(), np.s_[20:24, 30:36]
    first = context_of(region)
    first.zoomed = ZoomedRegion(
        slice(16, 28), slice(26, 40), np.full((12, 12, 14), 7, np.float32), np.ones((12, 14), bool)
    )
    memory(first)
    second = context_of(region, index=LOOK_EVERY if change == "frame left out" else 1)
    if change == "cut":
        second.image = 255 - second.image
    second.zooms = change == "looked at again"
    assert memory(second) is second.logits
    third = context_of(region, index=2)
    assert memory(third) is third.logits


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return shutil.copytree(open_bundle("small").path, tmp_path / "bundle")


def test_each_unrelated_still_is_looked_at(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = list[int]()

    def look(self: RegionZoom, context: FrameContext, preprocessor: object, deadline: float | None) -> None:
        looks.append(context.frame.index)

    monkeypatch.setattr(RegionZoom, "__call__", look)
    stills = [texture(seed, (256, 320)) for seed in range(3)]
    for steps, expected in ((None, [0, 1, 2, 5, 10]), (0, [])):
        segmenter = Segmenter(bundle, steps=steps)
        looks.clear()
        for index in range(11):
            segmenter(frame_of_image(stills[min(index, 2)], index))
        assert looks == expected


@pytest.mark.parametrize(
    ("indices", "expected"),
    [
        (range(3, 12), [3, 5, 10]),
        (range(1, 16, 5), [1, 6, 11]),
        (range(1, 13, 2), [1, 5, 11]),
        ([7, 7, 8, 6, 9], [7, 7, 6]),
    ],
    ids=["later start", "each fifth", "each second", "same again and back"],
)
def test_frames_that_are_left_out_put_off_no_look(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, indices: Sequence[int], expected: list[int]
) -> None:
    looks = list[int]()
    monkeypatch.setattr(RegionZoom, "__call__", lambda _, context, *others: looks.append(context.frame.index))
    segmenter = Segmenter(bundle)
    segmenter(frame_of_image(TEXTURE, 4))
    segmenter.reset()
    looks.clear()
    for index in indices:
        segmenter(frame_of_image(TEXTURE, index))
    assert looks == expected


def test_the_shipped_bundle_sees_a_small_grasper(data_dir: Path) -> None:
    counts, segmenter = np.zeros(2), Segmenter("small")
    members = np.array([spec.kind == "instrument" for spec in segmenter.classes])
    for number in (0, 50, 200, 220):
        name = f"laparoscopy_720p25_f{number:03}"
        image = np.ascontiguousarray(cv2.imread(str(data_dir / f"laparoscopy/images/{name}.jpg"))[..., ::-1])
        truth = cv2.imread(str(data_dir / f"laparoscopy/masks/{name}.png"), cv2.IMREAD_GRAYSCALE)
        segmenter.reset()
        called = members[labels_at_frame(segmenter(frame_of_image(image, 0)), *truth.shape)] & (truth != 255)
        counts += [np.count_nonzero(called & (truth == 1)), np.count_nonzero(called | (truth == 1))]
    assert counts[0] / counts[1] > 0.6


def test_windows_hold_little_of_an_instrument() -> None:
    truth = np.zeros((200, 300), np.uint8)
    truth[92:102, 150:] = 1
    found = list(small_windows(np.repeat(truth[..., None], 3, axis=2), truth, 3))
    assert 0 < len(found) <= 4
    for image, labels in found:
        assert 0.003 <= (labels == 1).mean() <= 0.015
        assert (image[..., 0] == labels).all()
    assert not list(small_windows(np.zeros((200, 300, 3), np.uint8), np.zeros((200, 300), np.uint8), 3))


def test_the_size_chosen_costs_no_set() -> None:
    def row(*scores: float) -> list[dict[str, float]]:
        return [{"iou": score, "false": 0.1} for score in scores]

    assert choose_size({"a": row(80, 82, 85), "b": row(70, 70, 69.7)}, (0, 0.01, 0.02)) == 0.01
    assert choose_size({"a": row(80, 79, 81), "b": row(70, 75, 70)}, (0, 0.01, 0.02)) == 0.02
    assert choose_size({"a": row(80, 79, 70)}, (0, 0.01, 0.02)) == 0
    empty = [{"false": 0.1}, {"false": 0.15}, {"false": 0.3}]
    assert choose_size({"a": row(80, 82, 85), "c": empty}, (0, 0.01, 0.02)) == 0.01


def test_the_zoom_study_runs_on_files(tmp_path: Path, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoom_study, "SIZES", (0.0, 0.02))
    rules = tmp_path / "protocol.toml"
    rules.write_text(
        "".join(
            f'[[{use}]]\nname = "{use}"\ndata = "rendered:seeds={seed}-{seed}&frames=2"\n'
            for use, seed in (("choosing", 7), ("reporting", 8))
        )
    )
    command = ["--bundle", str(copy), "--protocol", str(rules), "--out", str(tmp_path / "out"), "--write", "-q"]
    ran = CliRunner().invoke(zoom_study.app, command)
    result = json.loads((tmp_path / "out" / "zoom-study.json").read_text())
    assert ran.exit_code == 0 if result["zoomed"] else "nothing is sealed" in str(ran.exception)
    assert [len(one) for one in result["chosen"].values()] == [2] * len(result["chosen"])
    regions = open_bundle(copy).manifest.regions
    assert regions is not None
    assert not result["zoomed"] or regions.zoomed == result["zoomed"]
