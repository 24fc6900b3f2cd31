"""Backbones: any CLIP of open_clip, or a timm network with a small text encoder, for images of any shape."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import open_clip
import timm
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP

from cliprl.engines import UsageError
from cliprl.models.config.config import NetworkConfig

# Size of CLIP's byte-pair vocabulary, the one that `text.py` tokenizes for.
VOCABULARY = 49408
# Text settings of open_clip for another tokenizer or another kind of text encoder.
OTHER_TEXT = ("hf_model_name", "hf_tokenizer_name", "tokenizer_kwargs")


def make_clip_module(config: NetworkConfig) -> Any:
    """Create a randomly initialized CLIP module, as `config.tower` names it.

    Raises UsageError for an unknown name, and for a text encoder with another tokenizer.
    """
    settings = _settings(config)
    vision, text = settings["vision_cfg"], settings["text_cfg"]
    if "timm_model_name" not in vision:
        if not isinstance(vision.get("layers", 0), int):
            raise UsageError(
                f"network.tower '{config.tower}' is a CLIP ResNet: choose a ViT, or a timm model (resnet50)"
            )
        vision["image_size"] = (config.height, config.width)
    kind = CustomTextCLIP if settings.pop("custom_text", False) else CLIP
    return kind(
        settings.pop("embed_dim"), CLIPVisionCfg(**vision), CLIPTextCfg(**text), quick_gelu=_quick(config, settings)
    )


def _settings(config: NetworkConfig) -> dict[str, Any]:
    """open_clip's description of the model: `embed_dim`, `vision_cfg`, `text_cfg` and some flags."""
    found = copy.deepcopy(model_description(config.tower))
    if found is None and timm.is_model(config.tower):
        vision = {"timm_model_name": config.tower, "timm_pool": "avg", "timm_proj": "linear"}
        text = {"context_length": config.context, "vocab_size": VOCABULARY, "width": config.text_width}
        text |= {"heads": max(1, config.text_width // 32), "layers": config.text_layers}
        return {"embed_dim": config.embedding, "vision_cfg": vision, "text_cfg": text}
    if found is None:
        raise UsageError(
            f"unknown network.tower '{config.tower}': a model of open_clip's (ViT-B-16), one of timm's, or a file model.json"
        )
    text = found["text_cfg"]
    other = [key for key in OTHER_TEXT if text.get(key)] + ["multimodal_cfg"] * ("multimodal_cfg" in found)
    if other or text.get("vocab_size", VOCABULARY) != VOCABULARY:
        raise UsageError(
            f"network.tower '{config.tower}' reads other tokens than CLIP's {VOCABULARY} ({', '.join(other) or 'vocab_size'}): "
            "choose one with CLIP's own text tower, such as ViT-B-16"
        )
    return found


def model_description(tower: str) -> dict[str, Any] | None:
    """open_clip's description of a model that it knows, or that a JSON file describes; None for any other name."""
    if not tower.endswith(".json"):
        return open_clip.get_model_config(tower)  # type: ignore[no-any-return]
    try:
        data = json.loads(Path(tower).read_text(encoding="utf-8"))
        model: dict[str, Any] = data.get("model_cfg", data)
        model["embed_dim"], model["vision_cfg"], model["text_cfg"]
    except OSError as error:
        raise UsageError(
            f"network.tower '{tower}' can't be read ({error.strerror}): give a file of open_clip's"
        ) from error
    except (ValueError, KeyError, AttributeError) as error:
        raise UsageError(
            f"network.tower '{tower}' describes no open_clip model ({error!r}): see open_clip_config.json"
        ) from error
    return model


def _quick(config: NetworkConfig, settings: dict[str, Any]) -> bool:
    tag = open_clip.get_pretrained_cfg(config.tower, config.weights)
    return bool(settings.get("quick_gelu") or (tag and tag.get("quick_gelu")))
