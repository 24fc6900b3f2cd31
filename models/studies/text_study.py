"""Can classes be segmented that had no masks, only words in captions? All of them are left out of the labels at once.

    python -m cliprl.models.studies.text_study --out runs/text --seed 0

The texts of all classes are separated and frozen. A network learns the masks of the other classes on rendered scenes whose
captions name none of those left out. In scenes whose captions name one of these it finds what the labels deny
(`words/denied_labels.py`), which clean-up and GrabCut make masks of; one network goes on with all of them in rounds, and is
scored on scenes with other seeds, beside words that no caption has. A run that was cut off goes on. Writes study.md and
study.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from cliprl.engines import explained
from cliprl.engines.cli.cli_runner import run_app
from cliprl.models.config.config import Recipe
from cliprl.models.config.load import checkpoint_settings, load_recipe
from cliprl.models.data.batch_loader import Mixture
from cliprl.models.data.sample import Image
from cliprl.models.evaluation.scoring.markdown import markdown_table
from cliprl.models.evaluation.study_command import write_result
from cliprl.models.network.network import ClipSegmenter
from cliprl.models.network.text import class_embeddings
from cliprl.models.studies.words.class_texts import freeze_texts, separate_texts
from cliprl.models.studies.words.denied_labels import (
    MASK_STAGES,
    denied_labels,
    denied_saliency,
    mask_stages,
    pseudo_labels,
    region_mask,
)
from cliprl.models.studies.words.named_scenes import (
    NamedClass,
    RelabelledScenes,
    labels_without,
    named_class,
    open_scenes,
)
from cliprl.models.studies.words.region_classes import ViewSegmenter
from cliprl.models.studies.words.word_scores import UNKNOWN_WORDS, dice, grid_logits, score_named
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
# Share of a batch with the scenes whose captions name a left-out class; the classes have equal parts of it.
NAMED_SHARE = 0.6
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
            for name, row in run.rows().items():
                rows.setdefault(name, {})[number] = row
            write_tables(out, chosen, weak_steps, named, rows)
    typer.echo(str(out / "study.md"))


class StudyRun:
    """All trainings of one seed, in `folder`."""

    def __init__(
        self, recipe: Recipe, left_out: Sequence[NamedClass], folder: Path, weak_steps: int, display: ProgressDisplay
    ) -> None:
        self.recipe, self.folder, self.display = recipe, folder, display
        scenes = open_scenes(recipe, left_out, folder.parent, display)
        self.train, self.unseen, self.plain, self.named = scenes.train, scenes.unseen, scenes.plain, scenes.named
        self.left_out, self.numbers = left_out, scenes.numbers
        self.known, self.classes = scenes.known, scenes.classes
        self.start = self._train_start()
        self.weak = replace(recipe, supervised=replace(recipe.supervised, steps=weak_steps, dice=WEAK_DICE))

    def _made(self, name: str) -> Path:
        path = self.folder / name
        with explained(f"'{path}' can't be made", "give another --out"):
            path.mkdir(parents=True, exist_ok=True)
        return path

    def _train_start(self) -> ClipSegmenter:
        """Train the masks of the known classes on the scenes whose captions name none of the others."""
        recipe, codes = self.recipe, np.zeros(256, np.uint8)
        codes[[SCENE_CLASSES.index(spec) for spec in self.known]] = np.arange(len(self.known))
        data = RelabelledScenes(self.train, self.plain, self.known, lambda _, labels: codes[labels])
        torch.manual_seed(recipe.seed)
        network = start_network(recipe.network).to(memory_format=torch.channels_last)
        writer = CheckpointWriter(self._made("start"), recipe.save_every, checkpoint_settings(recipe, "supervised"))
        run_stage(Contrastive(network, [self.train], recipe), writer, self.display.on_step)
        freeze_texts(separate_texts(network, self.classes, recipe.seed))
        mixture = Mixture([data], [1.0], recipe.data.variety)
        run_stage(Supervised(network, mixture, self.known, recipe), writer, self.display.on_step)
        return network.eval()

    def rows(self) -> dict[str, dict[str, float]]:
        """Return the value of each of TEXT_SCORES for each class by name."""
        first = [self._first_labels(one, scenes) for one, scenes in zip(self.left_out, self.named, strict=True)]
        labels, scores = [found for found, _ in first], [dices for _, dices in first]
        for number in range(1, self.weak.weak.rounds + 1):
            snapshots = self._train_round(labels, number)
            if number == 1:
                ensemble = SnapshotEnsemble(snapshots, self.classes, self.weak)
                relabelled = [self._relabel(*pair, ensemble) for pair in zip(self.left_out, self.named, strict=True)]
                labels = [found for found, _ in relabelled]
                scores = [row | {"weak": weak} for row, (_, weak) in zip(scores, relabelled, strict=True)]
        network = ClipSegmenter(replace(self.recipe.network, weights=""))
        network.load_state_dict(read_checkpoint(snapshots[0])["network"])
        sides = [
            score_named(ViewSegmenter(one, (), classes), self.unseen, classes, self.left_out, self.known)
            for one, classes in ((self.start, self.known), (network, self.classes))
        ]
        rows = {}
        for one, row, before, after in zip(self.left_out, scores, *sides, strict=True):
            values = row | after | {"others before": before["others"], "others after": after["others"]}
            rows[one.left_out.name] = {name: values[name] for name in TEXT_SCORES}
        return rows

    def _first_labels(self, one: NamedClass, named: Sequence[int]) -> tuple[dict[int, Image], dict[str, float]]:
        """Return the pseudo-labels of the scenes that name the class, and the Dice of the masks of each stage there."""
        labels: dict[int, Image] = {}
        dices: dict[str, list[float]] = {name: [] for name in MASK_STAGES}
        text = class_embeddings(self.start, self.known)
        for done, index in enumerate(named, 1):
            sample = self.train[index]
            drawn = labels_without(sample.labels, self.numbers)
            logits = grid_logits(self.start, sample.image, text)
            saliency = denied_saliency(logits, self.known, one.left_out.kind, drawn == 0)
            measured = mask_stages(saliency, sample.image, drawn == 0) if done % MEASURED_EACH == 0 else {}
            region = measured["region"] if measured else region_mask(saliency, sample.image, drawn == 0)
            labels[index] = pseudo_labels(drawn, one.number, saliency, region)
            for name, mask in measured.items():
                dices[name].append(dice(mask, sample.labels == one.number))
            self.display.on_score(done, len(named))
        return labels, {name: float(np.nanmean(values)) for name, values in dices.items()}

    def _train_round(self, labels: Sequence[dict[int, Image]], number: int) -> list[Path]:
        """Train the network of the round before on the labels of each class by scene, and on scenes without these classes."""
        parts = [self._relabelled(one) for one in labels]
        without = RelabelledScenes(
            self.train, self.plain, self.classes, lambda _, drawn: labels_without(drawn, self.numbers)
        )
        shares = [*[NAMED_SHARE / len(parts)] * len(parts), 1 - NAMED_SHARE]
        mixture = Mixture([*parts, without], shares, self.recipe.data.variety)
        torch.manual_seed(self.recipe.seed)
        start = self._made(f"round-{number - 1}" if number > 1 else "start") / BASE_FILE
        recipe = replace(self.weak, network=replace(self.weak.network, start=str(start)))
        network = freeze_texts(start_network(recipe.network)).to(memory_format=torch.channels_last)

        def stage() -> Supervised:
            return Supervised(network, mixture, self.classes, recipe)

        return train_snapshots(network, {Supervised.name: stage}, recipe, self._made(f"round-{number}"), self.display)

    def _relabelled(self, labels: dict[int, Image]) -> RelabelledScenes:
        return RelabelledScenes(self.train, list(labels), self.classes, lambda index, _: labels[index])

    def _relabel(
        self, one: NamedClass, named: Sequence[int], ensemble: SnapshotEnsemble
    ) -> tuple[dict[int, Image], float]:
        """Return the labels of the ensemble where the annotator's are background, and the Dice of their masks."""
        labels: dict[int, Image] = {}
        dices = []
        for done, index in enumerate(named, 1):
            if self.weak.weak.rounds == 1 and done % MEASURED_EACH:
                continue
            sample = self.train[index]
            labels[index] = denied_labels(
                labels_without(sample.labels, self.numbers), ensemble(sample.image), self.classes, one.number
            )
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
    write_result(folder / "study.json", result)
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
