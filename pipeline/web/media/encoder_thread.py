"""The thread that turns displayed pictures into what browsers take, once for all of them, and only while somebody looks."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping

from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.live.broadcast import Broadcast, DisplayedFrame
from cliprl.pipeline.web.media.channels import Channel, Packet
from cliprl.pipeline.web.media.image_conversion import Image, ImageConverter, jpeg
from cliprl.pipeline.web.media.vp8 import Vp8Encoder
from cliprl.pipeline.web.metrics import Histogram

VIEWS = ("overlay", "raw")
# How soon somebody who joins while the picture stands still gets to see it, in seconds.
_PATIENCE = 0.1
# Pictures of a codec whose decoder needs each of them, that may wait for one viewer.
_VP8_DEPTH = 8


def open_channels() -> dict[tuple[str, str], Channel]:
    """Every (kind, view) there is."""
    return {
        (kind, view): Channel(kind, view, depth) for kind, depth in (("jpeg", 1), ("vp8", _VP8_DEPTH)) for view in VIEWS
    }


class EncoderThread(threading.Thread):
    """Follows the hub and fills the channels. `latency` counts how old each camera picture was when it was displayed."""

    def __init__(
        self, hub: Broadcast, channels: Mapping[tuple[str, str], Channel], loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(name="web pictures", daemon=True)
        self.latency = Histogram()
        self._hub, self._channels, self._loop = hub, channels, loop
        self._converter = ImageConverter()
        self._encoders = {view: Vp8Encoder() for view in VIEWS}
        self._ended = threading.Event()

    def run(self) -> None:
        """The thread's body."""
        index = -1
        while not self._ended.is_set():
            shown = self._hub.wait_newer(index, _PATIENCE)
            if shown is not None:
                index = shown.index
                self._observe(shown)
                self._serve(shown, [c for c in self._channels.values() if c.wanted])
            elif (newest := self._hub.newest) is not None:
                self._serve(newest, [c for c in self._channels.values() if c.starved and c.wanted])
            if self._hub.closed:
                self._ended.wait(_PATIENCE)

    def stop(self) -> None:
        """End the thread, and wait for it."""
        self._ended.set()
        self.join()

    def _observe(self, shown: DisplayedFrame) -> None:
        if shown.camera and shown.status.latency_ms is not None:
            self.latency.add(shown.status.latency_ms / 1000)

    def _serve(self, shown: DisplayedFrame, channels: list[Channel]) -> None:
        for view in VIEWS:
            wanted = [c for c in channels if c.view == view]
            if not wanted:
                continue
            frame = shown.shared_overlaid if view == "overlay" else shown.shared_raw
            image = self._converter.bgr(frame)
            for channel in wanted:
                self._send(channel, self._encode(channel, shown.index, frame, image))

    def _encode(self, channel: Channel, index: int, frame: Frame, image: Image) -> Packet:
        captured = frame.times.get("captured", time.monotonic())
        starved, channel.starved = channel.starved, False
        if channel.kind == "jpeg":
            return Packet(index, captured, jpeg(image))
        data, pts, key = self._encoders[channel.view].encode(image, round(captured * 90_000), key=starved)
        return Packet(index, captured, data, pts, key)

    def _send(self, channel: Channel, packet: Packet) -> None:
        if packet.data and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(channel.offer, packet)
