"""Too little memory, and a cache that may not be entered: a line that says what is wrong, or a run without the cache."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import pytest
import typer

from cliprl.engines import EngineError, reason_of
from cliprl.engines.backends.engine import Request
from cliprl.engines.backends.openvino import backend
from cliprl.engines.cache.cache_store import CacheStore
from cliprl.engines.cli.cli_runner import run_app
from cliprl.pipeline.sources.errors import explain

MIB = 1 << 20
PROGRAM = "import sys; sys.argv[0] = 'cliprl-stream'; from cliprl.pipeline.cli.main import main; main()"


@pytest.mark.parametrize("limit", [200, 400, 700])
def test_an_address_space_too_small_is_told_in_a_line(tmp_path: Path, limit: int) -> None:
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (limit * MIB, limit * MIB))

    command = [sys.executable, "-c", PROGRAM, "demo:", "-o", "null:"]
    run = subprocess.run(command, preexec_fn=limited, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert run.returncode == 1, run.stderr[-500:]
    assert run.stderr.count("\n") == 1
    assert f"too little memory: the process is limited to {limit} MiB" in run.stderr


def test_libav_without_memory_has_a_reason() -> None:
    text = str(explain(av.error.MemoryError(12, "Cannot allocate memory"), "a.mp4"))
    assert text.startswith("a.mp4 needs more memory than there is")


def test_a_cache_that_may_not_be_entered_has_no_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "stat", refused)  # root may enter any folder
    assert not CacheStore(tmp_path / "locked").exists("entry")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        MemoryError("array"),
        RuntimeError("allocator.cpp:79: std::bad_alloc"),
        OSError(12, "Cannot allocate memory"),
        ImportError("_core.so: failed to map segment from shared object"),
    ],
)
def test_memory_that_runs_out_later_is_told_in_a_line(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    app = typer.Typer()

    @app.command()
    def command() -> None:
        raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["cliprl-test"])
        assert run_app(app, "cliprl-test") == 1
    assert capsys.readouterr().err.startswith("cliprl-test: too little memory")


@pytest.mark.parametrize(
    ("error", "line", "text"),
    [
        (RuntimeError(), -1, "RuntimeError"),
        (RuntimeError("\n \n"), 0, "RuntimeError"),
        (MemoryError(), 0, "too little memory"),
        (RuntimeError("one\ntwo\n"), -1, "two"),
    ],
)
def test_an_error_without_text_has_a_reason(error: Exception, line: int, text: str) -> None:
    assert reason_of(error, line) == text


@pytest.mark.parametrize("call", ["compile_model", "import_model"])
def test_openvino_without_a_text_has_a_reason(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError

    core = type("Core", (), {"read_model": lambda *_: object(), call: fail})()
    monkeypatch.setattr(backend, "_core", lambda: core)
    monkeypatch.setattr(backend, "_hints", lambda _: {})
    monkeypatch.setattr(backend, "compare_with_features", lambda _: None)
    monkeypatch.setattr(backend, "_reshape", lambda *_: None)
    monkeypatch.setattr(backend, "keep_channels_last", lambda model: model)
    request = Request(Path("encoder.onnx"), "f32", 1, {})
    with pytest.raises(EngineError, match="RuntimeError"):
        backend.OpenVino().build(request) if call == "compile_model" else backend.OpenVino().load(b"", request)
