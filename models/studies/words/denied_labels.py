"""Pseudo-labels of a class without masks, in scenes whose captions name it.

An annotator without the class labels it as background. Where a network that was trained without such scenes finds a known class
of the same kind, and the label denies that, the class of the caption is likely: a probe looks like other instruments.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.engines import ClassSpec
from cliprl.engines.promptable import open_promptable
from cliprl.models.data.sample import IGNORE, Image
from cliprl.models.labelling.prompting import BoolMap, PromptSettings, SaliencyMap, prompted_mask

# The stages of a mask, in their order; "prompts" and "region" are two ways to give the salient part to GrabCut.
MASK_STAGES = ("saliency", "clean-up", "prompts", "region")
# A pixel of a mask, a sure one, and one that may belong to it, by saliency.
_SALIENT, _SURE, _POSSIBLE = 0.5, 0.7, 0.3
# The smallest component, in shares of the image, and the side of opening and of the margin for GrabCut, in shares of the height.
_LEAST_SHARE, _OPENED, _MARGIN = 0.002, 0.027, 0.06
_ITERATIONS = 3


def denied_saliency(
    logits: NDArray[np.float32], classes: Sequence[ClassSpec], kind: str, background: BoolMap
) -> SaliencyMap:
    """Return the odds of the known classes of a kind against background as a probability (H, W), 0 where labels do not deny them.

    logits: (K, h, w) of the known `classes`, the first of which is the background; background: bool (H, W) by the labels.
    """
    chosen = logits[[index for index, spec in enumerate(classes) if spec.kind == kind and index]]
    odds = np.logaddexp.reduce(chosen, 0) - logits[0]
    large = cv2.resize(odds.astype(np.float32), background.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return np.asarray(background / (1 + np.exp(-large)), np.float32)


def region_mask(saliency: SaliencyMap, image: Image, background: BoolMap) -> BoolMap:
    """Return the mask bool (H, W) that GrabCut makes of the salient region of an image uint8 (H, W, 3)."""
    return _cut(saliency, _opened(saliency > _SALIENT), image, background)


def mask_stages(saliency: SaliencyMap, image: Image, background: BoolMap) -> dict[str, BoolMap]:
    """Return the mask bool (H, W) of each of MASK_STAGES for an image uint8 (H, W, 3)."""
    clean = _opened(saliency > _SALIENT)
    network = open_promptable("grabcut")
    prompts = prompted_mask(network, network.encode(image), (saliency * clean).astype(np.float32), PromptSettings())
    region = region_mask(saliency, image, background)
    return dict(zip(MASK_STAGES, (saliency > _SALIENT, clean, prompts.mask & background, region), strict=True))


def pseudo_labels(labels: Image, number: int, saliency: SaliencyMap, region: BoolMap) -> Image:
    """Return labels uint8 (H, W) with class `number` in the region; where it and the saliency disagree they are unknown."""
    unsure = (labels == 0) & ((saliency > _POSSIBLE) != region)
    return np.where(unsure, IGNORE, np.where(region, number, labels)).astype(np.uint8)


def denied_labels(labels: Image, found: Image, classes: Sequence[ClassSpec], number: int) -> Image:
    """Return labels uint8 (H, W) with class `number` where they are background and a network found a class of its kind.

    Labels deny the known classes there, as for the saliency; what the network calls of another kind is unknown.
    """
    codes = np.full(256, IGNORE, np.uint8)
    codes[0] = 0
    codes[[index for index, spec in enumerate(classes) if spec.kind == classes[number].kind]] = number
    return np.where(labels == 0, codes[found], labels).astype(np.uint8)


def _opened(mask: BoolMap) -> BoolMap:
    """Return a mask without thin parts, such as the edges of labelled instruments, and without small components."""
    side = max(3, round(_OPENED * mask.shape[0]) | 1)
    opened = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((side, side), np.uint8))
    _, parts, statistics, _ = cv2.connectedComponentsWithStats(opened)
    large = statistics[:, cv2.CC_STAT_AREA] >= _LEAST_SHARE * mask.size
    large[0] = False
    return np.asarray(large[parts])


def _cut(saliency: SaliencyMap, clean: BoolMap, image: Image, background: BoolMap) -> BoolMap:
    """Return what GrabCut makes of the salient part: its sure core stays, and what is far from it is left out."""
    margin, core = (
        np.ones((max(3, round(share * clean.shape[0]) | 1),) * 2, np.uint8) for share in (_MARGIN, _MARGIN / 3)
    )
    trimap = np.where(clean, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    sure = cv2.erode((clean & (saliency > _SURE)).astype(np.uint8), core) > 0
    trimap[sure] = cv2.GC_FGD
    trimap[(cv2.dilate(clean.astype(np.uint8), margin) == 0) | ~background] = cv2.GC_BGD
    if not sure.any() or not (trimap == cv2.GC_BGD).any():
        return clean
    cv2.setRNGSeed(0)
    cv2.grabCut(image, trimap, [0, 0, 1, 1], np.zeros((1, 65)), np.zeros((1, 65)), _ITERATIONS, cv2.GC_INIT_WITH_MASK)
    return np.isin(trimap, (cv2.GC_FGD, cv2.GC_PR_FGD)) & background
