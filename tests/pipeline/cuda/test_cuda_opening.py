"""Opening the `cuda` device: every rung that is missing is named, with its remedy."""

from __future__ import annotations

import subprocess
import sys
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
from cliprl.pipeline.segment.segmenter import Segmenter
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


class _Refusing:
    def __init__(self, cubin: bytes, index: int) -> None:
        raise ModuleNotFoundError("No module named 'pycuda'")


class _Working:
    name = "cuda-bindings"

    def __init__(self, cubin: bytes, index: int) -> None:
        pass


class _Broken:
    name = "cuda-bindings"

    def __init__(self, cubin: bytes, index: int) -> None:
        raise RuntimeError("the driver\nis too old")


def test_without_pycuda_the_next_rung_serves_and_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    refusing: Any = type("Refusing", (_Refusing,), {"name": "pycuda"})
    monkeypatch.setattr(launchers, "LAUNCHERS", (refusing, _Working))
    launcher, refused = launchers.open_launcher(b"", 0)
    assert launcher.name == "cuda-bindings"
    assert refused == ("pycuda: not installed: pip install pycuda",)
    monkeypatch.setattr(factory, "compiled_kernels", lambda *_, **__: b"")
    monkeypatch.setattr(factory, "compiler", lambda: ("nvrtc", "13.2"))
    _, told = factory.load_kernels("sm90", 0, print)
    assert told == (
        "kernels compiled by nvrtc 13.2, launched by cuda-bindings (pycuda: not installed: pip install pycuda)"
    )
    monkeypatch.setattr(launchers, "LAUNCHERS", (refusing, _Broken))
    with pytest.raises(EngineError, match=r"pycuda: not installed.*; cuda-bindings: the driver is too old"):
        launchers.open_launcher(b"", 0)


def test_without_a_compiler_the_device_does_not_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> bytes:
        raise EngineError("no compiler for CUDA kernels (no nvcc): pip install cuda-bindings nvidia-cuda-nvrtc")

    monkeypatch.setattr(factory, "compiled_kernels", missing)
    with pytest.raises(EngineError, match="pip install cuda-bindings"):
        factory.load_kernels("sm90", 0, print)


@pytest.mark.skipif(find_driver() is not None, reason="there is an NVIDIA driver")
def test_here_every_launcher_says_why_not() -> None:
    with pytest.raises(EngineError, match=r"can't be launched: pycuda: .*; cuda-bindings: ") as caught:
        launchers.open_launcher(b"", 0)
    assert "\n" not in str(caught.value)


def test_an_engine_of_the_cpu_is_refused() -> None:
    engine: Any = type("Engine", (), {"backend": "openvino"})()
    with pytest.raises(EngineError, match="'openvino' does not run on a GPU"):
        network_of(engine)


@pytest.mark.skipif(find_driver() is not None, reason="there is an NVIDIA driver")
def test_a_video_that_nvdec_can_not_take_is_decoded_on_the_cpu(tmp_path: Path) -> None:
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


def test_the_cpus_segmenter_does_not_take_a_gpus_frames() -> None:
    device = CudaDevice(share(FakeGpu(lambda n: 0), network_of))
    with pytest.raises(UsageError, match=r"open_device\('cuda'\)\.segmenter\(bundle\)"):
        Segmenter(device=device)
