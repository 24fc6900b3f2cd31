"""The kernels as GPU code, compiled without a GPU for every generation."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cliprl.engines import EngineCache, EngineError
from cliprl.pipeline.cuda.kernels import compiler as compiling
from cliprl.pipeline.cuda.kernels.compiler import (
    KERNEL_TARGETS,
    by_nvcc,
    compile_sources,
    compiled_kernels,
    compiler,
    read_sources,
)
from cliprl.pipeline.cuda.kernels.kernel_arguments import KERNELS


def has_nvrtc() -> bool:
    try:
        return compiler()[0] == "nvrtc"
    except EngineError:
        return False


needs_nvrtc = pytest.mark.skipif(not has_nvrtc(), reason="no NVRTC")


def check(cubin: bytes) -> None:
    assert cubin[:4] == b"\x7fELF"
    for kernel in KERNELS:
        assert f".text.{kernel.name}".encode() in cubin


@needs_nvrtc
@pytest.mark.parametrize("target", [KERNEL_TARGETS[0], KERNEL_TARGETS[-1]])
def test_every_kernel_compiles_for(target: str) -> None:
    check(compile_sources(read_sources(), target))


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")
def test_nvcc_does_as_well() -> None:
    check(by_nvcc(read_sources(), "sm90"))
    with pytest.raises(EngineError, match=r"nvcc can't compile the kernels: all\.cu"):
        by_nvcc({"all.cu": "int main( {"}, "sm90")


@needs_nvrtc
def test_it_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, told = EngineCache(tmp_path), list[str]()
    first = compiled_kernels("sm86", cache, told.append)
    with monkeypatch.context() as patch:
        patch.setattr(compiling, "compile_sources", lambda *_: pytest.fail("compiled again"))
        assert compiled_kernels("sm86", cache, told.append) == first
    monkeypatch.setattr(compiling, "read_sources", lambda: read_sources() | {"extra.cuh": "// changed"})
    monkeypatch.setattr(compiling, "compile_sources", lambda *_: b"anew")
    assert compiled_kernels("sm86", cache, told.append) == b"anew"
    assert any("sources" in line for line in told)


@needs_nvrtc
def test_what_can_not_be_compiled_is_told_in_a_line() -> None:
    with pytest.raises(
        EngineError, match=r"NVRTC can't compile the kernels \(NVRTC_ERROR_COMPILATION\): all.cu.*error"
    ) as caught:
        compile_sources({"all.cu": "extern nonsense;"}, "sm90")
    assert "\n" not in str(caught.value)
    with pytest.raises(EngineError, match="NVRTC can't compile"):
        compile_sources(read_sources(), "sm10")


def test_without_any_compiler_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(f"No module named '{name}'")

    monkeypatch.setattr(compiling, "import_module", missing)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    compiler.cache_clear()
    try:
        with pytest.raises(EngineError, match="pip install cuda-bindings nvidia-cuda-nvrtc"):
            compiler()
    finally:
        compiler.cache_clear()
