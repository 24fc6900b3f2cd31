"""Train a recipe to a sealed bundle."""

from __future__ import annotations

import datetime
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch.utils.tensorboard import SummaryWriter

from cliprl.engines import Bundle, CliprlError, Manifest, UsageError, add_reference, explained, open_bundle, seal_bundle
from cliprl.engines.atomic_write import replace_folder
from cliprl.engines.bundle.schema import check_manifest
from cliprl.models.config.config import Recipe
from cliprl.models.config.load import check_recipe, checkpoint_settings
from cliprl.models.data.dataset_spec import DatasetSpec
from cliprl.models.data.registry import dataset_kind, portable_lines
from cliprl.models.data.sample import Image
from cliprl.models.data.sets import vocalfolds
from cliprl.models.evaluation.manifest_scores import score_bundle
from cliprl.models.export.export import GRID_STRIDE, TrainedModel, export_bundle
from cliprl.models.export.placement import SOURCE_HASH, check_place_of_bundle, exported_bundle, source_hash
from cliprl.models.export.probe_images import probe_images
from cliprl.models.network.network import ClipSegmenter
from cliprl.models.network.refiner import RefinerNetwork
from cliprl.models.network.weights import describe_start
from cliprl.models.training.callbacks import TrainingCallback
from cliprl.models.training.checkpoint import CheckpointWriter, StepCallback, TrainingStage, run_stage
from cliprl.models.training.parallel import cpu_has_bf16, first_process_first, process_rank
from cliprl.models.training.run_datasets import RunDatasets, open_run_datasets
from cliprl.models.training.stages.contrastive import Contrastive
from cliprl.models.training.stages.reinforcement import Reinforcement
from cliprl.models.training.stages.supervised import Supervised
from cliprl.models.training.start import describe_base, find_base, start_network
from cliprl.models.training.throughput import Throughput, ThroughputMeter
from cliprl.pipeline.sinks.partial_names import try_lock

BUNDLE, LOGS = "bundle", "logs"
CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """The shared parts of a run's stages: the recipe, the folder, the data, and the step callback."""

    recipe: Recipe
    folder: Path
    sets: RunDatasets
    report: StepCallback

    def stage(self, stage: TrainingStage) -> None:
        """Train one stage to its end."""
        run_stage(stage, self.checkpoints(stage.name), self.report)

    def checkpoints(self, stage: str) -> CheckpointWriter:
        """Return the checkpoint writer of a stage."""
        return CheckpointWriter(self.folder, self.recipe.save_every, checkpoint_settings(self.recipe, stage))


def train(recipe: Recipe, folder: Path, callback: TrainingCallback, device: torch.device = CPU) -> Bundle | None:
    """Run every stage of `recipe` in `folder`, from its checkpoint if there is one, and write `folder`/bundle.

    Only the first of several processes writes and returns the bundle. Raises UsageError and CliprlError as the parts do.
    """
    # Checked before scenes are rendered.
    check_recipe(recipe)
    if recipe.network.start:
        find_base(recipe.network.start)
    with _run_folder(folder):
        return _train(recipe, folder, callback, device)


def _train(recipe: Recipe, folder: Path, callback: TrainingCallback, device: torch.device) -> Bundle | None:
    if recipe.weak.rounds > 1:
        from cliprl.models.training.weak_rounds import relabelled_recipe

        recipe = relabelled_recipe(recipe, folder, callback, device)
    with first_process_first():
        sets = open_run_datasets(recipe, folder, callback.on_scene)
    size, steps = recipe.network, recipe.curriculum.reinforcement.unroll[1]
    # A bundle that could not be sealed is refused now, not after the training.
    check_manifest(Manifest(recipe.name, sets.classes, size.height, size.width, GRID_STRIDE, steps).to_json())
    if recipe.precision == "bf16" and device.type == "cpu" and not cpu_has_bf16():
        callback.on_note("This processor has no bf16 instructions: training in f32.")
    torch.manual_seed(recipe.seed)
    network = start_network(recipe.network).to(device).to(memory_format=torch.channels_last)
    refiner = RefinerNetwork.beside(network, recipe.network.policy, len(sets.classes), recipe.reinforcement).to(device)
    with log_steps(recipe, folder, callback) as report:
        run = TrainingRun(recipe, folder, sets, report)
        train_base(network, run)
        run.stage(Reinforcement(network, refiner, sets.policy, sets.classes, recipe))
    return None if process_rank() else _finish(network.to(CPU), refiner.to(CPU), run, callback)


@contextmanager
def log_steps(recipe: Recipe, folder: Path, callback: TrainingCallback) -> Iterator[StepCallback]:
    """Yield a step callback that updates the display and the log. It does nothing in all processes but the first."""
    if process_rank():
        yield lambda stage, done, losses: None
        return
    pacer = ThroughputMeter()
    with closing(TensorboardLog(folder / LOGS, recipe.draw_every)) as log:

        def report(stage: TrainingStage, done: int, losses: Mapping[str, float]) -> None:
            step, whole = pacer.after(stage, done) or (None, None)
            callback.on_step(stage, done, losses)
            log.report(stage, done, losses, step)
            if whole and done == stage.steps:
                callback.on_stage_end(stage, whole)

        yield report


