"""The READMEs of the room and of the shipped bundle: short, and every figure is that of a committed file."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

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


def test_the_manifest_has_the_scores_of_the_model_card() -> None:
    manifest = open_bundle("small").manifest
    quoted = {row[0]: row[2:4] for row in rows(CARD) if len(row) == 9}
    for title, entry in manifest.scores.items():
        if "severity" not in title and "IoU" in entry["definition"]:
            assert quoted[title] == [f"{entry[side]['pooled']:.3f}" for side in ("base", "refined")]


def test_the_model_card_quotes_the_training() -> None:
    manifest, text = open_bundle("small").manifest, " ".join(CARD.read_text(encoding="utf-8").split())
    recipe = manifest.training["recipe"]
    for stage in ("contrastive", "supervised", "reinforcement"):
        assert f"{recipe[stage]['steps']} {stage} steps" in text
    assert f"Input {manifest.height}x{manifest.width}" in text
    assert manifest.training["command"] in text
    for source in manifest.training["data"]:
        assert source["licence"].split(";")[0].split(",")[0] in text
        assert source.get("attribution", "(arXiv").split(":")[0].split(",")[0].split(" et")[0] in text


def test_the_model_card_quotes_the_scores_of_both_sizes() -> None:
    result = json.loads((ROOM.parent / "models" / "results" / "input-sizes.json").read_text(encoding="utf-8"))
    assert result["hashes"]["encoder.onnx"] == open_bundle("small").manifest.hashes["encoder.onnx"]
    assert f"takes {result['cpu']['384x480']['median']:.1f} times" in " ".join(CARD.read_text(encoding="utf-8").split())
    quoted = {row[0]: row[1:] for row in rows(CARD) if len(row) == 5 and row[0] in result["rows"]}
    for name, row in result["rows"].items():
        sizes = row["256x320"], row["384x480"]
        scores = [f"{one['iou']['refined']:.3f}" if "iou" in one else "–" for one in sizes]
        assert quoted[name] == [*scores, *(f"{100 * one['false_alarms']['refined']:.2f} %" for one in sizes)]


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


def test_graphs_hold_no_paths() -> None:
    for path in CARD.parent.glob("*.onnx"):
        data = path.read_bytes()
        assert not re.search(rb'File "|\.py\b|/site-packages', data), path.name


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
