"""Leave-one-sequence-out study on the vocal-fold set: base and refined network beside a plain U-Net.

    python -m cliprl.models.studies.larynx_study FOLDER/vocalfolds --out runs/larynx

Every fold has a recipe (larynx.toml, trained on three sequences), a folder, and checkpoints: an interrupted
study resumes. Writes study.md and study.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cliprl.engines import UsageError
from cliprl.engines.cli.cli_runner import run_app
from cliprl.models.config.config import Recipe
from cliprl.models.config.load import checkpoint_settings, load_recipe
from cliprl.models.data.sets.vocalfolds import VOCALFOLD_CLASSES
from cliprl.models.data.splits import SPLITS
from cliprl.models.evaluation.manifest_scores import POOLED, count_pixels
from cliprl.models.evaluation.scoring.iou import DEFINITIONS
from cliprl.models.evaluation.scoring.markdown import format_score, markdown_table
from cliprl.models.evaluation.study_command import write_result
from cliprl.models.network.network import ClipSegmenter
from cliprl.models.network.unet import UNet, UNetStage, unet_predictor
from cliprl.models.training.callbacks import ProgressDisplay
from cliprl.models.training.checkpoint import CheckpointWriter, run_stage
from cliprl.models.training.run_datasets import open_run_datasets
from cliprl.models.training.start import start_network
from cliprl.models.training.training import train

SCORE = DEFINITIONS["dataset_miou_with_background"]
NETWORKS = ("U-Net", "base", "refined")
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def study(
    data: Annotated[Path, typer.Argument(help="The folder of the vocal-fold set: images/seqN, masks/seqN.")],
    out: Annotated[Path, typer.Option(help="Folder for checkpoints, bundles and the table.")] = Path("runs/larynx"),
    recipe: Annotated[str, typer.Option(help="A recipe; its data is replaced by each fold's.")] = "larynx",
    set_: Annotated[list[str] | None, typer.Option("--set", help="Change a setting: supervised.steps=10.")] = None,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print errors only.")] = False,
) -> None:
    """Train and score four folds of two networks, and write the table."""
    chosen = load_recipe(recipe, set_ or ())
    rows = {}
    for split in SPLITS["vocalfolds"]:
        line = f"vocalfolds:{data.resolve()}?split={split}"
        fold = replace(chosen, data=replace(chosen.data, train=(line,), policy=(), test=(line,)))
        with ProgressDisplay.open(quiet, prefix=f"{split} ") as display:
            rows[split.removeprefix("without-")] = run_fold(fold, out / split, display)
    write_tables(out, chosen, rows)
    typer.echo(str(out / "study.md"))


def run_fold(recipe: Recipe, folder: Path, display: ProgressDisplay) -> dict[str, float | None]:
    """Train both networks on three sequences; returns each one's score on the fourth."""
    bundle = train(recipe, folder, display)
    if bundle is None:
        raise UsageError("the study runs in one process: start it without torchrun")
    (entry,) = (e for title, e in bundle.manifest.scores.items() if title.endswith(SCORE.title))
    return {"U-Net": unet_score(recipe, folder, display)} | {side: entry[side][POOLED] for side in ("base", "refined")}


def unet_score(recipe: Recipe, folder: Path, display: ProgressDisplay) -> float:
    """Train the U-Net of a fold, from its checkpoint where there is one, and score it."""
    sets = open_run_datasets(recipe, folder, display.on_scene)
    network = start_network(recipe.network)
    torch.manual_seed(recipe.seed)  # the control's weights do not depend on the size of the base's decoder
    unet = UNet(network, recipe, len(sets.classes)).to(memory_format=torch.channels_last)
    stage = UNetStage(unet, sets.train, sets.classes, recipe)
    run_stage(
        stage, CheckpointWriter(folder, recipe.save_every, checkpoint_settings(recipe, "supervised")), display.on_step
    )
    predictor = unet_predictor(unet, sets.classes, recipe.network.height, recipe.network.width)
    (test,) = sets.tests
    return SCORE.metric(count_pixels(predictor, test, recipe.scoring.every, lambda: None)).value()


def multiply_adds(recipe: Recipe) -> dict[str, float]:
    """Return the billions of multiply-adds of a frame, for both networks."""
    size, count = recipe.network, len(VOCALFOLD_CLASSES)
    network = ClipSegmenter(replace(size, weights="", start=""))
    image, text = torch.zeros(1, size.height, size.width, 3, dtype=torch.uint8), torch.zeros(count, network.channels[1])
    return {"U-Net": _multiply_adds(UNet(network, recipe, count), image), "base": _multiply_adds(network, image, text)}


@torch.no_grad()
def _multiply_adds(network: nn.Module, *inputs: torch.Tensor) -> float:
    counter = FlopCounterMode(display=False)
    with counter:
        network.eval()(*inputs)
    return round(counter.get_total_flops() / 2e9, 2)


def write_tables(folder: Path, recipe: Recipe, rows: Mapping[str, Mapping[str, float | None]]) -> None:
    """The table, as Markdown and as JSON."""
    means = {name: sum(row[name] or 0.0 for row in rows.values()) / len(rows) for name in NETWORKS}
    result: dict[str, Any] = {
        "score": f"{SCORE.title}: {SCORE.rule}",
        "steps": {"supervised": recipe.supervised.steps, "reinforcement": recipe.reinforcement.steps},
        "batch": recipe.supervised.batch,
        "seed": recipe.seed,
        "billions of multiply-adds a frame": multiply_adds(recipe),
        "sequences": rows,
        "mean over sequences": means,
    }
    write_result(folder / "study.json", result)
    write_result(folder / "study.md", format_table(result, rows, means))


def format_table(
    result: Mapping[str, Any], rows: Mapping[str, Mapping[str, float | None]], means: Mapping[str, float | None]
) -> str:
    """The scores, a line a sequence that was left out of the training."""
    lines = [[name, *(format_score(row[n]) for n in NETWORKS)] for name, row in {**rows, "mean": means}.items()]
    head = f"{result['score']}. {result['steps']['supervised']} steps each, seed {result['seed']}."
    return f"{head}\n\n{markdown_table(['left out', *NETWORKS], lines)}"


if __name__ == "__main__":
    raise SystemExit(run_app(app, "python -m cliprl.models.studies.larynx_study"))
