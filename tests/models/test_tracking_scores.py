"""HOTA, IDF1, id switches and J&F on maps of ids, with values that are known."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from cliprl.engines import UsageError
from cliprl.models.cli.evaluate import app
from cliprl.models.evaluation.tracking import clips
from cliprl.models.evaluation.tracking.association import FrameOverlap, hota, id_switches, idf1
from cliprl.models.evaluation.tracking.clips import (
    TOOL_GROUPS,
    RenderedClip,
    find_crossings,
    kept_crossings,
    kept_frames,
)
from cliprl.models.evaluation.tracking.iou_association import TrueAssociation
from cliprl.models.evaluation.tracking.observations import TrueMasks
from cliprl.models.evaluation.tracking.sequence_score import SequenceScore
from cliprl.models.studies.tracking_study import FIRST_CLIP, score_clip, summary, table
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.core.viewport import full_viewport
from cliprl.pipeline.synthetic import SCENE_CLASSES, SceneRenderer
from cliprl.pipeline.tracking.tracker import TrackerInput

IdMap = NDArray[np.uint16]
KINDS = (("tissue", "background"), ("tool", "instrument"))


def boxes(*places: tuple[int, int]) -> IdMap:
    """A map of ids with a square of 10x10 for each (id, column)."""
    ids = np.zeros((40, 60), np.uint16)
    for number, column in places:
        ids[10:20, column : column + 10] = number
    return ids


def score(pairs: list[tuple[IdMap, IdMap]]) -> dict[str, float]:
    scored = SequenceScore()
    for truth, predicted in pairs:
        scored.add(truth, predicted)
    return dict(scored.result())


def test_equal_maps_score_one_whatever_their_numbers() -> None:
    result = score([(boxes((1, 5), (2, 30)), boxes((7, 5), (3, 30)))] * 10)
    assert {result[name] for name in ("HOTA", "DetA", "AssA", "IDF1", "J", "F", "J&F")} == {1.0}
    assert (result["IDSW"], result["doubled"], result["returns"]) == (0, 0, 0)


def test_ids_that_are_exchanged_in_the_middle() -> None:
    truth, other = boxes((1, 5), (2, 30)), boxes((2, 5), (1, 30))
    result = score([(truth, truth)] * 5 + [(truth, other)] * 5)
    assert result["IDSW"] == 2
    assert result["IDF1"] == pytest.approx(0.5)
    assert result["DetA"] == pytest.approx(1.0)
    # Each id agrees with each instrument in 5 of 15 frames that hold one of them.
    assert result["AssA"] == pytest.approx(1 / 3)
    assert result["HOTA"] == pytest.approx(np.sqrt(1 / 3))


def test_an_id_for_two_instruments_and_two_ids_for_one() -> None:
    joined = score([(boxes((1, 5), (2, 15)), boxes((1, 5), (1, 15)))] * 4)
    assert joined["IDF1"] == pytest.approx(2 * 4 / 12)
    halves = boxes((1, 5), (2, 10))
    divided = score([(boxes((1, 5), (1, 10)), halves)] * 7)
    assert divided["doubled"] == 7


def test_frames_with_two_ids_count_for_one_instrument() -> None:
    truth = boxes((1, 5), (1, 10), (2, 25), (2, 30))
    first, then = boxes((1, 5), (3, 10), (2, 25), (2, 30)), boxes((1, 5), (1, 10), (2, 25), (4, 30))
    assert score([(truth, first)] * 4 + [(truth, then)] * 5)["doubled"] == 5


def test_returns_count_with_the_id_that_was_there_before() -> None:
    truth, none = boxes((1, 5)), boxes()
    right = score([(truth, boxes((4, 5)))] * 3 + [(none, none)] * 9 + [(truth, boxes((4, 5)))] * 3)
    wrong = score([(truth, boxes((4, 5)))] * 3 + [(none, none)] * 9 + [(truth, boxes((6, 5)))] * 3)
    assert (right["returns"], right["returns_right"]) == (1, 1)
    assert (wrong["returns"], wrong["returns_right"]) == (1, 0)
    assert wrong["IDSW"] == 1


def test_nothing_found_and_nothing_there() -> None:
    assert score([(boxes(), boxes())] * 3)["HOTA"] == 1
    assert score([(boxes((1, 5)), boxes())] * 3)["HOTA"] == 0


def test_scores_agree_with_trackeval() -> None:
    trackeval = pytest.importorskip("trackeval")
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(30):
        truth, predicted = (np.sort(rng.permutation(4)[: rng.integers(0, 4)]) for _ in range(2))
        frames.append(FrameOverlap(truth, predicted, rng.uniform(0, 1, (len(truth), len(predicted)))))
    data = {
        "num_gt_ids": 4,
        "num_tracker_ids": 4,
        "num_timesteps": len(frames),
        "gt_ids": [frame.truth for frame in frames],
        "tracker_ids": [frame.predicted for frame in frames],
        "similarity_scores": [frame.iou for frame in frames],
        "num_gt_dets": sum(len(frame.truth) for frame in frames),
        "num_tracker_dets": sum(len(frame.predicted) for frame in frames),
    }
    expected = trackeval.metrics.HOTA().eval_sequence(data)
    found = hota(frames, 4, 4)
    assert {name: pytest.approx(float(np.mean(expected[name]))) for name in found} == found
    identity = trackeval.metrics.Identity({"PRINT_CONFIG": False}).eval_sequence(data)
    assert idf1(frames, 4, 4) == pytest.approx(identity["IDF1"])
    clear = trackeval.metrics.CLEAR({"PRINT_CONFIG": False}).eval_sequence(data)
    assert id_switches(frames, 4) == clear["IDSW"]


def test_the_command_scores_the_ids_of_rendered_scenes(tmp_path: Path) -> None:
    line, out = f"rendered:{tmp_path / 'cache'}?seeds=7000012-7000012&frames=4", tmp_path / "out"
    done = CliRunner().invoke(app, ["--data", line, "--ids", "--out", str(out), "--threads", "1", "--worst", "0"])
    assert done.exit_code == 0, done.output
    tracking = json.loads((out / "scores.json").read_text())["tracking"]
    (scores,) = tracking.values()
    assert scores["frames"] == 4
    assert 0 <= scores["HOTA"] <= 1
    assert "## Tracking" in (out / "scores.md").read_text()


def test_ids_are_refused_for_data_without_them(tmp_path: Path) -> None:
    for kind in ("images", "masks"):
        (tmp_path / "set" / kind / "one").mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "set" / kind / "one" / "0.png"), np.zeros((64, 64), np.uint8))
    (tmp_path / "set" / "classes.toml").write_text(
        "".join(
            f'[[classes]]\nname = "{name}"\nkind = "{kind}"\ncolor = [0, 0, {i}]\n'
            for i, (name, kind) in enumerate(KINDS)
        )
    )
    done = CliRunner().invoke(
        app, ["--data", f"folder:{tmp_path / 'set'}", "--union", "--ids", "--out", str(tmp_path / "out")]
    )
    assert isinstance(done.exception, UsageError)
    assert "does not number its instruments" in str(done.exception)


def test_instruments_of_a_clip_are_apart_first_then_touch() -> None:
    ((seed, start),) = find_crossings(FIRST_CLIP, 1)
    scene = SceneRenderer(seed, 256, 320)
    assert scene.instrument_count >= 2

    def touch(t: float) -> bool:
        ids = scene.instance_ids(t)
        wide = [cv2.dilate((ids == i).view(np.uint8), np.ones((5, 5), np.uint8)) for i in np.unique(ids[ids > 0])]
        return any((one & other).any() for place, one in enumerate(wide) for other in wide[:place])

    assert not touch(start)
    assert any(touch(start + step * 0.4) for step in range(1, 10))


def test_true_ids_go_to_the_nearest_cells() -> None:
    truth = np.zeros((256, 320), np.uint8)
    truth[40:80, :160], truth[160:200, :160] = 1, 2
    labels = np.zeros((64, 80), np.uint8)
    labels[10:22, :40], labels[40:50, :40], labels[40:50, 60:] = 1, 1, 1
    segmentation = Segmentation(labels, np.ones((12, 64, 80), np.float32), full_viewport(256, 320, 256, 320), 1, 0)
    association = TrueAssociation(TOOL_GROUPS)
    association.truth = truth
    found = association.update(TrackerInput(segmentation))
    assert [(item.id, item.cells) for item in found.items] == [(1, 480), (2, 400)]


def test_a_kept_clip_is_not_rendered_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = RenderedClip(7_000_026, 3.0, 3, 64, 80)
    rendered = list(kept_frames(clip, tmp_path))
    monkeypatch.setattr(RenderedClip, "__iter__", lambda clip: pytest.fail("the clip was rendered again"))
    kept = list(kept_frames(clip, tmp_path))
    for one, other in zip(rendered, kept, strict=True):
        assert all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("image", "labels", "ids"))
    with pytest.raises(pytest.fail.Exception, match="rendered again"):
        list(kept_frames(clip, None))


def test_kept_crossings_are_searched_from_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[tuple[int, int]] = []

    def find(first: int, count: int) -> list[tuple[int, float]]:
        searched.append((first, count))
        return [(first + 2 * i, 0.4) for i in range(count)]

    monkeypatch.setattr(clips, "find_crossings", find)
    assert list(kept_crossings(10, 2, tmp_path)) == [(10, 0.4), (12, 0.4)]
    assert list(kept_crossings(10, 3, tmp_path)) == [(10, 0.4), (12, 0.4), (13, 0.4)]
    assert list(kept_crossings(10, 1, tmp_path)) == [(10, 0.4)]
    assert searched == [(10, 2), (13, 1)]


def test_the_study_scores_both_trackers_on_one_clip() -> None:
    ((seed, start),) = find_crossings(FIRST_CLIP, 1)
    frames = ((one.image, one.labels, one.ids) for one in RenderedClip(seed, start, 10, 128, 160))
    scores = {"clip": score_clip(frames, TrueMasks(len(SCENE_CLASSES)), TOOL_GROUPS)}
    found = summary(scores)
    assert found["cliprl"]["HOTA"] > 0.6
    assert table({"rendered": found}).count("\n") == 3


def test_the_readme_has_the_table_of_its_result() -> None:
    root = Path(__file__).resolve().parents[2]
    result = json.loads((root / "models" / "results" / "tracking.json").read_text())
    readme = (root / "pipeline" / "tracking" / "README.md").read_text()
    assert table(result["summary"]) in readme
    assert result["summary"] == {part: summary(clips) for part, clips in result["clips"].items()}
    assert f"{result['number of clips']['rendered, true masks']} rendered clips" in readme
    assert {"command", "date", "machine"} <= result.keys()
