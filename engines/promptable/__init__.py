"""Networks that segment one object of an image from points and boxes, such as the SAM family. No module here needs torch."""

from cliprl.engines.promptable.choice import ChosenMask, choose_mask
from cliprl.engines.promptable.interface import (
    ImageEmbedding,
    PromptableNetwork,
    PromptedMasks,
    no_boxes,
    no_points,
    prompt_arrays,
)
from cliprl.engines.promptable.registry import open_promptable, register_promptable

__all__ = [
    "ChosenMask",
    "ImageEmbedding",
    "PromptableNetwork",
    "PromptedMasks",
    "choose_mask",
    "no_boxes",
    "no_points",
    "open_promptable",
    "prompt_arrays",
    "register_promptable",
]
