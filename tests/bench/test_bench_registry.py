"""A new command and a new peer are one new file each, written into a temporary package and used from the command line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from media import make_clip

from cliprl.bench import commands, peers
from cliprl.bench.cli import app
from cliprl.bench.harness.registry import MEASUREMENTS, _words, discover, own_parameters
from cliprl.bench.harness.result import read_result
from cliprl.engines.cli.cli_runner import run_app

COMMAND = """
from typing import Annotated
import typer
from cliprl.bench.harness.registry import measurement
from cliprl.bench.harness.result import Result, Series
from cliprl.bench.harness.timing import BenchJob

@measurement("double", help="Twice a number.", defaults=BenchJob("", rounds=2), settings=("rounds",), clip=False)
def measure(session, job, say, number: Annotated[list[float], typer.Option("--value", min=1.0, help="N.")] = (3.0,)) -> Result:
    say("doubling")
    return session.result([Series.of("all", "double", "1", [[2 * n for n in number]] * job.rounds)], {})
"""
PEER = """
from cliprl.bench.harness.timing import TaskOutcome
from cliprl.bench.peers import peer

@peer("instant", "does nothing")
def prepare(job):
    return lambda out, frames: TaskOutcome(7)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the search path of modules, and of both packages; what its files register is forgotten."""
    monkeypatch.syspath_prepend(str(tmp_path))
    kept = list(app.registered_commands)
    yield tmp_path
    app.registered_commands[:] = kept
    MEASUREMENTS.pop("double", None)
    peers._PEERS.pop("instant", None)
    sys.modules.pop("added", None)


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["cliprl-bench", *words])
    return run_app(app, "cliprl-bench")


def test_a_command_is_one_new_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "added").mkdir()
    (folder / "added" / "double.py").write_text(COMMAND)
    monkeypatch.setattr(commands, "__path__", [*commands.__path__, str(folder / "added")])
    discover(commands)
    assert run(monkeypatch, "--help") == 0
    assert "Twice a number." in capfd.readouterr().out
    assert run(monkeypatch, "double", "--value", "4", "--value", "5", "-o", str(folder / "r.json")) == 0
    result = read_result(folder / "r.json")
    assert result.series[0].rounds == ((8.0, 10.0), (8.0, 10.0))
    assert result.command == "cliprl-bench double --rounds 2 --value 4.0 --value 5.0"
    assert run(monkeypatch, "double", "--value", "0") == 2
    sys.modules.pop("cliprl.bench.commands.double")


def test_a_peer_is_one_new_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "added.py").write_text(PEER)
    __import__("added")
    clip = make_clip(folder / "clip.mp4", frames=2)
    words = [
        "--peer",
        "instant",
        "--rounds",
        "1",
        "--spare",
        "0",
        "--seconds",
        "0.1",
        "--warm-up",
        "0",
        "-o",
        str(folder / "r.json"),
    ]
    assert run(monkeypatch, "peers", str(clip), *words) == 0
    assert read_result(folder / "r.json").cases() == ["cliprl-stream", "instant"]


def test_every_measurement_states_its_defaults_in_its_help(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    for kind, measurement in MEASUREMENTS.items():
        assert run(monkeypatch, kind, "--help") == 0
        text = " ".join(capfd.readouterr().out.split())
        assert measurement.help.split(":")[0] in text
        for name in measurement.settings:
            assert f"--{name.replace('_', '-')}" in text


def test_flags_are_recorded_without_a_value() -> None:
    (record,) = [p for p in own_parameters(MEASUREMENTS["live"].measure) if p.name == "record"]
    assert _words(record, True) == ["--record"]
    assert _words(record, False) == []
