"""One call for all kinds of saliency."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from cliprl.engines import ClassSpec, UsageError
from cliprl.models.labelling.saliency.bottleneck import fit_bottleneck
from cliprl.models.labelling.saliency.bundle_logits import BundleLogits
from cliprl.models.labelling.saliency.dense import dense_embeddings
from cliprl.models.labelling.saliency.open_model import SaliencyModel
from cliprl.models.labelling.saliency.score_cam import score_cam
from cliprl.models.labelling.saliency.tower_blocks import network_pixels, tower_blocks
from cliprl.models.network.network import ClipSegmenter
from cliprl.models.network.text import class_embeddings

# What an image shows besides the prompted thing: a dense map is the margin over the mean of these, for the presence test over the
# best. What all texts have in common cancels out in the mean; over the best, the maps of all absent things are alike.
OTHER_THINGS = ("background", "tissue", "an organ", "an endoscopic view")
Text = str | NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class SaliencySettings:
    """The method and its parameters.

    `beta`, `steps`, `samples` and `seed` are of the bottleneck; `channels` and `batch` of gScoreCAM; `block` is the block of
    the backbone that both read, None for that at three quarters of its depth. `others` are the texts against which
    dense maps are compared.
    """

    method: str = "m2ib"
    beta: float = 0.1
    steps: int = 10
    samples: int = 4
    seed: int = 0
    block: int | None = None
    channels: int = 64
    batch: int = 16
    others: tuple[str, ...] = OTHER_THINGS


DEFAULTS = SaliencySettings()


def saliency(
    model: SaliencyModel, image: NDArray[np.uint8], text: Text, settings: SaliencySettings = DEFAULTS
) -> NDArray[np.float32]:
    """Return a map float32 (H, W) in 0..1 of where an image uint8 (H, W, 3) RGB shows what `text` names.

    `text` is a phrase, which is put into the prompt templates, or a unit embedding (E,). The map's minimum is 0 and its
    maximum 1, or it is 0 everywhere: whether the thing is there at all is for the presence test. Raises UsageError for
    an unknown method, and for one that needs gradients of a bundle, which has no torch weights.
    """
    method = SALIENCY_METHODS.get(settings.method)
    if method is None:
        raise UsageError(f"unknown saliency method '{settings.method}': one of {', '.join(SALIENCY_METHODS)}")
    cells = method(model, np.ascontiguousarray(image), text, settings)
    resized = cv2.resize(cells.astype(np.float32), image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    low, high = float(resized.min()), float(resized.max())
    if high <= low:
        return np.zeros(image.shape[:2], np.float32)
    scaled: NDArray[np.float32] = np.clip((resized - low) / (high - low), 0, 1).astype(np.float32)
    return scaled


def dense_margins(
    model: SaliencyModel, image: NDArray[np.uint8], text: Text, others: Sequence[Text] = OTHER_THINGS
) -> NDArray[np.float32]:
    """Return, for each cell, the logit of `text` less the best of the other texts: float32 (h, w)."""
    logits = _dense_logits(model, image, text, others)
    margins: NDArray[np.float32] = logits[0] - logits[1:].max(0)
    return margins


def _dense_logits(
    model: SaliencyModel, image: NDArray[np.uint8], text: Text, others: Sequence[Text]
) -> NDArray[np.float32]:
    """Return the logits (1 + K, h, w) of `text` and of the other texts."""
    if not others:
        raise UsageError("a dense map compares the prompt with other texts: give at least one")
    texts = np.stack([embed_text(model, each) for each in (text, *others)])
    if isinstance(model.network, BundleLogits):
        return model.network.logits(image, texts)
    return _network_logits(model.network, image, torch.from_numpy(texts), model.has_decoder)


def embed_text(model: SaliencyModel, text: Text) -> NDArray[np.float32]:
    """Return the unit embedding (E,) of a phrase in all prompt templates; an embedding is returned as it is."""
    if not isinstance(text, str):
        return np.asarray(text, np.float32)
    if isinstance(model.network, BundleLogits):
        return model.network.embed(text)
    with torch.no_grad():
        embedding: NDArray[np.float32] = (
            class_embeddings(model.network, [ClassSpec(text, (0, 0, 0), "prompted", (text,))])[0].cpu().numpy()
        )
    return embedding


@torch.no_grad()
def _network_logits(
    network: ClipSegmenter, image: NDArray[np.uint8], texts: Tensor, has_decoder: bool
) -> NDArray[np.float32]:
    texts = texts.to(network.log_scale.device)
    if has_decoder:
        resized = cv2.resize(image, network.size[::-1], interpolation=cv2.INTER_AREA).astype(np.uint8)
        logits = network(torch.from_numpy(resized)[None].to(texts.device), texts)[1][0]
    else:
        cells = dense_embeddings(tower_blocks(network), network_pixels(network, image))
        logits = torch.einsum("hwe,ke->khw", cells, F.normalize(texts, dim=-1)) * network.log_scale.exp()
    values: NDArray[np.float32] = logits.float().cpu().numpy()
    return values


def _dense(
    model: SaliencyModel, image: NDArray[np.uint8], text: Text, settings: SaliencySettings
) -> NDArray[np.float32]:
    logits = _dense_logits(model, image, text, settings.others)
    values: NDArray[np.float32] = logits[0] - logits[1:].mean(0)
    return values


def _m2ib(
    model: SaliencyModel, image: NDArray[np.uint8], text: Text, settings: SaliencySettings
) -> NDArray[np.float32]:
    network, pixels, unit = _gradient_inputs(model, image, text)
    blocks = tower_blocks(network)
    fitted = fit_bottleneck(
        blocks, pixels, unit, block=blocks.number(settings.block), beta=settings.beta,
        steps=settings.steps, samples=settings.samples, seed=settings.seed,
    )  # fmt: skip
    information: NDArray[np.float32] = fitted.information.cpu().numpy()
    return information


def _gscorecam(
    model: SaliencyModel, image: NDArray[np.uint8], text: Text, settings: SaliencySettings
) -> NDArray[np.float32]:
    network, pixels, unit = _gradient_inputs(model, image, text)
    blocks = tower_blocks(network)
    number = blocks.number(settings.block)
    cells = score_cam(blocks, pixels, unit, block=number, channels=settings.channels, batch=settings.batch)
    values: NDArray[np.float32] = cells.cpu().numpy()
    return values


def _gradient_inputs(
    model: SaliencyModel, image: NDArray[np.uint8], text: Text
) -> tuple[ClipSegmenter, Tensor, Tensor]:
    if isinstance(model.network, BundleLogits):
        raise UsageError(
            f"{model.name} has no torch weights, which m2ib and gscorecam need: give its training run, or the method dense"
        )
    unit = torch.from_numpy(embed_text(model, text)).to(model.network.log_scale.device)
    return model.network, network_pixels(model.network, image), unit


Method = Callable[[SaliencyModel, NDArray[np.uint8], Text, SaliencySettings], NDArray[np.float32]]
SALIENCY_METHODS: dict[str, Method] = {"m2ib": _m2ib, "gscorecam": _gscorecam, "dense": _dense}
