"""Training on pseudo-labels in rounds: the networks of one round label the data of the next."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cliprl.engines import ClassSpec, UsageError
from cliprl.models.config.config import Recipe, WeakConfig
from cliprl.models.config.load import checkpoint_settings
from cliprl.models.data.dataset_spec import DatasetSpec
from cliprl.models.data.image_mask_dataset import ImageMaskDataset
from cliprl.models.data.registry import EVERY_NTH, SELECTIONS, DatasetContext, open_dataset
from cliprl.models.data.sample import IGNORE, Image
from cliprl.models.evaluation.torch_predictor import TorchPredictor
from cliprl.models.export.export import TrainedModel
from cliprl.models.labelling.pseudo_labels.folder import LabelFolder
from cliprl.models.network.network import ClipSegmenter
from cliprl.models.network.refiner import RefinerNetwork
from cliprl.models.training.callbacks import TrainingCallback
from cliprl.models.training.checkpoint import (
    CheckpointWriter,
    TrainingStage,
    read_checkpoint,
    run_stage,
    save_checkpoint,
)
from cliprl.models.training.parallel import first_process_first, process_rank
from cliprl.models.training.run_datasets import TRAIN_OPTIONS, open_run_datasets
from cliprl.models.training.stages.contrastive import Contrastive
from cliprl.models.training.stages.supervised import Supervised
from cliprl.models.training.start import start_network
from cliprl.pipeline.overlay.upsample import labels_at_frame

PSEUDO_KIND = "folder"


def relabelled_recipe(recipe: Recipe, folder: Path, callback: TrainingCallback, device: torch.device) -> Recipe:
    """Train all rounds but the last, and return the recipe with the labels that they made.

    Each round has the folder `folder`/round-N, in which an ended run goes on. Raises UsageError for a recipe without
    pseudo-labels.
    """
    if not any(DatasetSpec.parse(line).kind == PSEUDO_KIND for line in recipe.data.train):
        raise UsageError(
            "weak.rounds is above 1 without pseudo-labels: add folder:LABELS to data.train, or set weak.rounds=1"
        )
    if not 1 <= recipe.weak.snapshots <= 1 + (recipe.supervised.steps - 1) // max(1, recipe.weak.interval):
        raise UsageError(
            f"weak.snapshots is {recipe.weak.snapshots}, {recipe.weak.interval} steps apart: supervised.steps "
            f"{recipe.supervised.steps} has no room for them, or there is none"
        )
    first = recipe
    for number in range(1, recipe.weak.rounds):
        place = folder / f"round-{number}"
        place.mkdir(parents=True, exist_ok=True)
        snapshots, classes = train_round(recipe, place, callback, device)
        with first_process_first():
            lines = [
                # The name has the round: a checkpoint knows data by their names, and those of another round are others.
                relabel(line, snapshots, classes, first, place / f"labels-{number}-{index}", callback)
                if DatasetSpec.parse(line).kind == PSEUDO_KIND
                else line
                for index, line in enumerate(first.data.train)
            ]
        recipe = replace(recipe, data=replace(recipe.data, train=tuple(lines)))
    return recipe


def snapshot_steps(steps: int, weak: WeakConfig) -> list[int]:
    """Return the finished steps after which a network is kept, the last first."""
    return [steps - i * weak.interval for i in range(weak.snapshots)]


@dataclass(frozen=True, slots=True)
class _Snapshots:
    """Keeps the network at some steps of a stage."""

    network: ClipSegmenter
    folder: Path
    steps: Sequence[int]
    callback: TrainingCallback

    def path(self, step: int) -> Path:
        return self.folder / f"snapshot-{step}.pt"

    def __call__(self, stage: TrainingStage, done: int, losses: Any) -> None:
        self.callback.on_step(stage, done, losses)
        if stage.name == Supervised.name and done in self.steps and not process_rank():
            save_checkpoint(self.path(done), {"network": self.network.state_dict()})


def train_round(
    recipe: Recipe, folder: Path, callback: TrainingCallback, device: torch.device
) -> tuple[list[Path], tuple[ClassSpec, ...]]:
    """Train the base network of one round. Returns the files of its last networks, and the classes."""
    with first_process_first():
        sets = open_run_datasets(recipe, folder.parent, callback.on_scene)
    torch.manual_seed(recipe.seed)
    network = start_network(recipe.network).to(device).to(memory_format=torch.channels_last)
    # Each is made when the one before has ended: the supervised stage keeps the weights that it starts from.
    stages: dict[str, Callable[[], TrainingStage]] = {
        Contrastive.name: lambda: Contrastive(network, sets.captioned, recipe),
        Supervised.name: lambda: Supervised(network, sets.train, sets.classes, recipe),
    }
    return train_snapshots(network, stages, recipe, folder, callback), sets.classes


def train_snapshots(
    network: ClipSegmenter,
    stages: Mapping[str, Callable[[], TrainingStage]],
    recipe: Recipe,
    folder: Path,
    callback: TrainingCallback,
) -> list[Path]:
    """Train a network in `stages`, by name. Returns the files of its last moments in the supervised stage, the last first."""
    keep = _Snapshots(network, folder, snapshot_steps(recipe.supervised.steps, recipe.weak), callback)
    every = min(recipe.save_every, recipe.weak.interval)
    writers = {name: CheckpointWriter(folder, every, checkpoint_settings(recipe, name)) for name in stages}
    # The networks that are kept are of these steps: a round with others is another one.
    kept_steps = {"weak.snapshots": recipe.weak.snapshots, "weak.interval": recipe.weak.interval}
    last = writers[Supervised.name]
    writers[Supervised.name] = replace(last, settings={**last.settings, **kept_steps})
    # Read also where the round is finished: one with other settings is refused.
    kept = writers[Supervised.name].read(Supervised.name) and all(keep.path(step).is_file() for step in keep.steps)
    for name, make in () if kept else stages.items():
        run_stage(make(), writers[name], keep)
    return [keep.path(step) for step in keep.steps]


class SnapshotEnsemble:
    """Labels images by several networks; pixels on which they do not agree are unknown."""

    def __init__(self, snapshots: Sequence[Path], classes: Sequence[ClassSpec], recipe: Recipe) -> None:
        self._predictors: list[TorchPredictor] = []
        for path in snapshots:
            network = ClipSegmenter(replace(recipe.network, weights=""))
            network.load_state_dict(read_checkpoint(path)["network"])
            refiner = RefinerNetwork.beside(network.eval(), recipe.network.policy, len(classes), recipe.reinforcement)
            model = TrainedModel(network, refiner, classes, recipe.network.height, recipe.network.width, 0)
            self._predictors.append(TorchPredictor(model))

    def __call__(self, image: Image) -> NDArray[np.uint8]:
        """Return the labels of an image uint8 (H, W, 3): uint8 (H, W), 255 where the networks disagree."""
        found: list[NDArray[np.uint8]] = []
        for predictor in self._predictors:
            predictor.reset()
            found.append(labels_at_frame(predictor.segment(image), *image.shape[:2]))
        agreed = np.all([labels == found[0] for labels in found], axis=0)
        return np.where(agreed, found[0], IGNORE).astype(np.uint8)


def relabel(
    line: str,
    snapshots: Sequence[Path],
    classes: Sequence[ClassSpec],
    recipe: Recipe,
    out: Path,
    callback: TrainingCallback,
) -> str:
    """Label the images of a `folder:` set anew, and return the line of the new set. The first of several processes labels."""
    spec = DatasetSpec.parse(line)
    relabelled = _line(spec, str(out.resolve()), leave=(*SELECTIONS, EVERY_NTH))
    if process_rank():
        return relabelled
    context = DatasetContext(Path(recipe.data.root), "data.root")
    data = open_dataset(_line(spec, spec.path, leave=TRAIN_OPTIONS), "train", context)
    ensemble = SnapshotEnsemble(snapshots, classes, recipe)
    settings = {"snapshots": [path.name for path in snapshots], "round": out.parent.name, "set": spec.without_path()}
    consecutive = len(data) > 1 and data.clip(0) == data.clip(1)
    with LabelFolder(out, classes, settings, consecutive) as folder:
        for index in range(len(data)):
            name = f"{data.sequence(index)}/{index:06d}"
            if name not in folder.done:
                image = data[index].image
                labels = ensemble(image)
                file = data.pairs[index].image if isinstance(data, ImageMaskDataset) else None
                record = {
                    "file": None if file is None else str(file),
                    "unsure": round(float((labels == IGNORE).mean()), 6),
                }
                folder.add(name, file, image, labels, record)
            callback.on_score(index + 1, len(data))
    return relabelled


def _line(spec: DatasetSpec, path: str, leave: Sequence[str]) -> str:
    """Return a data set line with another path and without some options."""
    options = "&".join(f"{key}={value}" for key, value in spec.options.items() if key not in leave)
    return f"{spec.kind}:{path}" + (f"?{options}" if options else "")
