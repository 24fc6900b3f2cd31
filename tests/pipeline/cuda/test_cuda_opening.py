"""Opening the `cuda` device: every rung that is missing is named, with its remedy."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from gpu_fake import FakeGpu

from cliprl.engines import EngineError, UsageError
from cliprl.engines.backends.gpu_discovery import DriverInfo, GpuInfo, find_driver
from cliprl.pipeline.cuda import factory
from cliprl.pipeline.cuda.context import share
from cliprl.pipeline.cuda.device import CudaDevice
from cliprl.pipeline.cuda.factory import network_of, open_device, why_not
from cliprl.pipeline.cuda.kernels import launchers
from cliprl.pipeline.sources import VideoSource

H100 = DriverInfo("580.65", (13, 0), (GpuInfo("NVIDIA H100", (9, 0)),))


@pytest.mark.parametrize(
    ("driver", "torch", "reason"),
    [
        (None, ("2.15", True), "no NVIDIA driver on this machine: install it, or run with --device cpu"),
        (DriverInfo("580.65", (13, 0), ()), ("2.15", True), "sees no GPU: see nvidia-smi"),
        (
            DriverInfo("580.65", (13, 0), (GpuInfo("Tesla V100", (7, 0)),)),
            ("2.15", True),
            "older than the sm75 it needs",
        ),
        (H100, ("", False), "torch, which owns the GPU memory, is not installed: pip install 'cliprl"),
        (H100, ("2.15+cpu", False), "install a CUDA build of torch"),
        (H100, ("2.15", True), ""),
    ],
)
def test_what_is_missing_is_named(driver: DriverInfo | None, torch: tuple[str, bool], reason: str) -> None:
    found = why_not(driver, lambda: torch)
    assert reason in found
    assert bool(found) == bool(reason)


@pytest.mark.skipif(find_driver() is not None, reason="there is an NVIDIA driver")
def test_without_a_gpu_the_command_says_so_in_a_line() -> None:
    with pytest.raises(EngineError, match="device 'cuda' can't serve here: no NVIDIA driver"):
        open_device()
    command = (
        "import sys; from cliprl.pipeline.cli.main import main; sys.argv[1:] = ['demo:', '--device', 'cuda']; main()"
    )
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "no NVIDIA driver on this machine" in done.stderr
    assert done.stderr.count("\n") == 1


class _Missing:
    name = "cuda-bindings"

    def __init__(self, cubin: bytes, index: int) -> None:
        raise ModuleNotFoundError("No module named 'cuda'")


class _Working:
    name = "pycuda"

    def __init__(self, cubin: bytes, index: int) -> None:
        pass


class _Broken:
    name = "pycuda"

    def __init__(self, cubin: bytes, index: int) -> None:
        raise RuntimeError("the driver\nis too old")


def test_a_missing_launcher_is_replaced_by_the_next_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launchers, "LAUNCHERS", (_Missing, _Working))
    launcher, refused = launchers.open_launcher(b"", 0)
    assert launcher.name == "pycuda"
    assert refused == ("cuda-bindings: not installed: pip install cuda-bindings",)
    monkeypatch.setattr(factory, "compiled_kernels", lambda *_, **__: b"")
    monkeypatch.setattr(factory, "compiler", lambda: ("nvrtc", "13.2"))
    _, note = factory.load_kernels("sm90", 0, print)
    assert note == (
        "kernels compiled by nvrtc 13.2, launched by pycuda (cuda-bindings: not installed: pip install cuda-bindings)"
    )
    monkeypatch.setattr(launchers, "LAUNCHERS", (_Missing, _Broken))
    with pytest.raises(EngineError, match=r"cuda-bindings: not installed.*; pycuda: the driver is too old"):
        launchers.open_launcher(b"", 0)


def test_the_launcher_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    first: Any = type("First", (_Working,), {"name": "cuda-bindings"})
    monkeypatch.setattr(launchers, "LAUNCHERS", (first, _Working))
    assert launchers.open_launcher(b"", 0)[0].name == "cuda-bindings"
    monkeypatch.setenv("CLIPRL_CUDA_LAUNCHER", "pycuda")
    assert launchers.open_launcher(b"", 0)[0].name == "pycuda"
    monkeypatch.setenv("CLIPRL_CUDA_LAUNCHER", "numba")
    with pytest.raises(UsageError, match="numba names no launcher: give cuda-bindings or pycuda"):
        launchers.open_launcher(b"", 0)


def test_the_gpu_extra_installs_from_wheels_alone() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {
        name: {re.split(r"[<>=\[]", line)[0] for line in lines}
        for name, lines in project["optional-dependencies"].items()
    }
    assert {name for name, packages in extras.items() if "pycuda" in packages} == {"gpu-pycuda"}
    assert {"cuda-bindings", "nvidia-cuda-nvrtc"} <= extras["gpu"]


def test_without_a_compiler_the_device_does_not_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> bytes:
        raise EngineError("no compiler for CUDA kernels (no nvcc): pip install cuda-bindings nvidia-cuda-nvrtc")

    monkeypatch.setattr(factory, "compiled_kernels", missing)
    with pytest.raises(EngineError, match="pip install cuda-bindings"):
        factory.load_kernels("sm90", 0, print)


@pytest.mark.skipif(find_driver() is not None, reason="there is an NVIDIA driver")
def test_here_every_launcher_says_why_not() -> None:
    with pytest.raises(EngineError, match=r"can't be launched: cuda-bindings: .*; pycuda: ") as caught:
        launchers.open_launcher(b"", 0)
    assert "\n" not in str(caught.value)


def test_an_engine_of_the_cpu_is_refused() -> None:
    engine: Any = type("Engine", (), {"backend": "openvino"})()
    with pytest.raises(EngineError, match="'openvino' does not run on a GPU"):
        network_of(engine)


@pytest.mark.skipif(find_driver() is not None, reason="there is an NVIDIA driver")
def test_video_unsupported_by_nvdec_is_decoded_on_cpu(tmp_path: Path) -> None:
    from media import make_clip

    gpu, told = FakeGpu(lambda n: 0), list[str]()
    device = CudaDevice(share(gpu, network_of, decoder=0))
    clip = make_clip(tmp_path / "clip.mp4", frames=3)
    with device.source(str(clip), told.append) as source:
        assert type(source) is VideoSource
        assert source.read() is not None
    assert len(told) == 1
    assert told[0].startswith("no NVDEC for this video (")
    assert "pinned memory" in told[0]
