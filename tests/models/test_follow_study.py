"""The study of following: delays are counted, and one click follows an instrument through a rendered clip."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cliprl.engines import CliprlError
from cliprl.engines.bundle.bundle import SHIPPED
from cliprl.models.evaluation.study_command import write_result
from cliprl.models.evaluation.tracking.observations import TrueMasks
from cliprl.models.studies import follow_study, tracking_study
from cliprl.models.studies.follow_study import delays, follow_clip, follow_table
from cliprl.pipeline.synthetic import SCENE_CLASSES
from cliprl.pipeline.tracking.groups import TOOL, ClassGroups

GROUPS = ClassGroups.made({1: TOOL})


def test_delays_of_leaving_and_return() -> None:
    in_view = [True] * 4 + [False] * 5 + [True] * 6
    followed = [True] * 6 + [False] * 6 + [True] * 3
    assert delays(list(zip(in_view, followed, strict=True))) == {
        "left": 1.0,
        "late lost": 2.0,
        "returned": 1.0,
        "late found": 3.0,
    }
    never = delays([(True, True), (False, True), (True, False), (True, False)])
    assert (never["late lost"], never["late found"]) == (1.0, 2.0)


def test_one_click_follows_an_instrument_that_is_hidden() -> None:
    rng = np.random.default_rng(0)
    tissue = textured(rng)
    frames = []
    for index in range(24):
        image, labels = tissue.copy(), np.zeros((256, 320), np.uint8)
        shown = not 8 <= index < 14
        for number, (top, color) in enumerate(((60 + index, (200, 40, 40)), (180, (40, 60, 200))), 1):
            if shown or number == 2:
                labels[top : top + 24, : 200 - 40 * number] = number
                image[top : top + 24, : 200 - 40 * number] = color
        frames.append((image, (labels > 0).astype(np.uint8), labels))
    scores = follow_clip(frames, TrueMasks(len(SCENE_CLASSES)), GROUPS)
    assert 0.85 < scores["J&F"] <= scores["with true ids"] + 1e-9
    assert (scores["left"], scores["late lost"], scores["returned"]) == (1, 0, 1)
    assert scores["late found"] <= 5
    assert follow_table({"clip": scores}).count("\n") == 2


def test_the_readme_has_the_scores_of_following() -> None:
    root = Path(__file__).resolve().parents[2]
    result = json.loads((root / "models" / "results" / "follow.json").read_text())
    assert follow_table(result["clips"]) in (root / "pipeline" / "tracking" / "README.md").read_text()
    assert {"command", "date"} <= result.keys()


def test_the_result_names_the_bundle_without_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = {"J&F": 1.0, "with true ids": 1.0, "left": 0.0, "late lost": 0.0, "returned": 0.0, "late found": 0.0}
    monkeypatch.setattr(follow_study, "kept_crossings", lambda first, clips, kept: [(first, 0.0)])
    monkeypatch.setattr(follow_study, "follow_rendered", lambda seed, start, kept: scores)
    follow_study.study(clips=1, bundle=str(SHIPPED / "small"), out=tmp_path / "follow.json")
    result = json.loads((tmp_path / "follow.json").read_text())
    assert result["command"].endswith("--clips 1 --bundle small")
    assert result["bundle"]["hashes"]["encoder.onnx"]
    with pytest.raises(CliprlError, match="scored with another bundle: remove it"):
        tracking_study._read(tmp_path / "follow.json", {"name": "small", "hashes": {}})


@pytest.mark.parametrize("study", [follow_study, tracking_study])
def test_a_misused_study_ends_with_status_2(study: ModuleType, command: Callable[..., Any]) -> None:
    assert command(study.app, "study", "--clips", "0", "--bundle", "none").returncode == 2


def test_a_result_makes_its_folder_or_names_the_remedy(tmp_path: Path) -> None:
    write_result(tmp_path / "new" / "a.json", "{}")
    assert (tmp_path / "new" / "a.json").read_text() == "{}\n"
    with pytest.raises(CliprlError, match=r"can't be written .*: choose another place with --out"):
        write_result(tmp_path / "new" / "a.json" / "b.json", "{}")


def textured(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Tissue with texture at several pixels."""
    return np.asarray(np.kron(rng.integers(60, 120, (32, 40, 3)), np.ones((8, 8, 1))), np.uint8)


@pytest.mark.parametrize("hidden", [None, 2])
def test_the_target_is_the_largest_or_the_given_one(hidden: int | None) -> None:
    labels = np.zeros((256, 320), np.uint8)
    labels[60:100, :160], labels[180:200, :100] = 1, 2
    image = np.where(labels[..., None] > 0, 200, 90).astype(np.uint8).repeat(3, axis=2)
    scores = follow_clip([(image, (labels > 0).astype(np.uint8), labels)] * 4, TrueMasks(12), GROUPS, hidden)
    assert scores["J&F"] > 0.85
