"""The READMEs of the room and of the shipped bundle: short, and every figure is that of a committed file."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from cliprl.engines import open_bundle, seal_bundle

ROOM = Path(__file__).parents[2] / "engines"
CARD = ROOM / "bundles" / "small" / "README.md"
RESULTS = ROOM / "results"


def rows(page: Path) -> list[list[str]]:
    """The cells of every table row of a page."""
    lines = page.read_text(encoding="utf-8").splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]


@pytest.mark.parametrize("page", [CARD, ROOM / "README.md"], ids=["card", "room"])
def test_a_readme_is_short(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert len(text.encode()) <= 12_000
    assert max(map(len, text.splitlines())) <= 160
    assert all(len(table.strip().splitlines()) <= 12 for table in re.findall(r"(?:^\|.*\n)+", text, re.M))


def score(manifest: Any, key: str, name: str) -> list[str]:
    entry = manifest.scores[key]
    frames = sum(entry["frames"].values()) if name == "pooled" else entry["frames"][name]
    return [str(frames), *(f"{entry[stage][name]:.3f}" for stage in ("base", "refined"))]


def test_the_model_card_quotes_its_manifest() -> None:
    manifest = open_bundle("small").manifest
    all_four = "endovis2015:sequences=D1,D2,OP1,OP3&labels=instrument, instrument"
    expected = [["score", "frames", "base", "refined"]]
    expected += [
        [f"instrument, EndoVis 2015 {name}", *score(manifest, all_four, name)] for name in ("D1", "D2", "OP1", "OP3")
    ]
    expected.append(["instrument, all four", *score(manifest, all_four, "pooled")])
    for severity in range(2, 6):
        key = f"endovis2015:sequences=D2&labels=instrument&severity={severity}, instrument"
        expected.append([f"instrument, D2 corrupted at severity {severity}", *score(manifest, key, "pooled")])
    assert [row for row in rows(CARD) if row[0] == "score" or row[0].startswith("instrument")] == expected


def test_the_model_card_quotes_false_alarms_and_the_training() -> None:
    manifest, text = open_bundle("small").manifest, " ".join(CARD.read_text(encoding="utf-8").split())
    alarms = manifest.scores["clip sinus_1080p30, which shows no instrument, false alarms"]
    assert f"base {alarms['base']['pooled']:.2%}, refined {alarms['refined']['pooled']:.2%}".replace("%", " %") in text
    mean = manifest.scores["rendered scenes, seeds not trained on, dataset mIoU, with background"]
    assert f"base {mean['base']['pooled']:.3f}, refined {mean['refined']['pooled']:.3f}" in text
    recipe = manifest.training["recipe"]
    for stage in ("contrastive", "supervised", "reinforcement"):
        assert f"{recipe[stage]['steps']} {stage} steps" in text
    assert f"Input {manifest.height}x{manifest.width}" in text
    assert f"{recipe['data']['scenes']} scenes of {recipe['data']['frames']} frames" in text
    assert manifest.training["command"] in text
    for source in manifest.training["data"]:
        assert source["licence"] in text


def test_the_model_card_quotes_sizes() -> None:
    files = {path.name: path.stat().st_size for path in CARD.parent.iterdir() if path != CARD}
    quoted = {row[0]: row[2] for row in rows(CARD) if row[0].startswith("`")}
    for names, megabytes in quoted.items():
        listed = re.findall(r"`([^`]+)`", names)
        full = [
            listed[0],
            *(listed[0].rpartition(".")[0] + name if name.startswith(".") else name for name in listed[1:]),
        ]
        assert f"{sum(files.pop(name) for name in full) / 1e6:.1f}" == megabytes
    assert files == {}


def test_the_model_card_is_not_hashed(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(CARD.parent, tmp_path / "copy"))
    (copy / "README.md").write_text("changed", encoding="utf-8")
    bundle = open_bundle(copy)
    assert "README.md" not in seal_bundle(copy, bundle.manifest, bundle.embeddings).manifest.hashes


def test_the_package_carries_the_model_card() -> None:
    text = (ROOM.parent / "pyproject.toml").read_text(encoding="utf-8")
    assert '"cliprl.engines" = ["bundles/*/*"' in text


def test_the_room_quotes_how_the_libraries_compared() -> None:
    tried = json.loads((RESULTS / "libraries.json").read_text(encoding="utf-8"))["tried"]
    assert [row for row in rows(ROOM / "README.md") if row[0] in {each["library"] for each in tried}] == [
        [each["library"], each["found"], each["kept"]] for each in tried
    ]
