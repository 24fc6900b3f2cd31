"""`cliprl-stream --trace`: every stage of every frame, on its thread, in a file that trace viewers read."""

from __future__ import annotations

import json
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from cliprl.engines import UsageError
from cliprl.pipeline import Frame, Overlay, Segmentation, Segmenter, Stream, open_source
from cliprl.pipeline.cli.main import app
from cliprl.pipeline.core import thread_policy
from cliprl.pipeline.core.statistics import STAGES
from cliprl.pipeline.stream.trace import Trace

SLEEP = 0.02
CLIP = "demo:?seconds=1&size=192x144&rate=20"


def slices(path: Path) -> list[dict[str, Any]]:
    events = json.loads(path.read_text())["traceEvents"]
    return [event for event in events if event["ph"] == "X"]


@pytest.mark.parametrize("processors", [2, 16])
def test_the_command_writes_every_stage_of_every_frame(
    processors: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thread_policy, "available_cpus", lambda: processors)
    path = tmp_path / "t.json"
    app([CLIP, "-o", "null:", "--quiet", "--trace", str(path)], standalone_mode=False)
    events = json.loads(path.read_text())["traceEvents"]
    lanes = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    found = slices(path)
    assert {(e["args"]["frame"], e["name"]) for e in found} == {(i, stage) for i in range(20) for stage in STAGES}
    own = {stage: {stage} for stage in STAGES} | {"write": {"output"}}
    shared = {key: {"worker 1", "output"} for key in STAGES} | {"decode": {"decode"}, "write": {"output"}}
    assert all(lanes[e["tid"]] in (shared if processors == 2 else own)[e["name"]] for e in found)
    for lane in lanes:  # one thread does one thing at a time
        times = sorted((e["ts"], e["ts"] + e["dur"]) for e in found if e["tid"] == lane)
        assert all(end <= start + 1 for (_, end), (start, _) in pairwise(times))
    ways = [e for e in events if e["name"] == "frame"]
    assert sorted(e["ph"] for e in ways) == ["b"] * 20 + ["e"] * 20


def test_a_planted_sleep_stands_in_its_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = Overlay.draw

    def slow(self: Overlay, frame: Frame, segmentation: Segmentation | None, status: str | None = None) -> None:
        time.sleep(SLEEP)
        draw(self, frame, segmentation, status)

    monkeypatch.setattr(Overlay, "draw", slow)
    segmenter = Segmenter()
    with Trace(tmp_path / "t.json") as trace, open_source(CLIP) as source:
        Stream(source, segmenter, Overlay(segmenter.classes)).run(trace)
    shortest = {stage: min(e["dur"] for e in slices(tmp_path / "t.json") if e["name"] == stage) for stage in STAGES}
    assert shortest["draw"] >= SLEEP * 1e6
    assert all(shortest[stage] < SLEEP * 1e6 for stage in ("decode", "prepare", "write"))


def test_a_trace_that_can_not_be_written_is_misuse(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="another place"):
        Trace(tmp_path / "absent" / "t.json")


def test_the_trace_does_not_replace_the_input(tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    app(["demo:?seconds=1&size=64x64&rate=4", "-o", str(clip), "--quiet"], standalone_mode=False)
    before = clip.read_bytes()
    with pytest.raises(UsageError, match="the input itself"):
        app([str(clip), "-o", "null:", "--quiet", "--trace", str(clip)], standalone_mode=False)
    assert clip.read_bytes() == before
