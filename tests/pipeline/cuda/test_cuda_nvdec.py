"""Decoder surfaces on their way into the ring: PyAV's frames with pitched planes, on a simulated GPU in any order."""

from __future__ import annotations

import random
from collections import deque
from fractions import Fraction

import av
import numpy as np
import pytest
from gpu_fake import FakeGpu
from gpu_host import needs_compiler
from numpy.typing import NDArray

from cliprl.pipeline.core.color import Color
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.cuda.codecs.nvdec import SurfaceWriter
from cliprl.pipeline.cuda.context import share
from cliprl.pipeline.cuda.device import CudaDevice
from cliprl.pipeline.cuda.factory import network_of

pytestmark = needs_compiler
SIZES = [(64, 96), (50, 70), (18, 34)]


def surface(index: int, size: tuple[int, int], form: str) -> tuple[av.VideoFrame, NDArray[np.uint8], NDArray[np.uint8]]:
    """A decoder's picture and the 8-bit planes it stands for."""
    height, width = size
    picture = av.VideoFrame(width, height, form)
    rng, deep, planes = np.random.default_rng(index), form != "nv12", []
    for plane, lines in zip(picture.planes, (height, height // 2), strict=True):
        values = rng.integers(0, 1024 if deep else 256, (lines, width)).astype(np.uint16)
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[:lines]
        if deep:
            rows[:, : 2 * width] = (values << 6).view(np.uint8)
            values = np.minimum(np.rint(values / 4), 255).astype(np.uint16)
        else:
            rows[:, :width] = values
        planes.append(values.astype(np.uint8))
    return picture, planes[0], planes[1].reshape(height // 2, width // 2, 2)


@pytest.mark.parametrize("form", ["nv12", "p010le"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("seed", range(3))
def test_surfaces_arrive_whole_however_late_they_are_copied(form: str, size: tuple[int, int], seed: int) -> None:
    gpu = FakeGpu(random.Random(seed).randrange, eager=1)
    device = CudaDevice(share(gpu, network_of))
    ring = device.ring(3, "wait")
    writer, stream, seen = SurfaceWriter(device), gpu.stream(), deque[int]()
    for index in range(8):
        luma, chroma = ring.acquire(*size)
        picture, *expected = surface(index, size, form)
        writer.write(picture, luma, chroma, Color())
        del picture  # the decoder's own reference goes; the writer holds the surface until it is copied
        ring.publish(Frame(luma, chroma, index, Fraction(1, 25), index))
        frame = ring.take()
        assert frame is not None
        slot = device.frames.enter(frame, stream)

        def check(slot: object = slot, index: int = index, planes: list[NDArray[np.uint8]] = expected) -> None:
            np.testing.assert_array_equal(slot.luma, planes[0])  # type: ignore[attr-defined]
            np.testing.assert_array_equal(slot.chroma, planes[1])  # type: ignore[attr-defined]
            seen.append(index)

        gpu.run(check, stream)
        device.frames.leave(frame, stream)
        ring.release(frame)
    gpu.drain()
    assert list(seen) == list(range(8))
    assert len(writer._reading) <= 8


def test_surfaces_are_given_back_as_soon_as_they_are_copied() -> None:
    gpu = FakeGpu(lambda n: 0, eager=0)
    device = CudaDevice(share(gpu, network_of))
    ring, writer = device.ring(3, "wait"), None
    writer = SurfaceWriter(device)
    held = []
    for index in range(5):
        luma, chroma = ring.acquire(18, 34)
        writer.write(surface(index, (18, 34), "nv12")[0], luma, chroma, Color())
        ring.publish(Frame(luma, chroma, index, Fraction(1, 25), index))
        gpu.drain()
        frame = ring.take()
        assert frame is not None
        ring.release(frame)
        held.append(len(writer._reading))
    assert max(held) == 1
