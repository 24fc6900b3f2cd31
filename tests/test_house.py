"""Lint, types and the house's rules: which room may import which, and what may be loaded at import."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {
    "engines": {"engines"},
    "pipeline": {"pipeline", "engines"},
    "models": {"models", "pipeline", "engines"},
    "bench": {"bench", "models", "pipeline", "engines"},
}
OPTIONAL = {
    "torch",
    "torchvision",
    "open_clip",
    "timm",
    "tensorrt",
    "tensorrt_rtx",
    "pycuda",
    "cuda",
    "nncf",
    "aiortc",
    "prometheus_client",
    "onnxruntime",
    "mitsuba",
    "mitsuba_oidn",
    "trimesh",
}


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
    )


def test_ruff() -> None:
    done = python("-m", "ruff", "check", ".")
    assert done.returncode == 0, done.stdout


def test_formatting() -> None:
    done = python("-m", "ruff", "format", "--check", ".")
    assert done.returncode == 0, done.stdout


def test_types() -> None:
    done = python("-m", "mypy")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("room", sorted(MAY_IMPORT))
def test_imports_point_down(room: str) -> None:
    for path in (ROOT / room).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            for name in names:
                parts = name.split(".")
                assert parts[0] not in MAY_IMPORT, f"{path.relative_to(ROOT)}: import {name} as cliprl.{name}"
                if parts[0] == "cliprl":
                    assert parts[1] in MAY_IMPORT[room], f"{path.relative_to(ROOT)}: {room} may not import {parts[1]}"


def imported(path: Path) -> set[str]:
    """The top-level packages that a file imports anywhere in it."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    return {name.split(".")[0] for name in names}


def test_the_pipeline_touches_a_gpu_in_one_place_only() -> None:
    for path in (ROOT / "pipeline").rglob("*.py"):
        if path.parent != ROOT / "pipeline" / "cuda":
            assert not imported(path) & {"torch", "pycuda", "cuda", "tensorrt"}, path.relative_to(ROOT)


@pytest.mark.parametrize(
    "package", ["cliprl.engines", "cliprl.pipeline", "cliprl.pipeline.cli.run", "cliprl.pipeline.cuda.factory"]
)
def test_importing_loads_nothing_optional(package: str) -> None:
    done = python("-c", f"import sys, {package}; print(*sorted({OPTIONAL!r} & set(sys.modules)))")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""


def test_openvino_reports_to_nobody() -> None:
    """Its converter sends a report over the network when it is imported, and NNCF would too."""
    told = "*sorted(name for name in sys.modules if 'telemetry' in name or name.startswith('openvino.tools'))"
    code = f"import sys; from cliprl.engines import probe; assert probe('openvino').ready; print({told})"
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""
    for path in (path for room in MAY_IMPORT for path in (ROOT / room).rglob("*.py")):
        lines = path.read_text(encoding="utf-8").splitlines()
        assert not {"import openvino", "import nncf"} & {line.strip() for line in lines}, path.relative_to(ROOT)


def test_the_light_install_names_no_heavy_package() -> None:
    light = [line for line in requires("cliprl") or [] if "extra ==" not in line]
    assert light
    assert not any(line.split(">")[0].split("=")[0].strip().lower() in OPTIONAL for line in light)
