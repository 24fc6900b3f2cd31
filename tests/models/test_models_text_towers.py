"""Text towers with other tokenizers: a BiomedCLIP and a SigLIP in a local folder load, train, and are exported."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from cliprl.engines import Manifest, TextEngine, UsageError, open_bundle, seal_bundle
from cliprl.engines.bundle.bundle import ENCODER, REFINER, TEXT
from cliprl.models.config.config import ContrastiveConfig, NetworkConfig, Recipe, SupervisedConfig
from cliprl.models.data.batch_loader import Mixture
from cliprl.models.data.sample import Sample
from cliprl.models.export.export import add_text_if_possible
from cliprl.models.network.network import ClipSegmenter
from cliprl.models.network.text import class_embeddings
from cliprl.models.network.tokenizer import portable_tokenizer
from cliprl.models.training.stages.contrastive import Contrastive
from cliprl.models.training.stages.gradient_stage import GradientStage
from cliprl.models.training.stages.supervised import Supervised
from cliprl.pipeline import with_prompts
from cliprl.pipeline.synthetic import SCENE_CLASSES

open_clip = pytest.importorskip("open_clip")
transformers = pytest.importorskip("transformers")

WORDS = [
    "a",
    "an",
    "the",
    "of",
    "in",
    "photo",
    "view",
    "endoscopic",
    "surgical",
    "scene",
    "instrument",
    "shaft",
    "grasper",
    "thread",
    "needle",
    "kidney",
    "tissue",
    "s",
]
# The size that the weights of timm's test_vit are made for.
SIDE = 160
TEXTS = ["A  grasper", "the shaft of an instrument,", "endoscopic view of kidney_tissue", "x" * 300, ""]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    torch.set_num_threads(1)


def biomed_folder(folder: Path) -> Path:
    """A random CLIP of BiomedCLIP's shape: a timm ViT, a BERT with an MLP projection, and a WordPiece tokenizer."""
    letters = [f"{mark}{chr(code)}" for mark in ("", "##") for code in range(97, 123)]
    (folder / "vocab.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ",", "_", *WORDS, *letters])
    )
    tokenizer = transformers.BertTokenizerFast(vocab=str(folder / "vocab.txt"))
    tokenizer.save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48,
        max_position_embeddings=64,
    )  # fmt: skip
    (folder / "text").mkdir()
    config.save_pretrained(folder / "text")
    text = {
        "hf_model_name": "nowhere/bert", "hf_tokenizer_name": "nowhere/bert", "hf_proj_type": "mlp",
        "hf_pooler_type": "cls_last_hidden_state_pooler", "context_length": 24,
    }  # fmt: skip
    vision = {"timm_model_name": "test_vit", "timm_proj": "linear", "image_size": SIDE}
    return described(folder, {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text})


