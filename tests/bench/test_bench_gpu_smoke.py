"""The smoke command for a machine with a GPU, on one without and on the simulated GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from gpu_fake import FakeGpu
from gpu_host import needs_compiler

from cliprl.bench.cuda import smoke
from cliprl.bench.cuda.live_codecs import check_live_codecs
from cliprl.engines import EngineError
from cliprl.engines.backends.gpu_discovery import find_driver
from cliprl.pipeline.cuda.context import SharedGpu, share
from cliprl.pipeline.cuda.factory import network_of

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(find_driver() is not None, reason="there is an NVIDIA driver")
def test_smoke_runs_without_gpu_and_names_unchecked_parts() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "bench" / "gpu.py"), "--smoke"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stdout + done.stderr
    assert not any("Traceback" in line for line in (*lines, *done.stderr.splitlines()))
    assert len([line for line in lines if line.startswith("not checked: ")]) == 7
    assert any(line.startswith("ok: calls to the driver") and "0 pixels a frame: 19 calls" in line for line in lines)
    assert any("two streams open at once" in line and "no NVIDIA driver" in line for line in lines)


def test_smoke_runs_with_numpy_alone(tmp_path: Path) -> None:
    lacking = [
        "av",
        "cuda",
        "cv2",
        "filelock",
        "onnx",
        "openvino",
        "platformdirs",
        "rich",
        "tokenizers",
        "torch",
        "typer",
    ]
    blocker = f"""import sys
class Blocker:
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in {lacking}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocker)
"""
    paths = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    (tmp_path / "sitecustomize.py").write_text(blocker, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(ROOT / "bench" / "gpu.py"), "--smoke"],
        env=os.environ | {"PATH": "/usr/bin:/bin", "PYTHONPATH": os.pathsep.join([str(tmp_path), *paths])},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "ok: libraries of decoder and encoder" in done.stdout
    assert "(No module named 'rich')" in done.stdout or "is not installed)" in done.stdout
    assert "bench/GPU.md lists what it needs" in done.stdout


def checked(monkeypatch: pytest.MonkeyPatch, check: smoke.Check, card: SharedGpu | None) -> tuple[int, list[str]]:
    def open_gpu() -> SharedGpu:
        if card is None:
            raise EngineError("no GPU")
        return card

    lines: list[str] = []
    monkeypatch.setattr(smoke, "_checks", lambda _: (check,))
    return smoke.smoke(open_gpu, lines.append), lines


def test_failed_check_fails_but_missing_compiler_without_gpu_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken() -> str:
        raise EngineError("no compiler")

    check = smoke.Check("kernels", broken, needs_gpu=False)
    card = share(FakeGpu(lambda n: 0), network_of)
    assert checked(monkeypatch, check, card)[0] == 1
    status, lines = checked(monkeypatch, check, None)
    assert (status, lines) == (0, ["FAILED: kernels: EngineError: no compiler"])


@needs_compiler
def test_the_kernels_check_passes_on_the_simulated_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    card = share(FakeGpu(lambda n: 0), network_of)
    check = smoke.Check("codes", lambda: smoke._kernels(card))
    status, lines = checked(monkeypatch, check, card)
    assert status == 0
    assert lines[-1] == "ok: codes: equal"


@needs_compiler
@pytest.mark.parametrize("stale", [False, True])
def test_check_of_frame_data_finds_a_graph_with_stale_addresses(monkeypatch: pytest.MonkeyPatch, stale: bool) -> None:
    card = share(FakeGpu(lambda n: 0), network_of)
    sent = list[bool]()

    def send(upload: Any, pinned: Any, stream: Any) -> None:
        if not (stale and sent):
            original(upload, pinned, stream)
        sent.append(True)

    original = smoke.FrameUpload.send
    monkeypatch.setattr(smoke.FrameUpload, "send", send)
    status, lines = checked(monkeypatch, smoke.Check("frame", lambda: smoke._frame_data(card)), card)
    assert (status, lines[-1].startswith("FAILED")) == (int(stale), stale)


@pytest.mark.skipif(find_driver() is not None, reason="there is an NVIDIA driver")
def test_codecs_of_live_streams_are_named_with_the_reason() -> None:
    found = check_live_codecs(96, 128)
    assert "encoded on the CPU by libx264: no NVENC (Cannot load libcuda.so.1)" in found
    assert "decoded on the CPU: no NVDEC (Could not dynamically load CUDA)" in found
