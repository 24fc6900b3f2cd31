"""Export a trained network as a sealed bundle, checked on the engine that runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from open_clip import SimpleTokenizer
from torch import Tensor

from cliprl.engines import (
    Bundle,
    ClassSpec,
    CliprlError,
    Manifest,
    TextEngine,
    TextSpec,
    compile_engine,
    reason_of,
    seal_bundle,
)
from cliprl.engines.bundle.bundle import ENCODER, REFINER, TEXT, TOKENIZER
from cliprl.engines.bundle.text_encoder import NO_PROMPTS
from cliprl.models.export.onnx_export import example_image, write_networks, write_text_tower
from cliprl.models.network.network import ClipSegmenter
from cliprl.models.network.refiner import RefinerNetwork
from cliprl.models.network.text import TEMPLATES, class_embeddings
from cliprl.models.network.tokenizer import portable_tokenizer

GRID_STRIDE = 4
MIN_LABEL_AGREEMENT = 0.999
# Cosine of a class's embedding by the text engine, whose weights are stored in half, with the network's own.
TEXT_AGREEMENT = 0.9999


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """The parts of a bundle."""

    network: ClipSegmenter
    refiner: RefinerNetwork
    classes: Sequence[ClassSpec]
    height: int
    width: int
    steps: int


def export_bundle(model: TrainedModel, folder: Path, name: str, training: Mapping[str, Any]) -> Bundle:
    """Write all networks, embeddings and manifest to `folder`, and check OpenVINO's labels against the network's.

    Raises CliprlError where fewer than 99.9 % of labels agree.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model.network.eval()
    model.refiner.eval()
    with torch.no_grad():
        text = class_embeddings(model.network, model.classes)
        write_networks(model.network, model.refiner, text, folder)
        _check_agreement(model, folder, example_image(model.height, model.width), text)
    manifest = Manifest(
        name, tuple(model.classes), model.height, model.width, GRID_STRIDE, model.steps, training=training
    )
    return add_text_if_possible(seal_bundle(folder, manifest, text.numpy()), model.network)


def add_text_if_possible(bundle: Bundle, network: ClipSegmenter) -> Bundle:
    """Do `add_text`, or seal the bundle without a text network, with the reason why prompts are off.

    The embeddings of the bundle's classes are in it in any case.
    """
    try:
        return add_text(bundle, network)
    except ValueError as error:
        for name in (TEXT, TOKENIZER):
            (bundle.path / name).unlink(missing_ok=True)
        training = {**bundle.manifest.training, NO_PROMPTS: str(error)}
        return seal_bundle(bundle.path, replace(bundle.manifest, training=training, text=None), bundle.embeddings)


def add_text(bundle: Bundle, network: ClipSegmenter) -> Bundle:
    """Give a bundle its text network and tokenizer, so that prompts may change at run time; it is sealed again.

    `network` is the one that the bundle was made from. Raises CliprlError where its texts are not the bundle's classes,
    ValueError for a text encoder that can't be exported.
    """
    portable_tokenizer(network.tokenizer).save(str(bundle.path / TOKENIZER), pretty=False)
    try:
        write_text_tower(network.eval(), bundle.path)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"its text encoder can't be exported ({reason_of(error)[:80]})") from error
    manifest = replace(bundle.manifest, text=TextSpec(network.context, TEMPLATES))
    engine = TextEngine(replace(bundle, manifest=manifest))
    for spec, own in zip(manifest.classes, bundle.embeddings, strict=True):
        cosine = float(engine.embed_class(spec) @ own)
        if cosine < TEXT_AGREEMENT and not isinstance(network.tokenizer, SimpleTokenizer):
            raise ValueError(f"its exported texts differ (cosine {cosine:.4f} for '{spec.name}')")
        if cosine < TEXT_AGREEMENT:
            raise CliprlError(
                f"the text network's '{spec.name}' is not the bundle's (cosine {cosine:.4f}, not {TEXT_AGREEMENT}): "
                "give the network that the bundle was exported from"
            )
    return seal_bundle(bundle.path, manifest, bundle.embeddings)


def _check_agreement(model: TrainedModel, folder: Path, image: Tensor, text: Tensor) -> None:
    """Compare labels of the base and of every refinement step, f32 on both sides."""
    features, logits = model.network(image, text)
    encoder = _engine(folder / ENCODER, {"image": image, "text": text})
    seen = {k: v.copy() for k, v in encoder.run({"image": image.numpy(), "text": text.numpy()}).items()}
    _compare(seen["logits"], logits, "encoder")
    inputs = {"features": features, "logits": logits, "base": logits, "prior": logits, "text": text}
    refiner = _engine(folder / REFINER, inputs)
    refined = logits
    for _ in range(model.steps):
        outputs = refiner.run({k: v.numpy() for k, v in (inputs | {"logits": refined}).items()})
        refined, _ = model.refiner(features, refined, logits, logits, text)
        _compare(outputs["refined"], refined, "refiner")


def _engine(path: Path, inputs: Mapping[str, Tensor]) -> Any:
    return compile_engine(path, precision="f32", shapes={k: tuple(v.shape) for k, v in inputs.items()})


def _compare(found: np.ndarray[Any, Any], expected: Tensor, name: str) -> None:
    share = float((found.argmax(1) == expected.argmax(1).numpy()).mean())
    if share < MIN_LABEL_AGREEMENT:
        raise CliprlError(
            f"the exported {name} gives {share:.2%} of the network's labels, not {MIN_LABEL_AGREEMENT:.1%}: report this"
        )
