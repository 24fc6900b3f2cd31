"""Open the `cuda` device, with a sentence on each preferred component that this machine lacks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, cast

from cliprl.engines import Engine, EngineError, ignore_message
from cliprl.engines.backends.cuda_graph import CAPTURE_LOCK
from cliprl.engines.backends.gpu_discovery import NO_DRIVER, DriverInfo, find_driver, no_gpu
from cliprl.engines.backends.tensorrt.probe import torch_cuda, why_not_torch
from cliprl.pipeline.cuda.context import Encoding, SharedGpu, share
from cliprl.pipeline.cuda.device import CudaDevice
from cliprl.pipeline.cuda.gpu_api import Network
from cliprl.pipeline.cuda.kernels.compiler import compiled_kernels, compiler
from cliprl.pipeline.cuda.kernels.launchers import Launcher, open_launcher

if TYPE_CHECKING:  # on a bare machine without PyAV this module is imported too
    from cliprl.pipeline.sinks.video.live_encoding import LiveCodecs

OLDEST = (7, 5)
_shared: dict[int, SharedGpu] = {}


def open_device(log: Callable[[str], None] = ignore_message) -> CudaDevice:
    """Open a device on torch's current GPU for one video stream; the devices of a process share context, kernels and turns.

    Raises EngineError with the first reason why this machine can't serve.
    """
    return CudaDevice(open_shared_gpu(log))


def open_shared_gpu(log: Callable[[str], None] = ignore_message) -> SharedGpu:
    """Return torch's current GPU with all that its video streams share, the same object each time. Raises like `open_device`."""
    check_device()
    with CAPTURE_LOCK:
        return _open_shared(log)


def hardware_codecs() -> LiveCodecs:
    """Return NVENC and NVDEC for live streams, in separate processes. Creates no context on the GPU in this one."""
    from cliprl.pipeline.cuda.codecs.live_decoder import LiveDecoder
    from cliprl.pipeline.cuda.codecs.live_encoder import NvencProcess
    from cliprl.pipeline.sinks.video.live_encoding import LiveCodecs

    return LiveCodecs(lambda seconds: NvencProcess(patience=seconds), partial(LiveDecoder, refused=[]))


def check_device() -> None:
    """Raise EngineError with the reason where the device can't serve. Creates no context on the GPU."""
    reason = why_not(find_driver(), torch_cuda)
    if reason:
        raise EngineError(f"device 'cuda' can't serve here: {reason}")


def why_not(driver: DriverInfo | None, state: Callable[[], tuple[str, bool]]) -> str:
    """Return the reason why the GPU can't be used, "" if it can. `state` returns torch's version and whether it can use a GPU."""
    if driver is None:
        return NO_DRIVER
    if not driver.gpus:
        return no_gpu(driver)
    gpu = driver.gpu
    if gpu.capability < OLDEST:
        return f"{gpu.name} ({gpu.target}) is older than the sm75 it needs: run with --device cpu"
    return why_not_torch(state)


def _open_shared(log: Callable[[str], None]) -> SharedGpu:
    import torch

    from cliprl.pipeline.cuda.torch_gpu import TorchGpu

    # Torch creates the primary context; all other libraries use it.
    torch.cuda.init()  # type: ignore[no-untyped-call]
    index = torch.cuda.current_device()
    if index not in _shared:
        target = "sm{}{}".format(*torch.cuda.get_device_capability(index))
        launcher, note = load_kernels(target, index, log)
        gpu = TorchGpu(launcher, index)
        _shared[index] = share(gpu, network_of, (f"{gpu.name} ({target}): {note}",), index, Encoding(index=index))
    return _shared[index]


def load_kernels(target: str, index: int, log: Callable[[str], None]) -> tuple[Launcher, str]:
    """Compile the kernels and load them with the first launcher that works.

    Return it with a sentence that names compiler and launcher and the reason why a preferred launcher was not used.
    Raises EngineError where the kernels cannot be compiled or launched.
    """
    launcher, refused = open_launcher(compiled_kernels(target, log=log), index)
    why = f" ({'; '.join(refused)})" if refused else ""
    return launcher, f"kernels compiled by {' '.join(compiler())}, launched by {launcher.name}{why}"


def network_of(engine: Engine) -> Network:
    """Return an engine as a network that enqueues its runs. Raises EngineError for an engine of the CPU."""
    if not hasattr(engine, "enqueue"):
        raise EngineError(f"engine '{engine.backend}' does not run on a GPU: let the device choose one")
    return cast(Network, engine)
