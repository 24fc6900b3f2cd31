"""Load the compiled kernels and launch them in the context that torch uses, the preferred package first."""

from __future__ import annotations

import os
from contextlib import suppress
from ctypes import addressof, c_void_p, sizeof
from importlib import import_module
from typing import Any, Protocol

from cliprl.engines.errors import EngineError, UsageError, line_of
from cliprl.pipeline.cuda.kernels.kernel_arguments import KERNELS, Arguments, grid_of

# CU_STREAM_NON_BLOCKING of cuda.h: the stream does not synchronize with the default stream.
_NON_BLOCKING = 1


class Launcher(Protocol):
    """The kernels of one binary, loaded on one GPU."""

    name: str

    def stream(self, *, urgent: bool = False) -> int:
        """Create a stream that lives as long as the launcher; return its handle. `urgent` asks for the highest priority."""

    def launch(self, arguments: Arguments, stream: int) -> None:
        """Enqueue a kernel on a stream. May be called from any thread."""


class BindingsLauncher:
    """NVIDIA's cuda-bindings in the primary context. A launch releases the interpreter lock."""

    name = "cuda-bindings"

    def __init__(self, cubin: bytes, index: int) -> None:
        self._driver: Any = import_module("cuda.bindings.driver")
        self._call(self._driver.cuInit(0))
        device = self._call(self._driver.cuDeviceGet(index))
        self._context = self._call(self._driver.cuDevicePrimaryCtxRetain(device))
        self._enter()
        self._module = self._call(self._driver.cuModuleLoadData(cubin))
        self._functions = {
            kernel.name: self._call(self._driver.cuModuleGetFunction(self._module, kernel.name.encode()))
            for kernel in KERNELS
        }
        for function in self._functions.values():
            self._load(function)

    def _load(self, function: Any) -> None:
        """Load a kernel now: CUDA loads it at its first launch, which would invalidate another thread's capture."""
        with suppress(RuntimeError, AttributeError):  # a driver or a package before CUDA 12.4 has no call for it
            self._call(self._driver.cuFuncLoad(function))

    def _enter(self) -> None:
        """Make the context current in this thread, as torch does in every thread that uses it."""
        self._call(self._driver.cuCtxSetCurrent(self._context))

    def stream(self, *, urgent: bool = False) -> int:
        """See `Launcher`."""
        self._enter()
        least, greatest = self._results(self._driver.cuCtxGetStreamPriorityRange())
        priority = greatest if urgent else least
        return int(self._call(self._driver.cuStreamCreateWithPriority(_NON_BLOCKING, priority)))

    def launch(self, arguments: Arguments, stream: int) -> None:
        """See `Launcher`."""
        (grid_x, grid_y), (block_x, block_y) = grid_of(arguments)
        pointers = (c_void_p * 1)(addressof(arguments))
        self._enter()
        self._call(
            self._driver.cuLaunchKernel(
                *(self._functions[arguments.name], grid_x, grid_y, 1, block_x, block_y, 1, 0),
                *(stream, addressof(pointers), 0),
            )
        )

    def _call(self, answer: tuple[Any, ...]) -> Any:
        """Return the result of a driver call. Raises EngineError where its status is not success."""
        values = self._results(answer)
        return values[0] if values else None

    def _results(self, answer: tuple[Any, ...]) -> list[Any]:
        status, *values = answer
        if int(status) != 0:
            raise EngineError(f"the NVIDIA driver failed: {getattr(status, 'name', status)}; see nvidia-smi")
        return values


class PycudaLauncher:
    """pycuda in the primary context, which torch has created and uses. `pycuda.autoinit` would create a second context.

    Its launches keep the interpreter lock, which stalls other Python threads: it is used by choice or as a fallback.
    """

    name = "pycuda"

    def __init__(self, cubin: bytes, index: int) -> None:
        driver: Any = import_module("pycuda.driver")
        driver.init()
        self._driver = driver
        self._context = driver.Device(index).retain_primary_context()
        self._context.push()
        try:
            module = driver.module_from_buffer(cubin)
            self._functions = {kernel.name: self._function(module, kernel) for kernel in KERNELS}
        finally:
            self._context.pop()
        self._module = module
        self._streams: dict[int, Any] = {}

    def _function(self, module: Any, kernel: type[Arguments]) -> Any:
        function = module.get_function(kernel.name)
        _ = function.num_regs  # asking for an attribute loads it: its first launch would, in another thread's capture
        # The only argument is a struct, passed by value as its bytes.
        return function.prepare([f"{sizeof(kernel)}s"])

    def stream(self, *, urgent: bool = False) -> int:
        """See `Launcher`. pycuda has no priorities."""
        self._context.push()
        try:
            stream = self._driver.Stream(_NON_BLOCKING)
        finally:
            self._context.pop()
        self._streams[int(stream.handle)] = stream
        return int(stream.handle)

    def launch(self, arguments: Arguments, stream: int) -> None:
        """See `Launcher`."""
        grid, block = grid_of(arguments)
        function = self._functions[arguments.name]
        self._context.push()
        try:
            function.prepared_async_call(grid, (*block, 1), self._streams[stream], bytes(arguments))
        finally:
            self._context.pop()


LAUNCHERS: tuple[type[BindingsLauncher] | type[PycudaLauncher], ...] = (BindingsLauncher, PycudaLauncher)
# Environment variable with the name of the launcher to try first.
CHOICE = "CLIPRL_CUDA_LAUNCHER"
_INSTALL = {"cuda-bindings": "pip install cuda-bindings", "pycuda": "pip install 'cliprl[gpu-pycuda]'"}


def open_launcher(cubin: bytes, index: int) -> tuple[Launcher, tuple[str, ...]]:
    """Return the first launcher that works here, and for each one tried before it a sentence with the reason why not.

    Raises UsageError for an unknown name in `CHOICE`, EngineError with all reasons where no launcher works.
    """
    refused: list[str] = []
    for kind in _ordered():
        try:
            return kind(cubin, index), tuple(refused)
        except Exception as error:  # a driver package may raise anything; the next launcher may still work
            refused.append(f"{kind.name}: {_why(kind.name, error)}")
    raise EngineError(f"CUDA kernels can't be launched: {'; '.join(refused)}")


def _ordered() -> tuple[type[BindingsLauncher] | type[PycudaLauncher], ...]:
    """The launchers in the order to try them: the chosen one first."""
    chosen = os.environ.get(CHOICE, "")
    names = [kind.name for kind in LAUNCHERS]
    if chosen and chosen not in names:
        raise UsageError(f"{CHOICE}={chosen} names no launcher: give {' or '.join(names)}, or unset it")
    return tuple(sorted(LAUNCHERS, key=lambda kind: kind.name != chosen))


def _why(name: str, error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"not installed: {_INSTALL[name]}"
    return line_of(error)
