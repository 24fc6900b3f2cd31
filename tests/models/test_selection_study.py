"""The selection study: which frames each arm learns, when the target is met, and that a run is resumed."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from cliprl.engines import ClassSpec, open_bundle
from cliprl.engines.cli.cli_runner import run_app
from cliprl.models.data.sample import Sample
from cliprl.models.labelling.frame_selection import FrameMeasure
from cliprl.models.studies import selection_study
from cliprl.models.studies.selection_study import (
    ARM_ALL,
    ARM_CHOSEN,
    ARM_RANDOM,
    arms_of_seed,
    measure_dataset,
    summarize_seeds,
)


class TwoClips:
    """Four frames of two clips."""

    name = "clips"
    classes = (ClassSpec("background", (0, 0, 0), "background"),)

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Sample:
        image = np.random.default_rng(index).integers(0, 256, (64, 80, 3), np.uint8)
        return Sample(image, np.zeros((64, 80), np.uint8), self.sequence(index))

    def sequence(self, index: int) -> str:
        return f"clip {index // 2}"

    clip = sequence


def test_measures_carry_the_data_set_indices() -> None:
    found = measure_dataset(open_bundle("small"), TwoClips())
    assert [(m.video, m.index) for m in found] == [("clip 0", 0), ("clip 0", 1), ("clip 1", 2), ("clip 1", 3)]
    assert [m.seconds for m in found] == [0, 0.04, 0, 0.04]


def test_arms_learn_a_quarter_of_the_frames() -> None:
    rng = np.random.default_rng(0)
    measures = [FrameMeasure("a", i, i / 25, float(rng.random()), 0.1, rng.random(4, np.float32)) for i in range(100)]
    first, second = (arms_of_seed(measures, seed) for seed in (0, 1))
    assert first[ARM_ALL] == list(range(100))
    assert [len(set(first[arm])) for arm in (ARM_CHOSEN, ARM_RANDOM)] == [25, 25]
    assert first[ARM_CHOSEN] == second[ARM_CHOSEN] != first[ARM_RANDOM] != second[ARM_RANDOM]
    assert arms_of_seed(measures, 0) == first


def scores(chosen: float) -> Mapping[str, Mapping[str, float]]:
    return {
        ARM_ALL: {"D2": 0.8, "OP3": 0.8},
        ARM_CHOSEN: {"D2": 0.8, "OP3": chosen},
        ARM_RANDOM: {"D2": 0.6, "OP3": 0.8},
    }


@pytest.mark.parametrize(("chosen", "met"), [(0.795, True), (0.78, False)])
def test_the_target_holds_for_each_data_set(chosen: float, met: bool) -> None:
    found = summarize_seeds({"0": scores(chosen), "1": scores(chosen)})
    assert found["met"] is met
    assert found["share of all frames"][ARM_RANDOM]["D2"] == pytest.approx(0.75)


def test_an_interrupted_study_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, run = tmp_path / "selection.json", list[int]()

    def score_arms(bundle: object, data: object, arms: object, config: object, score: object) -> object:
        run.append(config.seed)  # type: ignore[attr-defined]
        return list(scores(0.8).items())[: 1 + len(run)]

    for name, stand_in in {
        "score_arms": score_arms,
        "measure_dataset": lambda *_: [],
        "arms_of_seed": lambda *_: scores(0.8),
        "score_sequences": lambda *_: {"D2": 0.7, "OP3": 0.7},
        "open_dataset": lambda *_, **__: TwoClips(),
    }.items():
        monkeypatch.setattr(selection_study, name, stand_in)
    for seeds in (["--seed", "0"], []):
        monkeypatch.setattr(sys, "argv", ["study", "--out", str(out), *seeds])
        assert run_app(selection_study.app, "study") == 0
    assert run == [0, 0, 1, 2]  # the first run ended before its last arm
    assert list(json.loads(out.read_text())["seeds"]) == ["0", "1", "2"]
    monkeypatch.setattr(sys, "argv", ["study", "--out", str(out), "--every", "7"])
    assert run_app(selection_study.app, "study") == 1
    monkeypatch.setattr(sys, "argv", ["study", "--out", str(out)])
    out.write_text("x")
    assert run_app(selection_study.app, "study") == 1
