"""The thread that encodes displayed frames for browsers: once for all viewers, and only while there are viewers."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping

from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.live.broadcast import Broadcast, DisplayedFrame
from cliprl.pipeline.sinks.frame_image import Image
from cliprl.pipeline.web.media.channels import Channel, ViewerPacket
from cliprl.pipeline.web.media.image_conversion import ImageConverter, jpeg
from cliprl.pipeline.web.media.vp8 import Vp8Encoder
from cliprl.pipeline.web.metrics import latency_histogram

VIEWS = ("overlay", "raw")
# Seconds until a viewer that joins a stream without new frames gets the last one.
_IDLE_S = 0.1
# VP8 frames that may wait for one viewer.
_VP8_DEPTH = 8


def open_channels() -> dict[tuple[str, str], Channel]:
    """Return a channel for each (kind, view)."""
    return {
        (kind, view): Channel(kind, view, depth) for kind, depth in (("jpeg", 1), ("vp8", _VP8_DEPTH)) for view in VIEWS
    }


class EncoderThread(threading.Thread):
    """Encodes the frames of `broadcast` into `channels`. `latency` collects the latency of each camera frame at its display."""

    def __init__(
        self, broadcast: Broadcast, channels: Mapping[tuple[str, str], Channel], loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(name="web encoder", daemon=True)
        self.latency = latency_histogram()
        self._broadcast, self._channels, self._loop = broadcast, channels, loop
        self._converter = ImageConverter()
        self._encoders = {view: Vp8Encoder() for view in VIEWS}
        self._ended = threading.Event()

    def run(self) -> None:
        """Encode until `stop`."""
        index = -1
        while not self._ended.is_set():
            shown = self._broadcast.wait_newer(index, _IDLE_S)
            if shown is not None:
                index = shown.index
                self._observe(shown)
                self._encode_for(shown, [c for c in self._channels.values() if c.viewers])
            elif (newest := self._broadcast.newest) is not None:
                self._encode_for(newest, [c for c in self._channels.values() if c.needs_key and c.viewers])
            if self._broadcast.closed:
                self._ended.wait(_IDLE_S)

    def stop(self) -> None:
        """Stop the thread and wait for its end."""
        self._ended.set()
        self.join()

    def _observe(self, shown: DisplayedFrame) -> None:
        if shown.from_camera and shown.status.latency_ms is not None:
            self.latency.observe(shown.status.latency_ms / 1000)

    def _encode_for(self, shown: DisplayedFrame, channels: list[Channel]) -> None:
        for view in VIEWS:
            viewed = [c for c in channels if c.view == view]
            if not viewed:
                continue
            frame = shown.shared_overlaid if view == "overlay" else shown.shared_raw
            image = self._converter.bgr(frame)
            for channel in viewed:
                self._send(channel, self._encode(channel, shown.index, frame, image))

    def _encode(self, channel: Channel, index: int, frame: Frame, image: Image) -> ViewerPacket:
        captured = frame.times.get("captured", time.monotonic())
        needs_key, channel.needs_key = channel.needs_key, False
        if channel.kind == "jpeg":
            return ViewerPacket(index, captured, jpeg(image))
        data, pts, key = self._encoders[channel.view].encode(image, round(captured * 90_000), key=needs_key)
        return ViewerPacket(index, captured, data, pts, key)

    def _send(self, channel: Channel, packet: ViewerPacket) -> None:
        if packet.data and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(channel.offer, packet)
