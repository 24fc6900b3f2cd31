"""Backbones: any CLIP of open_clip, or a timm network with a small text encoder, for images of any shape."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import open_clip
import timm
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from cliprl.engines import CliprlError, UsageError, first_fault, reason_of
from cliprl.models.config.config import NetworkConfig
from cliprl.models.config.value_types import Number, Positive, PositiveNumber

# Size of CLIP's byte-pair vocabulary.
VOCABULARY = 49408
# The description of a model in a folder, as open_clip writes it; its texts' tokenizer and, for a text encoder of
# transformers, its configuration lie beside it or in a folder `text`.
FOLDER_CONFIG = "open_clip_config.json"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "spiece.model")
# Settings of a model that its class takes as they are.
SCALES = ("init_logit_scale", "init_logit_bias")


class _Model(BaseModel):
    """What every description of a model has; open_clip takes the rest as it is."""

    model_config = ConfigDict(extra="allow")

    embed_dim: Positive
    vision_cfg: dict[str, Any]
    text_cfg: dict[str, Any]


class _Preprocessing(BaseModel):
    model_config = ConfigDict(extra="allow")

    mean: tuple[Number, Number, Number] | None = None
    std: tuple[PositiveNumber, PositiveNumber, PositiveNumber] | None = None


class _Description(BaseModel):
    model_cfg: _Model
    preprocess_cfg: _Preprocessing = _Preprocessing()


_ADAPTER = TypeAdapter(_Description)


@contextmanager
def usable(tower: str) -> Iterator[None]:
    """Raise UsageError, with the reason, where a library can't use a model's description or files; OSError as it is."""
    try:
        yield
    except (CliprlError, OSError, MemoryError):
        raise
    except Exception as error:
        raise UsageError(
            f"network.tower '{tower}' can't be used ({type(error).__name__}: {reason_of(error)[:200]}): compare its description "
            "and files with those published, or update open_clip_torch, timm and transformers"
        ) from error


def make_clip_module(config: NetworkConfig) -> Any:
    """Create a randomly initialized CLIP module, as `config.tower` names it.

    Raises UsageError for an unknown name, a multimodal model, and a text encoder whose configuration is not to be had.
    """
    settings = _settings(config)
    vision, text = settings["vision_cfg"], settings["text_cfg"]
    if "timm_model_name" not in vision:
        if not isinstance(vision.get("layers", 0), int):
            raise UsageError(
                f"network.tower '{config.tower}' is a CLIP ResNet: choose a ViT, or a timm model (resnet50)"
            )
        vision["image_size"] = (config.height, config.width)
    kind = CustomTextCLIP if settings.pop("custom_text", False) or text.get("hf_model_name") else CLIP
    scales = {key: settings[key] for key in SCALES if key in settings}
    try:
        with usable(config.tower):
            sides = CLIPVisionCfg(**vision), CLIPTextCfg(**text)
            return kind(settings.pop("embed_dim"), *sides, _quick(config, settings), **scales)
    except OSError as error:
        raise UsageError(
            f"network.tower '{config.tower}' needs the text encoder '{text.get('hf_model_name')}', which is not to be had "
            f"({reason_of(error)[:100]}): put its config.json into a folder 'text' beside {FOLDER_CONFIG}"
        ) from error


def _settings(config: NetworkConfig) -> dict[str, Any]:
    """open_clip's description of the model: `embed_dim`, `vision_cfg`, `text_cfg` and some flags."""
    found = copy.deepcopy(model_description(config.tower))
    if found is None and timm.is_model(config.tower):
        vision = {"timm_model_name": config.tower, "timm_pool": "avg", "timm_proj": "linear"}
        text = {"context_length": config.context, "vocab_size": VOCABULARY, "width": config.text_width}
        text |= {"heads": _heads(config.text_width), "layers": config.text_layers}
        return {"embed_dim": config.embedding, "vision_cfg": vision, "text_cfg": text}
    if found is None:
        raise UsageError(
            f"unknown network.tower '{config.tower}': a model of open_clip's (ViT-B-16), one of timm's, or a file model.json"
        )
    if "multimodal_cfg" in found:
        raise UsageError(f"network.tower '{config.tower}' is multimodal (CoCa): choose a CLIP, such as ViT-B-16")
    text = found["text_cfg"]
    if text.get("hf_model_name"):
        if find_spec("transformers") is None:
            raise UsageError(f"network.tower '{config.tower}' needs the package transformers: pip install transformers")
        # The checkpoint holds the text encoder's weights too.
        text["hf_model_pretrained"] = False
    return found


def _heads(width: int) -> int:
    """Return the number of attention heads of a text encoder: of about 32 channels, all of one size."""
    return next(count for count in range(max(1, width // 32), 0, -1) if width % count == 0)


def model_description(tower: str) -> dict[str, Any] | None:
    """open_clip's description of a model that it knows, or of a JSON file or a folder; None for any other name."""
    path = _description_file(tower)
    if path is None:
        return _published(tower)
    model = _read(tower, path).model_cfg.model_dump()
    if path.name == FOLDER_CONFIG:
        _use_local_files(model["text_cfg"], path.parent)
    return model


def _use_local_files(text: dict[str, Any], folder: Path) -> None:
    """Replace the names of tokenizer and text encoder by the folders that hold their files, where they are there."""
    places = [folder, folder / "text"]
    if text.get("hf_model_name") and (found := [each for each in places if (each / "config.json").is_file()]):
        text["hf_model_name"] = str(found[-1])
    if text.get("hf_tokenizer_name") or text.get("hf_model_name"):
        found = [each for each in places if any((each / name).is_file() for name in TOKENIZER_FILES)]
        text["hf_tokenizer_name"] = str(found[0]) if found else text.get("hf_tokenizer_name") or text["hf_model_name"]


def preprocessing(tower: str) -> dict[str, Any]:
    """Return the preprocessing, such as "mean" and "std" in 0..1, that a file or folder of a model states; else {}."""
    path = _description_file(tower)
    return {} if path is None else _read(tower, path).preprocess_cfg.model_dump()


def _description_file(tower: str) -> Path | None:
    """Return the JSON file that `tower` names, or that of the folder; None for the name of a published model."""
    path = Path(tower) / FOLDER_CONFIG if Path(tower).is_dir() else Path(tower)
    return path if path.suffix == ".json" else None


def _read(tower: str, path: Path) -> _Description:
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
        return _ADAPTER.validate_python(data if "model_cfg" in data else {"model_cfg": data})
    except OSError as error:
        raise UsageError(
            f"network.tower '{tower}': '{path}' can't be read ({error.strerror}): give a file of open_clip's, or a folder with "
            f"{FOLDER_CONFIG}"
        ) from error
    except (ValueError, TypeError, RecursionError) as error:
        reason = str(first_fault(error)) if isinstance(error, ValidationError) else reason_of(error)[:100]
        raise UsageError(
            f"network.tower '{tower}' describes no open_clip model ({reason}): see {FOLDER_CONFIG}"
        ) from error


def _published(name: str) -> dict[str, Any] | None:
    """open_clip's description of a model that it knows or finds on the hub (hf-hub:NAME)."""
    try:
        with usable(name):
            return open_clip.get_model_config(name)  # type: ignore[no-any-return]
    except OSError as error:
        raise UsageError(
            f"network.tower '{name}' is not to be had ({reason_of(error)[:100]}): download it, and give its folder"
        ) from error


def _quick(config: NetworkConfig, settings: dict[str, Any]) -> bool:
    tag = open_clip.get_pretrained_cfg(config.tower, config.weights)
    return bool(settings.get("quick_gelu") or (tag and tag.get("quick_gelu")))
