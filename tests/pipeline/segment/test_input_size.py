"""The input size that keeps up with a source, and a segmenter at a chosen size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from cliprl.engines import Bundle, BundleError, EngineError, UsageError, open_bundle, size_of
from cliprl.pipeline import Segmenter
from cliprl.pipeline.archive.settings import ArchiveSettings
from cliprl.pipeline.core.frame import Frame, allocate_planes
from cliprl.pipeline.segment.auto_input_size import largest_in_time

OWN, MIDDLE, LARGE = (256, 320), (384, 480), (512, 640)


@pytest.mark.parametrize(
    ("limit", "milliseconds", "expected", "timed"),
    [
        (None, {LARGE: 90}, LARGE, 1),
        (0.02, {OWN: 4, LARGE: 16}, LARGE, 2),
        (0.02, {OWN: 4, LARGE: 25, MIDDLE: 9}, MIDDLE, 3),
        (0.02, {OWN: 8, MIDDLE: 18}, MIDDLE, 2),
        (0.02, {OWN: 8, MIDDLE: 21}, OWN, 2),
        (0.02, {OWN: 30}, OWN, 1),
    ],
)
def test_largest_size_in_time_is_taken(
    limit: float | None, milliseconds: Mapping[tuple[int, int], float], expected: tuple[int, int], timed: int
) -> None:
    asked, notes = list[tuple[int, int]](), list[str]()

    def seconds(bundle: Bundle) -> float:
        asked.append(size_of(bundle))
        return milliseconds[size_of(bundle)] / 1000

    found = largest_in_time(open_bundle("small"), limit, seconds, notes.append)
    assert size_of(found) == expected
    assert len(asked) == timed
    assert len(notes) == 1
    assert "x".join(map(str, expected)) in notes[0]


@pytest.mark.parametrize("error", [BundleError("made for 256x320 alone"), EngineError("no memory")])
def test_size_that_can_not_be_compiled_is_passed_over(error: Exception) -> None:
    def seconds(bundle: Bundle) -> float:
        if size_of(bundle) != OWN:
            raise error
        return 0.001

    notes = list[str]()
    assert size_of(largest_in_time(open_bundle("small"), 0.02, seconds, notes.append)) == OWN
    assert len(notes) == 3
    assert str(error) in notes[0]


def test_size_with_too_many_pixels_is_passed_over() -> None:
    small, notes = open_bundle("small"), list[str]()
    large = replace(small, manifest=replace(small.manifest, height=640, width=800))
    assert size_of(largest_in_time(large, None, lambda _: 0.001, notes.append)) == (960, 1216)
    assert "more than the 1310720" in notes[0]


def test_segmenter_runs_at_the_chosen_size() -> None:
    segmenter = Segmenter("small", input_size="128x160", precision="f32", threads=1)
    frame = Frame(*allocate_planes(240, 320), 0, Fraction(1, 25), 0)
    frame.luma[:] = np.random.default_rng(0).integers(60, 200, frame.luma.shape, np.uint8)
    found = segmenter(frame)
    assert found.labels.shape == (32, 40)
    assert (found.view.network_height, found.view.network_width) == (128, 160)
    assert found.reliability is not None


def test_bad_size_of_an_archive_is_refused_before_it_starts(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="multiples of 32"):
        ArchiveSettings(input_size="300x400").checked()
    assert ArchiveSettings(input_size="auto").checked().input_size == "auto"
