"""Decoder surfaces on their way into the ring: PyAV's frames with pitched planes, on a simulated GPU in any order."""

from __future__ import annotations

import gc
import random
from collections import deque
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from gpu_fake import FakeGpu
from gpu_host import needs_compiler
from lock_state import is_locked
from media import make_clip
from numpy.typing import NDArray

from cliprl.engines.backends.cuda_graph import CAPTURE_LOCK
from cliprl.pipeline.core.color import ColorSpace
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.passthrough import passthrough_of
from cliprl.pipeline.cuda.codecs import nvdec
from cliprl.pipeline.cuda.codecs.nvdec import SurfaceWriter
from cliprl.pipeline.cuda.context import share
from cliprl.pipeline.cuda.device import CudaDevice
from cliprl.pipeline.cuda.factory import network_of
from cliprl.pipeline.sources.decoding.decode import PacketDecoder
from cliprl.pipeline.sources.decoding.demux import SharedDemuxer
from cliprl.pipeline.sources.decoding.timeline import timeline_of

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
    writer, stream, seen = SurfaceWriter(device, surface=lambda image: True), gpu.stream(), deque[int]()
    for index in range(8):
        luma, chroma = ring.acquire(*size)
        picture, *expected = surface(index, size, form)
        writer.write(picture, luma, chroma, ColorSpace())
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
    writer = SurfaceWriter(device, surface=lambda image: True)
    held = []
    for index in range(5):
        luma, chroma = ring.acquire(18, 34)
        writer.write(surface(index, (18, 34), "nv12")[0], luma, chroma, ColorSpace())
        ring.publish(Frame(luma, chroma, index, Fraction(1, 25), index))
        gpu.drain()
        frame = ring.take()
        assert frame is not None
        ring.release(frame)
        held.append(len(writer._reading))
    assert max(held) == 1


class HardwareContext:
    """A codec context that reports a hardware decoder."""

    is_hwaccel = True

    def __init__(self, context: Any) -> None:
        self.__dict__["_context"] = context

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._context, name, value)


def test_a_hardware_decoder_gets_few_enough_threads_for_its_surfaces(tmp_path: Path) -> None:
    """libav's pool for NVDEC is 16 references + 5 + threads at most, and 32 surfaces are all there are."""
    with av.open(str(make_clip(tmp_path / "clip.mp4", frames=2))) as container:
        stream = container.streams.video[0]
        wrapped: Any = SimpleNamespace(codec_context=HardwareContext(stream.codec_context))
        timeline = timeline_of(container, stream, live=False)
        packets = SharedDemuxer(container, stream, passthrough_of(container, live=False), timeline, read_ahead=False)
        PacketDecoder(container, wrapped, packets, timeline)
        assert 1 <= stream.codec_context.thread_count <= 32 - 16 - 5


def test_images_in_host_memory_follow_surfaces_into_the_ring() -> None:
    """After a change of size libav may decode on the CPU: such frames are uploaded, and the run goes on."""
    gpu = FakeGpu(random.Random(3).randrange, eager=1)
    device = CudaDevice(share(gpu, network_of))
    ring = device.ring(2, "wait")
    writer = SurfaceWriter(device, surface=lambda image: image.width == 96)
    read, planes = gpu.surface, list[Any]()
    gpu.surface = lambda plane: (planes.append(plane), read(plane))[1]  # type: ignore[method-assign]
    for index, size in enumerate([(64, 96), (50, 70), (64, 96), (50, 70)]):
        luma, chroma = ring.acquire(*size)
        image, *expected = surface(index, size, "nv12")
        writer.write(image, luma, chroma, ColorSpace())
        ring.publish(Frame(luma, chroma, index, Fraction(1, 25), index))
        frame = ring.take()
        assert frame is not None
        gpu.drain()
        slot = device.frames.slot_of(frame)
        np.testing.assert_array_equal(slot.luma, expected[0])
        np.testing.assert_array_equal(slot.chroma, expected[1])
        ring.release(frame)
    assert len(planes) == 2 * 2  # those of the surfaces alone


def test_decoder_that_fails_after_its_start_ends_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NVDEC gives surfaces for the first frames, then libav falls back to its own decoder."""
    device = CudaDevice(share(FakeGpu(lambda n: 0), network_of))
    device.ring(3, "wait")
    monkeypatch.setattr(nvdec, "HWAccel", lambda *_, **__: None)
    seen = iter([True] * 2 + [False] * 8)
    monkeypatch.setattr(nvdec, "is_surface", lambda image: next(seen))
    with nvdec.NvdecSource(str(make_clip(tmp_path / "clip.mp4", frames=6)), device, 0) as source:
        decoded = [source._decode() for _ in range(4)]
        assert all(decoded)
        assert any("decoded on the CPU" in note for note in source.info.notes)


def test_closed_source_keeps_no_decoder_and_no_surface(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last reference ends the decoder, which would disturb a capture later."""
    device = CudaDevice(share(FakeGpu(lambda n: 0, eager=0), network_of))
    ring = device.ring(3, "wait")
    monkeypatch.setattr(nvdec, "HWAccel", lambda *_, **__: None)
    monkeypatch.setattr(nvdec, "is_surface", lambda image: True)
    monkeypatch.setattr(nvdec.SurfaceWriter, "write", lambda self, image, *_: self._hold(image, []))
    locked, close = list[bool](), nvdec.VideoSource.close

    def noted(source: Any) -> None:
        locked.append(is_locked(CAPTURE_LOCK))
        close(source)

    monkeypatch.setattr(nvdec.VideoSource, "close", noted)
    before = len(contexts())
    source = nvdec.NvdecSource(str(make_clip(tmp_path / "clip.mp4", frames=3)), device, 0)
    assert source.read(ring.acquire) is not None
    assert len(contexts()) > before
    source.close()
    source.close()
    assert not source._surfaces._reading
    assert len(contexts()) == before
    assert all(locked)


def contexts() -> list[Any]:
    gc.collect()
    return [each for each in gc.get_objects() if issubclass(type(each), av.VideoCodecContext) and each.is_decoder]
