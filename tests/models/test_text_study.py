"""The study that leaves classes out of the labels and segments each by its word in captions."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import NETWORK

torch = pytest.importorskip("torch")

from typer.testing import CliRunner  # noqa: E402

from cliprl.engines import UsageError  # noqa: E402
from cliprl.models.config.load import load_recipe  # noqa: E402
from cliprl.models.data.sample import IGNORE  # noqa: E402
from cliprl.models.evaluation.scoring.ranking import auroc  # noqa: E402
from cliprl.models.network.network import ClipSegmenter  # noqa: E402
from cliprl.models.network.text import class_embeddings  # noqa: E402
from cliprl.models.studies import text_study  # noqa: E402
from cliprl.models.studies.words import class_texts, named_scenes, region_classes, region_words_study  # noqa: E402
from cliprl.models.studies.words.denied_labels import (  # noqa: E402
    MASK_STAGES,
    denied_labels,
    denied_saliency,
    mask_stages,
    pseudo_labels,
)
from cliprl.models.studies.words.named_scenes import labels_without, named_class, scenes_by_caption  # noqa: E402
from cliprl.models.studies.words.word_scores import dice, iou  # noqa: E402
from cliprl.pipeline.synthetic import SCENE_CLASSES, SceneRenderer  # noqa: E402

TINY = f"""
name = "tiny"
{NETWORK}[data]
scenes = 8
frames = 1
height = 64
width = 96
workers = 1
[contrastive]
steps = 1
batch = 2
[scoring]
scenes = 12
[supervised]
steps = 2
batch = 2
[weak]
rounds = 2
snapshots = 1
"""
SHAFT = 1
PROBE = named_class("ultrasound-probe=an ultrasound probe")


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=30))
def test_auc_is_the_chance_of_the_right_order(cells: list[tuple[int, bool]]) -> None:
    scores, truth = np.array([s for s, _ in cells], np.float32), np.array([t for _, t in cells])
    if truth.all() or not truth.any():
        return
    pairs = [(p > n) + 0.5 * (p == n) for p in scores[truth] for n in scores[~truth]]
    assert auroc(scores[truth], scores[~truth]) == pytest.approx(np.mean(pairs), abs=5.1e-5)


def test_overlaps_by_hand() -> None:
    masks = np.array([True, True, False, False]), np.array([True, False, True, False])
    assert iou(*masks) == pytest.approx(1 / 3)
    assert dice(*masks) == pytest.approx(1 / 2)
    assert np.isnan(dice(masks[0], np.zeros(4, bool)))


def test_word_of_a_trained_mask_is_refused() -> None:
    assert PROBE.new_words() == ["ultrasound", "probe"]
    assert PROBE.number == 11
    with pytest.raises(UsageError, match="surgical instrument"):
        named_class("ultrasound-probe=surgical instrument")


def test_captions_name_a_class_by_all_new_words() -> None:
    assert PROBE.is_named("a view of fat with a small ultrasound probe on the left, smoke")
    assert not PROBE.is_named("a view of fat with a probe on the left")
    assert named_class("clamps=a clamp").is_named("a view of fat with a large clamp, smoke")


def test_captions_of_scenes_name_what_labels_show() -> None:
    """The share that a caption overlooks is that of things behind others, or too small to be seen."""
    named, shown = [], []
    for seed in range(60):
        renderer = SceneRenderer(seed, 64, 96)
        named.append(PROBE.is_named(renderer.caption(0)))
        shown.append(np.mean(renderer.render(0)[1] == PROBE.number) > 0.01)
    assert any(named)
    assert all(name for name, there in zip(named, shown, strict=True) if there)


def test_a_scene_that_names_two_classes_is_left_out() -> None:
    captions = ["fat with a clamp and an ultrasound probe", "fat", "a small ultrasound probe", "a large clamp, smoke"]
    assert scenes_by_caption(captions, [PROBE, named_class("clamps=a clamp")]) == ([1], [[2], [3]])
    with pytest.raises(UsageError, match="'a clamp' alone"):
        scenes_by_caption(captions[:3], [PROBE, named_class("clamps=a clamp")])


def test_missing_classes_are_drawn_as_background() -> None:
    labels = np.array([[0, 1, 11], [7, 255, 4]], np.uint8)
    assert labels_without(labels, [11, 7]).tolist() == [[0, 1, 0], [0, 255, 4]]


def test_saliency_is_where_labels_deny_what_is_found() -> None:
    logits = np.zeros((12, 8, 8), np.float32)
    logits[1, :, :4] = 9  # shafts on the left
    logits[4, :, 4:] = 9  # a kidney on the right
    background = np.ones((16, 16), bool)
    background[8:] = False
    saliency = denied_saliency(logits, SCENE_CLASSES, "instrument", background)
    assert saliency[:8, :6].min() > 0.99
    assert saliency[8:].max() == 0
    tissue = denied_saliency(logits, SCENE_CLASSES, "tissue", background)
    assert tissue[:8, 11:].min() > 0.99 > 0.9 > tissue[:8, :5].max()


def test_networks_labels_of_the_kind_are_the_class_where_denied() -> None:
    found = np.array([[0, 1, 9, 11, 4, 255, 2]], np.uint8)
    labels = denied_labels(np.array([[0, 0, 0, 0, 0, 0, 1]], np.uint8), found, SCENE_CLASSES, 11)
    assert labels.tolist() == [[0, 11, 11, 11, IGNORE, IGNORE, 1]]


def test_masks_of_a_bright_thing_find_its_outline() -> None:
    """Clean-up drops the thin edge of another thing, and the cut takes the part that the saliency missed."""
    truth = np.zeros((96, 128), bool)
    truth[30:60, 40:90] = True
    image = np.where(truth[..., None], [200, 200, 210], [120, 30, 30]).astype(np.uint8)
    saliency = np.where(truth, 0.9, 0.01).astype(np.float32)
    saliency[30:60, 87:90] = 0.01
    saliency[:, 5] = 0.9
    masks = mask_stages(saliency, image, np.ones(truth.shape, bool))
    assert tuple(masks) == MASK_STAGES
    found = [dice(mask, truth) for mask in masks.values()]
    assert found[0] < found[1] < found[3]
    assert found[3] > 0.97
    labels = pseudo_labels(np.zeros(truth.shape, np.uint8), 11, saliency, masks["region"])
    assert labels[45, 60] == 11
    assert labels[45, 88] == labels[10, 5] == IGNORE
    assert labels[80, 100] == 0


def test_nothing_salient_gives_no_mask() -> None:
    image = np.full((64, 96, 3), 90, np.uint8)
    masks = mask_stages(np.zeros((64, 96), np.float32), image, np.ones((64, 96), bool))
    assert not any(mask.any() for mask in masks.values())


def test_the_study_runs_goes_on_and_writes_its_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(text_study, "MEASURED_EACH", 1)
    monkeypatch.setattr(class_texts, "_STEPS", 1)
    recipe, out = tmp_path / "tiny.toml", tmp_path / "out"
    recipe.write_text(TINY)
    command = ["--recipe", str(recipe), "--out", str(out), "--class", "instrument-shaft=yellow fat", "-q"]
    runs = []
    for seeds in (["0"], ["0", "1"]):
        options = [*command, "--weak-steps", "1", *(word for seed in seeds for word in ("--seed", seed))]
        result = CliRunner().invoke(text_study.app, options)
        assert result.exit_code == 0, result.output
        assert result.stdout.strip() == str(out / "study.md")
        runs.append(json.loads((out / "study.json").read_text())["classes"]["instrument-shaft"])
    assert str(runs[0]["0"]) == str(runs[1]["0"])
    assert all(tuple(row) == text_study.TEXT_SCORES for row in runs[1].values())
    assert (out / "study.md").read_text().count("| instrument-shaft |") == 2
    assert_texts_are_separated_once(out / "seed-0")
    monkeypatch.setattr(region_classes, "_STEPS", 1)
    monkeypatch.setattr(region_classes, "_LEAST_CELLS", 1)
    monkeypatch.setattr(region_words_study, "REGION_NETWORKS", 1)
    monkeypatch.setattr(region_words_study, "region_code", lambda *_: SHAFT)
    monkeypatch.setattr(named_scenes, "FURTHER_SEED", 0)
    for _ in range(2):
        result = CliRunner().invoke(region_words_study.app, [*command, "--further", "8"])
        assert result.exit_code == 0, result.output
        monkeypatch.setattr(region_words_study, "region_code", None)  # the views are kept
    kept = json.loads((out / "regions.json").read_text())["rows"]
    refused = CliRunner().invoke(region_words_study.app, command).exception
    assert isinstance(refused, UsageError), "the networks were trained with further scenes"
    assert "further" in str(refused)
    text = {name: value for name, value in runs[1]["0"].items() if name in region_words_study.REGION_SCORES}
    assert {name: kept["network"]["instrument-shaft"]["0"][name] for name in text} == text


def assert_texts_are_separated_once(folder: Path) -> None:
    """The texts change before the first mask is learned, and no more; what pixels have learned of them stays true."""
    files = ("start/contrastive.pt", "start/supervised.pt", "round-1/supervised.pt", "round-2/supervised.pt")
    states = [torch.load(folder / file, weights_only=True)["network"] for file in files]
    texts = [name for name in states[0] if name.startswith("clip.") and not name.startswith("clip.visual")]

    def changed(names: list[str]) -> list[bool]:
        return [any(not torch.equal(old[n], new[n]) for n in names) for old, new in pairwise(states)]

    assert changed(texts) == [True, False, False]
    assert changed(["embed.weight"]) == [True, True, True]


def test_texts_of_classes_are_separated() -> None:
    torch.manual_seed(0)
    network = ClipSegmenter(
        load_recipe("small", ["network.tower=test_resnet", "network.weights=", "network.text_width=32"]).network
    )
    with torch.no_grad():
        assert largest_cosine(network) > 0.5
    class_texts.separate_texts(network, SCENE_CLASSES, 0)
    with torch.no_grad():
        assert largest_cosine(network) < 0.1


def largest_cosine(network: Any) -> float:
    """The largest cosine of the texts of two classes."""
    text = class_embeddings(network, SCENE_CLASSES)
    return float((text @ text.T - 2 * torch.eye(len(text))).max())


@pytest.mark.parametrize(
    ("text", "words"),
    [("liver=a liver", "of instrument-shaft"), ("clamps=a surgical tool", "a surgical tool"), ("clamps", "NAME=WORDS")],
)
def test_a_bad_class_is_misuse(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        CliRunner().invoke(text_study.app, ["--class", text], catch_exceptions=False)
