"""Motion between the frames of a stream, added up over many of them."""

from __future__ import annotations

from fractions import Fraction

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from cliprl.pipeline import Frame
from cliprl.pipeline.tracking.optical_flow import OpticalFlow

RNG = np.random.default_rng(4)


def texture(height: int, width: int) -> NDArray[np.uint8]:
    noise = RNG.integers(0, 256, (height, width)).astype(np.float32)
    return np.asarray(cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 9), noise, 30, 220, cv2.NORM_MINMAX), np.uint8)


def frame_of(luma: NDArray[np.uint8], number: int) -> Frame:
    chroma = np.full((luma.shape[0] // 2, luma.shape[1] // 2, 2), 128, np.uint8)
    return Frame(np.ascontiguousarray(luma), chroma, number, Fraction(1, 25), number)


@pytest.mark.parametrize(("height", "width"), [(480, 640), (358, 1022), (720, 406)])
def test_motion_of_ten_steps_adds_up(height: int, width: int) -> None:
    wide, motion = texture(height + 80, width + 80), OpticalFlow()
    for number in range(12):
        x, y = 4 * number, 2 * number
        motion.add(number, frame_of(wide[y : y + height, x : x + width], number))
    flow = motion.back_to(1)
    assert flow is not None
    assert flow.shape[0] * flow.shape[1] < 256 * 256 / 10  # a value for each block, not for each pixel of the copies
    inner = flow[2:-2, 2:-2]
    moved = inner.reshape(-1, 2).mean(axis=0) * (width / flow.shape[1], height / flow.shape[0])
    np.testing.assert_allclose(moved, (40, 20), rtol=0.12)  # the measurement itself is 2 to 10 % too long


def test_no_motion_leads_back_over_a_cut() -> None:
    motion = OpticalFlow()
    for number, luma in enumerate((np.full((120, 160), 20), np.full((120, 160), 220), np.full((120, 160), 220))):
        motion.add(number, frame_of(luma.astype(np.uint8), number))
    assert motion.back_to(0) is None
    assert motion.back_to(1) is not None
    motion.forget()
    assert motion.back_to(9) is None
