"""`cliprl-bench start`: processes as a user starts them, cold and warm."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from media import make_clip

from cliprl.bench.cli import app
from cliprl.bench.commands import startup
from cliprl.bench.harness.result import read_result
from cliprl.engines import CliprlError
from cliprl.engines.cli.cli_runner import run_app


def test_cold_start_reports_compilation_and_warm_start_compiles_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    clip, file = make_clip(tmp_path / "clip.mp4", frames=3), tmp_path / "start.json"
    said: dict[str, list[str]] = {"warm": [], "cold": []}
    real = startup.one_round

    def noted(*arguments: object) -> dict[str, tuple[float, float, str]]:
        answer = real(*arguments)  # type: ignore[arg-type]
        for case, texts in said.items():
            texts.append(answer[case][2])
        return answer

    monkeypatch.setattr(startup, "one_round", noted)
    monkeypatch.setattr(sys, "argv", ["cliprl-bench", "start", str(clip), "--rounds", "1", "-o", str(file)])
    assert run_app(app, "cliprl-bench") == 0
    assert all("compiling small for openvino" in text for text in said["cold"])
    assert "compiling" not in said["warm"][-1]
    result = read_result(file)
    assert result.cases() == ["python", "imports", "warm", "cold"]
    assert all(series.digest().p50 > 0 for series in result.series if series.name == "wall time")
    assert any("this is done once" in note for note in result.notes)
    assert "--rounds 1" in result.command
    assert "cold" in capfd.readouterr().out


def test_a_start_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(CliprlError, match=r"fails.*no such luck"):
        startup.launch_python(["import sys; sys.exit('no such luck')"], tmp_path)


def test_bytecode_is_kept_where_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    startup.launch_python(["import colorsys"], tmp_path, tmp_path / "bytecode")
    assert list((tmp_path / "bytecode").rglob("colorsys*.pyc"))
