"""Fake `tensorrt_rtx` and `torch` modules that record the engine's calls and refuse them in the wrong order."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from lock_state import is_locked

from cliprl.engines.backends.cuda_graph import CAPTURE_LOCK

Shape = tuple[int, ...]


class FakeTensor:
    """A tensor on the GPU: only its shape and address matter."""

    is_cuda = True
    addresses = iter(range(0x1000, 1 << 40, 0x1000))

    def __init__(self, shape: Shape) -> None:
        self.shape, self._address = shape, next(self.addresses)

    def data_ptr(self) -> int:
        return self._address

    def is_contiguous(self) -> bool:
        return True


class FakeTorch(ModuleType):
    """Captures fail while `fail_captures` is set; `in_pool` tells whether the allocator was left in its capture mode."""

    float32, Tensor = "float32", FakeTensor

    def __init__(self, calls: list[str]) -> None:
        super().__init__("torch")
        self.calls, self.fail_captures, self.capturing, self.in_pool = calls, False, False, False
        self.captures: list[tuple[object, object]] = []  # the pool and the stream of each
        self.streams: list[object] = []  # those that were made current
        fake = self

        class Graph:
            def capture_begin(self, pool: object, capture_error_mode: str) -> None:
                assert capture_error_mode == "thread_local"
                assert is_locked(CAPTURE_LOCK)
                assert not gc.isenabled(), "what the collector frees may spoil the capture"
                fake.captures.append((pool, fake.streams[-1]))
                fake.capturing = fake.in_pool = True
                calls.append("capture_begin")

            def capture_end(self) -> None:
                fake.capturing = False
                if fake.fail_captures:
                    raise RuntimeError("CUDA error: operation failed due to a previous error during capture")
                fake.in_pool = False
                calls.append("capture_end")

            def replay(self) -> None:
                calls.append("replay")

        self.cuda = SimpleNamespace(
            Stream=_Stream,
            stream=self._on,
            current_stream=_Stream,
            CUDAGraph=Graph,
            graph_pool_handle=lambda: (0, 1),
            current_device=lambda: 0,
        )
        self._C = SimpleNamespace(_cuda_endAllocateToPool=self._leave)

    @contextmanager
    def _on(self, stream: object) -> Iterator[None]:
        self.streams.append(stream)
        yield

    def _leave(self, device: int, pool: object) -> None:
        assert self.in_pool, "the allocator is not in a pool"
        self.in_pool = False

    def empty(self, shape: Shape, dtype: object, device: str) -> FakeTensor:
        assert not self.capturing, "memory is allocated inside a capture"
        return FakeTensor(shape)


class _Stream:
    cuda_stream = 7

    def __init__(self, priority: int = 0) -> None:
        self.priority = priority

    def wait_stream(self, stream: object) -> None:
        pass

    def synchronize(self) -> None:
        pass


class FakeContext:
    def __init__(self, trt: FakeTensorRt) -> None:
        self._trt = trt

    def is_stream_capturable(self, stream: int) -> bool:
        return self._trt.capturable

    def set_input_shape(self, name: str, shape: Shape) -> bool:
        self._trt.called(f"shape {name}")
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._trt.called(f"address {name}")
        return True

    def get_tensor_shape(self, name: str) -> Shape:
        return (1, 2)

    def execute_async_v3(self, stream: int) -> bool:
        self._trt.locked.append(is_locked(CAPTURE_LOCK))
        self._trt.calls.append("run")
        if self._trt.fail_runs:
            self._trt.runtime.error_recorder.report_error(1, "Cask\nconvolution execution")
        return not self._trt.fail_runs


class FakeTensorRt(ModuleType):
    """`tensorrt_rtx` with one network: x (1, 2) to y (1, 2). Set `no_builder` or `no_runtime` for what fails to be created."""

    __version__ = "1.7.0"
    TensorIOMode = SimpleNamespace(INPUT="input")

    class ILogger:
        """A logger in Python: every message, however minor, is a call of its method `log`."""

        ERROR, INTERNAL_ERROR, VERBOSE = 1, 0, 4

        def __init__(self) -> None:
            pass

    class Logger(ILogger):
        """TensorRT's own logger, which drops messages in C++ and prints the rest."""

        def __init__(self, least: int = 2) -> None:
            self.least, self.printed = least, list[str]()

        def log(self, severity: int, message: str) -> None:
            if severity <= self.least:
                self.printed.append(message)

    class IErrorRecorder:
        def __init__(self) -> None:
            pass

    def __init__(self, torch: FakeTorch) -> None:
        super().__init__("tensorrt_rtx")
        self._torch, self.calls, self.capturable = torch, torch.calls, True
        self.no_runtime = self.no_builder = self.fail_runs = False
        self.python_calls = 0
        self.locked: list[bool] = []  # whether captures had to wait during each run
        self.runtime: Any = None

    def called(self, name: str) -> None:
        assert not self._torch.capturing, f"{name} is set inside a capture"
        self.calls.append(name)

    def nptype(self, dtype: Any) -> type[Any]:
        return np.float32

    def _log(self, logger: Any, severity: int, message: str) -> None:
        self.python_calls += type(logger) is not self.Logger
        logger.log(severity, message)

    def Builder(self, logger: Any) -> Any:  # noqa: N802 - TensorRT's name
        self._log(logger, self.ILogger.ERROR, "no CUDA-capable device")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    def Runtime(self, logger: Any) -> Any:  # noqa: N802 - TensorRT's name
        for number in range(1000):
            self._log(logger, self.ILogger.VERBOSE, f"kernel {number}")
        if self.no_runtime:
            raise TypeError("pybind11::init(): factory function returned nullptr")
        names = ["x", "y"]
        engine = SimpleNamespace(
            num_io_tensors=2,
            get_tensor_name=names.__getitem__,
            get_tensor_dtype=lambda name: "float",
            get_tensor_shape=lambda name: (1, 2),
            get_tensor_mode=lambda name: "input" if name == "x" else "output",
            create_execution_context=lambda: FakeContext(self),
        )
        deserialize: Callable[[bytes], Any] = lambda plan: engine  # noqa: E731
        self.runtime = SimpleNamespace(deserialize_cuda_engine=deserialize, error_recorder=None)
        return self.runtime
