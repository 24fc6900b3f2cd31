"""Check whether TensorRT can serve on this machine, with a reason and a remedy for each obstacle."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec

from cliprl.engines.backends.engine import Probe
from cliprl.engines.backends.gpu_discovery import NO_DRIVER, DriverInfo, find_driver, no_gpu
from cliprl.engines.errors import reason_of

# The oldest Linux driver branch that serves each major version of CUDA (NVIDIA's CUDA compatibility guide).
OLDEST_DRIVER = {11: 450, 12: 525, 13: 580}
# Strongly typed networks are the rule from this version on.
OLDEST_TENSORRT = (10, 12)
OLDEST_CAPABILITY = (7, 5)
PACKAGE_TITLES = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT for RTX"}
INSTALL_COMMANDS = {"tensorrt": "pip install tensorrt", "tensorrt_rtx": "pip install tensorrt-rtx"}


def probe_tensorrt(package: str) -> Probe:
    """Whether `package` ("tensorrt" or "tensorrt_rtx") can build and run engines on this machine."""
    try:
        version: str = import_module(package).__version__
    except (ImportError, AttributeError, OSError) as error:
        return Probe(
            package, False, f"{PACKAGE_TITLES[package]} is not installed ({_short(error)}): {INSTALL_COMMANDS[package]}"
        )
    driver = find_driver()
    reason = why_not(package, version, cuda_of(package), driver) or why_not_torch(torch_cuda)
    if reason:
        return Probe(package, False, f"{PACKAGE_TITLES[package]} {version} found, but {reason}")
    assert driver is not None
    gpu = driver.gpu
    return Probe(
        package, True, f"{PACKAGE_TITLES[package]} {version} on {gpu.name} ({gpu.target}), driver {driver.version}"
    )


def cuda_of(package: str) -> int:
    """The major version of CUDA that the installed wheel of `package` is built for; 0 if unknown."""
    from importlib.metadata import PackageNotFoundError, distribution

    for major in sorted(OLDEST_DRIVER, reverse=True):
        try:
            distribution(f"{package}_cu{major}")
        except PackageNotFoundError:
            continue
        return major
    return 0


def why_not(package: str, version: str, cuda: int, driver: DriverInfo | None) -> str:
    """Why a TensorRT of this version, made for this CUDA, can't run here; "" where it can."""
    numbers = tuple(int(part) for part in version.split(".")[:2])
    if package == "tensorrt" and numbers < OLDEST_TENSORRT:
        return "older than the 10.12 this program needs: pip install --upgrade tensorrt"
    if driver is None:
        return NO_DRIVER + _ahead(package)
    if _branch(driver) < OLDEST_DRIVER.get(cuda, 0):
        return (
            f"driver {driver.version} is older than the {OLDEST_DRIVER[cuda]} it needs: {_older_wheel(package, driver)}"
        )
    if not driver.gpus:
        return no_gpu(driver)
    gpu = driver.gpu
    if gpu.capability < OLDEST_CAPABILITY:
        return f"{gpu.name} ({gpu.target}) is older than the sm75 it needs: run with --device cpu"
    return ""


def why_not_torch(state: Callable[[], tuple[str, bool]]) -> str:
    """Why torch can't lend the engine its GPU memory and streams; "" where it can. `state` tells version and CUDA."""
    version, cuda = state()
    if not version:
        return "torch, which owns the GPU memory, is not installed: pip install 'cliprl[gpu]'"
    if not cuda:
        return f"torch {version} can't use the GPU: install a CUDA build of torch that fits the driver"
    return ""


def torch_cuda() -> tuple[str, bool]:
    """The version of torch ("" where absent) and whether it can use a GPU."""
    if find_spec("torch") is None:
        return "", False
    import torch

    return torch.__version__, torch.cuda.is_available()


def _branch(driver: DriverInfo) -> int:
    """The driver's branch, such as 535; a driver of unknown version is taken as new enough."""
    head = driver.version.partition(".")[0]
    return int(head) if head.isdecimal() else max(OLDEST_DRIVER.values())


def _older_wheel(package: str, driver: DriverInfo) -> str:
    fitting = [major for major, oldest in OLDEST_DRIVER.items() if oldest <= _branch(driver) and major >= 12]
    if package == "tensorrt" and fitting:
        return f"update the driver or install tensorrt-cu{max(fitting)}"
    return "update the driver"


def _ahead(package: str) -> str:
    """TensorRT for RTX alone compiles for a GPU that is not there."""
    if package == "tensorrt_rtx":
        return " (engines for another machine can be built here: cliprl-engine build --target sm86)"
    return ""


def _short(error: BaseException) -> str:
    return reason_of(error)
