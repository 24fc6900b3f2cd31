"""Randomly initialized SAM and SAM 2 of transformers, tiny, and their ONNX pairs with the interface of samexporter."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

DECODER = {"hidden_size": 8, "mlp_dim": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "iou_head_hidden_dim": 8,
           "iou_head_depth": 2}  # fmt: skip
SAM_SIDE, SAM2_SIDE = 64, 128
_BACKBONE = {
    "model_type": "sam2_hiera_det_model", "hidden_size": 8, "num_attention_heads": 1, "blocks_per_stage": [1, 1, 2, 1],
    "embed_dim_per_stage": [8, 16, 32, 64], "num_attention_heads_per_stage": [1, 1, 2, 2],
    "global_attention_blocks": [3], "image_size": [SAM2_SIDE] * 2, "window_size_per_stage": [8, 4, 8, 4],
    "window_positional_embedding_background_size": [2, 2],
}  # fmt: skip
SAM2_VISION = {"backbone_config": _BACKBONE, "backbone_channel_list": [64, 32, 16, 8],
          "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]], "fpn_hidden_size": 8}  # fmt: skip


def random_sam() -> Any:
    from transformers import SamConfig, SamModel

    torch.manual_seed(0)
    vision = {
        "hidden_size": 16, "output_channels": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": SAM_SIDE,
        "patch_size": 16, "mlp_dim": 32, "window_size": 2, "global_attn_indexes": [1], "num_pos_feats": 4,
    }  # fmt: skip
    prompts = {"hidden_size": 8, "image_size": SAM_SIDE, "patch_size": 16, "mask_input_channels": 4}
    return SamModel(SamConfig(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=DECODER)).eval()


def random_sam2() -> Any:
    from transformers import Sam2Config, Sam2Model

    torch.manual_seed(0)
    prompts = {"hidden_size": 8, "image_size": SAM2_SIDE, "patch_size": 16, "mask_input_channels": 4}
    return Sam2Model(
        Sam2Config(vision_config=SAM2_VISION, prompt_encoder_config=prompts, mask_decoder_config=DECODER)
    ).eval()


class Encoder(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Any:
        return self.model.get_image_embeddings(image)


class Decoder(nn.Module):
    """Points and corners in one list, as Meta's decoders take them; the mask input is not used."""

    def __init__(self, model: Any, fine: bool) -> None:
        super().__init__()
        self.model, self.fine = model, fine

    def forward(self, *given: Tensor) -> tuple[Tensor, Tensor]:
        maps = list(given[:3]) if self.fine else [given[0]]
        points, labels, mask, has_mask = given[len(maps) : len(maps) + 4]
        encoder = self.model.prompt_encoder
        # Corners have the embeddings of labels 2 and 3, which transformers gives to boxes alone.
        table = encoder.point_embed.weight if self.fine else torch.cat([each.weight for each in encoder.point_embed])
        if self.fine:
            points = torch.cat([points, torch.zeros_like(points[:, :1])], 1)
            labels = torch.cat([labels, -torch.ones_like(labels[:, :1])], 1)
        side = encoder.input_image_size
        embedded = encoder.shared_embedding(points[:, None] + 0.5, (side, side))
        kinds = labels[:, None, :, None]
        embedded = torch.where(kinds == -1, encoder.not_a_point_embed.weight, embedded)
        for number in range(4):
            embedded = embedded + table[number] * (kinds == number)
        dense = encoder.no_mask_embed.weight.reshape(1, -1, 1, 1).expand(1, -1, *encoder.image_embedding_size)
        dense = dense + 0 * mask.mean() + 0 * has_mask.mean()
        fine = {"high_resolution_features": maps[:2]} if self.fine else {}
        outputs = self.model.mask_decoder(
            image_embeddings=maps[-1], image_positional_embeddings=self.model.get_image_wide_positional_embeddings(),
            sparse_prompt_embeddings=embedded, dense_prompt_embeddings=dense, multimask_output=True, **fine,
        )  # fmt: skip
        return outputs[0][:, 0], outputs[1][:, 0]


def export_pair(model: Any, folder: Path, fine: bool) -> str:
    """Write the pair of a model and return its specification; `fine` is for SAM 2."""
    side = model.prompt_encoder.input_image_size
    image = torch.zeros(1, 3, side, side)
    with torch.no_grad():
        found = Encoder(model)(image)
    maps = list(found) if fine else [found]
    names = ["high_res_feats_0", "high_res_feats_1", "image_embed"] if fine else ["image_embeddings"]
    prompts = (torch.zeros(1, 5, 2), torch.zeros(1, 5), torch.zeros(1, 1, side // 4, side // 4), torch.zeros(1))
    prompt_names = ["point_coords", "point_labels", "mask_input", "has_mask_input"]
    encoder, decoder = folder / "encoder.onnx", folder / "decoder.onnx"
    open_points = {"point_coords": {1: "points"}, "point_labels": {1: "points"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(Encoder(model), (image,), str(encoder), input_names=["image"], output_names=names,
                          opset_version=17, dynamo=False)  # fmt: skip
        torch.onnx.export(
            Decoder(model, fine), (*maps, *prompts), str(decoder), input_names=[*names, *prompt_names],
            output_names=["masks", "iou_predictions"], dynamic_axes=open_points, opset_version=17, dynamo=False,
        )  # fmt: skip
    return f"sam:{encoder},{decoder}"