def _finish(network: ClipSegmenter, refiner: RefinerNetwork, run: TrainingRun, callback: TrainingCallback) -> Bundle:
    """Export the bundle with the reference outputs of the accuracy gate, score it, and seal it with its scores.

    A bundle that was exported from these weights before is only scored: a gate or a confidence may be sealed into it.
    """
    recipe, size = run.recipe, run.recipe.network
    model = TrainedModel(
        network, refiner, run.sets.classes, size.height, size.width, recipe.curriculum.reinforcement.unroll[1]
    )
    place, source = run.folder / BUNDLE, source_hash(model)
    bundle = exported_bundle(place, source)
    if bundle:
        return _scored(bundle, run, callback)
    check_place_of_bundle(place)
    made = run.folder / f".{BUNDLE}.partial"
    shutil.rmtree(made, ignore_errors=True)  # of a run that was killed
    bundle = export_bundle(model, made, recipe.name, {**training_provenance(recipe), SOURCE_HASH: source})
    _scored(add_reference(bundle, probe_images(size.height, size.width)), run, callback)
    with explained(f"'{place}' can't be written", f"the new bundle is '{made}'", CliprlError):
        replace_folder(made, place)
    return open_bundle(place)


def _scored(bundle: Bundle, run: TrainingRun, callback: TrainingCallback) -> Bundle:
    scores = score_bundle(bundle, run.sets.tests, run.recipe.scoring.every, callback.on_score)
    return seal_bundle(bundle.path, replace(bundle.manifest, scores=scores), bundle.embeddings)


@contextmanager
def _run_folder(folder: Path) -> Iterator[None]:
    """Make the folder of a run, and hold it: checkpoints of two runs would replace each other."""
    with explained(f"'{folder}' can't be made", "give --out a place that can be written"):
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    try:
        if not process_rank() and not try_lock(handle):
            raise UsageError(f"'{folder}' is being written by another run: wait for its end, or give another --out")
        if (folder / BUNDLE).is_file():
            raise UsageError(f"'{folder / BUNDLE}' is a file where the bundle goes: move it, or give another --out")
        yield
    finally:
        os.close(handle)


def train_base(network: ClipSegmenter, run: TrainingRun) -> None:
    """Train the contrastive and the supervised stage, or read the network if they are finished."""
    recipe, sets = run.recipe, run.sets
    state = run.checkpoints(Supervised.name).read(Supervised.name)
    if state and state["done"] >= recipe.supervised.steps:
        network.load_state_dict(state["network"])
        return
    run.stage(Contrastive(network, sets.captioned, recipe))
    run.stage(Supervised(network, sets.train, sets.classes, recipe))


def training_provenance(recipe: Recipe) -> Mapping[str, Any]:
    """Return the manifest's record of the training, without any path of this machine."""
    data, settings = recipe.data, asdict(recipe)
    lists = {key: portable_lines(settings["data"][key]) for key in ("train", "policy", "test")}
    named = {"root": "", "cache": "", "larynx": vocalfolds.NAME if data.larynx else "", **lists}
    settings["data"] |= named
    settings["network"] |= {key: Path(settings["network"][key]).name for key in ("tower", "weights", "start")}
    del settings["scoring"]
    return {
        "command": f"cliprl-train {recipe.name}" + (" --set data.larynx=FOLDER" if data.larynx else ""),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "data": _sources(recipe),
        "start": describe_base(recipe.network) or describe_start(recipe.network),
        "recipe": settings,
    }


def _sources(recipe: Recipe) -> list[Mapping[str, str]]:
    """Return the names and licences of the training data."""
    data = recipe.data
    kinds = [DatasetSpec.parse(text).kind for text in (*data.train, *data.policy)]
    if not kinds:
        kinds = ["rendered", *(["vocalfolds"] if data.larynx else [])]
    unknown = "see the set's own terms"
    return [dataset_kind(f"{kind}:").source or {"name": kind, "licence": unknown} for kind in dict.fromkeys(kinds)]


@runtime_checkable
class HasOptimizer(Protocol):
    """A stage with an optimizer."""

    optimizer: torch.optim.Optimizer


@runtime_checkable
class HasPreview(Protocol):
    """A stage with a preview image of its last batch."""

    def preview(self) -> Image | None:
        """Return frames beside their truth and their prediction, uint8 (H, W, 3) RGB; None before the first step."""


class TensorboardLog:
    """Writes event files to `folder`/STAGE; `tensorboard --logdir folder` shows them.

    Previews are logged every `draw_every` steps. If a stage resumes, later entries of the earlier run are hidden.
    """

    def __init__(self, folder: Path, draw_every: int) -> None:
        self.folder, self.draw_every = folder, max(1, draw_every)
        self._writers: dict[str, SummaryWriter] = {}

    def report(
        self, stage: TrainingStage, done: int, losses: Mapping[str, float], pace: Throughput | None = None
    ) -> None:
        """Log a step and, if known, its throughput."""
        writer = self._writers.get(stage.name)
        if writer is None:
            writer = self._writers[stage.name] = SummaryWriter(str(self.folder / stage.name), purge_step=done)
        if pace:
            writer.add_scalar("images per second", pace.images_per_second, done)
            writer.add_scalar("waiting for data", pace.waiting, done)
        for name, value in losses.items():
            writer.add_scalar(f"loss/{name}", value, done)
        if isinstance(stage, HasOptimizer):
            for number, group in enumerate(stage.optimizer.param_groups):
                writer.add_scalar(f"rate/{number}", group["lr"], done)
        if isinstance(stage, HasPreview) and (done % self.draw_every == 0 or done == stage.steps):
            image = stage.preview()
            if image is not None:
                writer.add_image("frame, truth, found", image, done, dataformats="HWC")

    def close(self) -> None:
        """Close the files."""
        for writer in self._writers.values():
            writer.close()
