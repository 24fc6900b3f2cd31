"""The `cuda` device on a real GPU. `python bench/gpu.py --tests-only` runs these, and tells what it needs to.

They import neither PyAV nor OpenVINO nor TensorRT: torch's own engine runs the networks, on the GPU and, as the reference, on
the CPU. Tests with "kernel" in their names run under compute-sanitizer too, with the compiled kernels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_engine import FakeEngine
from numpy.typing import NDArray

from cliprl.bench.fixtures import timecode
from cliprl.engines import ClassSpec, open_bundle
from cliprl.pipeline.core.color import WEIGHTS, ColorSpace
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.core.viewport import Viewport, circle_viewport, fit_viewport
from cliprl.pipeline.cuda.context import SharedGpu
from cliprl.pipeline.cuda.device import CudaDevice
from cliprl.pipeline.cuda.factory import open_shared_gpu
from cliprl.pipeline.cuda.geometry import set_planes
from cliprl.pipeline.cuda.inference import STATE_BYTES
from cliprl.pipeline.cuda.kernels.kernel_arguments import FrameData
from cliprl.pipeline.cuda.segmentation import CudaSegmentation, Fetcher, FrameResult
from cliprl.pipeline.cuda.view_tracker import DISTANCES, MOST_CELLS, StripLayout, strip_launches
from cliprl.pipeline.overlay.overlay import Overlay
from cliprl.pipeline.overlay.style import Style
from cliprl.pipeline.segment.segmenter import CpuPreprocessor, Segmenter
from cliprl.pipeline.view.shape_fit import STRIPS, find_ends

pytestmark = pytest.mark.needs_cuda
COLORS = [ColorSpace(matrix, full_range) for matrix in WEIGHTS for full_range in (False, True)]
IDS = [f"{c.matrix}-{'full' if c.full_range else 'limited'}" for c in COLORS]
PLAIN = Style(legend=False, status=False)


@pytest.fixture(scope="module")
def card() -> SharedGpu:
    """The GPU as this machine opens it."""
    return open_shared_gpu(print)


def image(height: int, width: int, color: ColorSpace, index: int = 0) -> Frame:
    """Waves and noise inside a disc on black."""
    rng = np.random.default_rng(index)
    y, x = np.mgrid[:height, :width]
    inside = (x - width / 2) ** 2 + (y - height / 2) ** 2 < (height * 0.47) ** 2
    luma = np.where(inside, 120 + 70 * np.sin(y / 17 + index) * np.cos(x / 31) + rng.normal(0, 9, (height, width)), 16)
    half = inside[::2, ::2]
    chroma = np.where(
        half[..., None], 128 + rng.normal(0, 20, (*half.shape, 2)) + 30 * np.sin(y / 40)[::2, ::2, None], 128
    )
    planes = (np.clip(plane, 0, 255).astype(np.uint8) for plane in (luma, chroma))
    return Frame(*planes, index, Fraction(1, 60), index, color)


def taken(device: CudaDevice, frame: Frame) -> Frame:
    """The frame after it went through the device's ring."""
    luma, chroma = device.frames.acquire(frame.height, frame.width)
    luma[:], chroma[:] = frame.luma, frame.chroma
    device.frames.publish(replace(frame, luma=luma, chroma=chroma, times={}, durations={}))
    found = device.frames.take()
    assert found is not None
    return found


def opened(card: SharedGpu) -> CudaDevice:
    device = CudaDevice(card)
    device.ring(3, "wait")
    return device


def sent(card: SharedGpu, array: NDArray[Any]) -> Any:
    """A copy of an array on the GPU, once it is there."""
    gpu, pinned = card.gpu, card.gpu.pinned(array.shape, array.dtype)
    pinned[...] = array
    buffer, done = gpu.empty(array.shape, array.dtype), gpu.event()
    gpu.copy(buffer, pinned, card.compute)
    gpu.record(done, card.compute)
    gpu.synchronize(done)
    return buffer


