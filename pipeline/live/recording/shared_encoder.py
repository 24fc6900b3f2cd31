"""Encoding of displayed frames once, for network outputs and the overlay recording together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.interfaces import StreamInfo
from cliprl.pipeline.core.queues import BoundedQueue
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.live.recording.recorder import Recording
from cliprl.pipeline.live.recording.segments import FRAGMENT
from cliprl.pipeline.live.sink_thread import NETWORK_QUEUE, NETWORK_SPAN, SinkThread
from cliprl.pipeline.sinks.video.coded_frame import CodedFrame
from cliprl.pipeline.sinks.video.encoder import VideoEncoder
from cliprl.pipeline.sinks.video.live_encoding import OpenStream, Quality, live_encoder

# Seconds between key frames without a recording: the longest wait of a new viewer; and the least, of a viewer that has lost
# frames: one that is always too slow must not make every frame a key frame.
_KEY_SECONDS, _LEAST_KEY_SECONDS = 1.0, 0.25
# Seconds for which recorded frames may wait for the encoder: at 60 frames a second as many as for the disk.
_RECORDED_SPAN = 1.0
# Seconds that `close` waits for the frames that are left.
_CLOSE_TIMEOUT = 20.0


_Item = tuple[Frame, Segmentation | None, bool]  # the last: whether it is recorded


def _span_of(item: _Item) -> float:
    return _RECORDED_SPAN if item[-1] else NETWORK_SPAN


class SharedEncoder(threading.Thread):
    """Hands frames with their packets (`CodedFrame`) to `outputs` and `recordings`, which keep their own queues and faults.

    Its priority is the display's, as a network output takes part. It encodes only what one of them takes, with a key frame
    where one starts, where one has lost frames, and every half second for a recording. Frames that it can't encode, because
    they are rotated or for a fault, come without a packet: each output encodes them itself.
    """

    def __init__(
        self,
        quality: Quality,
        outputs: Sequence[SinkThread],
        recordings: Sequence[Recording],
        info: Callable[[], StreamInfo],
    ) -> None:
        super().__init__(name="encode", daemon=True)
        self.outputs, self.recordings = tuple(outputs), tuple(recordings)
        self._quality, self._info = quality, info
        self._queue: BoundedQueue[_Item] = BoundedQueue(NETWORK_QUEUE, span=_span_of)
        self._stream = OpenStream()
        self._encoder: VideoEncoder | None = None
        self._settings: tuple[object, ...] = ()
        self._takers: set[SinkThread | Recording] = set()
        self._last, self._last_key = 0.0, 0.0

    def put(self, frame: Frame, segmentation: Segmentation | None, *, is_recorded: bool) -> None:
        """Add a displayed frame that is not written to any more. Never waits: if the encoder is too slow, the oldest is lost."""
        lost = self._queue.put((frame, segmentation, is_recorded and bool(self.recordings)))
        for recording in self.recordings:
            recording.miss(sum(was_recorded for *_, was_recorded in lost))

    def close(self) -> None:
        """Encode the waiting frames and end the thread."""
        self._queue.close()
        if self.is_alive():
            self.join(_CLOSE_TIMEOUT)

    def run(self) -> None:
        """Encode until `close`."""
        while (item := self._queue.get()) is not None:
            self._hand_on(*item)
            del item  # a waiting thread must not keep the frame's memory

    def _hand_on(self, frame: Frame, segmentation: Segmentation | None, is_recorded: bool) -> None:
        for recording in self.recordings:
            recording.switch(is_recorded)
        outputs = [output for output in self.outputs if output.takes_frames]
        recordings = [recording for recording in self.recordings if recording.takes_frames]
        takers: set[SinkThread | Recording] = {*outputs, *recordings}
        if any(taker.takes_packets for taker in takers) and not frame.rotation:
            seconds = FRAGMENT if recordings else _KEY_SECONDS
            if any(output.needs_key for output in outputs):
                seconds = _LEAST_KEY_SECONDS
            frame = self._encoded(frame, is_key=not takers <= self._takers or self._is_key_due(frame, seconds))
        # After a frame that was not encoded, the next packet would need one that outputs have not got.
        self._takers = takers if isinstance(frame, CodedFrame) else set()
        self._last = frame.seconds
        for output in outputs:
            output.put(frame, segmentation)
        for recording in recordings:
            recording.add(frame)

    def _is_key_due(self, frame: Frame, seconds: float) -> bool:
        half_period = (frame.seconds - self._last) / 2
        return frame.seconds - self._last_key + half_period >= seconds

    def _encoded(self, frame: Frame, *, is_key: bool) -> Frame:
        settings = (self._quality, frame.height, frame.width, frame.sample_aspect, frame.color)
        try:
            if self._encoder is None or settings != self._settings:
                self._encoder = live_encoder(self._stream, frame, self._info(), *self._quality, _KEY_SECONDS)
                self._settings = settings
            self._stream.key_due = is_key
            (packet,) = self._encoder.encode(frame)
        except Exception:
            self._encoder = None  # each output encodes the frame itself, and reports what is wrong with it
            return frame
        if packet.is_keyframe:
            self._last_key = frame.seconds
        return CodedFrame.of(frame, bytes(packet), is_key=packet.is_keyframe, settings=settings)


def shared_encoder(
    outputs: Sequence[SinkThread], recordings: Sequence[Recording], info: Callable[[], StreamInfo]
) -> SharedEncoder | None:
    """Return an encoder for the outputs and recordings of the first network output's quality; None if there are no two."""
    quality = next((output.quality for output in outputs if output.network and output.quality), None)
    if quality is None:
        return None
    own = [output for output in outputs if output.network and output.quality == quality]
    recorded = [recording for recording in recordings if recording.quality == quality]
    return SharedEncoder(quality, own, recorded, info) if len(own) + len(recorded) > 1 else None
