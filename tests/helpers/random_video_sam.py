"""Randomly initialized video models of transformers, tiny: SAM 2 and EdgeTAM."""

from __future__ import annotations

from typing import Any

import torch
from random_sam import DECODER, SAM2_SIDE, SAM2_VISION

# The memory attention of transformers reads 64 channels, whatever the configuration says, and pointers must be wider.
MEMORY_WIDTH, WIDTH = 64, 128
DECODE = DECODER | {"hidden_size": WIDTH}
PROMPTS = {"hidden_size": WIDTH, "image_size": SAM2_SIDE, "patch_size": 16, "mask_input_channels": 4}
MEMORY = {
    "image_size": SAM2_SIDE, "memory_attention_hidden_size": WIDTH, "memory_attention_num_layers": 1,
    "memory_attention_rope_feat_sizes": [8, 8], "memory_encoder_hidden_size": WIDTH,
    "memory_encoder_output_channels": MEMORY_WIDTH,
    "mask_downsampler_embed_dim": WIDTH, "memory_fuser_num_layers": 1, "memory_fuser_embed_dim": WIDTH,
    "memory_fuser_intermediate_dim": 8, "max_object_pointers_in_encoder": 4, "num_maskmem": 3,
}  # fmt: skip


def random_video_sam2() -> Any:
    from transformers import Sam2VideoConfig, Sam2VideoModel

    torch.manual_seed(0)
    parts = {
        "vision_config": SAM2_VISION | {"fpn_hidden_size": WIDTH},
        "prompt_encoder_config": PROMPTS,
        "mask_decoder_config": DECODER | {"hidden_size": WIDTH},
    }
    feed = {"memory_attention_feed_forward_hidden_size": 16}
    return Sam2VideoModel(Sam2VideoConfig(**parts, **MEMORY, **feed)).eval()


def random_video_edgetam() -> Any:
    from transformers import EdgeTamVideoConfig, EdgeTamVideoModel

    torch.manual_seed(0)
    backbone = {"model_type": "timm_wrapper", "architecture": "test_convnext", "num_classes": 2,
                "model_args": {"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]}}  # fmt: skip
    vision = {"model_type": "edgetam_vision_model", "backbone_config": backbone,
              "backbone_channel_list": [64, 48, 32, 24],
              "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]], "fpn_hidden_size": WIDTH}  # fmt: skip
    parts = {
        "vision_config": vision,
        "prompt_encoder_config": PROMPTS,
        "mask_decoder_config": DECODER | {"hidden_size": WIDTH},
    }
    resampler = {
        "memory_attention_mlp_hidden_size": 16, "memory_attention_rope_k_sizes": [2, 2],
        "perceiver_resampler_num_latents": 4, "perceiver_resampler_num_latents_2d": 4,
        "perceiver_resampler_hidden_size": MEMORY_WIDTH, "perceiver_resampler_mlp_intermediate_size": 8,
        "perceiver_resampler_attention_head_dim": MEMORY_WIDTH, "perceiver_resampler_num_layers": 1,
    }  # fmt: skip
    return EdgeTamVideoModel(EdgeTamVideoConfig(**parts, **MEMORY, **resampler)).eval()
