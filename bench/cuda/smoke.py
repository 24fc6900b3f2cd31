"""Check in two minutes what a machine with a GPU can do, before any measurement; without a GPU, list what was not checked."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from statistics import median

import numpy as np

from cliprl.bench.fixtures import timecode
from cliprl.engines import CliprlError, EngineError, open_bundle
from cliprl.pipeline.core.color import ColorSpace
from cliprl.pipeline.core.viewport import full_viewport
from cliprl.pipeline.cuda.context import SharedGpu
from cliprl.pipeline.cuda.device import CudaDevice
from cliprl.pipeline.cuda.geometry import set_color, set_planes, set_view
from cliprl.pipeline.cuda.gpu_api import CaptureError
from cliprl.pipeline.cuda.kernels.compiler import KERNEL_TARGETS, compile_sources, compiler, read_sources
from cliprl.pipeline.cuda.kernels.kernel_arguments import Prepare
from cliprl.pipeline.cuda.upload import FrameUpload

_LIBRARIES = {"NVDEC": "libnvcuvid.so.1", "NVENC": "libnvidia-encode.so.1"}
_FRAMES = 120
_TIMEOUT = 60.0
# Height and width of the frames.
SIZE = (1080, 1920)


@dataclass(frozen=True, slots=True)
class Check:
    """A check: its name, its function, which returns what it found, and whether it needs a GPU."""

    name: str
    run: Callable[[], str]
    needs_gpu: bool = True


def smoke(open_gpu: Callable[[], SharedGpu], print_line: Callable[[str], None] = print) -> int:
    """Run all checks. Return 0 if every check that can run here passed, else 1."""
    card, reason, failed = None, "", False
    try:
        card = open_gpu()
        print_line(f"{card.gpu.name}: {'; '.join(card.notes)}")
    except CliprlError as error:
        reason = str(error)
    for check in _checks(card):
        if check.needs_gpu and card is None:
            print_line(f"not checked: {check.name} ({reason})")
            continue
        try:
            print_line(f"ok: {check.name}: {check.run()}")
        except ImportError as error:
            print_line(f"not checked: {check.name} ({error}): bench/GPU.md lists what it needs")
        except Exception as error:
            failed = failed or card is not None or not isinstance(error, EngineError)
            print_line(f"FAILED: {check.name}: {type(error).__name__}: {' '.join(str(error).split())[:300]}")
    return int(failed)


def _checks(card: SharedGpu | None) -> Sequence[Check]:
    gpu = card or _absent()
    return (
        Check("kernels compile for every GPU generation", _compile, needs_gpu=False),
        Check("libraries of decoder and encoder", _libraries, needs_gpu=False),
        Check("codecs of live streams, in separate processes", _live_codecs),
        Check(
            "calls to the driver and interpreter time of a frame, on a GPU that does nothing",
            _host_cost,
            needs_gpu=False,
        ),
        Check("a kernel writes a time code and another reads it", lambda: _kernels(gpu)),
        Check("after a forced failed capture the next capture works", lambda: _captures(gpu)),
        Check("a captured kernel reads each frame's addresses from GPU memory", lambda: _frame_data(gpu)),
        Check("two streams open at once", lambda: _two_streams(gpu)),
        Check(f"one stream of {_FRAMES} frames, and its interpreter time", lambda: _one_stream(gpu)),
        Check("one profiled frame", lambda: _profile(gpu)),
    )


def _absent() -> SharedGpu:
    nothing: SharedGpu = None  # type: ignore[assignment]  # checks that need it do not run
    return nothing


def _compile() -> str:
    sizes = {target: len(compile_sources(read_sources(), target)) for target in KERNEL_TARGETS}
    return f"{' '.join(compiler())}: " + ", ".join(f"{target} {size // 1024} KiB" for target, size in sizes.items())


def _libraries() -> str:
    found = []
    for name, library in _LIBRARIES.items():
        try:
            ctypes.CDLL(library)
            found.append(f"{name} present")
        except OSError:
            found.append(f"{name} absent ({library})")
    return ", ".join(found)


def _live_codecs() -> str:
    if find_spec("av") is None:
        return "left out: PyAV is not installed"
    from cliprl.bench.cuda.live_codecs import check_live_codecs

    return check_live_codecs(*SIZE)


def _host_cost() -> str:
    from cliprl.bench.cuda.host_cost import measure

    found = {step: measure(step=step) for step in (0, 10)}
    return "; ".join(
        f"view moves by {step} pixels a frame: {sum(calls.values()):g} calls, {median(batches):.2f} ms"
        for step, (batches, calls) in found.items()
    )


def _kernels(card: SharedGpu) -> str:
    gpu, size = card.gpu, (timecode.BLOCK, timecode.BITS * timecode.BLOCK)
    plane, bits = gpu.empty(size, np.uint8), gpu.empty((timecode.BITS,), np.uint8)
    host = gpu.pinned((timecode.BITS,), np.uint8)
    host[:] = timecode.bits_of(123_456)
    gpu.copy(bits, host, card.compute)
    gpu.launch(timecode.write_arguments((gpu.address(plane), size[1]), gpu.address(bits)), card.compute)
    gpu.launch(timecode.read_arguments((gpu.address(plane), size[1]), gpu.address(bits)), card.compute)
    gpu.copy(host, bits, card.compute)
    _wait(card)
    if timecode.number_of(host) != 123_456:
        raise EngineError(f"read {timecode.number_of(host)}, wrote 123456")
    return "equal"


def _wait(card: SharedGpu) -> None:
    done = card.gpu.event()
    card.gpu.record(done, card.compute)
    card.gpu.synchronize(done)


def _captures(card: SharedGpu) -> str:
    gpu = card.gpu
    source, target = gpu.pinned((4,), np.uint8), gpu.empty((4,), np.uint8)
    source[:] = 7
    waited = gpu.event()

    def broken(stream: object) -> None:
        gpu.copy(target, source, stream)
        gpu.record(waited, stream)
        gpu.synchronize(waited)  # no capture survives this

    try:
        gpu.capture(broken)
        raise EngineError("a capture that waits did not fail")
    except CaptureError as error:
        reason = str(error)
    graph = gpu.capture(lambda stream: gpu.copy(target, source, stream))
    gpu.replay(graph, card.compute)
    back = gpu.pinned((4,), np.uint8)
    gpu.copy(back, target, card.compute)
    _wait(card)
    if back.tolist() != [7] * 4:
        raise EngineError(f"the graph wrote {back.tolist()}")
    return f"failed as forced ({reason[:80]}), then worked"


def _frame_data(card: SharedGpu) -> str:
    gpu, (height, width) = card.gpu, (64, 80)
    upload, image = FrameUpload(gpu, (height, width)), gpu.empty((height, width, 3), np.uint8)
    graph = gpu.capture(lambda stream: gpu.launch(Prepare(width, height, upload.address, gpu.address(image)), stream))
    view, pinned, back = full_viewport(height, width, height, width), upload.pinned(), gpu.pinned(image.shape, np.uint8)
    set_color(upload.data, ColorSpace(full_range=True))
    set_view(upload.data, view, (height, width))
    upload.set_tables(view)
    for value in (40, 200):
        source = gpu.pinned((height * width * 3 // 2,), np.uint8)
        source[: height * width], source[height * width :] = value, 128
        frame = gpu.empty(source.shape, np.uint8)
        gpu.copy(frame, source, card.compute)
        luma = gpu.address(frame)
        set_planes(upload.data, ((luma, width), (luma + height * width, width)))
        upload.send(pinned, card.compute)
        gpu.replay(graph, card.compute)
        gpu.copy(back, image, card.compute)
        _wait(card)
        if abs(back.astype(int) - value).max() > 1:
            raise EngineError(f"gray {value} became {int(back.min())} to {int(back.max())}")
    return "equal"


def _two_streams(card: SharedGpu) -> str:
    from cliprl.bench.cuda.case_process import load_networks

    bundle, devices = open_bundle(), [CudaDevice(card), CudaDevice(card)]
    engines = load_networks(bundle, print)
    threads = [
        threading.Thread(target=device.segmenter, args=(bundle,), kwargs={"engines": engines}) for device in devices
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_TIMEOUT)
    if any(thread.is_alive() for thread in threads):
        raise EngineError(f"not open after {_TIMEOUT:.0f} s")
    notes = [note for device in devices for note in device.notes if "no CUDA graph" in note]
    return "; ".join(notes) or "both with CUDA graphs"


def _one_stream(card: SharedGpu) -> str:
    from cliprl.bench.cuda.case_process import load_networks
    from cliprl.bench.cuda.runs import GpuStream, scene_frames

    bundle = open_bundle()
    stream = GpuStream(card, bundle, scene_frames(*SIZE, 2), engines=load_networks(bundle, print))
    start, cpu = time.monotonic(), time.process_time()
    seen = stream.run(_FRAMES)
    if seen.error is not None:
        raise seen.error
    seconds, spent = time.monotonic() - start, time.process_time() - cpu
    stages = ", ".join(f"{name} {value / _FRAMES * 1000:.2f}" for name, value in seen.thread_seconds.items())
    return f"{_FRAMES / seconds:.0f} FPS, {spent / _FRAMES * 1000:.2f} ms of CPU a frame ({stages}), {seen.wrong} frames wrong"


def _profile(card: SharedGpu) -> str:
    from torch.profiler import profile

    with profile() as found:
        _one_stream(card)
    return f"\n{found.key_averages().table(row_limit=12)}"
