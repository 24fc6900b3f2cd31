"""A backend is one new file: it enters itself, and names, help and errors follow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cliprl.engines import UsageError
from cliprl.engines.backends.registry import backend_names, backend_of, device_names, precisions_help, register_backend

NEW_BACKEND = '''
"""A backend for a device "toy": OpenVINO under another name."""
from cliprl.engines.backends.openvino.backend import OpenVino
from cliprl.engines.backends.engine import Probe
from cliprl.engines.backends.registry import register_backend

class Toy(OpenVino):
    name = "toy"
    known_precisions = ("f32", "f7")

    def probe(self):
        return Probe(self.name, True, "always ready")

    def precisions(self, files=()):
        return ("f32",)

    def lacks(self, precision, files):
        return "" if precision == "f32" else "it computes in f32 only"

register_backend(Toy(), device="toy", preference=1)
'''


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `cliprl-engine` in a process that has imported the new file."""
    code = "import extra.toy; from cliprl.engines.cli.main import main; main()"
    path = [str(folder), *sys.path]
    environment = {
        "PYTHONPATH": ":".join(filter(None, path)),
        "HOME": str(folder),
        "COLUMNS": "200",
        "XDG_CACHE_HOME": str(folder / "cache"),
    }
    return subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, env=environment, timeout=300, check=False
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("package")
    (folder / "extra").mkdir()
    (folder / "extra" / "toy.py").write_text(NEW_BACKEND, encoding="utf-8")
    return folder


def test_a_backend_in_one_new_file_serves_the_command_line(folder: Path) -> None:
    listed = run(folder, "devices")
    assert listed.returncode == 0, listed.stderr
    assert "toy" in listed.stdout
    assert "always ready" in listed.stdout
    checked = run(folder, "verify", "small", "--device", "toy")
    assert checked.returncode == 0, checked.stderr
    assert "accepted" in checked.stdout


def test_help_and_errors_name_a_new_backend(folder: Path) -> None:
    assert "f32, f7 on toy" in " ".join(run(folder, "build", "--help").stdout.replace("│", " ").split())
    unknown = run(folder, "build", "--device", "tpu")
    assert unknown.returncode == 2
    assert unknown.stderr.strip().splitlines() == ["cliprl-engine: unknown device 'tpu': one of cpu, cuda, toy"]
    lacking = run(folder, "build", "--device", "toy", "--precision", "f7")
    assert lacking.returncode == 2
    assert "toy: it computes in f32 only" in lacking.stderr


def test_the_modules_of_the_package_are_found() -> None:
    assert device_names() == ["cpu", "cuda"]
    assert backend_names() == ["openvino", "tensorrt", "tensorrt_rtx", "torch"]
    assert backend_names("cuda") == ["tensorrt", "tensorrt_rtx", "torch"]
    assert all(backend_of(name).name == name for name in backend_names())
    assert precisions_help() == "bf16, int8, f32 on cpu; f16, fp8, int8, f32 on cuda"
    with pytest.raises(UsageError, match="one of openvino, tensorrt"):
        backend_of("tvm")


def test_two_backends_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="'torch'"):
        register_backend(backend_of("torch"), device="cpu", preference=9)


def test_a_look_up_imports_no_optional_package() -> None:
    code = (
        "import sys; from cliprl.engines.backends.registry import backend_names; backend_names();"
        "print(*{'torch', 'onnx', 'openvino', 'tensorrt', 'tensorrt_rtx', 'nncf', 'pydantic'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
