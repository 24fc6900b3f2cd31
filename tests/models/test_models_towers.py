"""Any image tower of open_clip's is an encoder, and a checkpoint of its takes the place of the trained towers by one option."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cliprl.engines import BundleError, UsageError, load_engines, with_input_size
from cliprl.engines.bundle.bundle import file_hash
from cliprl.models.config.config import NetworkConfig, ReinforcementConfig
from cliprl.models.config.load import load_recipe
from cliprl.models.export.export import TrainedModel, export_bundle
from cliprl.models.network.backbones import make_clip_module
from cliprl.models.network.network import ClipSegmenter
from cliprl.models.network.refiner import RefinerNetwork
from cliprl.models.network.text import class_embeddings
from cliprl.models.network.weights import describe_start
from cliprl.pipeline import with_prompts
from cliprl.pipeline.synthetic import SCENE_CLASSES

open_clip = pytest.importorskip("open_clip")

CONFIG: dict[str, Any] = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 4, "width": 64, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 20, "vocab_size": 49408, "width": 48, "heads": 3, "layers": 2},
}


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Any]:
    """A random CLIP with a square ViT, made by open_clip alone: its description, its saved weights, and itself."""
    folder = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(3)
    settings = {key: dict(value) if isinstance(value, dict) else value for key, value in CONFIG.items()}
    theirs = open_clip.CLIP(**settings).eval()
    theirs.logit_scale.data.fill_(3.3)
    torch.save({"state_dict": theirs.state_dict()}, folder / "weights.pt")
    (folder / "tiny.json").write_text(json.dumps({"model_cfg": CONFIG}))
    return folder / "tiny.json", folder / "weights.pt", theirs


def network_of(model: Path, weights: Path | str, height: int = 32, width: int = 32) -> ClipSegmenter:
    config = NetworkConfig(tower=str(model), weights=str(weights), height=height, width=width, pyramid=16, features=8)
    return ClipSegmenter(config).eval()


def images(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def as_open_clip_sees(image: Tensor) -> Tensor:
    """open_clip's own preprocessing, but for the resizing."""
    mean, deviation = (
        torch.tensor(v)[:, None, None] for v in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    )
    return (image.permute(0, 3, 1, 2).float() / 255 - mean) / deviation


@torch.no_grad()
def test_a_checkpoint_gives_open_clips_own_embeddings(checkpoint: tuple[Path, Path, Any]) -> None:
    model, weights, theirs = checkpoint
    network = network_of(model, weights)
    assert network.pretrained
    assert network.context == 20
    tokens = open_clip.SimpleTokenizer(context_length=20)(["a grasper", "the shaft of a tool", "thread"])
    torch.testing.assert_close(network.encode_text(tokens), theirs.encode_text(tokens, normalize=True))
    image = images(2, 32, 32, 3)
    expected = theirs.encode_image(as_open_clip_sees(image), normalize=True)
    torch.testing.assert_close(network.encode_image(image), expected, rtol=1e-4, atol=1e-5)
    assert float(network.clip.logit_scale) == float(network.log_scale) == pytest.approx(3.3)
    random = network_of(model, "")
    assert not random.pretrained
    assert not torch.allclose(random.encode_text(tokens), network.encode_text(tokens), atol=0.1)


@torch.no_grad()
def test_positions_are_resized_for_another_shape_as_open_clip_does(checkpoint: tuple[Path, Path, Any]) -> None:
    model, weights, theirs = checkpoint
    network = network_of(model, weights, 48, 64)
    vision = CONFIG["vision_cfg"] | {"image_size": (48, 64)}
    wide = open_clip.CLIP(CONFIG["embed_dim"], vision, CONFIG["text_cfg"]).eval()
    open_clip.load_checkpoint(wide, str(weights))
    image = images(1, 48, 64, 3)
    expected = wide.encode_image(as_open_clip_sees(image), normalize=True)
    torch.testing.assert_close(network.encode_image(image), expected, rtol=1e-4, atol=1e-5)
    tokens = open_clip.SimpleTokenizer(context_length=20)(["suction"])
    torch.testing.assert_close(network.encode_text(tokens), theirs.encode_text(tokens, normalize=True))
    assert network.encode_image(images(2, 24, 32, 3)).shape == (2, 24)


