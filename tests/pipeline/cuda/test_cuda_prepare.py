"""The kernel that makes the network's picture, run on the host, against the CPU path."""

from __future__ import annotations

from ctypes import addressof, sizeof
from fractions import Fraction

import numpy as np
import pytest
from gpu_fake import FakeGpu
from gpu_host import launch, library, needs_compiler, pitched
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cliprl.pipeline.core.color import WEIGHTS, ColorSpace
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.viewport import Viewport, circle_viewport, fit_viewport, full_viewport
from cliprl.pipeline.cuda.context import share
from cliprl.pipeline.cuda.device import CudaDevice
from cliprl.pipeline.cuda.factory import network_of
from cliprl.pipeline.cuda.geometry import AxisTables, set_color, set_planes, set_view
from cliprl.pipeline.cuda.kernels.kernel_arguments import KERNELS, FrameData, Narrow, Prepare
from cliprl.pipeline.cuda.upload import FrameUpload
from cliprl.pipeline.segment.segmenter import CpuPreprocessor

pytestmark = needs_compiler


COLORS = [ColorSpace(matrix, full_range) for matrix in WEIGHTS for full_range in (False, True)]
IDS = [f"{c.matrix}-{'full' if c.full_range else 'limited'}" for c in COLORS]


def noisy(height: int, width: int, color: ColorSpace, seed: int = 0, extra: int = 0) -> Frame:
    """A frame of noise over waves, its lines `extra` bytes further apart than they need be."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    luma = 128 + 90 * np.sin(y / 17 + x / 31) + rng.normal(0, 25, (height, width))
    chroma = (
        128 + rng.normal(0, 30, ((height + 1) // 2, (width + 1) // 2, 2)) + 40 * np.sin(y[::2, ::2] / 23)[..., None]
    )
    planes = (pitched(np.clip(plane, 0, 255).astype(np.uint8), extra) for plane in (luma, chroma))
    return Frame(*planes, 0, Fraction(1, 25), 0, color)


def by_kernel(frame: Frame, view: Viewport) -> NDArray[np.uint8]:
    image = np.full((view.network_height, view.network_width, 3), 77, np.uint8)
    data, tables = FrameData(), AxisTables()
    set_view(data, view, (64, 80))
    set_color(data, frame.color)
    set_planes(
        data, ((frame.luma.ctypes.data, frame.luma.strides[0]), (frame.chroma.ctypes.data, frame.chroma.strides[0]))
    )
    tables.update(view)
    kept = np.concatenate(tables.tables)
    tables.place(data, kept.ctypes.data)
    launch(Prepare(view.network_width, view.network_height, addressof(data), image.ctypes.data))
    return image


def by_cpu(frame: Frame, view: Viewport) -> NDArray[np.uint8]:
    image = np.full((view.network_height, view.network_width, 3), 77, np.uint8)
    CpuPreprocessor().prepare(frame, view, image)
    return image


def test_the_arguments_are_the_sources_structs() -> None:
    for kernel in KERNELS:
        assert getattr(library(), f"{kernel.name}_bytes")() == sizeof(kernel), kernel.name
    assert library().frame_data_bytes() == sizeof(FrameData)


@pytest.mark.parametrize("color", COLORS, ids=IDS)
@pytest.mark.parametrize(
    ("size", "crop", "network"),
    [
        ((720, 1280), (0, 0, 1280, 720), (256, 320)),
        ((1080, 1920), (320, 28, 1280, 1024), (256, 320)),
        ((1080, 1920), (0, 0, 1920, 1080), (512, 640)),
        ((577, 721), (0, 0, 721, 577), (256, 320)),
        ((241, 301), (20, 10, 251, 201), (256, 320)),
    ],
)
def test_the_picture_is_the_cpus(
    color: ColorSpace, size: tuple[int, int], crop: tuple[int, int, int, int], network: tuple[int, int]
) -> None:
    frame, view = noisy(*size, color, extra=37), fit_viewport(size, network, crop)
    difference = by_kernel(frame, view).astype(int) - by_cpu(frame, view)
    # Within 2 of 255 everywhere, and nearly everywhere the same: only the rounding between steps differs.
    assert np.abs(difference).max() <= 2
    assert np.abs(difference).mean() < 0.25


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(16, 300),
    width=st.integers(16, 300),
    extra=st.integers(0, 70),
    color=st.sampled_from(COLORS),
    data=st.data(),
)
def test_any_size_crop_and_pitch(height: int, width: int, extra: int, color: ColorSpace, data: st.DataObject) -> None:
    left, top = data.draw(st.integers(0, width - 8)), data.draw(st.integers(0, height - 8))
    crop = (left, top, data.draw(st.integers(8, width - left)), data.draw(st.integers(8, height - top)))
    view = fit_viewport((height, width), (64, 80), crop)
    frame = noisy(height, width, color, seed=height, extra=extra)
    assert np.abs(by_kernel(frame, view).astype(int) - by_cpu(frame, view)).max() <= 2


def test_outside_the_circle_all_is_black() -> None:
    frame = noisy(480, 640, ColorSpace("bt601"))
    view = circle_viewport((480, 640), (256, 320), (320.0, 240.0, 200.0))
    image = by_kernel(frame, view)
    np.testing.assert_array_equal(image.any(axis=2), by_cpu(frame, view).any(axis=2))
    assert not image[:20, :50].any()


def test_tables_larger_than_their_room_are_sent_apart() -> None:
    """A crop of more than 32 times the network input has more taps than the room is made for."""
    gpu = FakeGpu(lambda n: 0, eager=0)
    device = CudaDevice(share(gpu, network_of))
    ring, size = device.ring(2, "wait"), (16, 16)
    upload = FrameUpload(gpu, size)
    for index, scale in enumerate((40, 20, 48)):
        frame, view = (
            noisy(16 * scale, 16 * scale, ColorSpace(), seed=index),
            full_viewport(16 * scale, 16 * scale, *size),
        )
        planes = ring.acquire(frame.height, frame.width)
        planes[0][:], planes[1][:] = frame.luma, frame.chroma
        ring.publish(Frame(*planes, index, Fraction(1, 25), index))
        taken, out = ring.take(), np.zeros((*size, 3), np.uint8)
        assert taken is not None
        device.prepare(taken, view, out)
        assert np.abs(out.astype(int) - by_cpu(frame, view)).max() <= 2
        ring.release(taken)
        upload.set_tables(view)
        assert bool(upload._axes.size > upload._room) == (scale > 32)


def test_a_frame_of_one_colour_stays_it() -> None:
    for color in COLORS:
        frame = noisy(90, 110, color)
        frame.luma[:], frame.chroma[:] = 150, (90, 170)
        view = full_viewport(90, 110, 64, 80)
        np.testing.assert_array_equal(by_kernel(frame, view), by_cpu(frame, view))


@given(seed=st.integers(0, 99), height=st.integers(1, 9), width=st.integers(1, 40), extra=st.integers(0, 9))
@settings(deadline=None)
def test_ten_bits_become_eight_to_nearest(seed: int, height: int, width: int, extra: int) -> None:
    deep = np.random.default_rng(seed).integers(0, 1024, (height, width)).astype(np.uint16)
    source, target = pitched(deep << 6, 2 * extra), pitched(np.zeros((height, width), np.uint8), extra)
    pointers = (source.ctypes.data, source.strides[0], target.strides[0], target.ctypes.data)
    launch(Narrow(width, height, *pointers))
    np.testing.assert_array_equal(target, np.minimum(np.rint(deep / 4), 255).astype(np.uint8))
