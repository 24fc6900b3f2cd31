"""Do the saliency methods find a concept that is planted in a tiny ViT, and does beta close the bottleneck?

    python -m cliprl.models.studies.planted_study --out runs/planted

The first channel of the ViT's patches is redness, and a reddish square of 2 x 2 patches is planted in gray noise, once at
each of `--places` places. A map finds it if its maximum lies in the square. Writes planted.json.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from torch.nn import functional as F

from cliprl.engines.cli.cli_runner import run_app
from cliprl.models.config.config import NetworkConfig
from cliprl.models.evaluation.study_command import write_result
from cliprl.models.labelling.saliency import SaliencyModel, SaliencySettings, saliency
from cliprl.models.labelling.saliency.bottleneck import fit_bottleneck
from cliprl.models.labelling.saliency.tower_blocks import network_pixels, tower_blocks
from cliprl.models.network.network import ClipSegmenter

SIDE, PATCH, WIDTH = 64, 8, 48
# Places of the square's first patch along a side.
STARTS = SIDE // PATCH - 1
PLANTED_CLIP: dict[str, Any] = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": SIDE, "layers": 4, "width": WIDTH, "head_width": 12, "patch_size": PATCH},
    "text_cfg": {"context_length": 20, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
GRADIENT_METHODS = ("m2ib", "gscorecam")
BETAS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
FIRST_NOISE_SEED = 1000
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def planted_image(place: tuple[int, int] | None, seed: int) -> NDArray[np.uint8]:
    """Return gray noise uint8 (64, 64, 3) with a reddish square whose first patch is at (row, column)."""
    image = np.random.default_rng(seed).normal(120, 25, (SIDE, SIDE, 1)).repeat(3, 2)
    if place is not None:
        row, column = (PATCH * each for each in place)
        image[row : row + 2 * PATCH, column : column + 2 * PATCH] += [80, -60, -60]
    return image.clip(0, 255).astype(np.uint8)


@torch.no_grad()
def planted_model(folder: Path) -> tuple[SaliencyModel, NDArray[np.float32]]:
    """Return the ViT and the concept's embedding (E,): the mean change of the image embedding that the square makes."""
    description = folder / "planted-clip.json"
    write_result(description, {"model_cfg": PLANTED_CLIP})
    torch.manual_seed(5)
    config = NetworkConfig(tower=str(description), weights="", height=SIDE, width=SIDE, pyramid=16, features=8)
    network = ClipSegmenter(config).eval()
    visual: Any = network.clip.visual
    visual.conv1.weight *= 0.3
    visual.conv1.weight[0] = torch.tensor([1.0, -0.5, -0.5])[:, None, None] * (2 / PATCH**2)
    # Queries and keys near zero: each block passes on about the mean of all patches.
    for block in visual.transformer.resblocks:
        block.attn.in_proj_weight[: 2 * WIDTH] *= 0.1
    seeds = range(0, STARTS**2, 3)
    planted = np.stack([planted_image((seed % STARTS, seed // STARTS), seed) for seed in seeds])
    bare = np.stack([planted_image(None, seed) for seed in seeds])
    change = network.encode_image(torch.from_numpy(planted)) - network.encode_image(torch.from_numpy(bare))
    direction: NDArray[np.float32] = F.normalize(change.mean(0), dim=0).numpy()
    return SaliencyModel(network, has_decoder=False, name="planted"), direction


def is_found(model: SaliencyModel, concept: NDArray[np.float32], number: int, settings: SaliencySettings) -> bool:
    """Return whether the map's maximum lies in the square of image `number`."""
    row, column = divmod(number * 5 % STARTS**2, STARTS)
    found = saliency(model, planted_image((row, column), FIRST_NOISE_SEED + number), concept, settings)
    y, x = np.unravel_index(int(found.argmax()), found.shape)
    return bool(0 <= y - row * PATCH < 2 * PATCH and 0 <= x - column * PATCH < 2 * PATCH)


def information_by_beta(model: SaliencyModel, concept: NDArray[np.float32], betas: Sequence[float]) -> list[float]:
    """Return the information in bits that passes the bottleneck of one image at each beta, for a `concept` (E,)."""
    assert isinstance(model.network, ClipSegmenter)
    blocks, unit = tower_blocks(model.network), torch.from_numpy(concept)
    pixels, given = network_pixels(model.network, planted_image((2, 3), FIRST_NOISE_SEED)), SaliencySettings()
    return [
        fit_bottleneck(
            blocks, pixels, unit, block=blocks.number(None), beta=beta,
            steps=given.steps, samples=given.samples, seed=given.seed,
        ).mean_information
        for beta in betas
    ]  # fmt: skip


@app.command()
def study(
    out: Annotated[Path, typer.Option(help="Folder for the result.")] = Path("runs/planted"),
    places: Annotated[int, typer.Option(min=1, help="Images to look at.")] = 200,
) -> None:
    """Count the images in which each method finds the square, and measure the information at each beta."""
    model, concept = planted_model(out)
    found = {
        method: sum(
            is_found(model, concept, number, replace(SaliencySettings(), method=method)) for number in range(places)
        )
        for method in GRADIENT_METHODS
    }
    bits = information_by_beta(model, concept, BETAS)
    result = {"places": places, "found": found, "beta": list(BETAS), "bits": [round(each, 5) for each in bits]}
    write_result(out / "planted.json", result)
    typer.echo(str(out / "planted.json"))


if __name__ == "__main__":
    raise SystemExit(run_app(app, "python -m cliprl.models.studies.planted_study"))