def test_a_transformer_sees_every_cell_and_learns(checkpoint: tuple[Path, Path, Any]) -> None:
    model, weights, _ = checkpoint
    network = network_of(model, weights, 48, 64).train()
    text = torch.nn.functional.normalize(torch.randn(3, 24), dim=-1)
    features, logits = network(images(2, 48, 64, 3), text)
    assert features.shape == (2, 8, 12, 16)
    assert logits.shape == (2, 3, 12, 16)
    logits.square().mean().backward()
    blocks = network.clip.visual.transformer.resblocks
    assert [blocks[i].mlp.c_fc.weight.grad is not None for i in range(4)] == [False, False, True, True]
    assert network.clip.visual.positional_embedding.grad is None
    changed = images(2, 48, 64, 3)
    changed[:, 40:, 56:] = 255 - changed[:, 40:, 56:]
    other = network(changed, text)[1]
    assert (other - logits)[..., 10:, 14:].abs().max() > 0


def test_every_depth_of_a_transformer_reaches_the_decoder(checkpoint: tuple[Path, Path, Any]) -> None:
    network = network_of(*checkpoint[:2])
    assert network.stages.indices == (0, 1, 2, 3)
    network(images(1, 32, 32, 3), torch.randn(2, 24))[0].sum().backward()
    assert all(lateral.weight.grad.abs().sum() > 0 for lateral in network.decoder.lateral)


def test_pretrained_towers_are_told_from_what_starts_at_random(checkpoint: tuple[Path, Path, Any]) -> None:
    network = network_of(*checkpoint[:2])
    slow = {id(p) for p in network.pretrained_parameters()}
    assert id(network.clip.token_embedding.weight) in slow
    assert id(network.embed.weight) not in slow
    small = ClipSegmenter(NetworkConfig(height=64, width=64, text_layers=1))
    slow = {id(p) for p in small.pretrained_parameters()}
    assert id(small.clip.visual.trunk.conv_stem.weight) in slow
    assert id(small.clip.token_embedding.weight) not in slow


