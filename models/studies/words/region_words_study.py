"""Does it help to decide the class of an instrument for its whole region, for classes that had no masks?

    python -m cliprl.models.studies.words.region_words_study --out runs/text --seed 0

Goes on with a finished text study, with the same options: regions of its last network in scenes whose captions name a left-out
class, and in some of the others, get a class from what the labels deny, and `region_classes.py` trains on views of them. With
--further N, so do regions in N more scenes, which the text study did not have.
Scored are the text study's network as it is, the same with the scenes at their own size, and this with the evidence of regions.
A run that was cut off goes on. Writes regions.md and regions.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer

from cliprl.engines import UsageError
from cliprl.engines.atomic_write import atomic_write
from cliprl.engines.cli.cli_runner import run_app
from cliprl.models.config.config import Recipe
from cliprl.models.config.load import checkpoint_settings, load_recipe
from cliprl.models.data.io import read_npz
from cliprl.models.data.sample import Image
from cliprl.models.evaluation.scoring.markdown import markdown_table
from cliprl.models.evaluation.study_command import QuietOption, write_result
from cliprl.models.network.network import ClipSegmenter
from cliprl.models.network.text import class_embeddings
from cliprl.models.studies.text_study import LEFT_OUT, TUNED_CLASS
from cliprl.models.studies.words.named_scenes import (
    NamedClass,
    WordScenes,
    further_scenes,
    labels_without,
    named_class,
    open_scenes,
)
from cliprl.models.studies.words.region_classes import RegionStage, ViewSegmenter, instrument_regions, region_code
from cliprl.models.studies.words.region_views import REGION_VIEWS, VIEW_SIDE, RegionViews
from cliprl.models.studies.words.word_scores import grid_logits, score_named
from cliprl.models.training.callbacks import ProgressDisplay
from cliprl.models.training.checkpoint import CheckpointWriter, read_checkpoint, run_stage
from cliprl.models.training.start import BASE_FILE

# Of the scenes whose captions name no left-out class, each n-th is used, of further scenes fewer; views are kept in files of 100.
PLAIN_EACH, FURTHER_PLAIN_EACH, KEPT_SCENES = 3, 15, 100
# Networks that look at regions, each at another view; the evidence is that of the mean of their embeddings.
REGION_NETWORKS = len(REGION_VIEWS)
REGION_SCORES = ("Dice", "IoU", "AUC", "unknown words", "others")
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def study(
    out: Annotated[Path, typer.Option(help="Folder of the text study.")] = Path("runs/text"),
    seed: Annotated[list[int] | None, typer.Option(help="May be repeated.")] = None,
    left_out: Annotated[list[str] | None, typer.Option("--class", help="As in the text study.")] = None,
    recipe: Annotated[str, typer.Option(help="As in the text study.")] = "small",
    set_: Annotated[list[str] | None, typer.Option("--set", help="As in the text study.")] = None,
    further: Annotated[int, typer.Option(min=0, help="Scenes with captions besides those of the text study.")] = 0,
    quiet: QuietOption = False,
) -> None:
    """Train on views of regions, score with and without them, and write the table."""
    chosen, named = load_recipe(recipe, set_ or ()), [named_class(text) for text in left_out or LEFT_OUT]
    rows: dict[str, dict[str, dict[int, dict[str, float]]]] = {}
    for number in seed or (0,):
        with ProgressDisplay.open(quiet, prefix=f"seed {number}: ") as display:
            own = replace(chosen, seed=number)
            for variant, name, row in region_rows(own, named, out / f"seed-{number}", further, display):
                rows.setdefault(variant, {}).setdefault(name, {})[number] = row
        result = {
            "left out": {one.left_out.name: one.prompt for one in named},
            "settings chosen on": TUNED_CLASS,
            "scenes": {
                "trained on": chosen.data.scenes,
                "regions of further": further,
                "scored": chosen.scoring.scenes,
            },
            "rows": rows,
        }
        write_result(out / "regions.json", result)
        write_result(out / "regions.md", format_regions(rows))
    typer.echo(str(out / "regions.md"))


def region_rows(
    recipe: Recipe, left_out: Sequence[NamedClass], folder: Path, further: int, display: ProgressDisplay
) -> list[tuple[str, str, dict[str, float]]]:
    """Return variant, class and scores of each row of one seed, whose text study lies in `folder`."""
    scenes = open_scenes(recipe, left_out, folder.parent, display)
    start = _network(recipe, folder / "start" / BASE_FILE)
    dense = _network(recipe, folder / f"round-{recipe.weak.rounds}" / BASE_FILE)
    size = (recipe.data.height, recipe.data.width)
    parts = [("views", scenes, PLAIN_EACH)]
    if further:
        more = further_scenes(scenes, further, recipe, left_out, folder.parent, display)
        parts.append((f"further-{further}", more, FURTHER_PLAIN_EACH))
    views = collect_views(dense, parts, size, folder, display)
    settings = checkpoint_settings(recipe, "supervised") | {"further": further}
    writer = CheckpointWriter(folder, recipe.save_every, settings)
    region_networks = [
        _network(recipe, folder / f"round-{recipe.weak.rounds}" / BASE_FILE) for _ in range(REGION_NETWORKS)
    ]
    for number, region_network in enumerate(region_networks):
        run_stage(
            RegionStage(region_network, views[number % len(views)], scenes.classes, scenes.numbers, recipe, number),
            writer,
            display.on_step,
        )
    names = [one.left_out.name for one in left_out]
    variants = {
        "start": ViewSegmenter(start, (), scenes.known, names, size),
        "network": ViewSegmenter(dense, (), scenes.classes, names),
        "scene's size": ViewSegmenter(dense, (), scenes.classes, names, size),
        "regions": ViewSegmenter(dense, region_networks, scenes.classes, names, size),
    }
    rows = []
    for variant, segmenter in variants.items():
        found = score_named(segmenter, scenes.unseen, segmenter.classes, left_out, scenes.known)
        for name, values in zip(names, found, strict=True):
            rows.append((variant, name, {score: values[score] for score in REGION_SCORES}))
        display.on_score(len(rows), len(variants) * len(left_out))
    return rows


def _network(recipe: Recipe, path: Path) -> ClipSegmenter:
    if not path.is_file():
        raise UsageError(
            f"'{path}' is missing: run the text study to its end first, with the same --out, --seed and --set"
        )
    network = ClipSegmenter(replace(recipe.network, weights=""))
    network.load_state_dict(read_checkpoint(path)["network"])
    return network.eval()


def collect_views(
    network: ClipSegmenter,
    parts: Sequence[tuple[str, WordScenes, int]],
    size: tuple[int, int],
    folder: Path,
    display: ProgressDisplay,
) -> list[RegionViews]:
    """Return the views of the regions in the scenes to train on, for each of REGION_VIEWS.

    Each part has a name, scenes, and which of its scenes without a left-out class are used: each n-th. The views of each
    KEPT_SCENES scenes are kept in `folder`.
    """
    found: list[list[Image]] = []
    for name, scenes, plain_each in parts:
        owner = {index: number for number, named in zip(scenes.numbers, scenes.named, strict=True) for index in named}
        indices = sorted([*owner, *scenes.plain[::plain_each]])
        for first in range(0, len(indices), KEPT_SCENES):
            path = folder / f"{name}-{first:05d}.npz"
            if not path.is_file():
                views = _views_of(network, scenes, size, indices[first : first + KEPT_SCENES], owner)
                with atomic_write(path) as file:
                    np.savez(file, **views)  # type: ignore[arg-type]
            found.append(list(read_npz(path, ("images", "masks", "codes"))))
            display.on_progress(f"{name} of regions", min(first + KEPT_SCENES, len(indices)), len(indices))
    images, masks, codes = (np.concatenate(part) for part in zip(*found, strict=True))
    return [RegionViews(images[:, place], masks[:, place] > 0, codes) for place in range(len(REGION_VIEWS))]


def _views_of(
    network: ClipSegmenter, scenes: WordScenes, size: tuple[int, int], indices: Sequence[int], owner: Mapping[int, int]
) -> dict[str, Image]:
    text = class_embeddings(network, scenes.classes).detach()
    views, codes = [], []
    for index in indices:
        sample = scenes.train[index]
        numbers = instrument_regions(grid_logits(network, sample.image, text, size), scenes.classes)
        labels = labels_without(sample.labels, scenes.numbers)
        drawn = np.asarray(cv2.resize(labels, numbers.shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)
        for number in range(1, int(numbers.max()) + 1):
            views.append([view(sample.image, numbers == number) for view in REGION_VIEWS])
            codes.append(region_code(drawn[numbers == number], owner.get(index), scenes.classes))
    shape = -1, len(REGION_VIEWS), VIEW_SIDE, VIEW_SIDE
    return {
        "images": np.array([[image for image, _ in pair] for pair in views], np.uint8).reshape(*shape, 3),
        "masks": np.array([[mask for _, mask in pair] for pair in views], np.uint8).reshape(shape),
        "codes": np.array(codes, np.uint8),
    }


def format_regions(rows: Mapping[str, Mapping[str, Mapping[int, Mapping[str, float]]]]) -> str:
    """Return a table with a line for each variant, class and seed."""
    lines = [
        [variant, name, str(seed), *(f"{row[column]:.3f}" for column in REGION_SCORES)]
        for variant, classes in rows.items()
        for name, seeds in classes.items()
        for seed, row in seeds.items()
    ]
    return markdown_table(["variant", "class", "seed", *REGION_SCORES], lines)


if __name__ == "__main__":
    raise SystemExit(run_app(app, "region_words_study"))
