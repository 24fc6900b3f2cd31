"""Saliency: a planted concept is found by M2IB and gScoreCAM, information falls with beta, every backbone has maps."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cliprl.engines import CliprlError, UsageError
from cliprl.engines.promptable import open_promptable
from cliprl.models.config.config import NetworkConfig
from cliprl.models.labelling.saliency import (
    SaliencyModel,
    SaliencySettings,
    dense_margins,
    open_saliency_model,
    saliency,
)
from cliprl.models.labelling.saliency.dense import dense_embeddings
from cliprl.models.labelling.saliency.methods import OTHER_THINGS, embed_text
from cliprl.models.labelling.saliency.tower_blocks import network_pixels, tower_blocks
from cliprl.models.labelling.text_mask import TextMaskSettings, text_mask
from cliprl.models.network.network import ClipSegmenter
from cliprl.models.studies.planted_study import (
    BETAS,
    GRADIENT_METHODS,
    information_by_beta,
    is_found,
    planted_image,
    planted_model,
)
from cliprl.pipeline.segment.presence import PresenceTest

RESULT = Path(__file__).parents[2] / "models" / "results" / "planted.json"


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[SaliencyModel, np.ndarray]:
    return planted_model(tmp_path_factory.mktemp("planted"))


@pytest.mark.parametrize("method", GRADIENT_METHODS)
def test_a_planted_concept_is_found(planted: tuple[SaliencyModel, np.ndarray], method: str) -> None:
    settings = replace(SaliencySettings(), method=method, channels=24)
    assert all(is_found(*planted, number, settings) for number in range(6))


def test_information_falls_with_beta(planted: tuple[SaliencyModel, np.ndarray]) -> None:
    bits = information_by_beta(*planted, BETAS[::2])
    assert bits == sorted(bits, reverse=True)
    assert len(set(bits)) == len(bits)


def test_the_committed_result_finds_every_place() -> None:
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    assert result["places"] == 200
    assert result["found"] == dict.fromkeys(GRADIENT_METHODS, 200)
    assert result["bits"] == sorted(result["bits"], reverse=True)


def test_maps_are_repeatable_and_change_no_weights(planted: tuple[SaliencyModel, np.ndarray]) -> None:
    model, concept = planted
    before = {name: value.clone() for name, value in model.network.state_dict().items()}  # type: ignore[union-attr]
    image = np.ascontiguousarray(planted_image((1, 1), 3)[:50])
    with torch.no_grad():
        first = saliency(model, image, concept)
    assert first.shape == (50, 64)
    assert first.dtype == np.float32
    assert (first.min(), first.max()) == (0, 1)
    assert np.array_equal(first, saliency(model, image, concept))
    after = model.network.state_dict()  # type: ignore[union-attr]
    assert all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize(
    ("tower", "size"),
    [
        ("tf_efficientnet_lite0", (64, 96)),
        ("vit_tiny_patch16_224", (64, 64)),
        ("convnext_atto", (64, 64)),
        ("resnet10t", (64, 64)),
    ],
)
def test_every_kind_of_backbone_has_maps(tower: str, size: tuple[int, int]) -> None:
    config = NetworkConfig(
        tower=tower, weights="", height=size[0], width=size[1], embedding=16, pyramid=8, features=8, text_width=32,
        text_layers=1, frozen_stages=0,
    )  # fmt: skip
    network = ClipSegmenter(config).eval()
    image = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    for has_decoder in (False, True):
        model = SaliencyModel(network, has_decoder, tower)
        assert np.isfinite(dense_margins(model, image, "a tool")).all()
    for method in GRADIENT_METHODS:
        found = saliency(model, image, "a tool", SaliencySettings(method=method, steps=2, samples=1, channels=4))
        assert found.shape == (40, 56)
        assert np.isfinite(found).all()


def test_dense_embeddings_of_a_convolution_average_to_the_image() -> None:
    config = NetworkConfig(
        tower="resnet10t", weights="", height=64, width=64, embedding=16, text_width=32, text_layers=1
    )
    network = ClipSegmenter(config).eval()
    pixels = network_pixels(network, planted_image((2, 2), 0))
    cells = dense_embeddings(tower_blocks(network), pixels[..., :32, :32])
    assert cells.shape == (1, 1, 16)
    with torch.no_grad():
        whole = network.clip.encode_image(pixels[..., :32, :32], normalize=True)
    assert torch.allclose(cells[0, 0], whole[0], atol=1e-5)


def test_a_dense_map_finds_the_patch_of_an_example(planted: tuple[SaliencyModel, np.ndarray]) -> None:
    model, _ = planted
    blocks = tower_blocks(model.network)  # type: ignore[arg-type]

    def cells(image: np.ndarray) -> torch.Tensor:
        return dense_embeddings(blocks, network_pixels(model.network, image))  # type: ignore[arg-type]

    example, bare = cells(planted_image((2, 3), 1)), cells(planted_image(None, 2)).mean((0, 1)).numpy()
    margins = dense_margins(model, planted_image((4, 1), 5), example[2:4, 3:5].mean((0, 1)).numpy(), [bare])
    assert margins[4:6, 1:3].min() > np.delete(margins, [4, 5], axis=0).max()


def test_bundles_have_dense_maps_only() -> None:
    model = open_saliency_model("small", threads=1)
    image = planted_image((2, 2), 0)
    found = saliency(model, image, "an instrument shaft", SaliencySettings(method="dense"))
    assert found.shape == image.shape[:2]
    one = embed_text(model, "an instrument shaft")
    mirrored = 2 * np.mean([embed_text(model, other) for other in OTHER_THINGS], axis=0) - one
    opposite = saliency(model, image, mirrored, SaliencySettings(method="dense"))
    assert np.allclose(opposite, 1 - found, atol=1e-3), "what all texts have in common cancels out"
    with pytest.raises(UsageError, match="bundle small has no torch weights"):
        saliency(model, image, "a shaft")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nowhere", "is no network for saliency"),
        ("clip:ViT-B-16", "is not of the form clip:"),
        ("clip:ViT-B-16,x,big", "is no image size"),
        ("clip:resnet10t,nowhere.pt,32x32", "neither a file nor a tag"),
    ],
)
def test_unknown_models_are_one_line(spec: str, message: str) -> None:
    with pytest.raises(CliprlError, match=message) as error:
        open_saliency_model(spec)
    assert "\n" not in str(error.value)


def test_unknown_methods_and_blocks_are_one_line(planted: tuple[SaliencyModel, np.ndarray]) -> None:
    image = planted_image(None, 0)
    with pytest.raises(UsageError, match="one of m2ib, gscorecam, dense"):
        saliency(*planted[:1], image, planted[1], SaliencySettings(method="grad"))
    with pytest.raises(UsageError, match="blocks 0 to 3, not 9"):
        saliency(*planted[:1], image, planted[1], SaliencySettings(block=9))


def test_a_training_run_is_opened_from_its_checkpoint(tmp_path: Path) -> None:
    settings = {
        "height": 32,
        "width": 32,
        "embedding": 16,
        "pyramid": 8,
        "features": 8,
        "text_width": 32,
        "text_layers": 1,
    }
    network = ClipSegmenter(NetworkConfig(weights="", **settings))  # type: ignore[arg-type]
    state = {"done": 1, "settings": {f"network.{key}": value for key, value in settings.items()}}
    torch.save(state | {"network": network.state_dict()}, tmp_path / "supervised.pt")
    model = open_saliency_model(str(tmp_path))
    assert model.has_decoder
    assert torch.equal(model.network.embed.weight, network.embed.weight)  # type: ignore[union-attr]
    torch.save(state | {"network": {}}, tmp_path / "supervised.pt")
    with pytest.raises(CliprlError, match="holds no network of this version"):
        open_saliency_model(str(tmp_path))


def test_an_absent_thing_has_no_mask(planted: tuple[SaliencyModel, np.ndarray]) -> None:
    model, concept = planted
    image, network = planted_image((2, 3), 8), open_promptable("grabcut")
    truth = np.zeros((64, 64), bool)
    truth[16:32, 24:40] = True
    found = text_mask(model, network, image, concept, TextMaskSettings(presence=PresenceTest(1, 0, 0.0)))
    assert found.result is not None
    assert (found.mask & truth).sum() / (found.mask | truth).sum() > 0.6
    absent = text_mask(model, network, image, concept, TextMaskSettings(presence=PresenceTest(1, -40, 0.5)))
    assert not absent.mask.any()
    assert absent.presence < 0.01
    assert absent.saliency is None
    assert text_mask(model, network, image, concept, TextMaskSettings(presence=None)).presence == 1
