"""SAM, SAM 2 and EdgeTAM of the `transformers` library, from a local folder, as promptable networks.

Importing this module registers the kind "transformers:FOLDER".
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cliprl.engines.promptable import ImageEmbedding, PromptedMasks, prompt_arrays, register_promptable
from cliprl.engines.promptable.geometry import InputScaling, part_prompts
from cliprl.engines.promptable.interface import check_prompted_image
from cliprl.engines.promptable.transformers_folder import load_folder

# The class for each kind of model that a folder's config.json names.
MODEL_CLASSES = {
    "sam": "SamModel",
    "sam2": "Sam2Model",
    "sam2_video": "Sam2Model",
    "edgetam": "EdgeTamModel",
    "edgetam_video": "EdgeTamModel",
}


class TransformersNetwork:
    """A model on the CPU in 32 bits. Its folder holds config.json and model.safetensors, as `save_pretrained` writes them."""

    def __init__(self, folder: Path) -> None:
        self._model, kind = load_folder(folder, MODEL_CLASSES)
        side = int(self._model.prompt_encoder.input_image_size)
        self._scaling = InputScaling(side, side, keep_aspect=kind == "sam")
        self.name = f"{MODEL_CLASSES[kind]} ({folder.name})"

    @torch.no_grad()
    def encode(self, image: NDArray[np.uint8]) -> ImageEmbedding:
        """Run the vision encoder."""
        check_prompted_image(image)
        found = self._model.get_image_embeddings(torch.from_numpy(self._scaling.network_input(image)))
        maps = [found] if isinstance(found, Tensor) else list(found)
        tensors = {str(number): each.numpy() for number, each in enumerate(maps)}
        return ImageEmbedding(image.shape[0], image.shape[1], tensors)

    def masks(
        self,
        embedding: ImageEmbedding,
        points: NDArray[np.float32],
        labels: NDArray[np.int64],
        boxes: NDArray[np.float32],
    ) -> PromptedMasks:
        """Run prompt encoder and decoder for each box; of several boxes the logits are the maximum, the scores the mean."""
        points, labels, boxes = prompt_arrays(embedding, points, labels, boxes)
        parts = [self._decode(embedding, *part) for part in part_prompts(points, labels, boxes)]
        logits = np.maximum.reduce([part.logits for part in parts])
        return PromptedMasks(logits, np.mean([part.scores for part in parts], axis=0, dtype=np.float32))

    @torch.no_grad()
    def _decode(
        self, embedding: ImageEmbedding, points: NDArray[np.float32], labels: NDArray[np.int64]
    ) -> PromptedMasks:
        size = embedding.height, embedding.width
        places, kinds = torch.from_numpy(self._scaling.positions(points, *size)), torch.from_numpy(labels)
        maps = [torch.from_numpy(each) for each in embedding.tensors.values()]
        is_point = kinds < 2
        given: dict[str, Tensor] = {}
        if is_point.any():
            given |= {"input_points": places[is_point][None, None], "input_labels": kinds[is_point][None, None]}
        if not is_point.all():
            given["input_boxes"] = places[~is_point].reshape(1, 1, 4)
        outputs = self._model(image_embeddings=maps[0] if self._scaling.keep_aspect else maps, **given)
        logits = self._scaling.image_logits(outputs.pred_masks[0, 0].numpy(), *size)
        return PromptedMasks(logits, outputs.iou_scores[0, 0].numpy())


@register_promptable("transformers:FOLDER")
def open_transformers_network(argument: str, threads: int) -> TransformersNetwork:
    """Open a folder. Raises UsageError for one without such a model. `threads` 0 leaves torch's number."""
    if threads:
        torch.set_num_threads(threads)
    return TransformersNetwork(Path(argument))
