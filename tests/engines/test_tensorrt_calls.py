"""The TensorRT backend against fake modules that check the order of its calls."""

from __future__ import annotations

import gc
import sys
import threading
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
from lock_state import is_locked
from tensorrt_fake import FakeTensor, FakeTensorRt, FakeTorch

from cliprl.engines import EngineError
from cliprl.engines.backends.cuda_graph import CAPTURE_LOCK, capture_graph
from cliprl.engines.backends.gpu_discovery import DriverInfo, GpuInfo, _current
from cliprl.engines.backends.tensorrt import engine as engine_module
from cliprl.engines.backends.tensorrt.build import build_plan
from cliprl.engines.backends.tensorrt.engine import TensorRtEngine
from cliprl.engines.backends.tensorrt.probe import why_not

RTX = "tensorrt_rtx"


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch) -> FakeTensorRt:
    torch = FakeTorch([])
    fake = FakeTensorRt(torch)
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, RTX, fake)
    return fake


def opened() -> TensorRtEngine:
    return TensorRtEngine(RTX, b"plan", "f16", buffers=1)


def test_shapes_and_addresses_are_set_first_and_on_change_only(trt: FakeTensorRt) -> None:
    engine, x, y = opened(), FakeTensor((1, 2)), FakeTensor((1, 2))
    for _ in range(3):
        engine.enqueue({"x": x, "y": y}, trt._torch.cuda.Stream())
    assert trt.calls == ["shape x", "address x", "address y", "run", "run", "run"]
    engine.enqueue({"x": x, "y": FakeTensor((1, 2))}, trt._torch.cuda.Stream())
    assert trt.calls[6:] == ["address y", "run"]


def test_nothing_is_set_or_allocated_inside_a_capture(trt: FakeTensorRt) -> None:
    engine, x = opened(), FakeTensor((1, 2))
    engine.run({"x": x})
    begin = trt.calls.index("capture_begin")
    assert trt.calls[begin - 1 :] == ["run", "capture_begin", "run", "capture_end"]
    assert trt.locked == [True, True]  # the first run sets up lazily, which would spoil another thread's capture
    engine.run({"x": x})
    assert trt.calls[-1] == "replay"
    assert engine.note == ""


def test_every_capture_holds_the_lock_and_suspends_collection(trt: FakeTensorRt) -> None:
    capture_graph(trt._torch, lambda: None, None)  # which the fake checks
    assert trt.calls == ["capture_begin", "capture_end"]
    assert not is_locked(CAPTURE_LOCK)
    assert gc.isenabled()


def test_a_failed_capture_is_noted_and_runs_go_on_without(trt: FakeTensorRt) -> None:
    engine, x = opened(), FakeTensor((1, 2))
    trt._torch.fail_captures = True
    engine.run({"x": x})
    assert not trt._torch.in_pool  # torch's allocator would never free memory again
    assert "operation failed" in engine.note
    before = len(trt.calls)
    engine.run({"x": x})
    engine.run({"x": FakeTensor((1, 2))})
    assert trt.calls[before:] == ["run", "address x", "run"]


def test_an_engine_that_can_not_be_captured_is_run_without(trt: FakeTensorRt) -> None:
    trt.capturable = False
    engine, x = opened(), FakeTensor((1, 2))
    engine.run({"x": x})
    engine.run({"x": x})
    assert "capture_begin" not in trt.calls
    assert "can't capture" in engine.note
    assert not engine.capturable(trt._torch.cuda.Stream())


def test_loading_an_engine_waits_for_a_capture(trt: FakeTensorRt) -> None:
    loaded = threading.Event()

    def load() -> None:
        opened()
        loaded.set()

    thread = threading.Thread(target=load, daemon=True)
    with CAPTURE_LOCK:
        thread.start()
        assert not loaded.wait(0.3)
    assert loaded.wait(30)


def test_failure_to_make_builder_or_runtime_is_one_line(trt: FakeTensorRt) -> None:
    trt.no_runtime = True
    with pytest.raises(EngineError, match="tensorrt_rtx makes no runtime here"):
        opened()
    with pytest.raises(EngineError, match="makes no builder here: no CUDA-capable device"):
        build_plan(RTX, b"", {})