def siglip_folder(folder: Path) -> Path:
    """A random CLIP of SigLIP's shape: attention pooling, a text encoder that pools the last token, and a bias of logits."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from tokenizers.processors import TemplateProcessing

    words = {word: number for number, word in enumerate(["<pad>", "<eos>", "<unk>", *WORDS])}
    backend = Tokenizer(WordLevel(words, "<unk>"))
    backend.pre_tokenizer = WhitespaceSplit()
    backend.post_processor = TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    names = {"pad_token": "<pad>", "eos_token": "<eos>", "unk_token": "<unk>"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **names).save_pretrained(folder)
    text = {
        "context_length": 16, "vocab_size": len(words), "width": 32, "heads": 2, "layers": 2, "no_causal_mask": True,
        "proj_bias": True, "pool_type": "last", "hf_tokenizer_name": "nowhere/siglip",
        "tokenizer_kwargs": {"clean": "canonicalize"}, "norm_kwargs": {"eps": 1e-6}, "act_kwargs": {"approximate": "tanh"},
    }  # fmt: skip
    vision = {"timm_model_name": "test_vit", "timm_pool": "map", "timm_proj": "none", "image_size": SIDE}
    model = {"embed_dim": 64, "init_logit_bias": -10, "custom_text": True, "vision_cfg": vision, "text_cfg": text}
    return described(folder, model)


def described(folder: Path, model: dict[str, Any]) -> Path:
    described = {"model_cfg": model, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3}}
    (folder / "open_clip_config.json").write_text(json.dumps(described))
    return folder


def config_of(folder: Path, weights: str = "") -> NetworkConfig:
    return NetworkConfig(
        tower=str(folder), weights=weights, height=SIDE, width=SIDE, pyramid=8, features=8, frozen_stages=1
    )


def network_of(folder: Path, weights: str = "") -> ClipSegmenter:
    torch.manual_seed(2)
    return ClipSegmenter(config_of(folder, weights)).eval()


@pytest.fixture(scope="module", params=[biomed_folder, siglip_folder])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ClipSegmenter]:
    folder = request.param(tmp_path_factory.mktemp("tower"))
    return folder, network_of(folder)


def test_a_checkpoint_fills_both_towers(made: tuple[Path, ClipSegmenter], tmp_path: Path) -> None:
    folder, network = made
    state = network.clip.state_dict() | {"text.transformer.embeddings.position_ids": torch.arange(4)[None]}
    torch.save(state, tmp_path / "weights.pt")
    again = network_of(folder, str(tmp_path / "weights.pt"))
    assert again.pretrained
    assert again.mean.flatten().tolist() == [127.5] * 3
    tokens = network.tokenize(TEXTS)
    assert tokens.shape == (len(TEXTS), network.context)
    assert torch.equal(again.encode_text(tokens), network.encode_text(tokens))
    theirs = open_clip.get_tokenizer(f"local-dir:{folder}")
    assert torch.equal(theirs(TEXTS), tokens)


def test_both_towers_train(made: tuple[Path, ClipSegmenter]) -> None:
    _, network = made
    text = network.encode_text(network.tokenize(["grasper", "kidney tissue"]))
    image = network.encode_image(torch.zeros(2, SIDE, SIDE, 3, dtype=torch.uint8))
    logits = network(torch.zeros(1, SIDE, SIDE, 3, dtype=torch.uint8), text)[1]
    ((image @ text.T).sum() + logits.square().mean()).backward()
    trained = [name for name, value in network.clip.named_parameters() if value.grad is not None]
    assert any(name.startswith("text.") for name in trained)
    assert any(name.startswith("visual.") for name in trained)
    network.zero_grad()


class Captioned:
    """Four frames of noise, each of its own sequence."""

    name, classes = "captioned", tuple(SCENE_CLASSES[:3])

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Sample:
        image = np.random.default_rng(index).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        return Sample(image, np.full((SIDE, SIDE), index % 3, np.uint8), f"{index}")

    def sequence(self, index: int) -> str:
        return f"{index}"

    clip = sequence

    def caption(self, index: int) -> str:
        return WORDS[-1 - index]


@pytest.mark.parametrize("name", ["contrastive", "supervised"])
def test_a_resumed_stage_repeats_the_dropout_of_texts(tmp_path: Path, name: str) -> None:
    folder, data = biomed_folder(tmp_path), Captioned()
    settings = {"contrastive": ContrastiveConfig(steps=3, batch=2), "supervised": SupervisedConfig(steps=3, batch=2)}
    recipe = Recipe(network=config_of(folder), **settings)  # type: ignore[arg-type]

    def begun() -> GradientStage:
        network = network_of(folder)
        if name == "contrastive":
            return Contrastive(network, [data], recipe)
        return Supervised(network, Mixture([data], [1.0]), data.classes, recipe)

    whole, resumed = begun(), begun()
    whole.step(0)  # type: ignore[attr-defined]
    state = deepcopy(whole.state())
    resumed.load(state)
    for stage in (whole, resumed):
        stage.step(1)  # type: ignore[attr-defined]
    weights = resumed.module.state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in whole.module.state_dict().items())


def test_portable_tokenizers_give_the_same_tokens(made: tuple[Path, ClipSegmenter]) -> None:
    _, network = made
    portable = portable_tokenizer(network.tokenizer)
    for text, tokens in zip(TEXTS, network.tokenize(TEXTS).tolist(), strict=True):
        assert portable.encode(text).ids == tokens


def test_bundles_have_the_texts_of_their_tower(tmp_path: Path) -> None:
    (tmp_path / "tower").mkdir()
    network = network_of(biomed_folder(tmp_path / "tower"))
    (tmp_path / "bundle").mkdir()
    for name in (ENCODER, REFINER):
        onnx.save(helper.make_model(helper.make_graph([], "unused", [], [])), tmp_path / "bundle" / name)
    with torch.no_grad():
        embeddings = class_embeddings(network, SCENE_CLASSES[:3]).numpy()
    manifest = Manifest("biomed", tuple(SCENE_CLASSES[:3]), SIDE, SIDE, 4, 1)
    bundle = add_text_if_possible(seal_bundle(tmp_path / "bundle", manifest, embeddings), network)
    prompted = with_prompts(bundle, ["grasper"])
    with torch.no_grad():
        expected = class_embeddings(network, prompted.manifest.classes[-1:])[0].numpy()
        texts = network.encode_text(network.tokenize(TEXTS)).numpy()
    assert float(expected @ prompted.embeddings[-1]) > 0.9999
    engine = TextEngine(bundle)
    assert np.abs(engine.embed(TEXTS) - texts).max() <= 1e-3
    engine.check("a grasper in the kidney")
    for phrase, message in (("", "says nothing"), ("thread " * 200, "the network reads at most")):
        with pytest.raises(UsageError, match=message) as error:
            engine.check(phrase)
        assert "\n" not in str(error.value)
    network.tokenizer.strip_sep_token = True
    baked = add_text_if_possible(bundle, network)
    network.tokenizer.strip_sep_token = False
    assert not (baked.path / TEXT).exists()
    with pytest.raises(UsageError, match=r"has no text network \(its tokenizer runs in Python only\)"):
        with_prompts(open_bundle(baked.path), ["grasper"])


def test_a_missing_text_encoder_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    folder = biomed_folder(tmp_path)
    (folder / "text" / "config.json").unlink()
    with pytest.raises(UsageError, match=r"needs the text encoder 'nowhere/bert'.*folder 'text'") as error:
        network_of(folder)
    assert "\n" not in str(error.value)


def test_a_checkpoint_of_another_architecture_is_named(tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "other.pt")
    (tmp_path / "tower").mkdir()
    with pytest.raises(UsageError, match=r"other\.pt' does not fit network\.tower .*name the model"):
        network_of(biomed_folder(tmp_path / "tower"), str(tmp_path / "other.pt"))


def changed(folder: Path, place: str, value: Any) -> None:
    """Set a field of a file of a folder, as in "open_clip_config.json model_cfg.embed_dim"."""
    name, _, path = place.partition(" ")
    data = json.loads((folder / name).read_text())
    *parents, last = path.split(".")
    inner = data
    for key in parents:
        inner = inner[key]
    inner[last] = value
    (folder / name).write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        ("open_clip_config.json model_cfg", [], r"describes no open_clip model \(model_cfg: "),
        ("open_clip_config.json model_cfg.embed_dim", "24", r"describes no open_clip model \(model_cfg\.embed_dim: "),
        ("open_clip_config.json model_cfg.text_cfg", None, r"describes no open_clip model \(model_cfg\.text_cfg: "),
        (
            "open_clip_config.json preprocess_cfg.std",
            [0, 0, 0],
            r"describes no open_clip model \(preprocess_cfg\.std\.0: ",
        ),
        ("open_clip_config.json model_cfg.vision_cfg.later", 1, "can't be used .*'later'.*update open_clip_torch"),
        (
            "open_clip_config.json model_cfg.vision_cfg.timm_model_name",
            "vit_x",
            "can't be used .*vit_x.*update open_clip_torch",
        ),
        (
            "open_clip_config.json model_cfg.text_cfg.hf_pooler_type",
            "new",
            "can't be used .*new.*update open_clip_torch",
        ),
        ("open_clip_config.json model_cfg.text_cfg.context_length", 900, r"can't be used \(RuntimeError: .*900"),
        ("text/config.json model_type", "new", "can't be used .*new.*update open_clip_torch, timm and transformers"),
        ("text/config.json vocab_size", 1, r"can't be used \(IndexError"),
        ("tokenizer_config.json pad_token", None, "the tokenizer .* not to be had .*whole copies of tokenizer.json"),
        ("tokenizer.json model", {"type": "new"}, "the tokenizer .* not to be had .*whole copies of tokenizer.json"),
    ],
)
def test_damaged_and_newer_folders_are_one_line(place: str, value: Any, words: str, tmp_path: Path) -> None:
    folder = biomed_folder(tmp_path)
    changed(folder, place, value)
    with pytest.raises(UsageError, match=words) as error:
        network_of(folder)
    assert "\n" not in str(error.value)


def test_weights_that_are_not_finite_are_refused(made: tuple[Path, ClipSegmenter], tmp_path: Path) -> None:
    folder, network = made
    torch.save(network.clip.state_dict() | {"logit_scale": torch.tensor(float("nan"))}, tmp_path / "weights.pt")
    with pytest.raises(
        UsageError, match=r"weights\.pt' is no open_clip checkpoint \(it holds values that are not finite\)"
    ):
        network_of(folder, str(tmp_path / "weights.pt"))
