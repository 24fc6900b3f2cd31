"""The simulated GPU finds the faults that a real one would hide: freed memory, contexts, captures."""

from __future__ import annotations

import gc
import threading
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from gpu_fake import FakeGpu
from gpu_memory import POISON
from lock_state import is_locked

from cliprl.engines.backends.cuda_graph import CAPTURE_LOCK
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.cuda.codecs import nvdec, nvenc, nvenc_sink
from cliprl.pipeline.cuda.context import Encoding, share
from cliprl.pipeline.cuda.device import CudaDevice
from cliprl.pipeline.cuda.factory import network_of
from cliprl.pipeline.cuda.gpu_api import CaptureError


def test_freed_memory_is_poisoned_and_given_out_again() -> None:
    gpu = FakeGpu(lambda n: 0)
    held = gpu.empty((4,), np.uint8)
    address, view = gpu.address(held), gpu.slice(held, 1, 3)
    held[:] = 7
    del held
    assert view.tolist() == [7, 7]  # a view keeps it
    del view
    block = np.ctypeslib.as_array((np.ctypeslib.ctypes.c_uint8 * 4).from_address(address))
    assert block.tolist() == [POISON] * 4
    assert gpu.address(gpu.empty((4,), np.uint8)) == address


@pytest.mark.parametrize("pinned", [False, True])
def test_work_on_memory_that_was_freed_too_soon_is_found(pinned: bool) -> None:
    gpu = FakeGpu(lambda n: 0, eager=0)
    stream, target = gpu.stream(), gpu.empty((4,), np.uint8)
    gpu.copy(target, (gpu.pinned if pinned else gpu.empty)((4,), np.uint8), stream)
    gc.collect()
    with pytest.raises(AssertionError, match="touches freed memory"):
        gpu.drain()


def test_a_copy_from_memory_that_is_not_pinned_is_found() -> None:
    gpu = FakeGpu(lambda n: 0, eager=0)
    source, target = np.zeros(4, np.uint8), gpu.empty((4,), np.uint8)
    gpu.copy(target, source, gpu.stream())
    with pytest.raises(AssertionError, match="not the GPU's"):
        gpu.drain()


def test_a_graph_that_outlives_its_memory_is_found() -> None:
    gpu = FakeGpu(lambda n: 0, eager=0)
    stream, targets, source = gpu.stream(), [gpu.empty((4,), np.uint8)], gpu.pinned((8,), np.uint8)[4:]
    graph = gpu.capture(lambda captured: gpu.copy(targets[0], source, captured))
    gpu.replay(graph, stream)
    gpu.drain()
    targets.clear()
    gpu.replay(graph, stream)
    with pytest.raises(AssertionError, match="touches freed memory"):
        gpu.drain()


def test_pinned_memory_tied_to_a_capture_is_found() -> None:
    gpu = FakeGpu(lambda n: 0, eager=0)
    target, source = gpu.empty((4,), np.uint8), gpu.pinned((4,), np.uint8)
    with pytest.raises(AssertionError, match="may disturb another capture"):
        gpu.capture(lambda captured: gpu.copy(target, source, captured))


def test_a_stream_of_a_lost_capture_is_not_used_again() -> None:
    gpu = FakeGpu(lambda n: 0, eager=0)
    gpu.failing, used = {0}, list[Any]()
    with pytest.raises(CaptureError):
        gpu.capture(used.append)
    with pytest.raises(AssertionError, match="lost capture"):
        gpu.record(gpu.event(), used[0])


def in_new_thread(work: Any) -> None:
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    if failures:
        raise failures[0]


def test_codecs_are_opened_with_the_context_current_in_their_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Libav uses the calling thread's context, and a new thread has none."""
    gpu = FakeGpu(lambda n: 0)
    device, opened = CudaDevice(share(gpu, network_of)), list[str]()

    def open_codec(name: str) -> Any:
        gpu.require_context()
        assert is_locked(CAPTURE_LOCK)  # opening one would spoil another thread's capture
        opened.append(name)
        raise OSError(f"no {name}")

    monkeypatch.setattr(nvdec, "_check_format", lambda *_: None)
    monkeypatch.setattr(nvdec, "HWAccel", lambda *_, **__: open_codec("decoder"))
    monkeypatch.setattr(nvenc, "CudaContext", lambda *_, **__: open_codec("encoder"))
    with pytest.raises(AssertionError, match="no context"):
        in_new_thread(gpu.require_context)
    in_new_thread(lambda: nvdec.open_on_gpu("clip.mp4", device, 0, lambda reason: None))
    monkeypatch.setattr(nvenc_sink, "why_not_in_process", lambda make: "")
    info: Any = SimpleNamespace(height=144, width=256, interlaced=False)
    in_new_thread(lambda: nvenc_sink.why_not(gpu, Encoding(), info))
    assert opened == ["decoder", "encoder"]


def test_ring_dropped_during_its_upload_is_found() -> None:
    gpu = FakeGpu(lambda n: 0, eager=0)
    device = CudaDevice(share(gpu, network_of))
    ring: Any = device.ring(2, "wait")
    planes = ring.acquire(4, 6)
    ring.publish(Frame(*planes, 0, Fraction(1, 25), 0))
    del ring, planes, device
    gc.collect()
    with pytest.raises(AssertionError, match="touches freed memory"):
        gpu.drain()
