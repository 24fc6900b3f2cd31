"""Correction of one frame's segmentation by prompts, and its way onto the frames that follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.engines import Bundle
from cliprl.engines.bundle.bundle import PROMPT_HEAD
from cliprl.engines.promptable import PromptableNetwork, open_promptable
from cliprl.engines.promptable.head import MaskHead
from cliprl.pipeline.core.frame import Frame, FrameContext
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.core.viewport import Viewport, inside_cells
from cliprl.pipeline.correction.carry import carried_logits, mixed
from cliprl.pipeline.correction.class_odds import class_odds, with_class_odds
from cliprl.pipeline.correction.frames import frame_bytes
from cliprl.pipeline.correction.prompts import MaskPrompt, network_points
from cliprl.pipeline.segment.decision import segmentation_of
from cliprl.pipeline.segment.segmenter import Segmenter

GridLogits = NDArray[np.float32]
# Keeps the logarithm of a probability finite.
_TINY = 1e-9


@dataclass(slots=True, eq=False)
class Draft:
    """A frame whose segmentation is being corrected.

    features (1, D, h, w) and image uint8 (1, H, W, 3) are those of the encoder; logits float32 (K, h, w) are the present ones.
    prompts: all so far; history: the logits (h, w) of each one's class before it, for a prompt changes no others; kept: those
    at the last keep. accepted: a person has kept this segmentation before. carried: the logits of the corrected frame that
    this one follows, which lies `age` seconds before it.
    """

    frame: Frame
    view: Viewport
    features: NDArray[Any]
    image: NDArray[np.uint8]
    logits: GridLogits
    prompts: list[MaskPrompt] = field(default_factory=list)
    history: list[GridLogits] = field(default_factory=list)
    kept: tuple[MaskPrompt, ...] = ()
    accepted: bool = False
    carried: GridLogits | None = None
    age: float = 0.0

    @property
    def is_kept(self) -> bool:
        """Whether the prompts are those of the last keep."""
        return tuple(self.prompts) == self.kept

    @property
    def segmentation(self) -> Segmentation:
        """The present segmentation."""
        return segmentation_of(self.logits, self.view, 0, 0.0)

    @property
    def kept_bytes(self) -> int:
        """The bytes of the frame and the arrays."""
        arrays = (self.features, self.image, self.logits, *self.history, self.carried)
        return frame_bytes(self.frame) + sum(one.nbytes for one in arrays if one is not None)

    def undo(self) -> None:
        """Take the last prompt back; without any there is nothing to do."""
        if self.prompts:
            self.logits[self.prompts.pop().class_id] = self.history.pop()


class MaskNetwork(Protocol):
    """Corrects the mask of some classes."""

    name: str

    def correct(self, draft: Draft, prompts: Sequence[MaskPrompt], odds: GridLogits) -> GridLogits:
        """Return the binary logits (h, w) after `prompts`, all on one class and the last one new, from the present `odds`."""
        ...


class Corrector:
    """Segments frames with `segmenter` and corrects them with `network`. Not for use by two threads at once."""

    def __init__(self, segmenter: Segmenter, network: MaskNetwork) -> None:
        self.segmenter, self.network = segmenter, network

    def start(self, frame: Frame) -> Draft:
        """Segment a frame without any frame before it."""
        self.segmenter.reset()
        return segmented_draft(self.segmenter, frame)

    def apply(self, draft: Draft, prompt: MaskPrompt) -> None:
        """Change the segmentation of `draft` by one more prompt."""
        same = [one for one in draft.prompts if one.class_id == prompt.class_id]
        odds = self.network.correct(draft, [*same, prompt], class_odds(draft.logits, [prompt.class_id]))
        draft.history.append(draft.logits[prompt.class_id].copy())
        draft.prompts.append(prompt)
        draft.logits = with_class_odds(draft.logits, [prompt.class_id], odds)

    def follow(self, draft: Draft, frame: Frame) -> Draft:
        """Segment the frame after that of `draft`, whose segmentation is its prior and, once corrected, is carried on."""
        prior = self.segmenter.prior
        # For the comparisons with the next frame: the segmenter's last frame may have been another one.
        prior.is_cut(draft.image[0])
        prior.is_related(draft.image[0], compare=False)
        prior.keep(draft.logits[None], draft.view)
        self.segmenter.memory.clear()  # its result is not the corrected one
        following = segmented_draft(self.segmenter, frame)
        fresh = bool(draft.prompts) or draft.accepted
        source = draft.logits if fresh else draft.carried
        if source is not None:
            following.carried = carried_logits(source, (draft.frame, draft.view), (frame, following.view))
            following.age = max(0.0, frame.seconds - draft.frame.seconds) + (0.0 if fresh else draft.age)
        if following.carried is not None:
            following.logits = mixed(following.carried, following.logits, following.age)
        return following


def segmented_draft(segmenter: Segmenter, frame: Frame) -> Draft:
    """Segment the next frame of `segmenter` as the start of a correction."""
    context = FrameContext(frame)
    for stage in segmenter.stages:
        stage.run(context)
    assert context.segmentation is not None
    logits = displayed_logits(context.segmentation)
    return Draft(frame, context.view, np.array(context.features), context.image.copy(), logits)


def displayed_logits(segmentation: Segmentation) -> GridLogits:
    """Return logits float32 (K, h, w) of a segmentation as it is displayed: refined, and without classes that are absent.

    An unsure part, which is displayed as "instrument", is the likeliest one.
    """
    segmentation = segmentation.likeliest
    logits = np.asarray(np.log(segmentation.probabilities + _TINY), np.float32)
    likeliest = logits.argmax(axis=0)
    inside = inside_cells(segmentation.view, *likeliest.shape)
    rows, columns = np.nonzero(inside & (likeliest != segmentation.labels))
    left_out = likeliest[rows, columns]
    logits[left_out, rows, columns] = logits[segmentation.labels[rows, columns], rows, columns] - 1
    return logits


class HeadNetwork:
    """The promptable head of the bundle."""

    name = MaskHead.name

    def __init__(self, head: MaskHead) -> None:
        self._head = head

    def correct(self, draft: Draft, prompts: Sequence[MaskPrompt], odds: GridLogits) -> GridLogits:
        """Run the head once, on all prompts of the class and its present mask."""
        points, labels, boxes = _network_prompts(draft, prompts)
        newest = prompts[-1].is_box
        return self._head.correct(draft.features, draft.image, points, labels, boxes, odds, box_is_newest=newest)


class PromptedNetwork:
    """Any promptable network, such as GrabCut or a user's SAM. It sees the network input."""

    def __init__(self, network: PromptableNetwork) -> None:
        self.name, self._network = network.name, network
        self._encoded: tuple[NDArray[np.uint8], Any] | None = None

    def correct(self, draft: Draft, prompts: Sequence[MaskPrompt], odds: GridLogits) -> GridLogits:
        """Segment the object of all prompts of the class; without a positive one, its present mask gives a point."""
        if self._encoded is None or self._encoded[0] is not draft.image:
            self._encoded = draft.image, self._network.encode(draft.image[0])
        points, labels, boxes = _network_prompts(draft, prompts)
        if not len(boxes) and not labels.any():
            row, column = np.unravel_index(int(odds.argmax()), odds.shape)
            scale = draft.image.shape[2] / odds.shape[1], draft.image.shape[1] / odds.shape[0]
            points = np.vstack([points, [(column + 0.5) * scale[0], (row + 0.5) * scale[1]]])
            labels = np.append(labels, 1)
        found = self._network.masks(
            self._encoded[1], points.astype(np.float32), labels.astype(np.int64), boxes.astype(np.float32)
        )
        best = found.logits[int(found.scores.argmax())]
        return np.asarray(cv2.resize(best, odds.shape[::-1], interpolation=cv2.INTER_AREA), np.float32)


def _network_prompts(
    draft: Draft, prompts: Sequence[MaskPrompt]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """Return points (N, 2), labels (N,) and boxes (M, 4) in pixels of the network input."""
    points, labels, boxes = [], [], []
    for prompt in prompts:
        corners = network_points(prompt, draft.frame, draft.view)
        if prompt.is_box:
            boxes.append(corners.ravel())
        else:
            points.append(corners[0])
            labels.append(int(prompt.positive))
    return np.array(points).reshape(-1, 2), np.array(labels, np.int64), np.array(boxes).reshape(-1, 4)


def open_mask_network(bundle: Bundle, spec: str = "") -> MaskNetwork:
    """Open the network that corrects: that of `spec`, by default the bundle's head, or GrabCut if it has none."""
    if spec or PROMPT_HEAD not in bundle.manifest.hashes:
        opened = open_promptable(spec or "grabcut", threads=1)
        return PromptedNetwork(opened) if not isinstance(opened, MaskHead) else HeadNetwork(opened)
    return HeadNetwork(MaskHead(bundle, threads=1))
