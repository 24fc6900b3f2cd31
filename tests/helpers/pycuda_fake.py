"""A fake `pycuda.driver` that records calls and refuses those that need the primary context where it is not current."""

from __future__ import annotations

import threading
from types import ModuleType
from typing import Any


class FakePycuda(ModuleType):
    """Stands in for `pycuda.driver`. `calls` lists what was called, in order, by the names of the driver's API."""

    def __init__(self) -> None:
        super().__init__("pycuda.driver")
        self.calls: list[str] = []
        self.fail_launches = False
        self._local = threading.local()

    def stack(self) -> list[_Context]:
        """The calling thread's stack of contexts."""
        if not hasattr(self._local, "stack"):
            self._local.stack = []
        found: list[_Context] = self._local.stack
        return found

    def called(self, name: str, *, in_context: bool = True) -> None:
        assert self.calls or name == "init", f"{name} before init"
        assert not in_context or self.stack(), f"{name} without a current context"
        self.calls.append(name)

    def init(self) -> None:
        self.called("init", in_context=False)

    def Device(self, index: int) -> _Device:  # noqa: N802 - the driver's name
        self.called("Device", in_context=False)
        return _Device(self)

    def Stream(self, flags: int) -> _Stream:  # noqa: N802 - the driver's name
        assert flags == 1, "a stream that waits for the default one"
        self.called("Stream")
        return _Stream()

    def module_from_buffer(self, cubin: bytes) -> _Module:
        self.called("module_from_buffer")
        return _Module(self)


class _Stream:
    handle = 0x1010


class _Device:
    def __init__(self, driver: FakePycuda) -> None:
        self._driver = driver

    def retain_primary_context(self) -> _Context:
        self._driver.called("retain_primary_context", in_context=False)
        return _Context(self._driver)

    def make_context(self) -> None:
        raise AssertionError("a second context")


class _Context:
    def __init__(self, driver: FakePycuda) -> None:
        self._driver = driver

    def push(self) -> None:
        self._driver.stack().append(self)
        self._driver.called("push")

    def pop(self) -> None:
        assert self._driver.stack().pop() is self
        self._driver.calls.append("pop")


class _Module:
    def __init__(self, driver: FakePycuda) -> None:
        self._driver = driver

    def get_function(self, name: str) -> _Function:
        self._driver.called("get_function")
        return _Function(self._driver)


class _Function:
    def __init__(self, driver: FakePycuda) -> None:
        self._driver, self._size, self._loaded = driver, 0, False

    @property
    def num_regs(self) -> int:
        self._loaded = True
        return 32

    def prepare(self, kinds: list[str]) -> _Function:
        self._size = int(kinds[0].removesuffix("s"))
        return self

    def prepared_async_call(self, grid: Any, block: Any, stream: Any, arguments: bytes) -> None:
        self._driver.called("launch")
        assert self._loaded, "loaded at its first launch, which may be in another thread's capture"
        assert len(grid) == 2
        assert len(block) == 3
        assert isinstance(stream, _Stream)
        assert len(arguments) == self._size
        if self._driver.fail_launches:
            raise RuntimeError("cuLaunchKernel failed: invalid argument")
