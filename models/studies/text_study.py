"""Can a class be named that had no masks? One class is left out of the labels, and named at run time by a word of captions.

    python -m cliprl.models.studies.text_study --out runs/text --seed 0 --seed 1 --seed 2

Captions of rendered scenes still name the class, but not its position. Scored on scenes with
other seeds, beside words that no caption has. A seed that was cut off goes on. Writes study.md and study.json.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import torch
import typer
from numpy.typing import NDArray

from cliprl.engines import ClassSpec, UsageError
from cliprl.engines.cli.cli_runner import run_app
from cliprl.models.config.config import Recipe
from cliprl.models.config.load import checkpoint_settings, load_recipe
from cliprl.models.data.label_mapping import with_classes
from cliprl.models.data.sets.rendered import RenderedScenes, RenderedSpec
from cliprl.models.evaluation.scoring.markdown import markdown_table
from cliprl.models.evaluation.scoring.ranking import auroc
from cliprl.models.evaluation.study_command import write_result
from cliprl.models.network.network import ClipSegmenter
from cliprl.models.network.text import class_embeddings
from cliprl.models.training.callbacks import ProgressDisplay
from cliprl.models.training.checkpoint import CheckpointWriter, run_stage
from cliprl.models.training.stages.contrastive import Contrastive
from cliprl.models.training.stages.grounding import CaptionedLabels, Grounded
from cliprl.models.training.start import start_network
from cliprl.pipeline.synthetic import SCENE_CLASSES

# Words that no caption of a scene and no prompt has: what any unknown word would get.
UNKNOWN = ("a zebra", "a guitar", "a yellow bicycle", "a wooden chair")
TEXT_SCORES = ("IoU", "AUC", "IoU of unknown words", "AUC of unknown words", "IoU of everything")
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True, slots=True)
class Question:
    """The class whose masks are left out, the words that name it afterwards, and the weight of the captions' loss."""

    left_out: ClassSpec
    prompt: str
    weight: float

    @property
    def kept(self) -> tuple[ClassSpec, ...]:
        """The classes whose masks are trained on."""
        return tuple(spec for spec in SCENE_CLASSES if spec != self.left_out)

    def new_words(self) -> list[str]:
        """The prompt's words that no prompt of a kept class has. Raises UsageError where there is none."""
        known = set(
            " ".join(" ".join((spec.name, *spec.prompts)) for spec in self.kept).lower().replace("-", " ").split()
        )
        found = [word for word in self.prompt.lower().split() if word not in known]
        if not found:
            raise UsageError(f"every word of '{self.prompt}' is in a kept class's prompts: give --prompt a new word")
        return found


@app.command()
def study(
    out: Annotated[Path, typer.Option(help="Folder for scenes, checkpoints and the table.")] = Path("runs/text"),
    seed: Annotated[list[int] | None, typer.Option(help="May be repeated.")] = None,
    left_out: Annotated[str, typer.Option("--class", help="The class that is left out.")] = "ultrasound-probe",
    prompt: Annotated[str, typer.Option(help="The words that name it.")] = "an ultrasound probe",
    weight: Annotated[float, typer.Option(min=0, help="Of the captions' loss; 0: the contrastive stage alone.")] = 1.0,
    recipe: Annotated[str, typer.Option(help="A recipe; rendered scenes are its only data.")] = "small",
    set_: Annotated[list[str] | None, typer.Option("--set", help="Change a setting: supervised.steps=10.")] = None,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print errors only.")] = False,
) -> None:
    """Train without one class's masks, a run a seed, name the class, and write the table."""
    chosen, question = load_recipe(recipe, set_ or ()), Question(_class(left_out), prompt, weight)
    question.new_words()
    rows = {}
    for number in seed or (0, 1, 2):
        with ProgressDisplay.open(quiet, prefix=f"seed {number}: ") as display:
            folder = out / f"seed-{number}-weight-{weight:g}-{left_out}"
            rows[number] = run_seed(replace(chosen, seed=number), question, folder, display)
    write_tables(out, chosen, question, rows)
    typer.echo(str(out / "study.md"))


def _class(name: str) -> ClassSpec:
    found = [spec for spec in SCENE_CLASSES[1:] if spec.name == name]
    if not found:
        raise UsageError(f"no class '{name}' to leave out: {', '.join(spec.name for spec in SCENE_CLASSES[1:])}")
    return found[0]


