"""One instrument is followed: chosen by words or a point, lost while it is away, and never mistaken for another."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from cliprl.engines import ClassSpec, UsageError
from cliprl.engines.cli.cli_runner import run_app
from cliprl.pipeline.cli import main as cli
from cliprl.pipeline.core.color import ColorSpace
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.nv12 import upright_box, upright_size
from cliprl.pipeline.core.segmentation import Followed, FollowState, Instance, Instances, Segmentation
from cliprl.pipeline.core.viewport import full_viewport
from cliprl.pipeline.live.follow_control import FollowControl
from cliprl.pipeline.schemas import load_schema
from cliprl.pipeline.tracking.follow import Follower, FollowTarget

VIEW = full_viewport(512, 640, 256, 320)
CLASSES = tuple(
    ClassSpec(name, (0, 0, 0), kind, (text,))
    for name, kind, text in (
        ("tissue", "background", "tissue behind a grasper"),
        ("instrument-shaft", "instrument", "a shaft"),
        ("suction-instrument", "instrument", "a surgical sucker"),
        ("instrument-clasper", "instrument", "the metal jaws of a grasper"),
    )
)


def shown(*ids: int) -> Instances:
    """Instrument 1 on the left, 2 on the right and lower, 3 (suction) small in the middle."""
    cells, items = np.zeros((64, 80), np.uint16), []
    for number in ids:
        top, left, size = {1: (10, 5, 12), 2: (40, 60, 10), 3: (30, 38, 4)}[number]
        cells[top : top + size, left : left + size] = number
        items.append(Instance(number, "instrument", 2 if number == 3 else 1, size * size))
    return Instances(cells, tuple(items))


def step(follower: Follower, index: int, instances: Instances, confidence: float = 0.9) -> Followed:
    """A frame in which the instruments have the class of their item, and instrument 2 the jaws of a grasper besides."""
    labels = np.zeros(instances.ids.shape, np.uint8)
    for item in instances.items:
        labels[instances.ids == item.id] = item.class_id
    labels[48:50, 60:70][instances.ids[48:50, 60:70] == 2] = 3
    probabilities = np.where(np.arange(4)[:, None, None] == labels, np.float32(confidence), np.float32(0))
    return follower.update(index, instances, Segmentation(labels, probabilities, VIEW, 1.0, 0))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("left instrument", 1),
        ("right", 2),
        ("lower tool", 2),
        ("suction", 3),
        ("the clasper", 2),
        ("right grasper", 2),
        ("graspers", 2),
        ("sucker", 3),
        ("Suction-Instrument", 3),
        ("instrument", 1),
    ],
)
def test_words_choose_after_five_frames(text: str, wanted: int) -> None:
    follower = Follower(FollowTarget.parse(text, CLASSES))
    states = [step(follower, i, shown(1, 2, 3)) for i in range(6)]
    assert [state.state for state in states] == [FollowState.WAITING] * 4 + [FollowState.FOLLOWING] * 2
    assert states[-1].id == wanted


def test_a_target_that_is_away_is_lost_and_found_again() -> None:
    follower = Follower(FollowTarget.parse("left", CLASSES))
    for i in range(5):
        step(follower, i, shown(1, 2))
    assert [step(follower, i, shown(2, 3)).state for i in range(5, 8)] == [FollowState.LOST] * 3
    again = step(follower, 8, shown(1, 2))
    assert (again.state, again.id) == (FollowState.FOLLOWING, 1)


def test_words_wait_for_a_credible_instrument() -> None:
    follower = Follower(FollowTarget.parse("left", CLASSES))
    assert {step(follower, i, shown(1), 0.2).state for i in range(20)} == {FollowState.WAITING}
    changing = [step(follower, i, shown(1 if i % 2 else 2)).state for i in range(20)]
    assert set(changing) == {FollowState.WAITING}


def test_a_point_chooses_in_its_frame() -> None:
    follower = Follower(FollowTarget.parse("3#500,360", CLASSES))  # 8 pixels of the frame are a cell
    assert [step(follower, i, shown(1, 2)).id for i in range(5)] == [0, 0, 0, 2, 2]
    beside = Follower(FollowTarget.parse("0#300,100", CLASSES))
    assert step(beside, 0, shown(1, 2)).state is FollowState.WAITING


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("9#100,100", "the last frame was 4"),
        ("0#640,100", "the frames have 640x512 pixels"),
        ("0#300,100", "no instrument was at that point"),
        ("suction", "no instrument suited it in 5 frames in a row"),
    ],
)
def test_a_target_that_was_never_found_is_noted(text: str, reason: str) -> None:
    follower = Follower(FollowTarget.parse(text, CLASSES))
    assert follower.note() is None
    for i in range(5):
        step(follower, i, shown(1, 2))
    assert reason in (follower.note() or "")
    found = Follower(FollowTarget.parse("0#60,100", CLASSES))
    step(found, 0, shown(1, 2))
    assert found.note() is None


@pytest.mark.parametrize("frames", [1, 4])
def test_words_on_too_few_frames_have_that_reason(frames: int) -> None:
    follower = Follower(FollowTarget.parse("left", CLASSES))
    for i in range(frames):
        step(follower, 100 + i, shown(1, 2))
    assert f"words need 5 frames in a row, and {frames} came; give FRAME#X,Y" in (follower.note() or "")


@pytest.mark.parametrize("text", ["", "left banana", "3#5", "#4,4", f"{'9' * 5000}#4,4", f"3#{'9' * 400},4"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"give FRAME#X,Y, or left, right"):
        FollowTarget.parse(text, CLASSES)


def test_the_command_writes_the_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "x.jsonl"
    arguments = ["demo:?seconds=0.4&size=320x256", "-o", str(target), "--follow", "instrument", "-q"]
    monkeypatch.setattr(sys, "argv", ["cliprl-stream", *arguments])
    assert run_app(cli.app, "cliprl-stream") == 0
    events = [json.loads(line) for line in target.read_text().splitlines()]
    for event in events:
        jsonschema.validate(event, load_schema("events"), jsonschema.Draft202012Validator)
    assert [event["followed"]["state"] for event in events[1:5]] == ["waiting"] * 4
    assert events[-1]["followed"]["state"] == "following"
    arguments[2:] = ["null:", "--follow", "9999#5,5"]
    monkeypatch.setattr(sys, "argv", ["cliprl-stream", *arguments])
    assert run_app(cli.app, "cliprl-stream") == 0
    assert "note: '9999#5,5' was not followed: the last frame was" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["cliprl-stream", "demo:", "-o", str(target), "--follow", "banana"])
    assert run_app(cli.app, "cliprl-stream") == 2


def displayed(
    control: FollowControl, *ids: int, tracker: int = 0, by_tracker: Followed | None = None
) -> Followed | None:
    """The state in a displayed frame of instruments `ids`, of which the tracker itself follows `by_tracker`."""
    instances = replace(shown(*ids), followed=by_tracker)
    frame = Segmentation(
        np.zeros((64, 80), np.uint8), np.zeros((4, 64, 80), np.float32), VIEW, 1.0, 0, instances=instances
    )
    control.update(frame, tracker)
    control.mark(frame)
    assert frame.instances is not None
    return frame.instances.followed


def following(number: int) -> Followed:
    return Followed(FollowState.FOLLOWING, number)


def lost(number: int) -> Followed:
    return Followed(FollowState.LOST, number)


def test_a_viewer_s_choice_is_lost_and_found_again() -> None:
    control = FollowControl()
    assert displayed(control, 1, 2) is None
    assert control.without_mask() is None
    assert control.choose(2) == displayed(control, 1, 2) == following(2)
    assert displayed(control, 1, 3) == lost(2)
    assert displayed(control, 1, 2) == following(2)
    assert control.without_mask() == lost(2)
    control.end()
    assert displayed(control, 1, 2) is None
    assert control.without_mask() is None


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_points_and_boxes_are_of_the_upright_image(rotation: int) -> None:
    frame = Frame(
        np.zeros((512, 640), np.uint8),
        np.zeros((256, 320, 2), np.uint8),
        0,
        Fraction(1, 25),
        0,
        ColorSpace("bt709"),
        rotation=rotation,
    )
    control = FollowControl()
    displayed(control, 1, 2, 3)
    left, top, width, height = upright_box((480, 320, 80, 80), frame)  # instrument 2
    rows, columns = upright_size(frame)
    corners = (left / columns, top / rows, (left + width) / columns, (top + height) / rows)
    point = ((corners[0] + corners[2]) / 2, (corners[1] + corners[3]) / 2)
    assert control.choose_at(point, rotation) == control.choose_at(corners, rotation) == following(2)
    assert control.choose_at((*corners[2:], *corners[:2]), rotation) == following(2)
    assert control.choose_at((0, 0, 1, 1), rotation) == following(1)


def test_keys_step_through_the_instruments_in_view() -> None:
    control = FollowControl()
    displayed(control, 1, 3)
    assert [control.choose_next().id for _ in range(3)] == [1, 3, 1]
    displayed(control, 2, 3)
    assert control.choose_next() == following(2)
    control.end()
    assert control.choose_next() == following(2)


def test_what_is_not_in_view_is_refused() -> None:
    control = FollowControl()
    for choose in (lambda: control.choose(1), control.choose_next, lambda: control.choose_at((0.5, 0.5))):
        with pytest.raises(UsageError, match="no instrument is in view"):
            choose()
    displayed(control, 1, 2)
    with pytest.raises(UsageError, match="no instrument #3 is in view: choose #1, #2"):
        control.choose(3)
    with pytest.raises(UsageError, match="no instrument is at that point"):
        control.choose_at((0.5, 0.2))
    with pytest.raises(UsageError, match="no instrument is in that box"):
        control.choose_at((0.4, 0.1, 0.5, 0.2))
    assert control.choice is None
    control.forget()
    with pytest.raises(UsageError, match="no instrument is in view"):
        control.choose(1)


def test_equal_ids_of_another_tracker_are_not_followed() -> None:
    control = FollowControl()
    displayed(control, 1, 2)
    control.choose(2)
    assert displayed(control, 1, 2, tracker=1) == lost(0)
    assert control.choose(2) == displayed(control, 1, 2, tracker=1) == following(2)


def test_choices_replace_the_tracker_s() -> None:
    control = FollowControl()
    assert displayed(control, 1, 2, by_tracker=following(1)) == following(1)
    assert control.without_mask() == lost(1)
    assert control.choose_next() == following(2)
    assert displayed(control, 1, 2, by_tracker=following(1)) == following(2)
    control.end()
    assert displayed(control, 1, 2, by_tracker=following(1)) is None
