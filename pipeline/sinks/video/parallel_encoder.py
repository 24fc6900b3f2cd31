"""Several x264 encoders at once for one video file: each encodes a run of frames, and the packets are joined in order.

One x264 encoder uses a limited number of processors: each frame is copied and analyzed on one thread before the frame threads
get it. Measured at 1080p, processor time of a frame over that of the busiest thread: 9.5 for ultrafast, 8 for superfast, 4.5
for veryfast, 3 for faster and fast, 1.9 for medium.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from queue import SimpleQueue
from typing import Any

import av
from av.packet import Packet

from cliprl.engines import available_cpus
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.interfaces import StreamInfo
from cliprl.pipeline.sinks.video.encoder import COPIED_SETTINGS, VideoEncoder

# Processors that one encoder is to use, by preset: about half of what it can use.
_PROCESSORS = {"ultrafast": 4, "superfast": 4, "veryfast": 2, "faster": 2, "fast": 2, "medium": 2}
# With fewer processors than this, and than three times those of one encoder, a single encoder uses them all.
_FEWEST_PROCESSORS = 8
# Memory for frames that wait for their encoders, in bytes, and the bounds of a group in frames (250: x264's own).
_WAITING_BYTES = 512 << 20
_SHORTEST, _LONGEST = 16, 250


def automatic_encoders(preset: str, processors: int = 0) -> int:
    """Return the number of encoders that keep `processors` (0: all that this process may use) busy with one video."""
    processors, each = processors or available_cpus(), _PROCESSORS[preset]
    return processors // each if processors >= max(_FEWEST_PROCESSORS, 3 * each) else 1


class _Group:
    """Consecutive frames that one encoder encodes, from a key frame on. Filled by the sink's thread, encoded by another."""

    def __init__(self) -> None:
        self.images: SimpleQueue[av.VideoFrame | None] = SimpleQueue()
        self.given = 0
        self.ended = threading.Event()
        self.error: Exception | None = None
        self._packets: deque[Packet[Any]] = deque()

    def add(self, packets: list[Packet[Any]]) -> None:
        self._packets.extend(packets)

    def take(self) -> list[Packet[Any]]:
        return [self._packets.popleft() for _ in range(len(self._packets))]


class ParallelEncoder(VideoEncoder):
    """A `VideoEncoder` that encodes up to `encoders` groups of frames at once. `length` is a group's number of frames.

    Every group is encoded by a new libx264 encoder with the same settings, so that the parameters in the file's header fit all,
    and begins with a key frame. Packets come out in the order of the frames. At most `encoders * length` frames wait, and at
    most `encoders + 1` groups are neither written nor failed; `encode` waits while there are more. An error of a group is
    raised in its place in the order.
    """

    def __init__(
        self,
        stream: Any,
        first: Frame,
        info: StreamInfo,
        *,
        crf: float,
        preset: str,
        threads: int,
        encoders: int,
        length: int = 0,
    ) -> None:
        super().__init__(stream, first, info, crf=crf, preset=preset, threads=1)  # this encoder makes the header only
        self._threads = threads or max(3 * _PROCESSORS[preset] // 2, 1)
        template = stream.codec_context
        self._settings = {name: value for name in (*COPIED_SETTINGS, "flags") if (value := getattr(template, name))}
        size = first.luma.size * (3 if self._odd else 1.5)
        self.length = length or int(min(max(_WAITING_BYTES // (encoders * size), _SHORTEST), _LONGEST))
        self._unused, self._free = encoders * self.length + 1, SimpleQueue[av.VideoFrame]()
        self._waiting: SimpleQueue[_Group | None] = SimpleQueue()
        self._order: deque[_Group] = deque()
        self._closed = False
        self._workers = [threading.Thread(target=self._serve, name=f"x264 {i}", daemon=True) for i in range(encoders)]
        for worker in self._workers:
            worker.start()

    def encode(self, frame: Frame) -> list[Packet[Any]]:
        """Take a frame; return the packets that have come out by now, in order."""
        if not self._order or self._order[-1].given == self.length:
            if len(self._order) > len(self._workers):  # else the others would run on while the first group is held up
                self._order[0].ended.wait()
            self._order.append(_Group())
            self._waiting.put(self._order[-1])
        self._picture = self._new_image()
        image = self._image_of(frame)
        image.pts, image.duration = self._times(frame)
        group = self._order[-1]
        group.given += 1
        group.images.put(image)
        if group.given == self.length:
            self._end_group()
        return self._ready()

    def remaining(self) -> Iterator[list[Packet[Any]]]:
        """Yield the packets of each group when it is encoded."""
        self._end_group()
        while self._order:
            self._order[0].ended.wait()
            yield self._ready()
        self.close()

    def flush(self) -> list[Packet[Any]]:
        """The packets still to come after the last frame."""
        return [packet for packets in self.remaining() for packet in packets]

    def close(self) -> None:
        """End the encoders after the frame that each encodes. Calling it twice is harmless."""
        self._closed = True
        self._end_group()
        for _ in self._workers:
            self._waiting.put(None)

    def _end_group(self) -> None:
        if self._order:
            self._order[-1].images.put(None)

    def _new_image(self) -> av.VideoFrame:
        """An image that no encoder reads any more."""
        if self._unused and self._free.empty():
            self._unused -= 1
            image = av.VideoFrame(self._picture.width, self._picture.height, self._picture.format.name)
            image.time_base = self._time_base
            return image
        return self._free.get()

    def _ready(self) -> list[Packet[Any]]:
        """The packets that follow those returned before. Raises the error of the group that they end with."""
        packets: list[Packet[Any]] = []
        while self._order:
            group = self._order[0]
            ended = group.ended.is_set()  # before its packets are taken: none is added later
            packets += group.take()
            if not ended or (group.error and packets):
                break
            if group.error:
                raise group.error
            self._order.popleft()
        for packet in packets:
            packet.stream = self._stream
        if packets:
            self.reached = Fraction(packets[-1].pts or 0) * self._time_base - self.shift
        return packets

    def _serve(self) -> None:
        while (group := self._waiting.get()) is not None:
            try:
                self._encode(group)
            except Exception as error:  # raised on the sink's thread
                group.error = error
                self._give_back(group)
            group.ended.set()

    def _encode(self, group: _Group) -> None:
        context: Any = av.CodecContext.create("libx264", "w")
        for name, value in self._settings.items():
            setattr(context, name, value)
        context.thread_count = self._threads
        while (image := group.images.get()) is not None and not self._closed:
            packets = context.encode(image)
            self._free.put(image)
            group.add(packets)
        if not self._closed:
            group.add(context.encode(None))

    def _give_back(self, group: _Group) -> None:
        """Take the rest of a group that failed, so that the sink's thread does not wait for its images."""
        while not self._closed and (image := group.images.get()) is not None:
            self._free.put(image)
