"""The whole way of a frame through the `cuda` device, on a simulated GPU whose kernels run on the host, against the CPU's."""

from __future__ import annotations

import gc
import json
import random
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpu_fake import FakeGpu, HostNetwork
from gpu_host import needs_compiler
from numpy.typing import NDArray

from cliprl.engines import CompiledBundle, RegionSpec, load_engines, open_bundle
from cliprl.pipeline.core.color import ColorSpace
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.interfaces import PlaneAllocator, StreamInfo
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.cuda.context import share
from cliprl.pipeline.cuda.device import CudaDevice
from cliprl.pipeline.cuda.segmentation import CudaSegmentation
from cliprl.pipeline.overlay.overlay import Overlay
from cliprl.pipeline.overlay.style import Style
from cliprl.pipeline.segment.segmenter import Segmenter
from cliprl.pipeline.sources import open_source
from cliprl.pipeline.sources.base import FrameSource
from cliprl.pipeline.stream.stream import Stream
from cliprl.pipeline.stream.trace import Trace

pytestmark = needs_compiler
SIZE, FRAMES = (362, 483), 8


@pytest.fixture(scope="module")
def engines() -> CompiledBundle:
    """The shipped networks in 32 bits on the CPU."""
    return load_engines(open_bundle(), precision="f32", threads=1)


@pytest.fixture(scope="module")
def images() -> list[Frame]:
    """A rendered scene inside an endoscope's disc, of an odd size."""
    height, width = SIZE
    y, x = np.mgrid[:height, :width]
    outside = (x - width / 2) ** 2 + (y - height / 2) ** 2 > (height * 0.48) ** 2
    frames = []
    with open_source(f"demo:?seconds=2&seed=4&size={width + 1}x{height}&rate=25") as source:
        for frame in source:
            luma, chroma = frame.luma[:, :width].copy(), frame.chroma[:, : (width + 1) // 2].copy()
            luma[outside], chroma[outside[::2, ::2][: len(chroma), : chroma.shape[1]]] = 16, 128
            frames.append(replace(frame, luma=luma, chroma=chroma))
            if len(frames) == FRAMES:
                return frames
    raise AssertionError("the demo is too short")


class Played(FrameSource):
    """Gives the same frames again, into whatever planes it is told."""

    def __init__(self, frames: list[Frame], *, live: bool = False, rotation: int = 0) -> None:
        info = StreamInfo("played", *SIZE, Fraction(1, 25), Fraction(25), len(frames), live=live, rotation=rotation)
        super().__init__(info)
        self._frames: Iterator[Frame] = iter(frames)

    def _read(self, allocate: PlaneAllocator) -> Frame | None:
        given = next(self._frames, None)
        if given is None:
            return None
        luma, chroma = allocate(given.height, given.width)
        luma[:], chroma[:] = given.luma, given.chroma
        color = ColorSpace("bt601", full_range=given.index % 2 == 1)
        return Frame(luma, chroma, given.pts, given.time_base, given.index, color, rotation=self.info.rotation)


Seen = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8], int, NDArray[np.uint8]]


def played(segmenter: Segmenter, overlay: Overlay, source: Played) -> list[Seen]:
    found: list[Seen] = []

    def note(frame: Frame, segmentation: Segmentation | None) -> None:
        assert segmentation is not None
        labels, likeliest = segmentation.labels.copy(), segmentation.likeliest.labels.copy()
        found.append((frame.luma.copy(), frame.chroma.copy(), labels, segmentation.steps, likeliest))

    Stream(source, segmenter, overlay, status=lambda frame, seen: f"frame {frame.index}").run(note)
    return found


def simulated(seed: int, engines: CompiledBundle) -> tuple[CudaDevice, FakeGpu]:
    gpu = FakeGpu(random.Random(seed).randrange)
    return CudaDevice(share(gpu, lambda engine: HostNetwork(gpu, engine))), gpu


def test_trace_shows_stages_on_their_threads_and_calls_profiler(
    engines: CompiledBundle, images: list[Frame], tmp_path: Path
) -> None:
    device, gpu = simulated(0, engines)
    segmenter = device.segmenter(open_bundle(), engines=engines)
    with Trace(tmp_path / "t.json") as trace:
        Stream(Played(images), segmenter, device.overlay(segmenter.classes), profiler=device.profiler).run(trace)
        gpu.drain()
    threads = {"decode": "decode", "prepare": "encode", "encode": "encode", "refine": "refine", "draw": "draw"}
    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    lanes = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert sorted(lanes.values()) == ["decode", "draw", "encode", "output", "refine"]
    seen = {event["name"]: lanes[event["tid"]] for event in events if event["ph"] == "X"}
    assert seen == threads | {"write": "output"}
    for stage, thread in threads.items():
        told = [name for where, name in gpu.ranges if where == thread and name.split()[-1] == stage]
        assert told[: 2 * FRAMES] == [stage, f"end of {stage}"] * FRAMES
    marked = len(gpu.ranges)
    Stream(Played(images), segmenter, device.overlay(segmenter.classes)).run()
    gpu.drain()
    assert len(gpu.ranges) == marked  # a stream without a profiler marks nothing