def fetched(card: SharedGpu, buffer: Any, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    gpu, host, done = card.gpu, card.gpu.pinned(shape, dtype), card.gpu.event()
    gpu.copy(host, buffer, card.compute)
    gpu.record(done, card.compute)
    gpu.synchronize(done)
    return host


@pytest.mark.parametrize("color", COLORS, ids=IDS)
@pytest.mark.parametrize(
    ("size", "network"), [((1080, 1920), (512, 640)), ((577, 721), (256, 320)), ((64, 90), (64, 80))]
)
def test_kernel_prepare_is_the_cpus(
    card: SharedGpu, color: ColorSpace, size: tuple[int, int], network: tuple[int, int]
) -> None:
    device, (height, width) = opened(card), size
    frame, view = image(height, width, color), fit_viewport(size, network, (3, 5, width - 9, height - 8))
    expected, found = (np.zeros((*network, 3), np.uint8) for _ in range(2))
    CpuPreprocessor().prepare(frame, view, expected)
    device.prepare(taken(device, frame), view, found)
    assert np.abs(found.astype(int) - expected).max() <= 2


@pytest.mark.parametrize("size", [(1080, 1920), (577, 721), (16, 40)])
def test_kernel_strips_find_the_cpus_ends(card: SharedGpu, size: tuple[int, int]) -> None:
    gpu, luma = card.gpu, image(*size, ColorSpace()).luma
    layout = StripLayout.of(*size)
    assert layout is not None
    plane, data = sent(card, luma), FrameData()
    layout.write(data, full_range=False)
    set_planes(data, ((gpu.address(plane), size[1]), (0, 0)))
    frame = sent(card, np.frombuffer(bytes(data), np.uint8))
    cells, bright = gpu.empty((2 * STRIPS, MOST_CELLS), np.float32), gpu.empty((2 * STRIPS + 1,), np.float32)
    distances = gpu.empty(DISTANCES, np.float64)
    memory = (gpu.address(cells), gpu.address(bright), gpu.address(distances))
    for arguments in strip_launches(gpu.address(frame), memory):
        gpu.launch(arguments, card.compute)
    found = layout.ends(fetched(card, distances, DISTANCES, np.float64))
    for ours, theirs in zip(found, find_ends(luma, full_range=False), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


def test_kernel_codes_are_written_and_read(card: SharedGpu) -> None:
    gpu, luma = card.gpu, image(90, 400, ColorSpace()).luma
    plane, bits = sent(card, luma), sent(card, timecode.bits_of(123_456))
    gpu.launch(timecode.write_arguments((gpu.address(plane), 400), gpu.address(bits)), card.compute)
    timecode.draw_number(luma, 123_456)
    np.testing.assert_array_equal(fetched(card, plane, luma.shape, np.uint8), luma)
    read = sent(card, np.zeros(timecode.BITS, np.uint8))
    gpu.launch(timecode.read_arguments((gpu.address(plane), 400), gpu.address(read)), card.compute)
    assert timecode.number_of(fetched(card, read, (timecode.BITS,), np.uint8)) == 123_456


CLASSES = (
    ClassSpec("background", (9, 9, 9), "background"),
    ClassSpec("tool tip", (0, 255, 170), "instrument"),
    ClassSpec("tissue", (255, 200, 0), "tissue"),
)


def blobs(view: Viewport) -> Segmentation:
    rows, columns = np.mgrid[:64, :80]
    logits = np.stack([np.sin(rows / 9 + k) * np.cos(columns / (7 + k)) * 5 for k in range(len(CLASSES))])
    probabilities = (np.exp(logits) / np.exp(logits).sum(axis=0)).astype(np.float32)
    return Segmentation(probabilities.argmax(axis=0).astype(np.uint8), probabilities, view, 1.0, 1)


@pytest.mark.parametrize("color", COLORS, ids=IDS)
@pytest.mark.parametrize("size", [(1080, 1920), (361, 483)])
def test_kernel_paint_is_the_cpus(card: SharedGpu, color: ColorSpace, size: tuple[int, int]) -> None:
    device, (height, width), gpu = opened(card), size, card.gpu
    view = circle_viewport(size, (256, 320), (width / 2, height / 2, height * 0.47))
    frame, seen = image(height, width, color), blobs(view)
    present = np.isin(np.arange(len(CLASSES)), np.unique(seen.labels)).astype(np.uint8)
    arrays = (sent(card, array) for array in (seen.probabilities, seen.labels, present))
    totals, state = np.zeros(len(CLASSES) + 2, np.float32), np.zeros(STATE_BYTES, np.uint8)
    result = FrameResult(*arrays, totals, state, gpu.event())
    painted = taken(device, frame)
    device.overlay(CLASSES, PLAIN).draw(painted, CudaSegmentation(result, view, Fetcher(gpu, gpu.stream())))
    Overlay(CLASSES, PLAIN).draw(frame, seen)
    for ours, theirs in ((painted.luma, frame.luma), (painted.chroma, frame.chroma)):
        assert (np.abs(ours.astype(int) - theirs) > 2).mean() < 0.001


class OnHost(FakeEngine):
    """A torch engine of the CPU behind NumPy arrays."""

    def __init__(self, engine: Any) -> None:
        super().__init__(engine)
        self._engine = engine

    def run(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        return {name: value.numpy().copy() for name, value in self._engine.run(inputs).items()}


def torch_pair(precision: str, device: str) -> Any:
    from cliprl.engines.backends.torch.engine import TorchEngine
    from cliprl.engines.backends.torch.graph import Graph
    from cliprl.engines.onnx.load import load_graph_as
    from cliprl.engines.selection.engine_variant import CompiledBundle

    bundle = open_bundle()
    engines = [
        TorchEngine(Graph(load_graph_as(path, precision, "torch"), device), precision, 4)
        for path in (bundle.encoder, bundle.refiner)
    ]
    return CompiledBundle(*(OnHost(engine) if device == "cpu" else engine for engine in engines), {})


@pytest.fixture(scope="module")
def reference() -> list[NDArray[np.uint8]]:
    """The CPU path's labels of a few frames."""
    segmenter = Segmenter(engines=torch_pair("f32", "cpu"))
    return [segmenter(frame).labels.copy() for frame in stream_of(6)]


def stream_of(count: int) -> Iterator[Frame]:
    for index in range(count):
        yield image(540, 720, ColorSpace(), index)


@pytest.mark.parametrize(("precision", "least"), [("f32", 0.999), ("f16", 0.995)])
def test_labels_agree_with_the_cpus(
    card: SharedGpu, reference: list[NDArray[np.uint8]], precision: str, least: float
) -> None:
    device = opened(card)
    segmenter = device.segmenter(open_bundle(), engines=torch_pair(precision, "cuda"))
    overlay, agreement = device.overlay(segmenter.classes, PLAIN), []
    for frame, expected in zip(stream_of(len(reference)), reference, strict=True):
        found = taken(device, frame)
        seen = segmenter(found)
        agreement.append(float((seen.labels == expected).mean()))
        overlay.draw(found, seen)
        device.frames.release(found)
    assert np.mean(agreement) >= least


def test_nothing_grows_and_a_slow_consumer_corrupts_nothing(card: SharedGpu) -> None:
    import time

    import torch

    device = opened(card)
    segmenter = device.segmenter(open_bundle(), engines=torch_pair("f16", "cuda"), steps=1)
    overlay, used = device.overlay(segmenter.classes, PLAIN), []
    frames = [image(540, 720, ColorSpace(), index) for index in range(4)]
    for number in range(400):
        frame = frames[number % len(frames)]
        frame.luma[: timecode.BLOCK * 2] = 16
        timecode.draw_number(frame.luma, number)
        found = taken(device, frame)
        overlay.draw(found, segmenter(found))
        assert timecode.read(found.luma) == number
        device.frames.release(found)
        used.append(torch.cuda.memory_allocated())
        time.sleep(0.002 * (number % 5 == 0))
    assert used[-1] == used[50]


def shown(device: CudaDevice, frame: Frame, overlay: Overlay) -> Frame:
    """A frame that was read into the device's ring, once its planes have come to the host."""
    device.frames.publish(frame)
    found = device.frames.take()
    assert found is not None
    overlay.draw(found, None)
    return found


def test_nvdec_gives_the_cpus_planes(card: SharedGpu, tmp_path: Path) -> None:
    pytest.importorskip("av")
    from media import make_clip

    from cliprl.pipeline.sources import open_source

    clip, told, device = make_clip(tmp_path / "clip.mp4", size=(256, 144), frames=30), list[str](), opened(card)
    overlay = device.overlay(CLASSES, Style(opacity=0))
    with open_source(str(clip)) as expected, device.source(str(clip), told.append) as source:
        if told or card.decoder is None:
            pytest.skip("; ".join(told) or "no NVDEC")
        for theirs in expected:
            frame = source.read(device.frames.acquire)
            assert frame is not None
            ours = shown(device, frame, overlay)
            np.testing.assert_array_equal(ours.luma, theirs.luma)
            np.testing.assert_array_equal(ours.chroma, theirs.chroma)
            device.frames.release(ours)


def test_nvenc_keeps_what_was_painted(card: SharedGpu, tmp_path: Path) -> None:
    pytest.importorskip("av")
    from cliprl.pipeline.core.interfaces import OutputSpec, StreamInfo
    from cliprl.pipeline.sinks import VideoSink
    from cliprl.pipeline.sources import open_source

    device, target = opened(card), tmp_path / "out.mp4"
    sink = device.sink(str(target), OutputSpec(StreamInfo("played", 144, 256, Fraction(1, 60)), CLASSES), crf=0)
    if sink.needs_planes:
        sink.close()
        pytest.skip("; ".join(getattr(sink, "notes", ())) or "no NVENC")
    overlay, painted = device.overlay(CLASSES, PLAIN), []
    assert isinstance(sink, VideoSink)
    with sink:
        for index in range(20):
            ours = taken(device, image(144, 256, ColorSpace(), index))
            overlay.draw(ours, None)
            sink.write(ours, None)
            painted.append(ours.luma.copy())
            device.frames.release(ours)
    with open_source(str(target)) as found:
        for frame, luma in zip(found, painted, strict=True):
            np.testing.assert_array_equal(frame.luma, luma)


def test_every_launcher_that_is_installed_works() -> None:
    import torch

    from cliprl.pipeline.cuda.kernels.compiler import compiled_kernels
    from cliprl.pipeline.cuda.kernels.launchers import LAUNCHERS
    from cliprl.pipeline.cuda.torch_gpu import TorchGpu

    card = open_shared_gpu()
    cubin, tried = compiled_kernels("sm{}{}".format(*torch.cuda.get_device_capability())), []
    for kind in LAUNCHERS:
        try:
            launcher = kind(cubin, torch.cuda.current_device())
        except ModuleNotFoundError:
            continue
        gpu: Any = TorchGpu(launcher)
        test_kernel_codes_are_written_and_read(SharedGpu(gpu, card.network, compute=gpu.stream()))
        tried.append(kind.name)
    assert tried
