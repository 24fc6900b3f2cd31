"""`cliprl-label check`: weights that follow their prompts pass, and those that ignore them fail in the part that shows it."""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import pytest

from cliprl.engines.cli.cli_runner import run_app
from cliprl.engines.promptable import ImageEmbedding, PromptedMasks
from cliprl.models.cli import label
from cliprl.models.labelling import check
from cliprl.models.labelling.check import CheckScene, check_promptable, check_text, render_scenes
from cliprl.models.labelling.saliency import SaliencyModel, SaliencySettings


@pytest.fixture(scope="module")
def scenes() -> list[CheckScene]:
    return render_scenes(4)


class Perfect:
    """Returns what is painted in the image: the instrument whose box it is given; `follows` false ignores the box."""

    name = "perfect"

    def __init__(self, scenes: list[CheckScene], *, follows: bool = True) -> None:
        self._ids = {scene.image.tobytes(): scene.ids for scene in scenes}
        self._follows = follows

    def encode(self, image: Any) -> ImageEmbedding:
        return ImageEmbedding(*image.shape[:2], {"ids": self._ids[image.tobytes()]})

    def masks(self, embedding: ImageEmbedding, points: Any, labels: Any, boxes: Any) -> PromptedMasks:
        ids = embedding.tensors["ids"]
        left, top, right, bottom = boxes[0].astype(int)
        inside = ids[top:bottom, left:right]
        numbers = np.unique(inside[inside > 0])
        mask = np.zeros(ids.shape, bool)
        if not self._follows:
            mask = ids > 0
        elif len(numbers):
            best = max(numbers, key=lambda number: ((inside == number).sum() / (ids == number).sum(), number))
            mask[top:bottom, left:right] = inside == best
        return PromptedMasks(np.where(mask, 4.0, -4.0).astype(np.float32)[None], np.ones(1, np.float32))


def test_a_network_that_follows_its_box_passes(scenes: list[CheckScene]) -> None:
    results = check_promptable(Perfect(scenes), scenes)
    assert results[0].value == pytest.approx(1, abs=0.03)
    assert [one.verdict for one in results[:2]] == ["pass", "pass"]


def test_a_network_that_ignores_its_box_fails(scenes: list[CheckScene]) -> None:
    results = check_promptable(Perfect(scenes, follows=False), scenes)
    assert results[1].value == 1
    assert results[1].verdict == "FAIL"


@pytest.mark.parametrize(("reads_words", "verdicts"), [(True, ["pass", "pass"]), (False, ["pass", "FAIL"])])
def test_words_must_make_a_difference(
    scenes: list[CheckScene], monkeypatch: pytest.MonkeyPatch, reads_words: bool, verdicts: list[str]
) -> None:
    truths = {scene.image.tobytes(): scene.ids > 0 for scene in scenes}

    def stub(model: Any, image: Any, text: str, settings: Any) -> Any:
        there = truths[image.tobytes()] & (text == "surgical instrument" or not reads_words)
        return there.astype(np.float32)

    monkeypatch.setattr(check, "saliency", stub)
    results = check_text(SaliencyModel(object(), True, "stub"), scenes, SaliencySettings())  # type: ignore[arg-type]
    assert results[0].verdict == "not checked"
    assert [one.verdict for one in results[1:3]] == verdicts


def test_the_command_checks_the_bundle(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["check", "--text", "small", "--network", "head:small", "--scenes", "4", "--threads", "1", "--json"]
    monkeypatch.setattr(sys, "argv", ["cliprl-label", *arguments])
    status = run_app(label.app, "cliprl-label")
    shown = capfd.readouterr()
    result = json.loads(shown.out)
    assert status == (0 if result["passed"] else 1)
    parts = {part["name"]: part for part in result["parts"]}
    assert parts["AUROC of the saliency of 'surgical instrument'"]["value"] > 0.8
    assert parts["rank of the right caption"]["value"] is None
    assert "Traceback" not in shown.err
    monkeypatch.setattr(sys, "argv", ["cliprl-label", "check"])
    assert run_app(label.app, "cliprl-label") == 2
    assert "nothing to check" in capfd.readouterr().err
