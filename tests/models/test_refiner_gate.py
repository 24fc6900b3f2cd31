"""The choice of a refiner's gate: the largest mean gain among the designs that cost no set."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from fake_engine import FakeEngine
from typer.testing import CliRunner

from cliprl.engines import open_bundle
from cliprl.models.studies import refiner_gate


def rows(*gains: float) -> dict[str, dict[str, object]]:
    return {str(number): {"gain": gain} for number, gain in enumerate(gains)} | {"empty": {}}


@pytest.mark.parametrize(
    ("gains", "chosen"),
    [
        ({"a": rows(9, -0.3), "b": rows(1, -0.2), "c": rows(2, 0)}, "c"),
        ({"a": rows(9, -0.3), "b": rows(-1)}, None),
        ({"a": {"empty": {}}, "b": rows(0.5)}, "b"),
    ],
)
def test_no_design_is_chosen_that_costs_a_set(
    gains: dict[str, dict[str, dict[str, object]]], chosen: str | None
) -> None:
    assert refiner_gate.choose(gains, list(gains)) == chosen


class Count(FakeEngine):
    """Gives how many runs it has had, in an array that the next run overwrites."""

    def __init__(self) -> None:
        self.runs = np.zeros(1)

    def run(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        self.runs += 1
        return {"logits": self.runs}


def test_each_image_is_encoded_once_for_all_designs() -> None:
    encoder = refiner_gate.RememberingEncoder(Count())
    images = [np.full((1, 2, 2, 3), value, np.uint8) for value in (0, 1, 0, 1)]
    assert [encoder.run({"image": image})["logits"].item() for image in images] == [1, 2, 1, 2]


def test_the_chosen_gate_is_sealed_into_the_bundle(tmp_path: Path) -> None:
    for folder, value in (("images", 90), ("masks", 1)):
        (tmp_path / "set" / folder).mkdir(parents=True)
        image = np.full((64, 80), value, np.uint8)
        image[:, :30] = 200 if value == 90 else 0
        cv2.imwrite(str(tmp_path / "set" / folder / "a-frame-1.png"), image)
    protocol = tmp_path / "protocol.toml"
    protocol.write_text(
        "[[choosing]]\nname = 'a'\ndata = 'laparoscopy:set'\n[[reporting]]\nname = 'b'\ndata = 'empty:none.mp4'\n"
    )
    bundle = shutil.copytree(open_bundle("small").path, tmp_path / "bundle")
    name = "noise above 0.12, brightness below 55, haze above 120"
    command = ["--out", str(tmp_path / "out"), "--bundle", str(bundle), "--protocol", str(protocol), "--only", name]
    done = CliRunner().invoke(refiner_gate.app, [*command, "--set", f"data.root={tmp_path}", "--write", "-q"])
    assert done.exit_code == 0, done.output
    assert f"chosen: {name}" in done.output
    found = json.loads((tmp_path / "out" / "refiner-gate.json").read_text())
    assert list(found["designs"]) == [name]
    sealed = open_bundle(bundle).manifest
    assert sealed.restoration is not None
    assert sealed.restoration.noise == found["restoration"]["noise"] == 0.12
    assert sealed.steps == open_bundle("small").manifest.steps


@pytest.mark.parametrize("data", ["endovis2015:endovis2015?sequences=OP1", "laparoscopy:set"])
def test_scores_on_sets_of_another_protocol_choose_nothing(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "set" / "images").mkdir(parents=True)
    (tmp_path / "set" / "masks").mkdir()
    for folder in ("images", "masks"):
        cv2.imwrite(str(tmp_path / "set" / folder / "a-frame-1.png"), np.zeros((64, 80), np.uint8))
    scores = {"frames": 1, "steps": 0.0, "false_alarms": {"base": 0.0, "refined": 0.0}, "gain": 1.0}
    monkeypatch.setattr(refiner_gate, "score_design", lambda *rest: scores)
    own = tmp_path / "protocol.toml"
    own.write_text(f"[[choosing]]\nname = 'a'\ndata = '{data}'\n[[reporting]]\nname = 'b'\ndata = 'empty:none.mp4'\n")
    name = "noise above 0.12, brightness below 55, haze above 120"
    command = ["--out", str(tmp_path), "--only", name, "--set", f"data.root={tmp_path}", "-q"]
    for further in ([], ["--protocol", str(own)]):
        done = CliRunner().invoke(refiner_gate.app, [*command, *further], catch_exceptions=False)
        assert done.exit_code == 0, done.output
    assert list(json.loads((tmp_path / "refiner-gate.json").read_text())["designs"][name]) == ["a (chosen)"]
