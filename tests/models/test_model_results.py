"""The figures of models/README.md are those of the committed results."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cliprl.engines import open_bundle
from cliprl.engines.bundle.bundle import PROMPT_HEAD
from cliprl.models.data.protocol import load_protocol
from cliprl.models.studies import larynx_study, model_card, model_card_tables, selection_study, text_study
from cliprl.models.studies.words import region_words_study

ROOT = Path(__file__).resolve().parents[2]


def endovis2015(result: dict[str, Any]) -> list[str]:
    """A line for each score, pooled and by sequence."""
    lines = []
    for title, entry in result["scores"].items():
        for name in entry["base"]:
            frames = sum(entry["frames"].values()) if name == "pooled" else entry["frames"][name]
            values = f"{entry['base'][name]:.3f} | {entry['refined'][name]:.3f}"
            lines.append(f"| {title.partition(', ')[2]} | {name} | {frames} | {values} |")
    return lines


def text(result: dict[str, Any]) -> list[str]:
    """A line for each class and seed."""
    return text_study.format_table(result["classes"]).splitlines()[2:]


def larynx(result: dict[str, Any]) -> list[str]:
    """A line a sequence, and their mean."""
    rows = {**result["sequences"], "mean": result["mean over sequences"]}
    return [
        f"| {name} | {' | '.join(f'{row[network]:.3f}' for network in larynx_study.NETWORKS)} |"
        for name, row in rows.items()
    ]


def regions(result: dict[str, Any]) -> list[str]:
    """A line for each variant, class and seed."""
    return region_words_study.format_regions(result["rows"]).splitlines()[2:]


def corrections(result: dict[str, Any]) -> list[str]:
    """The mean IoU after some numbers of clicks."""
    clicks = result["clicks"].values()
    means = (sum(ious[min(count, len(ious) - 1)] for ious in clicks) / len(clicks) for count in (0, 1, 2, 3, 5, 8, 10))
    return [f"| {' | '.join(f'{mean:.3f}' for mean in means)} |"]


TABLES = [
    ("endovis2015.json", endovis2015, "README.md"),
    ("text-study.json", text, "README.md"),
    ("larynx-study.json", larynx, "README.md"),
    ("region-words.json", regions, "studies/words/README.md"),
    ("corrections.json", corrections, "promptable/README.md"),
]


def assert_table(name: str, lines: Sequence[str], readme: Path) -> None:
    """The README of a folder of models/ holds the lines and names the result."""
    found = readme.read_text().splitlines()
    assert not [line for line in lines if line not in found]
    assert f"models/results/{name}" in "\n".join(found)


@pytest.mark.parametrize(("name", "lines", "page"), TABLES, ids=[name for name, *_ in TABLES])
def test_the_readme_says_what_the_result_says(name: str, lines: Any, page: str) -> None:
    result = json.loads((ROOT / "models" / "results" / name).read_text())
    assert_table(name, lines(result), ROOT / "models" / page)
    assert {"command", "date", "machine"} <= result.keys()


def test_the_table_of_selection_is_measured() -> None:
    result = json.loads((ROOT / "models" / "results" / "selection.json").read_text())
    scored = selection_study.SCORED
    rows = {"not tuned": [f"{result['before'][name]:.3f} | " for name in scored]}
    for arm in selection_study.ARMS:
        share = result["share of all frames"].get(arm, dict.fromkeys(scored, 1.0))
        rows[arm] = [f"{result['mean'][arm][name]:.3f} | {share[name]:.3f}" for name in scored]
    lines = [f"| {arm} | {' | '.join(cells)} |" for arm, cells in rows.items()]
    assert_table("selection.json", lines, ROOT / "models" / "labelling" / "README.md")
    assert len(result["seeds"]) == 3


def test_the_page_of_training_says_what_its_result_says() -> None:
    result = json.loads((ROOT / "models" / "results" / "endovis2015-raytraced.json").read_text())
    page = (ROOT / "models" / "training" / "README.md").read_text()
    for size in ("256x320", "384x480"):
        found = result[f"iou at {size}"]
        values = [found[name][part] for part in ("instrument", "head") for name in ("D2", "OP3")]
        mean = sum(found["pooled"][name] for name in ("background", "head", "shaft")) / 3
        assert f"| at {size} | {' | '.join(f'{value:.3f}' for value in (*values, mean))} |" in page
    ruled = result["trained at 384x480"]["with the regions of the shipped bundle"]
    values = [ruled[name][part] for part in ("instrument", "head") for name in ("D2", "OP3")]
    values.append(ruled["pooled"]["dataset mIoU, with background"])
    assert f"regions of `small` | {' | '.join(f'{value:.3f}' for value in values)} |" in page
    mean, _, instrument = result["trained at 384x480"]["scores"].values()
    assert f"500 steps | {instrument['D2']:.3f} | {instrument['OP3']:.3f} | – | – | {mean['pooled']:.3f} |" in page


def test_the_table_of_decoders_is_measured() -> None:
    result = json.loads((ROOT / "models" / "results" / "larynx-decoder.json").read_text())
    networks = ("U-Net", "base")
    rows = {name: [f"{row[n]:.3f}" for n in networks] for name, row in result["runs"][0]["sequences"].items()}
    for name, cells in rows.items():
        row = result["runs"][1]["sequences"].get(name, {})
        cells.extend(f"{row[n]:.3f}" if row else "–" for n in networks)
    lines = [f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()]
    assert_table("larynx-decoder.json", lines, ROOT / "models" / "training" / "README.md")


def test_the_table_of_tuning_is_measured() -> None:
    result = json.loads((ROOT / "models" / "results" / "tuning-op1.json").read_text())
    lines = [
        f"| {name} | {' | '.join(f'{value:.3f}' for value in row.values())} |"
        for name, row in result["instrument IoU, refined"].items()
    ]
    assert_table("tuning-op1.json", lines, ROOT / "models" / "tuning" / "README.md")


def test_the_readme_is_short() -> None:
    text = (ROOT / "models" / "README.md").read_text()
    assert len(text.encode()) <= 12 * 1024
    assert max(map(len, text.splitlines())) <= 160
    for part in re.findall(r"`(models/results/[\w.-]+)`", text):
        assert (ROOT / part).is_file(), part


def test_the_time_of_the_small_recipe_is_measured() -> None:
    result = json.loads((ROOT / "models" / "results" / "small-again.json").read_text())
    assert f"It takes {round(result['wall seconds'] / 60)} minutes" in (ROOT / "models" / "README.md").read_text()


def test_the_model_card_has_the_tables_of_its_result() -> None:
    card = json.loads((ROOT / "models" / "results" / "model-card-small.json").read_text())
    page = (ROOT / "engines" / "bundles" / "small" / "README.md").read_text(encoding="utf-8")
    assert model_card_tables.markdown(card).strip() in page
    # The scores are those of masks without corrections by a click.
    scored, shipped = (
        {name: digest for name, digest in hashes.items() if name != PROMPT_HEAD}
        for hashes in (card["hashes"], open_bundle("small").manifest.hashes)
    )
    assert scored == shipped
    assert set(card["rows"]) == {row.title for row in model_card.card_rows(load_protocol(), ())}
