"""A segmenter that also tracks the instruments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from cliprl.engines import ClassSpec
from cliprl.pipeline.core.buffers import FrameRing, Policy
from cliprl.pipeline.core.frame import Frame, FrameContext, Stage
from cliprl.pipeline.core.interfaces import FrameOverlay, FrameSegmenter
from cliprl.pipeline.core.nv12 import check_frame
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.tracking.follow import Follower, FollowTarget
from cliprl.pipeline.tracking.groups import ClassGroups
from cliprl.pipeline.tracking.tracker import InstrumentTracker, TrackerInput

if TYPE_CHECKING:
    from cliprl.engines.promptable.video import VideoNetwork
    from cliprl.pipeline.tracking.video_object.object_follower import ObjectFollower


class TrackingSegmenter:
    """Adds the instances to the segmentations of another segmenter, `inner`, in its last stage. A `FrameSegmenter`."""

    def __init__(
        self,
        segmenter: FrameSegmenter,
        classes: Sequence[ClassSpec],
        follow: str | None = None,
        video_network: VideoNetwork | None = None,
    ) -> None:
        """With a `video_network`, the mask of the followed instrument is that network's: see `ObjectFollower`.

        Raises UsageError if `follow` names nothing that can be followed: see `FollowTarget.parse`.
        """
        self.inner, self._video_network = segmenter, video_network
        self._target = None if follow is None else FollowTarget.parse(follow, classes)
        self._groups = ClassGroups.of(classes)
        self._forget()
        self.steps, self.budget, self.waits_for_device = segmenter.steps, segmenter.budget, segmenter.waits_for_device

    def reset(self) -> None:
        """Forget the frames and instruments so far: numbers begin anew."""
        self.inner.reset()
        self._forget()

    def _forget(self) -> None:
        self._tracker = InstrumentTracker(self._groups)
        self._follower = None if self._target is None else Follower(self._target)
        self._by_network = None if self._video_network is None else _object_follower(self._video_network, self._groups)

    @property
    def notes(self) -> Sequence[str]:
        """The notes of the segmenter, and one if the instrument to follow was never found."""
        missed = None if self._follower is None else self._follower.note()
        return (*self.inner.notes, *([missed] if missed else ()))

    @property
    def stages(self) -> Sequence[Stage[FrameContext]]:
        """The stages of the segmenter; the last one tracks too, because the buffers that it reads are reused."""
        *first, last = self.inner.stages
        return (*first, Stage(last.name, partial(self._run, last)))

    def _run(self, last: Stage[FrameContext], context: FrameContext) -> None:
        last.run(context)
        with context.stage("track"):
            if context.segmentation is not None:
                found = self._tracker.update(_observed(context, context.segmentation))
                if self._follower is not None:
                    followed = self._follower.update(context.frame.index, found, context.segmentation)
                    found = replace(found, followed=followed)
                context.segmentation.instances = found
                if self._by_network is not None:
                    context.segmentation = self._by_network(context.frame, context.segmentation, context.is_cut)

    def __call__(self, frame: Frame) -> Segmentation:
        """Segment one frame. Frames must come in order."""
        check_frame(frame)
        context = FrameContext(frame)
        for stage in self.stages:
            stage.run(context)
        assert context.segmentation is not None
        return context.segmentation

    def ring(self, slots: int, policy: Policy) -> FrameRing:
        """Create the ring of the segmenter."""
        return self.inner.ring(slots, policy)

    def default_overlay(self) -> FrameOverlay | None:
        """Return the overlay of the segmenter."""
        return self.inner.default_overlay()

    def settle(self) -> None:
        """Wait for all pending work of the device."""
        self.inner.settle()


def open_tracking(make: Any, follow: str | None = None) -> TrackingSegmenter:
    """Make a segmenter by `make()`, and track with its classes. For a worker process."""
    segmenter = make()
    return TrackingSegmenter(segmenter, segmenter.classes, follow)


def _object_follower(network: VideoNetwork, groups: ClassGroups) -> ObjectFollower:
    # Imported for the option that needs it.
    from cliprl.pipeline.tracking.video_object.object_follower import ObjectFollower

    return ObjectFollower(network, groups)


def _observed(context: FrameContext, segmentation: Segmentation) -> TrackerInput:
    """Return what is in host memory: on a GPU the masks alone."""
    image, features = getattr(context, "image", None), getattr(context, "features", None)
    return TrackerInput(
        segmentation,
        None if image is None else image[0],
        None if features is None else features[0],
        getattr(context, "is_cut", False),
    )
