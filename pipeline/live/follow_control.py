"""The instrument that viewers of a live stream follow: chosen while the stream runs, lost rather than mistaken for another."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cliprl.engines import UsageError
from cliprl.pipeline.core.nv12 import stored_points
from cliprl.pipeline.core.segmentation import Followed, FollowState, Instances, Segmentation
from cliprl.pipeline.core.viewport import Viewport
from cliprl.pipeline.tracking.follow import followed_in, instrument_at, instrument_in

# The error of a stream without a `FollowControl`.
NOT_TRACKED = "instruments are not tracked: start the program with --ids"


class FollowControl:
    """The choice of the viewers. Thread-safe: they choose on their threads, masks come on the segmentation's and the display's.

    An instrument is chosen by its id among the instruments of the newest mask. When the tracker is replaced, because its
    process has failed, ids count anew: the instrument is lost until another choice. Until the first choice, `followed` of the
    segmentations stays as the tracker has set it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._newest: tuple[Instances, Viewport] | None = None
        self._tracker = 0
        self._choice: tuple[int, int] | None = None
        self._last: Followed | None = None

    @property
    def choice(self) -> tuple[int, int] | None:
        """The tracker and the id of the instrument, 0 for none; None before the first choice."""
        return self._choice

    def update(self, segmentation: Segmentation, tracker: int) -> None:
        """Accept the newest segmentation. `tracker`: the number of the tracker that its ids come from."""
        with self._lock:
            instances, self._tracker = segmentation.instances, tracker
            self._newest = None if instances is None else (instances, segmentation.view)

    def forget(self) -> None:
        """Offer nothing for choice until the next segmentation, because there is no mask."""
        with self._lock:
            self._newest = None

    def mark(self, segmentation: Segmentation) -> None:
        """Set `followed` in the instances of a segmentation that is about to be displayed."""
        with self._lock:
            instances = segmentation.instances
            if instances is None:
                return
            if self._choice is not None:
                segmentation.instances = instances = replace(instances, followed=self._state(instances))
            self._last = instances.followed

    def without_mask(self) -> Followed | None:
        """Return the state while no mask is displayed: an instrument that was in view is lost."""
        last = self._last
        return replace(last, state=FollowState.LOST) if last is not None and last.id else last

    def choose(self, number: int) -> Followed:
        """Follow the instrument with an id. Raises UsageError if it is not in view."""
        with self._lock:
            instances, _ = self._in_view()
            ids = [item.id for item in instances.items]
            if number not in ids:
                raise UsageError(f"no instrument #{number} is in view: choose {', '.join(f'#{one}' for one in ids)}")
            return self._set(instances, number)

    def choose_at(self, corners: Sequence[float], rotation: int = 0) -> Followed:
        """Follow the instrument at a point (x, y), or the one with the largest area in a box (x0, y0, x1, y1).

        Corners are shares of width and height of the image as it is displayed, 0..1. `rotation`: of the frame, in degrees.
        Raises UsageError if no instrument is there.
        """
        with self._lock:
            instances, view = self._in_view()
            shares = stored_points(np.array(corners).reshape(-1, 2), (1, 1), rotation)
            points = shares * (view.frame_width, view.frame_height)
            if len(points) == 1:
                number, place = instrument_at(instances, view, points[0]), "at that point"
            else:
                number, place = instrument_in(instances, view, points), "in that box"
            if not number:
                raise UsageError(f"no instrument is {place}: choose one that has a number")
            return self._set(instances, number)

    def choose_next(self) -> Followed:
        """Follow the instrument in view with the next higher id, after the last one the first. Raises UsageError without one."""
        with self._lock:
            instances, _ = self._in_view()
            ids = sorted(item.id for item in instances.items)
            now = self._state(instances) if self._choice is not None else self._last
            return self._set(instances, next((one for one in ids if now is not None and one > now.id), ids[0]))

    def end(self) -> None:
        """Follow no instrument."""
        with self._lock:
            self._choice, self._last = (self._tracker, 0), None

    def _in_view(self) -> tuple[Instances, Viewport]:
        if self._newest is None or not self._newest[0].items:
            raise UsageError("no instrument is in view: wait until one has a number")
        return self._newest

    def _set(self, instances: Instances, number: int) -> Followed:
        self._choice = (self._tracker, number)
        self._last = followed_in(instances, number)
        return self._last

    def _state(self, instances: Instances) -> Followed | None:
        assert self._choice is not None
        tracker, number = self._choice
        if not number:
            return None
        return followed_in(instances, number) if tracker == self._tracker else Followed(FollowState.LOST, 0)
