"""Can a class be segmented that had no masks, only a word in captions? Each class is left out of the labels in turn.

    python -m cliprl.models.studies.text_study --out runs/text --seed 0

One network learns the masks of the other classes on rendered scenes whose captions name none of those left out. In scenes
whose captions name a class it finds what the labels deny (`words/denied_labels.py`), which clean-up and GrabCut make masks
of; a network trained on these in rounds is scored on scenes with other seeds, beside words that no caption has. A run that was
cut off goes on. Writes study.md and study.json.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from cliprl.engines import ClassSpec, UsageError
from cliprl.engines.cli.cli_runner import run_app
from cliprl.models.config.config import Recipe
from cliprl.models.config.load import checkpoint_settings, load_recipe
from cliprl.models.data.batch_loader import Mixture
from cliprl.models.data.sample import Image
from cliprl.models.data.sets.rendered import RenderedScenes, RenderedSpec
from cliprl.models.evaluation.scoring.markdown import markdown_table
from cliprl.models.evaluation.study_command import write_result
from cliprl.models.network.network import ClipSegmenter
from cliprl.models.network.text import class_embeddings
from cliprl.models.studies.words.class_texts import separate_texts
from cliprl.models.studies.words.denied_labels import (
    MASK_STAGES,
    denied_saliency,
    mask_stages,
    pseudo_labels,
    region_mask,
)
from cliprl.models.studies.words.named_scenes import NamedClass, RelabelledScenes, labels_without, named_class
from cliprl.models.studies.words.word_scores import UNKNOWN_WORDS, dice, grid_logits, score_word
from cliprl.models.training.callbacks import ProgressDisplay
from cliprl.models.training.checkpoint import CheckpointWriter, read_checkpoint, run_stage
from cliprl.models.training.stages.contrastive import Contrastive
from cliprl.models.training.stages.supervised import Supervised
from cliprl.models.training.start import BASE_FILE, start_network
from cliprl.models.training.weak_rounds import SnapshotEnsemble, train_snapshots
from cliprl.pipeline.synthetic import SCENE_CLASSES

# The classes that are left out, and their words in captions. All settings were chosen on the first one.
LEFT_OUT = ("suction-instrument=a suction tube", "ultrasound-probe=an ultrasound probe", "clamps=a clamp")
TUNED_CLASS = "suction-instrument"
# Share of a batch with scenes whose captions name the class.
NAMED_SHARE = 0.4
# Weight of the Dice loss on pseudo-labels: the class covers few pixels, and Dice weighs all classes alike.
WEAK_DICE = 2.0
# The stages are measured in each fourth scene whose caption names the class.
MEASURED_EACH = 4
TEXT_SCORES = (*MASK_STAGES, "weak", "Dice", "IoU", "AUC", "unknown words", "others before", "others after")
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def study(
    out: Annotated[Path, typer.Option(help="Folder for scenes, checkpoints and the table.")] = Path("runs/text"),
    seed: Annotated[list[int] | None, typer.Option(help="May be repeated.")] = None,
    left_out: Annotated[
        list[str] | None, typer.Option("--class", help="NAME=WORDS of a class that is left out; may be repeated.")
    ] = None,
    weak_steps: Annotated[int, typer.Option(min=1, help="Steps of each round on pseudo-labels.")] = 150,
    recipe: Annotated[str, typer.Option(help="A recipe; rendered scenes are its only data.")] = "small",
    set_: Annotated[list[str] | None, typer.Option("--set", help="Change a setting: supervised.steps=10.")] = None,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print errors only.")] = False,
) -> None:
    """Train without the masks of some classes, segment each by its word, and write the table."""
    chosen, named = load_recipe(recipe, set_ or ()), [named_class(text) for text in left_out or LEFT_OUT]
    rows: dict[str, dict[int, dict[str, float]]] = {}
    for number in seed or (0,):
        with ProgressDisplay.open(quiet, prefix=f"seed {number}: ") as display:
            run = StudyRun(replace(chosen, seed=number), named, out / f"seed-{number}", weak_steps, display)
            for one in named:
                rows.setdefault(one.left_out.name, {})[number] = run.row(one)
                write_tables(out, chosen, weak_steps, named, rows)
    typer.echo(str(out / "study.md"))


class StudyRun:
    """All trainings of one seed, in `folder`."""

    def __init__(
        self, recipe: Recipe, left_out: Sequence[NamedClass], folder: Path, weak_steps: int, display: ProgressDisplay
    ) -> None:
        self.recipe, self.folder, self.display = recipe, folder, display
        data = recipe.data
        cache = Path(data.cache) if data.cache else folder.parent / "scenes"

        def scenes(first: int, count: int) -> RenderedScenes:
            which = RenderedSpec(first, count, data.frames, data.height, data.width)
            return RenderedScenes(which, cache, data.workers, display.on_scene)

        self.train = scenes(data.first_seed, data.scenes)
        self.unseen = scenes(data.first_seed + data.scenes, recipe.scoring.scenes)
        self.captions = [self.train.caption(index) for index in range(len(self.train))]
        self.known = tuple(spec for spec in SCENE_CLASSES if all(spec != one.left_out for one in left_out))
        self.start = self._train_start(left_out)
        network = replace(recipe.network, start=str(self._made("start") / BASE_FILE))
        self.weak = replace(
            recipe, network=network, supervised=replace(recipe.supervised, steps=weak_steps, dice=WEAK_DICE)
        )

    def _made(self, name: str) -> Path:
        path = self.folder / name
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"'{path}' can't be made ({error.strerror}): give another --out") from error
        return path

    def _train_start(self, left_out: Sequence[NamedClass]) -> ClipSegmenter:
        """Train the masks of the known classes on the scenes whose captions name none of the others."""
        recipe, codes = self.recipe, np.zeros(256, np.uint8)
        codes[[SCENE_CLASSES.index(spec) for spec in self.known]] = np.arange(len(self.known))
        plain = [i for i, text in enumerate(self.captions) if not any(one.is_named(text) for one in left_out)]
        data = RelabelledScenes(self.train, plain, self.known, lambda _, labels: codes[labels])
        torch.manual_seed(recipe.seed)
        network = start_network(recipe.network).to(memory_format=torch.channels_last)
        writer = CheckpointWriter(self._made("start"), recipe.save_every, checkpoint_settings(recipe, "supervised"))
        run_stage(Contrastive(network, [self.train], recipe), writer, self.display.on_step)
        mixture = Mixture([data], [1.0], recipe.data.variety)
        run_stage(Supervised(network, mixture, self.known, recipe), writer, self.display.on_step)
        return network.eval()

    def row(self, one: NamedClass) -> dict[str, float]:
        """Return the value of each of TEXT_SCORES for a class."""
        named = [index for index, text in enumerate(self.captions) if one.is_named(text)]
        if not named:
            raise UsageError(f"no caption names '{one.prompt}': raise data.scenes")
        labels, scores = self._first_labels(one, named)
        classes = tuple(one.spec if spec == one.left_out else spec for spec in SCENE_CLASSES)
        for number in range(1, self.weak.weak.rounds + 1):
            snapshots = self._train_round(one, labels, classes, number)
            if number == 1:
                labels, found = self._relabel(one, named, SnapshotEnsemble(snapshots, classes, self.weak))
                scores["weak"] = found
        network = ClipSegmenter(replace(self.recipe.network, weights=""))
        network.load_state_dict(read_checkpoint(snapshots[0])["network"])
        before = score_word(self.start, self.unseen, self.known, one, self.known)
        after = score_word(network.eval(), self.unseen, classes, one, self.known)
        values = scores | after | {"others before": before["others"], "others after": after["others"]}
        return {name: values[name] for name in TEXT_SCORES}

    def _first_labels(self, one: NamedClass, named: Sequence[int]) -> tuple[dict[int, Image], dict[str, float]]:
        """Return the pseudo-labels of the scenes that name the class, and the Dice of the masks of each stage there."""
        labels: dict[int, Image] = {}
        dices: dict[str, list[float]] = {name: [] for name in MASK_STAGES}
        text = class_embeddings(self.start, self.known)
        for done, index in enumerate(named, 1):
            sample = self.train[index]
            drawn = labels_without(sample.labels, [one.number])
            logits = grid_logits(self.start, sample.image, text)
            saliency = denied_saliency(logits, self.known, one.left_out.kind, drawn == 0)
            measured = mask_stages(saliency, sample.image, drawn == 0) if done % MEASURED_EACH == 0 else {}
            region = measured["region"] if measured else region_mask(saliency, sample.image, drawn == 0)
            labels[index] = pseudo_labels(drawn, one.number, saliency, region)
            for name, mask in measured.items():
                dices[name].append(dice(mask, sample.labels == one.number))
            self.display.on_score(done, len(named))
        return labels, {name: float(np.nanmean(values)) for name, values in dices.items()}

    def _train_round(
        self, one: NamedClass, labels: Mapping[int, Image], classes: tuple[ClassSpec, ...], number: int
    ) -> list[Path]:
        """Train the network anew from the start on labels by scene; other scenes have none of the class."""
        others = [index for index in range(len(self.train)) if index not in labels]
        parts = [
            RelabelledScenes(self.train, list(labels), classes, lambda index, _: labels[index]),
            RelabelledScenes(self.train, others, classes, lambda _, drawn: labels_without(drawn, [one.number])),
        ]
        mixture = Mixture(parts, [NAMED_SHARE, 1 - NAMED_SHARE], self.recipe.data.variety)
        torch.manual_seed(self.recipe.seed)
        network = start_network(self.weak.network).to(memory_format=torch.channels_last)

        def stage() -> Supervised:
            return Supervised(separate_texts(network, classes, self.recipe.seed), mixture, classes, self.weak)

        place = self._made(f"{one.left_out.name}-{number}")
        return train_snapshots(network, {Supervised.name: stage}, self.weak, place, self.display)

    def _relabel(
        self, one: NamedClass, named: Sequence[int], ensemble: SnapshotEnsemble
    ) -> tuple[dict[int, Image], float]:
        """Return the labels of the ensemble where the annotator's are background, and the Dice of their masks."""
        labels: dict[int, Image] = {}
        dices = []
        for done, index in enumerate(named, 1):
            sample = self.train[index]
            drawn, found = labels_without(sample.labels, [one.number]), ensemble(sample.image)
            # Another class is denied by the label, so that the pixel is unknown.
            free = np.where(np.isin(found, (0, one.number)), found, 255)
            labels[index] = np.where(drawn == 0, free, drawn).astype(np.uint8)
            if done % MEASURED_EACH == 0:
                dices.append(dice(labels[index] == one.number, sample.labels == one.number))
            self.display.on_score(done, len(named))
        return labels, float(np.nanmean(dices))