@pytest.mark.parametrize(("rotation", "regions"), [(0, None), (90, RegionSpec(0.2, 0.006))])
def test_a_stream_comes_out_as_on_the_cpu(
    engines: CompiledBundle, images: list[Frame], rotation: int, regions: RegionSpec | None
) -> None:
    device, gpu = simulated(rotation, engines)
    shipped = open_bundle()
    bundle = replace(shipped, manifest=replace(shipped.manifest, part_share=0.9, regions=regions))
    segmenter = device.segmenter(bundle, engines=engines)
    found = played(segmenter, device.overlay(segmenter.classes), Played(images, rotation=rotation))
    gpu.drain()
    cpu = Segmenter(bundle, engines=engines)
    expected = played(cpu, Overlay(cpu.classes), Played(images, rotation=rotation))
    assert len(found) == len(expected) == FRAMES
    for kind in (2, 4):
        agreement = [float((ours[kind] == theirs[kind]).mean()) for ours, theirs in zip(found, expected, strict=True)]
        assert np.mean(agreement) >= 0.999
    union = len(shipped.manifest.classes)
    assert all((seen[2] == union).any() and not (seen[4] == union).any() for seen in (*found, *expected))
    for index, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        assert ours[3] == theirs[3], index
        for plane in (0, 1):
            wrong = np.abs(ours[plane].astype(int) - theirs[plane]) > 2
            assert wrong.mean() < 0.01, (index, plane)


def test_running_stream_allocates_nothing_and_waits_for_status_only(
    engines: CompiledBundle, images: list[Frame]
) -> None:
    device, gpu = simulated(5, engines)
    segmenter = device.segmenter(open_bundle(), engines=engines)
    # Without the legend, which is drawn anew, and uploaded, whenever another class comes into view.
    ring, overlay = device.ring(3, "wait"), device.overlay(segmenter.classes, Style(legend=False))
    allocations, source = [], Played(images)
    while (frame := source.read(ring.acquire)) is not None:
        ring.publish(frame)
        taken = ring.take()
        assert taken is not None
        seen = segmenter(taken)
        assert isinstance(seen, CudaSegmentation)
        overlay.draw(taken, seen, "status")
        ring.release(taken)
        allocations.append(gpu.allocations)
    # Three slots, then only what a colour space seen for the first time needs.
    assert allocations[-1] == allocations[4]


def test_a_slow_consumer_corrupts_no_frame(engines: CompiledBundle, images: list[Frame]) -> None:
    from cliprl.bench.fixtures import timecode

    device, gpu = simulated(9, engines)
    segmenter = device.segmenter(open_bundle(), engines=engines, steps=0)
    marked = []
    for number in range(30):
        frame = replace(images[number % FRAMES], luma=images[number % FRAMES].luma.copy(), index=number, pts=number)
        timecode.draw_number(frame.luma, number)
        marked.append(frame)
    numbers = []
    source = Played(marked, live=True)
    for frame, _ in Stream(source, segmenter, device.overlay(segmenter.classes)):
        numbers.append((timecode.read(frame.luma), frame.index))
        gpu.step()
    assert all(read == index for read, index in numbers)
    assert [index for _, index in numbers] == sorted({index for _, index in numbers})
    gpu.drain()


def test_two_streams_share_one_card(engines: CompiledBundle, images: list[Frame]) -> None:
    gpu = FakeGpu(random.Random(2).randrange)
    card = share(gpu, lambda engine: HostNetwork(gpu, engine))
    alone_device = CudaDevice(card)
    alone_segmenter = alone_device.segmenter(open_bundle(), engines=engines, steps=1)
    alone = played(alone_segmenter, alone_device.overlay(alone_segmenter.classes), Played(images))
    devices = [CudaDevice(card) for _ in range(2)]
    segmenters = [device.segmenter(open_bundle(), engines=engines, steps=1) for device in devices]
    streams = [
        Stream(Played(images), segmenter, device.overlay(segmenter.classes))
        for device, segmenter in zip(devices, segmenters, strict=True)
    ]
    turns = [iter(stream) for stream in streams]
    for index in range(FRAMES):
        for turn in turns:
            _, seen = next(turn)
            assert seen is not None
            np.testing.assert_array_equal(seen.labels, alone[index][2])
    for turn in turns:
        assert next(turn, None) is None


def test_end_leaves_no_work_pending_and_streams_reusable(engines: CompiledBundle, images: list[Frame]) -> None:
    gpu = FakeGpu(random.Random(6).randrange, eager=1)
    card = share(gpu, lambda engine: HostNetwork(gpu, engine))
    made = []
    for _ in range(3):
        device = CudaDevice(card)
        segmenter = device.segmenter(open_bundle(), engines=engines, steps=1)
        Stream(Played(images), segmenter, device.overlay(segmenter.classes)).run(frames=3)
        assert not any(stream.work for stream in gpu.streams)
        made.append(len(gpu.streams))
        del device, segmenter
        gc.collect()
    assert made[0] == made[-1]


def test_gpu_decoded_frames_reach_the_host_without_an_overlay(engines: CompiledBundle, images: list[Frame]) -> None:
    device, gpu = simulated(3, engines)

    surfaces: list[Any] = []  # the decoder's, which hold a frame until it was copied

    class OnCard(Played):
        """Writes into the slot as NVDEC does, and leaves the host's planes alone."""

        def _read(self, allocate: PlaneAllocator) -> Frame | None:
            planes: list[NDArray[np.uint8]] = []

            def aside(height: int, width: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
                planes.extend(allocate(height, width))
                surfaces.append(tuple(gpu.empty(plane.shape, np.uint8) for plane in planes))
                return surfaces[-1]

            frame = super()._read(aside)
            if frame is None:
                return None
            slot, ring = device.frames.writing(), device.frames
            for target, source in ((slot.luma, frame.luma), (slot.chroma, frame.chroma)):
                gpu.copy(target, source, ring.stream)
            return replace(frame, luma=planes[0], chroma=planes[1])

    segmenter, found = device.segmenter(open_bundle(), engines=engines, steps=0), 0
    for frame, _ in Stream(OnCard(images), segmenter):
        np.testing.assert_array_equal(frame.luma, images[frame.index].luma)
        np.testing.assert_array_equal(frame.chroma, images[frame.index].chroma)
        found += 1
    assert found == FRAMES
