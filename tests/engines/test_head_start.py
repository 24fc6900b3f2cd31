"""Engines that load while a console script imports the rest of itself: what is guessed, and that nothing else changes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cliprl.engines import Bundle, BundleError, ignore_message
from cliprl.engines.backends.engine import LogFunction
from cliprl.engines.backends.no_telemetry import openvino
from cliprl.engines.cli import head_start

BUNDLE: Any = SimpleNamespace(manifest=SimpleNamespace(height=32, width=64), embeddings=np.zeros((2, 4), np.float32))


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("CLIP", "small"),
        ("CLIP --bundle other -o out.mp4", "other"),
        ("--bundle=other CLIP --overwrite", "other"),
        ("demo: -o out.mp4", None),
        ("missing.mp4", None),
        ("CLIP --help", None),
        ("CLIP --precision f32", None),
        ("CLIP --prompt=grasper", None),
        ("CLIP --web", None),
    ],
)
def test_only_usual_runs_of_a_file_are_guessed(tmp_path: Path, words: str, name: str | None) -> None:
    clip = tmp_path / "clip.mp4"
    clip.touch()
    assert head_start.guessed_bundle(words.replace("CLIP", str(clip)).split()) == name


def begin(monkeypatch: pytest.MonkeyPatch, load: Any, opened: Any = lambda name: BUNDLE) -> None:
    """Begin a head start with these functions in the place of those of the engines."""
    monkeypatch.setattr(head_start, "open_bundle", opened)
    monkeypatch.setattr(head_start, "load_engines", load)
    monkeypatch.setattr(head_start, "_begun", [head_start.HeadStart("small")])


def test_engines_loaded_ahead_are_given_once(monkeypatch: pytest.MonkeyPatch) -> None:
    images: list[Any] = []

    def load(bundle: Bundle, log: LogFunction) -> Any:
        log("compiling")
        return SimpleNamespace(encoder=SimpleNamespace(run=images.append))

    begin(monkeypatch, load)
    said: list[str] = []
    bundle = head_start.opened_ahead("small")
    assert bundle is BUNDLE
    assert head_start.loaded_ahead(SimpleNamespace(), said.append) is None  # type: ignore[arg-type]
    assert head_start.loaded_ahead(bundle, said.append) is not None
    assert said == ["compiling"]
    assert images[0]["image"].shape == (1, 32, 64, 3)
    assert head_start.loaded_ahead(bundle, said.append) is None
    assert not head_start.has_begun()


def test_errors_of_a_head_start_come_where_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> Any:
        raise BundleError("no such luck")

    begin(monkeypatch, fail)
    with pytest.raises(BundleError, match="no such luck"):
        head_start.loaded_ahead(head_start.opened_ahead("small"), ignore_message)
    begin(monkeypatch, fail, opened=fail)
    with pytest.raises(BundleError, match="no such luck"):
        head_start.opened_ahead("small")


def test_operators_of_openvino_are_imported_when_used() -> None:
    package = openvino()
    assert package.opset8.relu
    assert package.opset13.relu
    assert not hasattr(package, "opset99")
