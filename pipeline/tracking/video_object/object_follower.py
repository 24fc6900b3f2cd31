"""Follows the chosen instrument by a video object network, which our masks prompt: at the start, at cuts, and where it fails."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cliprl.engines.promptable.video import VideoNetwork
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.segmentation import FollowState, Segmentation
from cliprl.pipeline.core.viewport import Viewport
from cliprl.pipeline.segment.segmenter import CpuPreprocessor
from cliprl.pipeline.tracking.groups import ClassGroups
from cliprl.pipeline.tracking.video_object.mask_transfer import (
    FollowedClasses,
    mask_in,
    share_on_grid,
    square_view,
    with_mask,
)

# The network's own score below which its mask is not used.
_LEAST_SCORE = 0.5
# IoU with our mask below which the two disagree, and the frames in a row for which they may.
_AGREEMENT, _DISAGREEING_FRAMES = 0.5, 5


class ObjectFollower:
    """Replaces our mask of the followed instrument by that of a video object network.

    The network starts with our mask. It is prompted by our mask again at a cut, where its own score is low, and where the two
    disagree for some frames. If our tracker has lost the instrument then, it is lost, until our tracker finds it again.
    """

    def __init__(self, network: VideoNetwork, groups: ClassGroups) -> None:
        self._network, self._groups = network, groups
        self._preprocessor = CpuPreprocessor()
        self._image = np.empty((network.side, network.side, 3), np.uint8)
        self._square: Viewport | None = None  # None while the network follows nothing
        self._target: FollowedClasses | None = None
        self._disagreeing = 0

    def __call__(self, frame: Frame, found: Segmentation, is_cut: bool) -> Segmentation:
        """Return the segmentation with the network's mask of the instrument that its instances name as followed.

        Frames must come in order, before anything is drawn into them. is_cut: a new shot starts here.
        """
        followed = found.instances.followed if found.instances is not None else None
        if followed is None or followed.state is FollowState.WAITING:
            return found
        if is_cut:
            self._square = None
        if self._square is not None and (result := self._followed(frame, found, followed.id)) is not None:
            return result
        self._square = None
        if followed.state is FollowState.FOLLOWING:
            self._prompt(frame, found, followed.id)
        return found

    def _followed(self, frame: Frame, found: Segmentation, number: int) -> Segmentation | None:
        """Return the segmentation with the network's mask; None if the network has to be prompted again."""
        assert self._square is not None
        assert self._target is not None
        assert found.instances is not None
        answer = self._network.follow(self._scaled(frame, self._square))
        share = share_on_grid(answer.logits, self._square, found.view, found.labels.shape)
        mine = share > 0.5
        if answer.score < _LEAST_SCORE or not mine.any():
            return None
        agrees = _iou(mine, found.instances.ids == number) >= _AGREEMENT
        self._disagreeing = 0 if agrees else self._disagreeing + 1
        return None if self._disagreeing >= _DISAGREEING_FRAMES else with_mask(found, share, self._target)

    def _prompt(self, frame: Frame, found: Segmentation, number: int) -> None:
        """Start the network with our mask, which is that of this frame."""
        assert found.instances is not None
        item = next(item for item in found.instances.items if item.id == number)
        group = self._groups.names.index(item.name) + 1
        members = np.flatnonzero(self._groups.table[: len(found.likeliest.probabilities)] == group)
        self._target = FollowedClasses(number, item.name, item.class_id, tuple(members.tolist()))
        self._square, self._disagreeing = square_view(found.view, self._network.side), 0
        mask = mask_in(self._square, found, number)
        self._network.start(self._scaled(frame, self._square), mask)

    def _scaled(self, frame: Frame, square: Viewport) -> NDArray[np.uint8]:
        self._preprocessor.prepare(frame, square, self._image)
        return self._image


def _iou(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    union = np.count_nonzero(one | other)
    return np.count_nonzero(one & other) / union if union else 0.0
