"""One instrument is followed: chosen by words or a point, lost while it is away, and never mistaken for another."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from cliprl.engines import ClassSpec, UsageError
from cliprl.engines.cli.cli_runner import run_app
from cliprl.pipeline.cli import main as cli
from cliprl.pipeline.core.segmentation import FollowState, Instance, Instances
from cliprl.pipeline.core.viewport import full_viewport
from cliprl.pipeline.schemas import load_schema
from cliprl.pipeline.tracking.follow import Follower, FollowTarget

VIEW = full_viewport(512, 640, 256, 320)
CLASSES = tuple(
    ClassSpec(name, (0, 0, 0), kind, (name,))
    for name, kind in (
        ("tissue", "background"),
        ("instrument-shaft", "instrument"),
        ("suction-instrument", "instrument"),
    )
)


def shown(*ids: int, confidence: float = 0.9) -> Instances:
    """Instrument 1 on the left, 2 on the right and lower, 3 (suction) small in the middle."""
    cells, items = np.zeros((64, 80), np.uint16), []
    for number in ids:
        top, left, size = {1: (10, 5, 12), 2: (40, 60, 10), 3: (30, 38, 4)}[number]
        cells[top : top + size, left : left + size] = number
        items.append(Instance(number, "instrument", 2 if number == 3 else 1, size * size, confidence))
    return Instances(cells, tuple(items))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("left instrument", 1),
        ("right", 2),
        ("lower tool", 2),
        ("suction", 3),
        ("Suction-Instrument", 3),
        ("instrument", 1),
    ],
)
def test_words_choose_after_five_frames(text: str, wanted: int) -> None:
    follower = Follower(FollowTarget.parse(text, CLASSES))
    states = [follower.update(i, shown(1, 2, 3), VIEW) for i in range(6)]
    assert [state.state for state in states] == [FollowState.WAITING] * 4 + [FollowState.FOLLOWING] * 2
    assert states[-1].id == wanted


def test_a_target_that_is_away_is_lost_and_found_again() -> None:
    follower = Follower(FollowTarget.parse("left", CLASSES))
    for i in range(5):
        follower.update(i, shown(1, 2), VIEW)
    assert [follower.update(i, shown(2, 3), VIEW).state for i in range(5, 8)] == [FollowState.LOST] * 3
    again = follower.update(8, shown(1, 2), VIEW)
    assert (again.state, again.id) == (FollowState.FOLLOWING, 1)


def test_words_wait_for_a_credible_instrument() -> None:
    follower = Follower(FollowTarget.parse("left", CLASSES))
    assert {follower.update(i, shown(1, confidence=0.2), VIEW).state for i in range(20)} == {FollowState.WAITING}
    changing = [follower.update(i, shown(1 if i % 2 else 2), VIEW).state for i in range(20)]
    assert set(changing) == {FollowState.WAITING}


def test_a_point_chooses_in_its_frame() -> None:
    follower = Follower(FollowTarget.parse("3#500,360", CLASSES))  # 8 pixels of the frame are a cell
    assert [follower.update(i, shown(1, 2), VIEW).id for i in range(5)] == [0, 0, 0, 2, 2]
    beside = Follower(FollowTarget.parse("0#300,100", CLASSES))
    assert beside.update(0, shown(1, 2), VIEW).state is FollowState.WAITING


@pytest.mark.parametrize("text", ["", "left banana", "3#5", "#4,4"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"give FRAME#X,Y, or left, right"):
        FollowTarget.parse(text, CLASSES)


def test_the_command_writes_the_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "x.jsonl"
    arguments = ["demo:?seconds=0.4&size=320x256", "-o", str(target), "--follow", "instrument", "-q"]
    monkeypatch.setattr(sys, "argv", ["cliprl-stream", *arguments])
    assert run_app(cli.app, "cliprl-stream") == 0
    events = [json.loads(line) for line in target.read_text().splitlines()]
    for event in events:
        jsonschema.validate(event, load_schema("events"), jsonschema.Draft202012Validator)
    assert [event["followed"]["state"] for event in events[1:5]] == ["waiting"] * 4
    assert events[-1]["followed"]["state"] == "following"
    monkeypatch.setattr(sys, "argv", ["cliprl-stream", "demo:", "-o", str(target), "--follow", "banana"])
    assert run_app(cli.app, "cliprl-stream") == 2
