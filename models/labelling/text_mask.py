"""From a text to a mask of one image: presence test, saliency, clean-up, prompts, promptable network."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

import cliprl.models.labelling.transformers_network  # noqa: F401 - registers its kind
from cliprl.engines.promptable import PromptableNetwork
from cliprl.models.labelling.prompting import PromptSettings, SaliencyMask, prompted_mask
from cliprl.models.labelling.saliency import SaliencyModel, SaliencySettings, dense_margins, saliency
from cliprl.pipeline.segment.presence import UNCALIBRATED, PresenceTest, presence_evidence


@dataclass(frozen=True, slots=True)
class TextMaskSettings:
    """The settings of all steps. `presence` None skips the presence test."""

    saliency: SaliencySettings = field(default_factory=SaliencySettings)
    prompts: PromptSettings = field(default_factory=PromptSettings)
    presence: PresenceTest | None = UNCALIBRATED


@dataclass(frozen=True, slots=True)
class TextMask:
    """The mask bool (H, W) of a text, the probability that its thing is there, and the saliency float32 (H, W).

    Where the thing is absent the mask is empty, and `saliency` and `result` are None.
    """

    mask: NDArray[np.bool_]
    presence: float
    saliency: NDArray[np.float32] | None
    result: SaliencyMask | None


def text_mask(
    model: SaliencyModel,
    network: PromptableNetwork,
    image: NDArray[np.uint8],
    text: str | NDArray[np.float32],
    settings: TextMaskSettings,
) -> TextMask:
    """Segment what `text`, a phrase or an embedding (E,), names in an image uint8 (H, W, 3) RGB.

    An absent thing costs one forward pass and has an empty mask.
    """
    probability = 1.0
    if settings.presence is not None:
        evidence = presence_evidence(dense_margins(model, image, text, settings.saliency.others))
        probability = settings.presence.probability(evidence)
        if not settings.presence.is_present(evidence):
            return TextMask(np.zeros(image.shape[:2], bool), probability, None, None)
    found = saliency(model, image, text, settings.saliency)
    result = prompted_mask(network, network.encode(image), found, settings.prompts)
    return TextMask(result.mask, probability, found, result)