def test_the_graph_that_was_not_used_for_longest_is_dropped(trt: FakeTensorRt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "GRAPHS", 2)
    engine, (a, b, c) = opened(), (FakeTensor((1, 2)) for _ in range(3))
    for x in (a, b, a, c):
        engine.run({"x": x})
    before = len(trt.calls)
    engine.run({"x": a})
    assert trt.calls[before:] == ["replay"]
    engine.run({"x": b})
    assert trt.calls.count("capture_begin") == 4


def test_python_is_called_for_errors_only(trt: FakeTensorRt) -> None:
    engine, x = opened(), FakeTensor((1, 2))
    assert trt.python_calls == 0
    assert engine._logger.printed == []
    trt.fail_runs = True
    with pytest.raises(EngineError, match="failed to run: Cask convolution execution"):
        engine.run({"x": x})


def test_network_refused_by_the_library_is_one_line_with_reason(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(RTX)
    with pytest.raises(EngineError, match="can't read the network"):
        build_plan(RTX, b"no network", {}, "sm86")
    monkeypatch.setattr(import_module(RTX), "OnnxParser", lambda *_: SimpleNamespace(parse=lambda model: True))
    with pytest.raises(EngineError, match=r"can't build the network: .*Network must have at least one output"):
        build_plan(RTX, b"", {}, "sm86")
    assert capfd.readouterr() == ("", "")


def test_known_shapes_make_a_static_engine_that_can_be_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the real library, which builds without a GPU."""
    pytest.importorskip(RTX)
    pytest.importorskip("onnx")
    from cliprl.engines import open_bundle
    from cliprl.engines.backends.tensorrt import build
    from cliprl.engines.backends.tensorrt.backend import TensorRt, make_engine_plan

    bundle, configs = open_bundle(), []
    add_profile = build._add_profile

    def kept(builder: Any, config: Any, profile: Any) -> None:
        configs.append(config)
        add_profile(builder, config, profile)

    monkeypatch.setattr(build, "_add_profile", kept)
    shape = bundle.embeddings.shape
    plan = make_engine_plan(RTX, bundle.encoder, "f16", {"text": shape}, "sm86")
    assert not plan.profile
    assert plan.inputs["text"].shape == shape
    assert plan.outputs["logits"].shape[1] == shape[0]
    left_open = make_engine_plan(RTX, bundle.encoder, "f16", {"text": (-1, shape[1])}, "sm86")
    assert left_open.outputs["logits"].shape[1] == -1
    flag = import_module(RTX).BuilderFlag.REQUIRE_USER_ALLOCATION
    assert len(configs) == 2
    assert all(config.get_flag(flag) for config in configs)
    assert "user allocation" in build.BUILD_SETTINGS
    assert TensorRt(RTX).identity()["build settings"] == build.BUILD_SETTINGS


def test_captures_use_no_stream_of_the_pool_that_others_share(trt: FakeTensorRt) -> None:
    assert opened()._stream.priority < 0


class _Driver:
    """What is asked of the CUDA driver about the calling thread's device."""

    def __init__(self, status: int, device: int) -> None:
        self._status, self._device = status, device

    def cuCtxGetDevice(self, target: Any) -> int:  # noqa: N802 - the driver's name
        target._obj.value = self._device
        return self._status


def test_the_current_gpu_is_meant_not_the_first() -> None:
    gpus = (GpuInfo("Tesla V100", (7, 0)), GpuInfo("NVIDIA H100", (9, 0)))
    current = _current(_Driver(0, 1))
    driver = DriverInfo("580.65", (13, 0), gpus, current)
    assert driver.gpu.name == "NVIDIA H100"
    assert why_not(RTX, "1.7", 13, driver) == ""
    assert _current(_Driver(201, 1)) == 0  # no context is current
    assert "V100" in why_not(RTX, "1.7", 13, DriverInfo("580.65", (13, 0), gpus))
