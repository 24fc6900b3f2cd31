"""Ways to load the kernels' binary and launch them in the context that torch uses, the preferred first."""

from __future__ import annotations

from ctypes import addressof, c_void_p, sizeof
from importlib import import_module
from typing import Any, Protocol

from cliprl.engines import EngineError
from cliprl.pipeline.cuda.kernels.kernel_arguments import KERNELS, Arguments, grid_of

# cuda.h's CU_STREAM_NON_BLOCKING: the stream does not wait for the default one.
_NON_BLOCKING = 1


class Launcher(Protocol):
    """Kernels of one binary, on one GPU."""

    name: str

    def stream(self) -> int:
        """The handle of a new stream, which lives as long as the launcher."""
        ...

    def launch(self, arguments: Arguments, stream: int) -> None:
        """Give a kernel to a stream. May be called from any thread."""
        ...


class PycudaLauncher:
    """pycuda, in the device's primary context: the one that torch has made and uses. `pycuda.autoinit` would make another."""

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
        # The one argument is a struct, passed by value as that many bytes.
        return module.get_function(kernel.name).prepare([f"{sizeof(kernel)}s"])

    def stream(self) -> int:
        """See `Launcher`."""
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


class BindingsLauncher:
    """NVIDIA's own bindings, in the primary context."""

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

    def _enter(self) -> None:
        """Make the context this thread's own: the same that torch has on every thread that uses it."""
        self._call(self._driver.cuCtxSetCurrent(self._context))

    def stream(self) -> int:
        """See `Launcher`."""
        self._enter()
        return int(self._call(self._driver.cuStreamCreate(_NON_BLOCKING)))

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
        """What a driver call returned. Raises EngineError for a status that is not success."""
        status, *values = answer
        if int(status) != 0:
            raise EngineError(f"the NVIDIA driver failed: {getattr(status, 'name', status)}; see nvidia-smi")
        return values[0] if values else None


LAUNCHERS: tuple[type[PycudaLauncher] | type[BindingsLauncher], ...] = (PycudaLauncher, BindingsLauncher)
PACKAGES = {"pycuda": "pycuda.driver", "cuda-bindings": "cuda.bindings.driver"}


def open_launcher(cubin: bytes, index: int) -> tuple[Launcher, tuple[str, ...]]:
    """The first launcher that works here, and for each before it a sentence on why it does not.

    Raises EngineError with all reasons where none does.
    """
    refused: list[str] = []
    for kind in LAUNCHERS:
        try:
            return kind(cubin, index), tuple(refused)
        except Exception as error:  # whatever a package of the driver's raises, the next way is to be tried
            refused.append(f"{kind.name}: {_why(kind.name, error)}")
    raise EngineError(f"CUDA kernels can't be launched: {'; '.join(refused)}")


def _why(name: str, error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"not installed: pip install {name}"
    return " ".join(str(error).split()) or type(error).__name__
