"""Classes that a bundle hides: left out of overlays, pages and reports unless they are named; masks and events keep them."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from cliprl.engines import UsageError, open_bundle
from cliprl.engines.cli.cli_runner import run_app
from cliprl.models.export.hide_classes import app, hide_classes
from cliprl.pipeline.live.controls import Controls, Settings
from cliprl.pipeline.overlay.overlay import Overlay
from cliprl.pipeline.overlay.style import Style
from cliprl.pipeline.segment.prompts import with_prompts


def test_hidden_classes_are_painted_when_they_are_named() -> None:
    classes = open_bundle("small").manifest.classes
    hidden = {spec.name for spec in classes if not spec.shown}
    assert hidden == {spec.name for spec in classes if spec.kind == "tissue"}
    named = tuple(hidden)

    def painted(style: Style) -> set[str]:
        return {classes[i].name for i in Overlay(classes, style)._shown}

    others = {spec.name for spec in classes if spec.kind == "instrument"}
    assert painted(Style()) == others
    assert painted(Style(shown=named)) == hidden
    start = Settings.of(Style(), classes)
    assert painted(start.style(Style(), classes)) == others
    controls = Controls(classes, start)
    assert painted(controls.show(named[0], visible=True).style(Style(), classes)) == others | {named[0]}
    assert not Settings.of(Style(shown=named), classes).hidden
    prompted = with_prompts(open_bundle("small"), ["gauze"]).manifest.classes
    assert {spec.name for spec in prompted if not spec.shown} == hidden


def test_classes_are_hidden_by_kind_or_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "net"
    shutil.copytree(open_bundle("small").path, folder)
    changed = hide_classes(open_bundle(folder), ["thread"])
    assert [spec.name for spec in open_bundle(folder).manifest.classes if not spec.shown] == ["thread"]
    assert changed.manifest.hashes == open_bundle("small").manifest.hashes
    assert all(spec.shown for spec in hide_classes(changed, []).manifest.classes)
    monkeypatch.chdir(tmp_path)
    for words, status in ((["net", "--hide", "tissue"], 0), (["small", "--hide", "tissue"], 2)):
        monkeypatch.setattr(sys, "argv", ["hide_classes", *words])
        assert run_app(app, "hide_classes") == status
    # A name is that of no shipped bundle here, which all runs share.
    assert "'small' does not exist" in capfd.readouterr().err
    assert all(open_bundle(name).manifest == open_bundle("small").manifest for name in ("net", "small"))
    with pytest.raises(UsageError, match=r"'organ' is no kind or class of bundle 'small': one of instrument, "):
        hide_classes(changed, ["organ"])
