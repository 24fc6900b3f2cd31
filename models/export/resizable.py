"""Write the refiner and the promptable head of a bundle again, with graphs that can be reshaped to another input size.

    python -m cliprl.models.export.resizable BUNDLE

Bundles of earlier versions have graphs for one size. The weights are those of the graphs, unchanged.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnx
import torch
import typer
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn

from cliprl.engines import Bundle, BundleError, compile_engine, open_bundle, seal_bundle
from cliprl.engines.bundle.bundle import PROMPT_HEAD, REFINER
from cliprl.engines.cli.cli_runner import run_app
from cliprl.engines.promptable.prompt_maps import CHANNELS
from cliprl.models.config.config import ReinforcementConfig
from cliprl.models.export.onnx_export import write_prompt_head, write_refiner
from cliprl.models.network.actions import CONCEPTS
from cliprl.models.network.refiner import RefinerNetwork
from cliprl.models.promptable.network import PromptHead

# What the exporter names the bias of a convolution that took in a normalization.
_FOLDED_BIAS = "weight_bias"


def make_resizable(bundle: Bundle) -> Bundle:
    """Write both graphs of a bundle again and seal it. Raises BundleError if they do not give the same outputs as before."""
    inputs = example_inputs(bundle)
    with tempfile.TemporaryDirectory() as name, torch.no_grad():
        folder = Path(name)
        features, logits, text = (torch.from_numpy(inputs[REFINER][key]) for key in ("features", "logits", "text"))
        write_refiner(refiner_of(bundle), features, logits, text, folder)
        if PROMPT_HEAD in bundle.manifest.hashes:
            maps = inputs[PROMPT_HEAD]
            write_prompt_head(head_of(bundle), maps["features"][0], maps["image"][0], folder)
        written = sorted(path.name for path in folder.iterdir())
        for file in written:
            _compare(bundle.path / file, folder / file, inputs[file])
        for file in written:
            shutil.copyfile(folder / file, bundle.path / file)
    return seal_bundle(bundle.path, bundle.manifest, bundle.embeddings)


def example_inputs(bundle: Bundle) -> dict[str, dict[str, NDArray[Any]]]:
    """Return random inputs of both graphs, by file."""
    manifest, rng = bundle.manifest, np.random.default_rng(0)
    height, width = manifest.height // manifest.stride, manifest.width // manifest.stride
    channels = _weights(bundle.path / REFINER)["project.weight"].shape[1]

    def maps(count: int, scale: float = 3.0) -> NDArray[np.float32]:
        return rng.normal(0, scale, (1, count, height, width)).astype(np.float32)

    features, classes = maps(channels, 1.0), len(bundle.embeddings)
    logits = {name: maps(classes) for name in ("logits", "base", "prior")}
    image = rng.integers(0, 256, (1, manifest.height, manifest.width, 3), np.uint8)
    prompts = {"prompts": maps(CHANNELS, 1.0), "logits": maps(1)}
    return {
        REFINER: {"features": features, **logits, "text": bundle.embeddings},
        PROMPT_HEAD: {"features": features, "image": image, **prompts},
    }


def refiner_of(bundle: Bundle) -> RefinerNetwork:
    """Return the refiner of a bundle's graph. Raises BundleError for a graph of another network."""
    weights = _weights(bundle.path / REFINER)
    actions, embedding = weights["directions"].shape[:2]
    width, features = weights["near.bias"].shape[0], weights["project.weight"].shape[1]
    settings = bundle.manifest.training.get("recipe", {}).get("reinforcement", {})
    own = ReinforcementConfig()
    reach = ReinforcementConfig(push=settings.get("push", own.push), bound=settings.get("bound", own.bound))
    network = RefinerNetwork(features, width, embedding, actions - CONCEPTS, reach)
    _load(network, weights, absent=("value.",))
    return network.eval()


def head_of(bundle: Bundle) -> PromptHead:
    """Return the promptable head of a bundle's graph. Raises BundleError for a graph of another network."""
    weights = _weights(bundle.path / PROMPT_HEAD)
    head = PromptHead(len(weights["features.weight"]), bundle.manifest.stride)
    for module in [each for each in head.modules() if isinstance(each, nn.Sequential)]:
        if isinstance(module[0], nn.Conv2d):
            module[0].bias = nn.Parameter(torch.zeros(module[0].out_channels))
            module[1] = nn.Identity()
    _load(head, {name.replace(_FOLDED_BIAS, "bias"): value for name, value in weights.items()})
    return head.eval()


def _weights(path: Path) -> dict[str, NDArray[Any]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def _load(network: nn.Module, weights: dict[str, NDArray[Any]], absent: tuple[str, ...] = ()) -> None:
    own = network.state_dict()
    needed = [name for name in own if not name.startswith(absent) and not name.endswith("batches_tracked")]
    if missing := [name for name in needed if name not in weights]:
        raise BundleError(f"the graph has no weight '{missing[0]}': it is of another network, export the bundle again")
    network.load_state_dict({name: torch.from_numpy(weights[name].copy()) for name in needed}, strict=False)


def _compare(before: Path, after: Path, inputs: dict[str, NDArray[Any]]) -> None:
    found = _run(after, inputs)
    for name, value in _run(before, inputs).items():
        if not np.array_equal(found[name], value):
            raise BundleError(f"{before.name}: '{name}' of the new graph differs: the bundle is left as it was")


def _run(path: Path, inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    shapes = {name: array.shape for name, array in inputs.items()}
    outputs = compile_engine(path, precision="f32", shapes=shapes, threads=1).run(inputs)
    return {name: value.copy() for name, value in outputs.items()}  # the engine's own arrays end with it


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def write(bundle: Annotated[Path, typer.Argument(help="Folder of the bundle, which is changed in place.")]) -> None:
    """Write a bundle's graphs again so that its input size can be chosen at run time."""
    made = make_resizable(open_bundle(bundle))
    typer.echo(f"{made.path}: refiner{' and promptable head' if PROMPT_HEAD in made.manifest.hashes else ''} written")


if __name__ == "__main__":
    raise SystemExit(run_app(app, "resizable"))
