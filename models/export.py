"""From a trained network to a sealed bundle, checked on the engine that will run it."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cliprl.engines import Bundle, ClassSpec, CliprlError, Manifest, UsageError, compile_engine, seal_bundle
from cliprl.engines.bundle import ENCODER, REFINER
from cliprl.models.network import ClipSegmenter
from cliprl.models.refiner import Refiner
from cliprl.models.text import class_embeddings

OPSET = 18
STRIDE = 4
# How many classes an exported graph can be given.
CLASS_RANGE = (2, 64)
AGREEMENT = 0.999


@dataclass(frozen=True, slots=True)
class Model:
    """What a bundle is made of."""

    network: ClipSegmenter
    refiner: Refiner
    classes: Sequence[ClassSpec]
    height: int
    width: int
    steps: int


def export_bundle(model: Model, folder: Path, name: str, training: Mapping[str, Any]) -> Bundle:
    """Write encoder, refiner, embeddings and manifest to `folder`, and check OpenVINO's labels against the network's.

    Raises UsageError where the folder can't be made, CliprlError where fewer than 99.9 % of labels agree.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"'{folder}' can't be made ({error.strerror}): give --out a place that can be written"
        ) from error
    model.network.eval()
    model.refiner.eval()
    with torch.no_grad():
        text = class_embeddings(model.network, model.classes)
        image = _picture(model)
        features, logits = model.network(image, text)
        _write_encoder(model.network, image, text, folder / ENCODER)
        _write_refiner(model.refiner, features, logits, folder / REFINER)
        _check_agreement(model, folder, image, text)
    manifest = Manifest(name, tuple(model.classes), model.height, model.width, STRIDE, model.steps, training=training)
    return seal_bundle(folder, manifest, text.numpy())


def _picture(model: Model) -> Tensor:
    """A smooth random picture, uint8 (1, H, W, 3): noise of its own would only measure rounding."""
    coarse = torch.rand(1, 3, 8, 10, generator=torch.Generator().manual_seed(0))
    fine = nn.functional.interpolate(coarse, (model.height, model.width), mode="bicubic")
    return (fine.clamp(0, 1) * 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _write_encoder(network: nn.Module, image: Tensor, text: Tensor, path: Path) -> None:
    classes = torch.export.Dim("classes", min=CLASS_RANGE[0], max=CLASS_RANGE[1])
    _export(
        network, (image, text), path, ["image", "text"], ["features", "logits"], {"image": None, "text": {0: classes}}
    )


def _write_refiner(refiner: nn.Module, features: Tensor, logits: Tensor, path: Path) -> None:
    classes = torch.export.Dim("classes", min=CLASS_RANGE[0], max=CLASS_RANGE[1])
    inputs = (features, logits, logits.clone(), logits.clone())
    shapes = {"features": None, "logits": {1: classes}, "base": {1: classes}, "prior": {1: classes}}
    _export(refiner, inputs, path, ["features", "logits", "base", "prior"], ["refined", "moved"], shapes)


def _export(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    path: Path,
    input_names: list[str],
    output_names: list[str],
    shapes: dict[str, Any],
) -> None:
    plain = copy.deepcopy(module).to(memory_format=torch.contiguous_format)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            plain,
            inputs,
            str(path),
            input_names=input_names,
            output_names=output_names,
            dynamic_shapes=shapes,
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def _check_agreement(model: Model, folder: Path, image: Tensor, text: Tensor) -> None:
    """Compare labels of the base and of every refinement step, f32 on both sides."""
    features, logits = model.network(image, text)
    encoder = _engine(folder / ENCODER, {"image": image, "text": text})
    seen = {k: v.copy() for k, v in encoder.run({"image": image.numpy(), "text": text.numpy()}).items()}
    _compare(seen["logits"], logits, "encoder")
    inputs = {"features": features, "logits": logits, "base": logits, "prior": logits}
    refiner = _engine(folder / REFINER, inputs)
    refined = logits
    for _ in range(model.steps):
        outputs = refiner.run({k: v.numpy() for k, v in (inputs | {"logits": refined}).items()})
        refined, _ = model.refiner(features, refined, logits, logits)
        _compare(outputs["refined"], refined, "refiner")


def _engine(path: Path, inputs: Mapping[str, Tensor]) -> Any:
    return compile_engine(path, precision="f32", shapes={k: tuple(v.shape) for k, v in inputs.items()})


def _compare(found: np.ndarray[Any, Any], expected: Tensor, name: str) -> None:
    share = float((found.argmax(1) == expected.argmax(1).numpy()).mean())
    if share < AGREEMENT:
        raise CliprlError(
            f"the exported {name} gives {share:.2%} of the network's labels, not {AGREEMENT:.1%}: report this"
        )
