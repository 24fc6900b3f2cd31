"""From a prompt to the mask of an image: presence, saliency, clean-up, prompts, promptable network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.engines import Bundle
from cliprl.engines.promptable import ImageEmbedding, PromptableNetwork
from cliprl.models.data.sample import IGNORE, Image
from cliprl.models.evaluation.image_segmenter import ImageSegmenter
from cliprl.models.labelling.prompting import PromptSettings, prompted_mask
from cliprl.models.labelling.pseudo_labels.prompt_bundle import PromptBundle
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.core.viewport import frame_to_network, inside_cells
from cliprl.pipeline.overlay.upsample import labels_at_frame

# A cell whose class has a lower probability is unsure.
SURE = 0.65


@dataclass(frozen=True, slots=True)
class FrameLabels:
    """The labels of an image, uint8 (H, W): 0 background, 1.. the prompts, 255 unsure.

    prompts: by name of a prompt, its scores, and its prompts of the network. masks: by name, the masks bool (H, W) of the steps,
    "saliency" and, with a promptable network, "network".
    """

    labels: NDArray[np.uint8]
    prompts: dict[str, dict[str, Any]]
    masks: dict[str, dict[str, NDArray[np.bool_]]] = field(default_factory=dict)


class PromptLabeller:
    """Labels images by prompts, "[NAME=]PHRASE[, PHRASE] [#RRGGBB]", with a bundle's dense saliency.

    A prompt competes with the bundle's classes that mean something else. What the presence test finds absent gets no mask. With a
    promptable network, pixels where its mask differs from the saliency's are unsure.
    """

    def __init__(
        self, bundle: Bundle, prompts: Sequence[str], network: PromptableNetwork | None = None, threads: int = 0
    ) -> None:
        """Raises UsageError for a bundle without texts, and for prompts that can't be read or are too long."""
        named = PromptBundle.of(bundle, prompts)
        self.classes, self._first, self._network = named.classes, named.first, network
        self._segmenter = ImageSegmenter(named.bundle, threads=threads)

    def reset(self) -> None:
        """Start another scene."""
        self._segmenter.reset()

    def __call__(self, image: Image) -> FrameLabels:
        """Label the next image of a scene, uint8 (H, W, 3) RGB."""
        found, (height, width) = self._segmenter.segment(image), image.shape[:2]
        pixels = labels_at_frame(found, height, width).astype(np.int16)
        labels = np.maximum(pixels - self._first + 1, 0).astype(np.uint8)
        unsure = np.zeros((height, width), bool)
        scores: dict[str, dict[str, Any]] = {}
        masks: dict[str, dict[str, NDArray[np.bool_]]] = {}
        embedding = self._network.encode(image) if self._network is not None and labels.any() else None
        for number, spec in enumerate(self.classes[1:], start=1):
            mask = labels == number
            masks[spec.name] = {"saliency": mask}
            presence = float((found.presence or {}).get(spec.name, 1.0))
            score: dict[str, Any] = {"presence": round(presence, 4), "share": round(float(mask.mean()), 6)}
            if mask.any():
                saliency = _probability_at(found, self._first + number - 1, (height, width))
                score["probability"] = round(float(saliency[mask].mean()), 4)
                unsure |= (saliency > 1 - SURE) & (saliency < SURE)
                if self._network is not None and embedding is not None:
                    prompted, score["prompts"] = network_mask(self._network, embedding, saliency)
                    masks[spec.name]["network"] = prompted
                    unsure |= prompted != mask
            scores[spec.name] = score
        labels[unsure] = IGNORE
        return FrameLabels(labels, scores, masks)


def network_mask(
    network: PromptableNetwork, embedding: ImageEmbedding, saliency: NDArray[np.float32]
) -> tuple[NDArray[np.bool_], list[dict[str, Any]]]:
    """Return the mask (H, W) that a promptable network gives for a map (H, W) in 0..1, and each prompt with its score as JSON."""
    result = prompted_mask(network, embedding, saliency, PromptSettings())
    prompts: list[dict[str, Any]] = [
        {
            "boxes": np.round(one.boxes, 1).tolist(),
            "points": np.round(one.points, 1).tolist(),
            "labels": one.labels.tolist(),
        }
        for one in result.prompts
    ]
    return result.mask, [*prompts, {"score": round(result.score, 4)}]


def _probability_at(found: Segmentation, class_id: int, size: tuple[int, int]) -> NDArray[np.float32]:
    """Return the probability of a class at the pixels of the image, float32 (H, W); 0 outside the field of view."""
    view, (rows, columns) = found.view, found.labels.shape
    scale = np.array([columns / view.network_width, rows / view.network_height])
    matrix = frame_to_network(view) * scale[:, None]
    # Pixel centers lie at half-integers in the view, at integers for OpenCV.
    matrix[:, 2] += matrix[:, :2].sum(axis=1) * 0.5 - 0.5
    cells = np.where(inside_cells(view, rows, columns), found.probabilities[class_id], 0).astype(np.float32)
    return np.asarray(
        cv2.warpAffine(cells, matrix, size[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP), np.float32
    )
