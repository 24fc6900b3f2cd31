"""Every example runs as its docstring shows."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import av
import pytest
from media import make_clip
from tiny import NETWORK

ROOT = Path(__file__).resolve().parents[3]


def run(example: str, *arguments: str | Path, folder: Path) -> str:
    command = [sys.executable, str(ROOT / example), *map(str, arguments)]
    # The commands of the environment that runs the tests come first, as in an activated one.
    paths = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    done = subprocess.run(
        command, cwd=folder, env=os.environ | {"PATH": paths}, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_sink_outside_the_project(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "in.mp4", frames=5)
    assert "5 rows" in run("pipeline/examples/custom_sink.py", clip, "shares.csv", folder=tmp_path)
    rows = list(csv.reader((tmp_path / "shares.csv").open()))
    assert rows[0][:2] == ["seconds", "background-tissue"]
    assert len(rows) == 6
    assert all(abs(sum(map(float, row[1:])) - 1) < 0.01 for row in rows[1:])


def test_a_source_outside_the_project(tmp_path: Path) -> None:
    assert "10 frames" in run("pipeline/examples/custom_source.py", "out.mp4", folder=tmp_path)
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 10


def test_measuring_without_a_video(tmp_path: Path) -> None:
    output = run("pipeline/examples/measure_without_video.py", "8", folder=tmp_path)
    assert {line.split()[0] for line in output.splitlines()} >= {"prepare", "encode", "refine"}


@pytest.mark.slow
def test_training_on_a_folder(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    network = [f"network.{line.replace(' ', '')}" for line in NETWORK.splitlines()[1:]]
    sizes = ["data.height=128", "data.width=160", "supervised.batch=2", "reinforcement.batch=2"]
    run("models/examples/train_on_a_folder.py", "runs/mine", *network, *sizes, folder=tmp_path)
    assert (tmp_path / "runs/mine/overlay.mp4").stat().st_size > 0