def run_seed(recipe: Recipe, question: Question, folder: Path, display: ProgressDisplay) -> dict[str, float]:
    """Train one network and score it; returns each of MEASURES."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"'{folder}' can't be made ({error.strerror}): give another --out") from error
    data = recipe.data
    cache = Path(data.cache) if data.cache else folder.parent / "scenes"

    def scenes(first: int, count: int) -> RenderedScenes:
        return RenderedScenes(
            RenderedSpec(first, count, data.frames, data.height, data.width), cache, data.workers, display.on_scene
        )

    train, unseen = scenes(data.first_seed, data.scenes), scenes(data.first_seed + data.scenes, recipe.scoring.scenes)
    torch.manual_seed(recipe.seed)
    network = start_network(recipe.network).to(memory_format=torch.channels_last)
    checkpoints = CheckpointWriter(folder, recipe.save_every, checkpoint_settings(recipe, "supervised"))
    run_stage(Contrastive(network, [train], recipe), checkpoints, display.on_step)
    captioned = CaptionedLabels(train, with_classes(train, question.kept, (question.left_out.name,)))
    run_stage(Grounded(network, captioned, recipe, question.weight), checkpoints, display.on_step)
    return score_prompts(network.eval(), unseen, question, recipe.scoring.every)


@torch.no_grad()
def score_prompts(network: ClipSegmenter, unseen: RenderedScenes, question: Question, every: int) -> dict[str, float]:
    """Prompt for the class, and for unknown words, on scenes that were not trained on; cells of stride 4, all pooled."""
    named = [ClassSpec(phrase, (0, 0, 0), "prompted", (phrase,)) for phrase in (question.prompt, *UNKNOWN)]
    text, number = class_embeddings(network, [*question.kept, *named]), SCENE_CLASSES.index(question.left_out)
    truths, odds = [], []
    for index in range(0, len(unseen), every):
        sample = unseen[index]
        height, width = network.size
        image = cv2.resize(sample.image, (width, height), interpolation=cv2.INTER_AREA)
        logits = network(torch.from_numpy(image[None]), text)[1][0]
        kept, words = logits.split([len(question.kept), len(named)])
        # Of an own class, the chance of a word would hang on which other words were asked about.
        odds.append((words - kept.amax(0)).flatten(1).numpy())
        cells = cv2.resize(sample.labels, logits.shape[:0:-1], interpolation=cv2.INTER_NEAREST)
        truths.append(cells.ravel() == number)
    return _measures(np.concatenate(odds, 1), np.concatenate(truths))


def _measures(odds: NDArray[np.float32], truth: NDArray[np.bool_]) -> dict[str, float]:
    """odds (1 + UNKNOWN, n) of each word against the best kept class; truth (n,)."""
    if truth.all() or not truth.any():
        raise UsageError("the scored scenes show nothing of the class: raise scoring.scenes")
    ious, aucs = zip(*((iou(row > 0, truth), auroc(row[truth], row[~truth]) or 0.0) for row in odds), strict=True)
    values = (ious[0], aucs[0], float(np.mean(ious[1:])), float(np.mean(aucs[1:])), float(truth.mean()))
    return dict(zip(TEXT_SCORES, values, strict=True))


def iou(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Intersection over union of two masks (n,), of which one is not empty."""
    return float((found & truth).sum() / (found | truth).sum())


def write_tables(folder: Path, recipe: Recipe, question: Question, rows: dict[int, dict[str, float]]) -> None:
    """The table, as Markdown and as JSON."""
    result = {
        "left out": question.left_out.name,
        "prompt": question.prompt,
        "words in no kept class's prompts": question.new_words(),
        "weight of the captions' loss": question.weight,
        "steps": {"contrastive": recipe.contrastive.steps, "supervised": recipe.supervised.steps},
        "scenes": {"trained on": recipe.data.scenes, "scored": recipe.scoring.scenes},
        "unknown words": list(UNKNOWN),
        "seeds": rows,
    }
    write_result(folder / "study.json", json.dumps(result, indent=1))
    write_result(folder / "study.md", format_table(question, recipe, rows))


def format_table(question: Question, recipe: Recipe, rows: dict[int, dict[str, float]]) -> str:
    """A line a seed; chance is 0.5 for an AUC, and the IoU of everything for an IoU."""
    head = (
        f"Masks of '{question.left_out.name}' left out ({recipe.supervised.steps} steps, captions' loss x {question.weight:g}); "
        f"named '{question.prompt}' on {recipe.scoring.scenes} rendered scenes with seeds not trained on."
    )
    means = {name: float(np.mean([row[name] for row in rows.values()])) for name in TEXT_SCORES}
    every = {str(number): row for number, row in rows.items()} | {"mean": means}
    lines = [[title, *(f"{row[name]:.3f}" for name in TEXT_SCORES)] for title, row in every.items()]
    return f"{head}\n\n{markdown_table(['seed', *TEXT_SCORES], lines)}"


if __name__ == "__main__":
    raise SystemExit(run_app(app, "python -m cliprl.models.studies.text_study"))
