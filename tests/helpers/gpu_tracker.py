"""Track the field of view on the simulated GPU without a segmenter: the numbers of a frame are sent as it sends them."""

from __future__ import annotations

from typing import Any

from gpu_fake import FakeGpu

from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.viewport import Viewport
from cliprl.pipeline.cuda.geometry import set_planes
from cliprl.pipeline.cuda.ring import CudaRing
from cliprl.pipeline.cuda.upload import FrameUpload
from cliprl.pipeline.cuda.view_tracker import ViewTracker


class TrackedRing:
    """A ring, a tracker, and the stream that scans its frames."""

    def __init__(self, gpu: FakeGpu, detector: Any) -> None:
        self.ring, self._stream = CudaRing(gpu, 3, "wait", gpu.stream()), gpu.stream()
        self._upload = FrameUpload(gpu, (64, 80))
        self._pinned = [self._upload.pinned() for _ in range(4)]
        self.tracker = ViewTracker(gpu, detector, self._upload.address)

    def take(self, frame: Frame) -> Frame:
        """Publish a copy of a frame and take it."""
        luma, chroma = self.ring.acquire(frame.height, frame.width)
        luma[:], chroma[:] = frame.luma, frame.chroma
        self.ring.publish(Frame(luma, chroma, frame.pts, frame.time_base, frame.index, frame.color))
        taken = self.ring.take()
        assert taken is not None
        return taken

    def view_of(self, frame: Frame) -> Viewport:
        """Return the view of a taken frame, and scan it."""
        tracker = self.tracker
        first = tracker.resize(frame.height, frame.width)
        view = None if first else tracker.view()
        if tracker.wants_scan:
            assert tracker.layout is not None
            tracker.layout.write(self._upload.data, full_range=frame.color.full_range)
            set_planes(self._upload.data, self.ring.enter(frame, self._stream).planes)
            self._pinned.append(self._pinned.pop(0))
            self._upload.send(self._pinned[0], self._stream)
            tracker.scan(self._stream)
            self.ring.leave(frame, self._stream, tracker.scanned(self._stream))
        return tracker.view(wait=True) if view is None else view
