"""Refiner study: one base with several refiners, on clean and on corrupted frames.

    python -m cliprl.models.studies.refiner_study --set data.root=FOLDER --out runs/refiner --seed 0 --seed 1 --seed 2

FOLDER/endovis2015/robotic/D1 trains, D2 is scored; with --recipe refiner-rendered, scenes that are drawn. All arms of a seed
have the same parameters, learn from the same batches for the same steps, and are scored on the pipeline's own path, prior and
all. Writes study.md and study.json. The base, finished arms and their scores are kept: an interrupted study resumes, and
seeds may run in separate processes once the base exists; a last run that names all seeds combines them.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor

from cliprl.engines import UsageError
from cliprl.engines.cli.cli_runner import run_app
from cliprl.models.config.config import Recipe
from cliprl.models.config.load import checkpoint_settings, load_recipe
from cliprl.models.network.network import ClipSegmenter
from cliprl.models.network.refiner import RefinerNetwork
from cliprl.models.network.text import class_embeddings
from cliprl.models.studies.refiner_scores import EncodedFrame, Tally, load_or_score
from cliprl.models.studies.refiner_tables import write_tables
from cliprl.models.studies.refiner_variants import (
    VARIANTS,
    RefinementStep,
    RefinerVariant,
    observe_batches,
    train_variant,
)
from cliprl.models.training.callbacks import ProgressDisplay
from cliprl.models.training.checkpoint import CheckpointWriter, save_checkpoint
from cliprl.models.training.run_datasets import RunDatasets, open_run_datasets
from cliprl.models.training.stages.reinforcement import Reinforcement
from cliprl.models.training.start import start_network
from cliprl.models.training.training import TrainingRun, log_steps, train_base

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def study(
    out: Annotated[Path, typer.Option(help="Folder for the base, the arms and the tables.")] = Path("runs/refiner"),
    seed: Annotated[list[int] | None, typer.Option(help="May be repeated.")] = None,
    recipe: Annotated[str, typer.Option(help="A recipe; each of its data.test is a column.")] = "refiner",
    set_: Annotated[list[str] | None, typer.Option("--set", help="Change a setting: reinforcement.steps=10.")] = None,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print errors only.")] = False,
) -> None:
    """Train the base once and every arm for each seed, score them, and write the tables."""
    chosen = load_recipe(recipe, set_ or ())
    tallies: dict[str, list[list[Tally]]] = {arm.name: [] for arm in VARIANTS}
    with ProgressDisplay.open(quiet) as display:
        out.mkdir(parents=True, exist_ok=True)
        sets = open_run_datasets(chosen, out, display.on_scene)
        if not sets.tests:
            raise UsageError("the recipe has no data.test: name a set to score on")
        network = load_or_train_base(chosen, out, sets, display)
        with torch.no_grad():
            text = class_embeddings(network, sets.classes)
        encoded = EncodedFrame(network)
        for number in seed or (0, 1, 2):
            run = SeedRun(replace(chosen, seed=number), out, sets, network, text)
            for arm, refiner in run.arms(display):
                tallies[arm.name].append(
                    load_or_score(run.scores(arm), RefinementStep(arm, refiner), encoded, sets, chosen)
                )
            write_tables(out, chosen, sets, tallies)
    typer.echo(str(out / "study.md"))


def load_or_train_base(recipe: Recipe, out: Path, sets: RunDatasets, display: ProgressDisplay) -> ClipSegmenter:
    """The base, trained or read from its checkpoint."""
    torch.manual_seed(recipe.seed)
    network = start_network(recipe.network).to(memory_format=torch.channels_last)
    with log_steps(recipe, out, display) as report:
        train_base(network, TrainingRun(recipe, out, sets, report))
    return network.eval()


class SeedRun:
    """The refiners of one seed, trained or read from their checkpoints."""

    def __init__(self, recipe: Recipe, out: Path, sets: RunDatasets, network: ClipSegmenter, text: Tensor) -> None:
        self.recipe, self.sets, self.network, self.text = recipe, sets, network, text
        self.checkpoints = CheckpointWriter(out, settings=checkpoint_settings(recipe, Reinforcement.name))

    def arms(self, display: ProgressDisplay) -> list[tuple[RefinerVariant, RefinerNetwork]]:
        """All arms; the base is the same for every seed."""
        missing = [arm for arm in VARIANTS if arm.learns and self.checkpoints.read(self._name(arm)) is None]
        if missing:
            self._train(missing, display)
        return [(arm, self._read(arm)) for arm in VARIANTS]

    def scores(self, arm: RefinerVariant) -> Path:
        """Return the score file of an arm; arms without training share one for all seeds."""
        name = self._name(arm) if arm.learns else arm.name.replace(" ", "-")
        return self.checkpoints.folder / f"{name}.scores"

    def _name(self, arm: RefinerVariant) -> str:
        return f"{arm.name.replace(',', '').replace(' ', '-')}-{self.recipe.seed}"

    def _fresh(self, arm: RefinerVariant) -> RefinerNetwork:
        torch.manual_seed(self.recipe.seed if arm.learns else 0)
        refiner = RefinerNetwork.beside(
            self.network, self.recipe.network.policy, len(self.sets.classes), self.recipe.reinforcement
        )
        refiner.learn_concepts(self.text)
        return refiner

    def _read(self, arm: RefinerVariant) -> RefinerNetwork:
        refiner = self._fresh(arm)
        state = self.checkpoints.read(self._name(arm)) if arm.learns else None
        if state:
            refiner.load_state_dict(state["refiner"])
        return refiner.eval()

    def _train(self, missing: list[RefinerVariant], display: ProgressDisplay) -> None:
        steps, batches = self.recipe.reinforcement.steps, []
        for seen in observe_batches(self.network, self.sets.policy, self.text, self.recipe):
            batches.append(seen)
            display.on_progress(f"seed {self.recipe.seed}: seen", len(batches), steps)
        for arm in missing:
            progress = partial(display.on_progress, f"seed {self.recipe.seed}: {arm.name}", total=steps)
            refiner = train_variant(arm, self._fresh(arm), batches, self.text, self.sets.classes, self.recipe, progress)
            state = {"done": steps, "settings": dict(self.checkpoints.settings), "refiner": refiner.state_dict()}
            save_checkpoint(self.checkpoints.path(self._name(arm)), state)


if __name__ == "__main__":
    raise SystemExit(run_app(app, "python -m cliprl.models.studies.refiner_study"))
