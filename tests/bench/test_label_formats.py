"""What is written in every label format comes back, from a clip with a variable frame rate, also by independent readers."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from cliprl.bench.commands.label_formats import FORMATS, FormatScore, compare, write_formats, write_variable_rate_clip
from cliprl.bench.fixtures.label_readers import READERS
from cliprl.engines import ClassSpec

FRAMES = 6
# Pythons that have further readers, separated by colons.
PYTHONS = list(filter(None, os.environ.get("CLIPRL_LABEL_READERS", "").split(os.pathsep)))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[ClassSpec, ...]]:
    folder = tmp_path_factory.mktemp("formats")
    write_variable_rate_clip(folder / "clip.mkv", "demo:?seconds=0.2&size=320x240", FRAMES)
    classes, count = write_formats(folder / "clip.mkv", folder, precision="f32")
    assert count == FRAMES
    return folder, classes


def test_the_clip_has_a_variable_rate(written: tuple[Path, Any]) -> None:
    with av.open(str(written[0] / "clip.mkv")) as container:
        times = [frame.time for frame in container.decode(video=0)]
    assert len(times) == FRAMES
    assert len(set(np.diff(times).round(3).tolist())) > 1


@pytest.fixture(scope="module")
def scores(written: tuple[Path, tuple[ClassSpec, ...]]) -> list[FormatScore]:
    return compare(*written, PYTHONS)


@pytest.mark.parametrize("output", [one.output for one in FORMATS])
def test_round_trip(scores: list[FormatScore], output: str) -> None:
    found = {score.reader: score for score in scores if score.output == output}
    assert found["cliprl"].frames == FRAMES
    for score in found.values():
        assert score.good, score


@pytest.mark.parametrize("reader", sorted({reader for one in FORMATS for reader in one.readers}))
def test_independent_reader(scores: list[FormatScore], reader: str) -> None:
    found = [score for score in scores if score.reader == reader]
    if not found:
        pytest.skip(f"{reader} is not installed: give a Python that has it in CLIPRL_LABEL_READERS")
    assert all(score.good for score in found), found


def test_a_frame_that_is_off_by_one_is_found(written: tuple[Path, tuple[ClassSpec, ...]], tmp_path: Path) -> None:
    folder, classes = written
    for name in ("masks", "x.frames"):
        (tmp_path / name).symlink_to(folder / name)
    text = (folder / "x.cvat.xml").read_text()
    for index in reversed(range(FRAMES)):
        text = text.replace(f"frame_{index:06d}", f"frame_{index + 1:06d}")
    (tmp_path / "x.cvat.xml").write_text(text.replace(f"frame_{FRAMES:06d}", "frame_000000"))
    (score,) = compare(tmp_path, classes, (), [one for one in FORMATS if one.output == "x.cvat.xml"])
    assert not score.good
    assert score.misplaced
    assert not replace(score, misplaced=0, least_iou=1.0, frames=0).good


def test_readers_need_nothing_of_this_project() -> None:
    code = "import runpy, sys; runpy.run_path(sys.argv[1]); assert not any(n.startswith('cliprl') for n in sys.modules)"
    assert (
        subprocess.run(
            [sys.executable, "-I", "-c", code, READERS["pycocotools"].__code__.co_filename], check=False
        ).returncode
        == 0
    )
