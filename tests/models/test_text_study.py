"""Captions find pixels: the loss, and the study that leaves a class's masks out and names it at run time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import NETWORK

torch = pytest.importorskip("torch")

from typer.testing import CliRunner  # noqa: E402

from cliprl.engines import UsageError  # noqa: E402
from cliprl.models.evaluation.scoring.ranking import auroc  # noqa: E402
from cliprl.models.studies import text_study  # noqa: E402
from cliprl.models.studies.text_study import TEXT_SCORES, Question, iou  # noqa: E402
from cliprl.models.training.stages.grounding import grounding_loss, phrases_of, presence  # noqa: E402
from cliprl.pipeline.synthetic import SCENE_CLASSES, SceneRenderer  # noqa: E402

TINY = f"""
name = "tiny"
{NETWORK}[data]
scenes = 3
frames = 1
height = 64
width = 96
workers = 1
[contrastive]
steps = 1
batch = 2
[scoring]
scenes = 2
[supervised]
steps = 2
batch = 2
"""


def test_a_caption_is_taken_apart_into_what_it_names() -> None:
    caption = (
        "a laparoscopic view of whitish connective tissue and a pool of blood with a small clamp on the left and "
        "a clip applier in the lower right and robotic scissors in the middle, smoke"
    )
    assert phrases_of(caption) == [
        "whitish connective tissue",
        "a pool of blood",
        "a clamp",
        "a clip applier",
        "robotic scissors",
        "smoke",
    ]


def test_every_caption_of_a_scene_gives_phrases_without_places() -> None:
    for seed in range(8):
        for phrase in phrases_of(SceneRenderer(seed, 96, 128).caption(0)):
            assert phrase
            assert not {"left", "right", "upper", "lower", "middle", "with", "and"} & set(phrase.split())


def test_presence_says_which_caption_has_which_phrase() -> None:
    phrases, present = presence(["a view of fat with a hook on the left", "a view of fat and liver", "a view of fat"])
    assert phrases == ["a hook", "fat", "liver"]
    assert present.tolist() == [[True, True, False], [False, True, True], [False, True, False]]


def logits(*spots: float) -> torch.Tensor:
    """A phrase's logits in pictures of 16x16 cells, all low but for 3x3 cells of each."""
    maps = torch.full((len(spots), 1, 16, 16), -5.0)
    for image, spot in zip(maps, spots, strict=True):
        image[0, 4:7, 4:7] = spot
    return maps


def test_loss_wants_a_spot_only_where_captions_have_the_phrase() -> None:
    classes, present = torch.zeros(2, 3, 16, 16), torch.tensor([[True], [False]])
    right, missed, false = (
        float(grounding_loss(classes, logits(*spots), present)) for spots in ((5, -5), (-5, -5), (5, 5))
    )
    assert right < 0.1 < missed
    assert right < 0.1 < false
    words = logits(1, 1).requires_grad_()
    grounding_loss(classes, words, present).backward()
    assert words.grad[0, 0, 4:7, 4:7].max() <= 0 <= words.grad[1, 0, 4:7, 4:7].min()
    assert words.grad[0, 0, 4:7, 4:7].min() < 0 < words.grad[1, 0, 4:7, 4:7].max()


def test_loss_is_finite_for_a_batch_of_equal_captions() -> None:
    words = torch.zeros(2, 1, 8, 8, requires_grad=True)
    loss = grounding_loss(torch.zeros(2, 3, 8, 8), words, torch.ones(2, 1, dtype=torch.bool))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(words.grad).all()


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=30))
def test_auc_is_the_chance_of_the_right_order(cells: list[tuple[int, bool]]) -> None:
    scores, truth = np.array([s for s, _ in cells], np.float32), np.array([t for _, t in cells])
    if truth.all() or not truth.any():
        return
    pairs = [(p > n) + 0.5 * (p == n) for p in scores[truth] for n in scores[~truth]]
    assert auroc(scores[truth], scores[~truth]) == pytest.approx(np.mean(pairs), abs=5.1e-5)


def test_iou_by_hand() -> None:
    assert iou(np.array([True, True, False, False]), np.array([True, False, True, False])) == pytest.approx(1 / 3)


def test_word_of_a_trained_mask_is_refused() -> None:
    probe = SCENE_CLASSES[11]
    assert Question(probe, "an ultrasound probe", 1.0).new_words() == ["ultrasound", "probe"]
    assert len(Question(probe, "x", 1.0).kept) == 11
    with pytest.raises(UsageError, match="surgical instrument"):
        Question(probe, "surgical instrument", 1.0).new_words()


def test_the_study_runs_goes_on_and_writes_its_table(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(TINY)
    out = tmp_path / "out"
    command = ["--recipe", str(recipe), "--out", str(out), "--class", "instrument-shaft", "--prompt", "a blunt rod"]
    runs = []
    for _ in range(2):
        result = CliRunner().invoke(text_study.app, [*command, "--seed", "0", "--seed", "1", "-q"])
        assert result.exit_code == 0, result.output
        assert result.stdout.strip() == str(out / "study.md")
        runs.append(json.loads((out / "study.json").read_text()))
    assert runs[0] == runs[1]
    rows = runs[0]["seeds"]
    assert set(rows) == {"0", "1"}
    assert all(set(row) == set(TEXT_SCORES) and all(0 <= v <= 1 for v in row.values()) for row in rows.values())
    assert rows["0"] != rows["1"]
    assert "rod" in runs[0]["words in no kept class's prompts"]
    assert (out / "study.md").read_text().count("\n| ") == 5  # head, rule, two seeds and their mean


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--class", "liver"], "no class 'liver'"), (["--prompt", "a surgical tool"], "a surgical tool")],
)
def test_a_bad_question_is_misuse(arguments: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        CliRunner().invoke(text_study.app, arguments, catch_exceptions=False)
