"""The out-of-body guard on real clips, rendered rooms and its own hysteresis; pixelation keeps nothing fine."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from cliprl.bench.cli import app
from cliprl.bench.harness.result import read_result
from cliprl.engines import UsageError
from cliprl.pipeline import ColorSpace, Frame, open_source
from cliprl.pipeline.core.frame import allocate_planes
from cliprl.pipeline.sources.decoding.nv12_writer import RgbWriter
from cliprl.pipeline.view.privacy_guard import BLOCKS, BodyGuard, pixelated, red_share

TISSUE, DRAPE, WALL, GLOVE = (190, 90, 80), (60, 110, 150), (200, 205, 200), (225, 225, 235)


def filled(*colors: tuple[int, int, int], seconds: float = 0.0, noise: float = 12.0) -> Frame:
    """A picture in vertical stripes of these colours, with noise, captured at `seconds`."""
    columns = np.repeat(np.array(colors, float), 240 // len(colors), axis=0)
    rgb = columns[None] + np.random.default_rng(1).normal(0, noise, (180, len(columns), 3))
    return of_rgb(np.clip(rgb, 0, 255).astype(np.uint8), seconds)


def of_rgb(rgb: NDArray[np.uint8], seconds: float = 0.0) -> Frame:
    luma, chroma = allocate_planes(*rgb.shape[:2])
    RgbWriter().write(rgb, luma, chroma, ColorSpace())
    return Frame(luma, chroma, 0, Fraction(1, 25), 0, times={"captured": seconds})


def judged(guard: BodyGuard, frame: Frame, start: float, seconds: float) -> list[bool]:
    answers = []
    for n in range(round(seconds * 25)):
        frame.times["captured"] = start + n / 25
        answers.append(guard.update(frame))
    return answers


@pytest.mark.parametrize("name", ["laparoscopy_720p25", "sinus_1080p30", "davinci_1080p10"])
def test_real_endoscopy_is_inside(name: str, data_dir: Path) -> None:
    guard = BodyGuard()
    with open_source(data_dir / "clips" / f"{name}.mp4") as source:
        out = [guard.update(frame) for frame, _ in zip(source, range(60), strict=False)]
    assert not any(out)


@pytest.mark.parametrize("colors", [(DRAPE,), (WALL,), (GLOVE, WALL), (DRAPE, WALL, GLOVE), ((90, 160, 110), WALL)])
def test_a_room_is_outside(colors: tuple[tuple[int, int, int], ...]) -> None:
    assert BodyGuard().update(filled(*colors))


def test_nothing_seen_yet_counts_as_outside() -> None:
    assert BodyGuard().update(filled((2, 2, 2), noise=0))
    assert red_share(filled((2, 2, 2), noise=0)) is None


def test_guard_switches_within_a_second_and_ignores_flashes() -> None:
    guard, tissue, room = BodyGuard(), filled(TISSUE), filled(DRAPE, WALL)
    assert not any(judged(guard, tissue, 0, 1))
    assert not any(judged(guard, room, 1, 0.2)), "a gauze before the lens for a fifth of a second"
    assert not any(judged(guard, tissue, 1.2, 1))
    left = judged(guard, room, 2.2, 2)
    assert left.index(True) < 25
    assert all(left[25:])
    back = judged(guard, tissue, 4.2, 2)
    assert back.index(False) < 25
    assert not any(back[25:])


def test_darkness_keeps_what_was_known() -> None:
    guard = BodyGuard()
    judged(guard, filled(TISSUE), 0, 1)
    assert not any(judged(guard, filled((0, 0, 0), noise=0), 1, 3))


@pytest.mark.parametrize("size", [(180, 240), (97, 51), (720, 1280)])
def test_pixelation_leaves_blocks_and_the_original_alone(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    luma, chroma = allocate_planes(*size)
    luma[:], chroma[:] = rng.integers(0, 256, luma.shape), rng.integers(0, 256, chroma.shape)
    frame = Frame(luma, chroma, 7, Fraction(1, 25), 3)
    before = luma.copy()
    blocks = pixelated(frame)
    assert (blocks.pts, blocks.index, blocks.luma.shape, blocks.chroma.shape) == (7, 3, luma.shape, chroma.shape)
    np.testing.assert_array_equal(frame.luma, before)
    changes = (np.diff(blocks.luma.astype(int), axis=1) != 0).any(axis=0).sum()
    assert changes < BLOCKS


def test_neither_a_word_nor_a_face_survives() -> None:
    fine = np.tile(np.array([[16, 235]], np.uint8), (180, 120))
    frame = Frame(fine, np.full((90, 120, 2), 128, np.uint8), 0, Fraction(1, 25), 0)
    assert int(np.ptp(pixelated(frame).luma)) <= 4


def test_command_counts_errors_of_the_guard(tmp_path: Path) -> None:
    for name, colors in (("body", [TISSUE, TISSUE, TISSUE, WALL]), ("room", [WALL, DRAPE])):
        (tmp_path / name).mkdir()
        for index, rgb in enumerate(colors):
            image = np.full((180, 240, 3), rgb[::-1], np.uint8)
            assert cv2.imwrite(str(tmp_path / name / f"{index}.png"), image)
    words = [f"{tmp_path}/body/*.png", "--outside", f"{tmp_path}/room/*.png", "-o", str(tmp_path / "r.json")]
    app(["guard", *words], standalone_mode=False)
    result = read_result(tmp_path / "r.json")
    inside, outside = result.cases()
    assert inside.startswith("inside: ")
    found = {s.title: s.rounds[0] for s in result.series}
    for limit in ("0.35", "0.4", "0.45"):
        assert found[f"{inside}: alone, at {limit}"] == (25.0,)
        assert found[f"{outside}: alone, at {limit}"] == (0.0,)
    assert found[f"{inside}: in turn"] == (0.0,)  # a flash of something else does not count
    assert found[f"{outside}: frames"] == (2.0,)
    assert "--bundle" not in result.command
    assert str(tmp_path.parent) not in result.to_text()
    with pytest.raises(UsageError, match="nothing to judge"):
        app(["guard"], standalone_mode=False)


def test_a_copy_is_timed_as_the_frame_itself() -> None:
    frame = filled(TISSUE)
    copy = pixelated(frame)
    with copy.stage("write"):
        pass
    assert frame.threads.keys() == frame.durations.keys() == {"write"}


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1)])
def test_a_single_line_of_pixels_is_not_judged(size: tuple[int, int]) -> None:
    frame = of_rgb(np.full((*size, 3), 200, np.uint8))
    assert red_share(frame, np.zeros(size, bool)) is None
