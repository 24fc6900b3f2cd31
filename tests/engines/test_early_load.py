"""Compiled engines are loaded on a thread while a program starts; nothing is compiled there, and no error is reported early."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cliprl.engines import CompiledBundle, EngineCache, EngineError, UsageError, load_engines, open_bundle
from cliprl.engines.cache.cache_store import StoredEntry
from cliprl.engines.selection import early_load
from cliprl.engines.selection.early_load import EarlyLoad
from cliprl.engines.selection.engine_variant import EngineVariant


def test_engines_of_the_cache_are_loaded_early() -> None:
    load_engines(open_bundle("small"), precision="f32", threads=1)
    early, said = EarlyLoad("small", precision="f32", threads=1), list[str]()
    found = early.engines(said.append)
    assert isinstance(found, CompiledBundle)
    assert (found.backend, found.precision) == ("openvino", "f32")
    assert early.bundle().manifest.name == "small"
    assert said == []


def test_an_engine_that_fails_to_load_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither dropped nor replaced by that of another precision."""
    load_engines(open_bundle("small"), threads=1)
    entries, said = {entry.name for entry in EngineCache().entries()}, list[str]()

    def failing(variant: EngineVariant, made: StoredEntry) -> CompiledBundle:
        raise EngineError(f"{variant.precision} does not load")

    monkeypatch.setattr(EngineVariant, "load", failing)
    assert EarlyLoad("small", threads=1).engines(said.append) is None
    assert {entry.name for entry in EngineCache().entries()} == entries
    assert said == []


@pytest.mark.parametrize("precision", ["auto", "f32"])
def test_no_engine_is_compiled_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    said = list[str]()
    assert EarlyLoad("small", precision=precision).engines(said.append) is None
    assert said == []
    assert EngineCache().entries() == []


def test_a_missing_bundle_is_reported_where_it_is_needed() -> None:
    early = EarlyLoad("no such bundle")
    with pytest.raises(UsageError, match="no such bundle"):
        early.bundle()


@pytest.mark.parametrize("error", [EngineError("none serves"), UsageError("threads -1")])
def test_errors_of_an_early_load_are_left_to_the_next(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def failing(*_: object, log: Any, **__: object) -> CompiledBundle:
        log("refused")
        raise error

    monkeypatch.setattr(early_load, "load_engines", failing)
    said = list[str]()
    assert EarlyLoad("small").engines(said.append) is None
    assert said == []  # the next load says it


def test_messages_of_an_early_load_are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    made = CompiledBundle(object(), object(), {})  # type: ignore[arg-type]

    def loading(*_: object, log: Any, **__: object) -> CompiledBundle:
        log("int8 is refused")
        return made

    monkeypatch.setattr(early_load, "load_engines", loading)
    said = list[str]()
    assert EarlyLoad("small").engines(said.append) is made
    assert said == ["int8 is refused"]


def test_a_thread_that_hangs_does_not_hold_up_the_end() -> None:
    code = (
        "import threading; from cliprl.engines.selection import early_load;"
        "early_load._LONGEST_WAIT = 0.1; early_load.open_bundle = lambda name: threading.Event().wait();"
        "early_load.EarlyLoad('small')"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
