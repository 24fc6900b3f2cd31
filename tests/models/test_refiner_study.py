"""The study of the refiner: every arm on made-up frames, and the arithmetic of its gains."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from tiny import NETWORK

from cliprl.engines.cli.cli_runner import run_app
from cliprl.models.evaluation.scoring.confusion_counts import ConfusionCounts
from cliprl.models.network.actions import ActionContext
from cliprl.models.studies import refiner_study
from cliprl.models.studies.refiner_scores import Tally
from cliprl.models.studies.refiner_tables import gain
from cliprl.models.studies.refiner_variants import RANDOM, VARIANTS, RefinementStep

TINY = (
    """
name = "tiny"
"""
    + NETWORK
    + """[data]
train = ["vocalfolds:larynx?sequences=seq5,seq6"]
test = ["vocalfolds:larynx?sequences=seq7", "vocalfolds:larynx?sequences=seq7&severity=4"]
[contrastive]
steps = 0
[supervised]
steps = 1
batch = 2
[reinforcement]
steps = 2
batch = 2
[curriculum.reinforcement]
unroll = [1, 1]
"""
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Frames of which every class is a stripe, and the recipe."""
    rng, mask = np.random.default_rng(0), np.repeat(np.arange(7, dtype=np.uint8), 10)[None].repeat(70, 0)
    for sequence in ("seq5", "seq6", "seq7"):
        for part, name in (("images", "1.jpg"), ("images", "2.jpg"), ("masks", "1.png"), ("masks", "2.png")):
            place = tmp_path / "larynx" / part / sequence
            place.mkdir(parents=True, exist_ok=True)
            image = rng.integers(0, 255, (70, 70, 3), np.uint8) if part == "images" else mask
            cv2.imwrite(str(place / name), image)
    (tmp_path / "tiny.toml").write_text(TINY)
    return tmp_path


def test_every_variant_is_trained_scored_reported_and_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [
        "study",
        "--recipe",
        str(folder / "tiny.toml"),
        "--set",
        f"data.root={folder}",
        "--out",
        str(folder / "out"),
    ]
    monkeypatch.setattr(sys, "argv", [*words, "--seed", "0", "--quiet"])
    assert run_app(refiner_study.app, "study") == 0
    result = json.loads((folder / "out" / "study.json").read_text())
    assert list(result["arms"]) == [arm.name for arm in VARIANTS]
    for columns in result["arms"].values():
        assert len(columns) == 2
        assert all(0 <= seed["dataset mIoU"] <= 1 for entry in columns.values() for seed in entry["seeds"])
    table = (folder / "out" / "study.md").read_text()
    assert all(f"| {arm.name} |" in table for arm in VARIANTS)
    written = {path: path.stat().st_mtime_ns for path in (folder / "out").glob("*-0.pt")}
    assert len(written) == sum(bool(arm.learns) for arm in VARIANTS)
    assert run_app(refiner_study.app, "study") == 0
    assert written == {path: path.stat().st_mtime_ns for path in (folder / "out").glob("*-0.pt")}


def tally(hits: list[int]) -> Tally:
    """Frames of a hundred instrument pixels, of which so many are found, and none besides."""
    counts = ConfusionCounts(2)
    for block, hit in enumerate(hits):
        found = np.zeros((10, 10), np.uint8)
        found.flat[:hit] = 1
        counts.add(np.ones((10, 10), np.uint8), found, str(block))
    return Tally(counts, counts, counts)


def test_gain_is_mean_pooled_iou_over_seeds_above_base() -> None:
    base, arms = tally([40, 60, 50]), [tally([50, 60, 70]), tally([60, 70, 70])]
    middle, low, high = gain(arms, base)
    assert middle == pytest.approx((180 + 200) / 600 - 0.5)
    assert low < middle < high
    assert gain([base, base], base) == (0, 0, 0)
    assert gain([tally([50, 70, 60])], base) == pytest.approx((0.1, 0.1, 0.1))  # the same in every block: no doubt


def test_random_variant_is_random_and_priorless_one_gets_none() -> None:
    class Sees(torch.nn.Module):
        def pushes(self, text: torch.Tensor) -> torch.Tensor:
            return torch.zeros(2, 16)

        def context(self, *three: torch.Tensor) -> ActionContext:
            return ActionContext.of(*three, bound=5.0)

        def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return inputs[3], torch.zeros(())

    base, prior, text = torch.zeros(1, 2, 4, 5), torch.ones(1, 2, 4, 5), torch.eye(2)
    without = next(arm for arm in VARIANTS if not arm.prior)
    refined, _ = RefinementStep(without, Sees())(base, base, base, prior, text)  # type: ignore[arg-type]
    assert torch.equal(refined, base)
    refined, moved = RefinementStep(RANDOM, Sees())(base, base, base, prior, text)  # type: ignore[arg-type]
    assert 0 < refined.sum() < prior.sum()
    assert moved == 1


ROOT = Path(__file__).resolve().parents[2]
# Each result, and by the head of its README table its measure.
TABLES = [
    ("refiner-study.json", "refiner, D2", "instrument IoU"),
    ("refiner-study-rendered.json", "refiner, rendered scenes", "instrument IoU"),
    ("refiner-study-rendered.json", "refiner, 12 classes", "dataset mIoU"),
]


def cells(arms: Mapping[str, Any], measure: str) -> dict[str, list[str]]:
    """An arm's row: the mean over its seeds and, but for the base, the interval of its gain; of the instruments, then the IoU
    of consecutive masks at severities 2 and 4."""
    rows = {}
    for name, columns in arms.items():
        found = [
            {key: np.mean([seed[key] for seed in entry["seeds"]]) for key in entry["seeds"][0]}
            for entry in columns.values()
        ]
        rows[name] = [f"{one[measure]:.3f}" for one in found]
        if name != "base only":
            gains = [[100 * value for value in entry[f"gain in {measure}"]] for entry in columns.values()]
            rows[name] = [
                f"{iou} ({low:+.1f}, {high:+.1f})" for iou, (_, low, high) in zip(rows[name], gains, strict=True)
            ]
        if measure == "instrument IoU":
            rows[name] += [f"{found[n]['IoU of consecutive masks']:.3f}" for n in (1, 3)]
    return rows


@pytest.mark.parametrize(("file", "head", "measure"), TABLES)
def test_the_readmes_tables_are_the_committed_results(file: str, head: str, measure: str) -> None:
    arms = json.loads((ROOT / "models" / "results" / file).read_text())["arms"]
    lines = (ROOT / "models" / "README.md").read_text().splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith(f"| {head} |")) + 2
    rows = [[cell.strip(" *") for cell in line.split("|")[1:-1]] for line in lines[start : start + len(arms)]]
    assert {row[0]: row[1:] for row in rows} == cells(arms, measure)