def write_tables(
    folder: Path,
    recipe: Recipe,
    weak_steps: int,
    named: Sequence[NamedClass],
    rows: Mapping[str, Mapping[int, Mapping[str, float]]],
) -> None:
    """Write the table as Markdown and as JSON."""
    result = {
        "left out": {one.left_out.name: one.prompt for one in named},
        "settings chosen on": TUNED_CLASS,
        "steps": {
            "contrastive": recipe.contrastive.steps,
            "supervised": recipe.supervised.steps,
            f"weak, each of {recipe.weak.rounds} rounds": weak_steps,
        },
        "input size": f"{recipe.network.height}x{recipe.network.width}",
        "scenes": {"trained on": recipe.data.scenes, "scored": recipe.scoring.scenes},
        "unknown words": list(UNKNOWN_WORDS),
        "classes": rows,
    }
    write_result(folder / "study.json", json.dumps(result, indent=1))
    write_result(folder / "study.md", format_table(rows))


def format_table(rows: Mapping[str, Mapping[int, Mapping[str, float]]]) -> str:
    """Return a table with a line for each class and seed."""
    lines = [
        [name, str(seed), *(f"{row[column]:.3f}" for column in TEXT_SCORES)]
        for name, seeds in rows.items()
        for seed, row in seeds.items()
    ]
    return markdown_table(["class", "seed", *TEXT_SCORES], lines)


if __name__ == "__main__":
    raise SystemExit(run_app(app, "python -m cliprl.models.studies.text_study"))
