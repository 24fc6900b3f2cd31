"""Keep the planes of each frame before the overlay is drawn."""

from __future__ import annotations

from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.interfaces import FrameOverlay
from cliprl.pipeline.core.segmentation import Segmentation


class KeepOriginal:
    """An overlay that copies the planes into `Frame.original` and then draws another overlay. For frames in host memory."""

    def __init__(self, overlay: FrameOverlay) -> None:
        self.overlay = overlay

    @property
    def to_host(self) -> bool:
        """Whether the drawn planes are needed in host memory."""
        return self.overlay.to_host

    @to_host.setter
    def to_host(self, value: bool) -> None:
        self.overlay.to_host = value

    def draw(self, frame: Frame, segmentation: Segmentation | None, status: str | None = None) -> None:
        """Copy the planes, then draw into them in place."""
        frame.original = (frame.luma.copy(), frame.chroma.copy())
        self.overlay.draw(frame, segmentation, status)