@pytest.mark.parametrize(
    ("tower", "height", "width"),
    [("resnet18", 64, 96), ("PE-Core-T-16-384", 64, 96), ("ViT-S-16", 64, 96), ("test_convnext", 64, 96)],
)
@torch.no_grad()
def test_towers_of_every_family(tower: str, height: int, width: int) -> None:
    network = ClipSegmenter(NetworkConfig(tower=tower, weights="", height=height, width=width)).eval()
    text = network.encode_text(open_clip.SimpleTokenizer(context_length=network.context)(["a", "b", "c"]))
    features, logits = network(images(1, height, width, 3), text)
    assert features.shape == (1, 48, height // 4, width // 4)
    assert logits.shape == (1, 3, height // 4, width // 4)
    image = network.encode_image(images(1, height, width, 3))
    torch.testing.assert_close(image.norm(dim=1), torch.ones(1))
    assert image.shape[1] == text.shape[1]


@torch.no_grad()
def test_patches_of_fourteen_pixels_come_out_at_stride_four(checkpoint: tuple[Path, Path, Any], tmp_path: Path) -> None:
    odd = CONFIG | {"vision_cfg": CONFIG["vision_cfg"] | {"patch_size": 14}}
    (tmp_path / "odd.json").write_text(json.dumps(odd))
    network = network_of(tmp_path / "odd.json", "", 84, 140)
    assert network(images(1, 84, 140, 3), torch.randn(2, 24))[1].shape == (1, 2, 21, 35)
    with pytest.raises(UsageError, match=r"85x140.*multiples of the 28"):
        network_of(tmp_path / "odd.json", "", 85, 140)


@pytest.mark.parametrize(("recipe", "width", "heads"), [("base", 768, 8), ("large", 1024, 12)])
def test_the_recipes_for_gpus_fit_their_towers(recipe: str, width: int, heads: int) -> None:
    config = load_recipe(recipe).network
    assert config.weights in open_clip.list_pretrained_tags_by_model(config.tower)
    with torch.device("meta"):
        clip = make_clip_module(config)
    patch = clip.visual.patch_size[0]
    assert clip.visual.conv1.weight.shape[0] == width
    assert clip.visual.positional_embedding.shape[0] == (config.height // patch) * (config.width // patch) + 1
    assert clip.transformer.resblocks[0].attn.num_heads == heads


def test_a_bundle_of_a_checkpoints_network_runs_with_its_texts(
    checkpoint: tuple[Path, Path, Any], tmp_path: Path
) -> None:
    """Export checks the engines' labels and texts against the network's."""
    network = network_of(*checkpoint[:2], 48, 64)
    refiner = RefinerNetwork.beside(network, 8, len(SCENE_CLASSES), ReinforcementConfig())
    bundle = export_bundle(TrainedModel(network, refiner, SCENE_CLASSES, 48, 64, 2), tmp_path, "vit", {})
    wider = with_prompts(bundle, ["grasper"])
    with torch.no_grad():
        expected = class_embeddings(network, wider.manifest.classes[-1:])[0]
    assert float(expected @ torch.from_numpy(wider.embeddings[-1])) > 0.9999
    with pytest.raises(
        BundleError, match=r"'vit' can't take images of 96x128: its encoder.onnx is made for 48x64 alone"
    ):
        load_engines(with_input_size(bundle, "96x128"), precision="f32", threads=1)


def test_a_checkpoint_of_another_shape_is_named(checkpoint: tuple[Path, Path, Any], tmp_path: Path) -> None:
    model, weights, theirs = checkpoint
    wide = CONFIG | {"vision_cfg": CONFIG["vision_cfg"] | {"width": 32}}
    (tmp_path / "wide.json").write_text(json.dumps(wide))
    with pytest.raises(UsageError, match=r"weights\.pt.*wide\.json.*visual\.class_embedding is \(64,\).*\(32,\)"):
        network_of(tmp_path / "wide.json", weights)
    longer = CONFIG | {"text_cfg": CONFIG["text_cfg"] | {"context_length": 21}}
    (tmp_path / "long.json").write_text(json.dumps(longer))
    with pytest.raises(UsageError, match=r"positional_embedding is \(20, 48\), the network's is \(21, 48\)"):
        network_of(tmp_path / "long.json", weights)
    torch.save({k: v for k, v in theirs.state_dict().items() if k != "ln_final.bias"}, tmp_path / "less.pt")
    with pytest.raises(UsageError, match=r"ln_final\.bias is not in it"):
        network_of(model, tmp_path / "less.pt")


@pytest.mark.parametrize(
    ("tower", "weights", "words"),
    [
        ("ViT-Z-99", "", "ViT-Z-99"),
        ("coca_ViT-B-32", "", r"coca_ViT-B-32.*multimodal"),
        ("RN50", "", r"RN50.*resnet50"),
        ("nowhere.json", "", r"nowhere\.json.*No such file"),
        ("ViT-S-16", "no_such_tag", r"no_such_tag.*ViT-S-16"),
        ("vit_tiny_patch16_224", "", r"60x60.*vit_tiny_patch16_224"),
        ("ViT-S-16", "", r"60x60.*16"),
    ],
)
def test_what_can_not_be_built_is_one_line(tower: str, weights: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        ClipSegmenter(NetworkConfig(tower=tower, weights=weights, height=60, width=60))
    assert "\n" not in str(caught.value)


def test_a_card_tells_the_start_and_no_folder(checkpoint: tuple[Path, Path, Any]) -> None:
    model, weights, _ = checkpoint
    told = describe_start(NetworkConfig(tower=str(model), weights=str(weights)))
    assert told == f"tiny.json from weights.pt, SHA-256 {file_hash(weights)}"
    assert describe_start(NetworkConfig(weights="")) == "random"
    assert "ImageNet" in describe_start(NetworkConfig())
    assert describe_start(load_recipe("base").network) == "ViT-B-16 of open_clip, tag datacomp_xl_s13b_b90k"


def test_a_file_that_is_no_checkpoint_is_named(checkpoint: tuple[Path, Path, Any], tmp_path: Path) -> None:
    text = tmp_path / "weights.pt"
    text.write_text("no weights")
    with pytest.raises(UsageError, match=r"weights\.pt' is no open_clip checkpoint") as caught:
        network_of(checkpoint[0], text)
    assert "\n" not in str(caught.value)
    torch.save({"a": 1}, text)
    with pytest.raises(UsageError, match=r"no open_clip checkpoint"):
        network_of(checkpoint[0], text)
    broken = tmp_path / "model.json"
    broken.write_text('{"embed_dim": 3}')
    with pytest.raises(UsageError, match=r"model\.json' describes no open_clip model"):
        network_of(broken, "")
