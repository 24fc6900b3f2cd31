"""Which frames are chosen for labelling, and the task that is written of them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from limits import file_size_limit

from cliprl.engines.cli.cli_runner import run_app
from cliprl.models.cli import label
from cliprl.models.data.registry import lines_of_path, open_dataset
from cliprl.models.labelling.frame_selection import FrameMeasure, choose_frames
from cliprl.pipeline.core.interfaces import OutputSpec
from cliprl.pipeline.sinks import open_sink
from cliprl.pipeline.sources import open_source


def measures(count: int = 40, video: str = "a", **special: dict[int, float]) -> list[FrameMeasure]:
    """Frames a second apart that are alike but for the `special` values by index."""
    rng = np.random.default_rng(0)
    made = []
    for i in range(count):
        embedding = np.array([1, 0, 0, 0]) + rng.normal(0, 0.01, 4)
        if i in special.get("novel", {}):
            embedding = np.array([1, 1, 0, 0])
        doubt, changed = (special.get(key, {}).get(i, 0.1) for key in ("doubt", "disagreement"))
        made.append(FrameMeasure(video, i, float(i), doubt, changed, embedding.astype(np.float32)))
    return made


@pytest.mark.parametrize(
    ("key", "reason"), [("doubt", "doubt 0.900"), ("disagreement", "refinement changed 90"), ("novel", "unlike")]
)
def test_the_frame_that_stands_out_is_chosen_with_its_reason(key: str, reason: str) -> None:
    chosen = choose_frames(measures(**{key: {17: 0.9}}), 3, 1.0)
    found = {one.measure.index: one.reason for one in chosen}
    assert 17 in found
    assert reason in found[17]


def test_chosen_frames_keep_their_distance_in_each_video() -> None:
    both = [m for video in "ab" for m in measures(video=video, doubt={i: 0.5 + i / 100 for i in range(10, 20)})]
    chosen = choose_frames(both, 8, 5.0)
    for video in "ab":
        times = sorted(one.measure.seconds for one in chosen if one.measure.video == video)
        assert len(times) > 1
        assert np.diff(times).min() >= 5


@pytest.mark.parametrize("count", [1, 39, 40, 100])
def test_the_count_is_kept_even_if_frames_come_closer(count: int) -> None:
    chosen = choose_frames(measures(), count, 30.0)
    assert len({one.measure.index for one in chosen}) == len(chosen) == min(count, 40)
    assert choose_frames([], count, 1.0) == []


def call(*arguments: str) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["cliprl-label", "select", *arguments])
        return run_app(label.app, "cliprl-label")


def demo_clip(video: Path, demo: str) -> Path:
    with open_source(demo) as source, open_sink(video, OutputSpec(source.info, ())) as sink:
        for frame in source:
            sink.write(frame, None)
    return video


def test_labels_without_their_frames_are_no_task(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    video = demo_clip(tmp_path / "clip.mkv", "demo:?seconds=0.1&size=320x256")
    with file_size_limit(40_000):  # the labels fit, a frame does not
        assert call(str(video), "-n", "2", "-o", str(tmp_path / "task"), "--precision", "f32") == 1
    assert "clip.frames" in capfd.readouterr().err
    assert not (tmp_path / "task" / "clip.coco.json").exists()
    assert (tmp_path / "task" / ".clip.coco.partial.json").exists()


def test_the_command_writes_a_task(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    video = demo_clip(tmp_path / "clip.mkv", "demo:?seconds=0.3&size=96x64")
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video" * 99)
    assert call(str(tmp_path), "-n", "3", "-o", str(tmp_path / "task"), "--precision", "f32") == 0
    shown = " ".join(capfd.readouterr().err.split())
    assert f"left out: {bad} is not a video" in shown
    assert "3 of 8 frames, at least 0.0" in shown
    assert any(reason in shown for reason in ("doubt 0.", "refinement changed", "unlike the others"))
    assert lines_of_path(str(tmp_path / "task")) == [f"coco:{tmp_path}/task/clip.coco.json"]
    data = open_dataset(f"coco:{tmp_path}/task/clip.coco.json")
    assert len(data) == len(list((tmp_path / "task" / "clip.frames").glob("*.png"))) == 3
    assert call(str(video), "-o", str(tmp_path / "task")) == 2
    assert "not an empty folder" in capfd.readouterr().err
    assert call(str(video), str(video), "-o", str(tmp_path / "other")) == 2
    assert "same name" in capfd.readouterr().err
    assert call(str(tmp_path / "none.mp4")) == 2
    capfd.readouterr()
    assert call(str(video), "-o", str(video / "task")) == 2
    assert "clip.mkv/task' can't be made" in capfd.readouterr().err
    assert not (tmp_path / "other").exists()
    assert call(str(bad), "-o", str(tmp_path / "other")) == 1
    assert "is not a video that can be read" in capfd.readouterr().err
