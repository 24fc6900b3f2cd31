"""Video streams on a GPU, fed from pinned memory or by its decoder, and their output frames with times."""

from __future__ import annotations

import math
import threading
import time
from collections import defaultdict
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from itertools import count
from typing import Any

import cv2
import numpy as np

from cliprl.bench.fixtures import timecode
from cliprl.engines import Bundle
from cliprl.pipeline.core.buffers import RingClosed
from cliprl.pipeline.core.color import ColorSpace, rgb_to_yuv
from cliprl.pipeline.core.frame import Frame, FrameContext, Plane, Stage
from cliprl.pipeline.cuda.context import SharedGpu
from cliprl.pipeline.cuda.device import CudaDevice
from cliprl.pipeline.cuda.inference import StepPlan
from cliprl.pipeline.cuda.segmenter import CudaSegmenter
from cliprl.pipeline.overlay.style import Style
from cliprl.pipeline.stream.scheduler import ContextSupply, StageScheduler
from cliprl.pipeline.synthetic.renderer import SceneRenderer

SLOTS = 8
CAMERA_RATE = Fraction(60)
# Black rows above the image, which the overlay leaves alone; they hold the time code.
_BAR = 32
Nv12Planes = tuple[Plane, Plane]


def scene_frames(height: int, width: int, count: int = 8) -> list[Nv12Planes]:
    """Frames of a rendered scene under a black bar, as NV12 planes in BT.709, of an even size."""
    renderer = SceneRenderer(3, height // 4 * 2, width // 4 * 2)
    return [_picture(renderer.render(i / 5)[0], height, width) for i in range(count)]


def _picture(rgb: Plane, height: int, width: int) -> Nv12Planes:
    large = np.asarray(cv2.resize(rgb, (width, height)), np.uint8)
    large[:_BAR] = 0
    yuv = rgb_to_yuv(large, ColorSpace())
    half = np.asarray(cv2.resize(yuv, (width // 2, height // 2), interpolation=cv2.INTER_AREA), np.uint8)
    return np.ascontiguousarray(yuv[..., 0]), np.ascontiguousarray(half[..., 1:])


def packed(image: Nv12Planes) -> Plane:
    """NV12 planes as one array for libav: uint8 (H * 3 / 2, W)."""
    luma, chroma = image
    return np.concatenate([luma, chroma.reshape(len(chroma), -1)])


class _AllSteps(StepPlan):
    """Always the most steps."""

    def next(self) -> int:
        """See `StepPlan`."""
        return self._most


class EveryStep(CudaSegmenter):
    """Runs all refinement steps on every frame, also when the mask has settled, so that figures are comparable."""

    def reset(self) -> None:
        """See `Segmenter`."""
        super().reset()
        self._plan = _AllSteps(self.steps)


@dataclass(slots=True)
class OutputFrames:
    """The output of one stream: seconds from each frame's arrival to the painted frame, and its time."""

    latencies: list[float] = field(default_factory=list)
    finished: list[float] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    wrong: int = 0
    dropped: int = 0
    fed: int = 0
    error: BaseException | None = None
    notes: list[str] = field(default_factory=list)
    # Seconds of processor time that each stage's thread spent, by stage.
    thread_seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))


class GpuStream:
    """One video stream on a GPU: a thread each for feeding, encoding, refining and painting.

    With `pace`, in frames a second, the oldest waiting frame is dropped; with None frames are fed as fast as slots come free.
    Every frame contains its number as a time code, which is checked at the output; so do the frames of a `clip`, a looped
    video file, if it is `coded`.
    """

    def __init__(
        self,
        card: SharedGpu,
        bundle: Bundle,
        images: Sequence[Nv12Planes],
        *,
        clip: str | None = None,
        coded: bool = True,
        pace: float | None = None,
        **settings: Any,
    ) -> None:
        self.seen = OutputFrames()
        self._pictures, self._clip, self._coded, self._pace = images, clip, coded, pace
        device = self._device = CudaDevice(card)
        self._segmenter = EveryStep(bundle, device=device, **settings)
        # No text: text needs a font.
        self._overlay = device.overlay(self._segmenter.classes, Style(legend=False, status=False))
        self._ring = device.ring(SLOTS, "wait" if pace is None else "drop-oldest")

    def run(self, frames: int, seconds: float = math.inf, slow: float = 0.0) -> OutputFrames:
        """Feed `frames` frames, or for `seconds`, and wait for all outputs; sleep `slow` seconds after each frame."""
        feeder = threading.Thread(target=self._feed, args=(frames, seconds), name="feed", daemon=True)
        stages = self._stages()
        feeder.start()
        stages.start()
        try:
            for context in stages:
                frame, segmentation = context.frame, context.segmentation
                assert segmentation is not None
                start = time.thread_time()
                self._overlay.draw(frame, segmentation)
                self.seen.thread_seconds["draw"] += time.thread_time() - start
                self._note(frame, segmentation.steps)
                self._ring.release(frame)
                time.sleep(slow)
        except BaseException as error:
            self.seen.error = error
        finally:
            self._ring.stop()
            stages.close()
            feeder.join(10)
        if self.seen.error is None:
            self._device.settle()
        self.seen.dropped = self._ring.dropped
        return self.seen

    def _stages(self) -> StageScheduler[FrameContext]:
        stages = [Stage(stage.name, partial(self._timed, stage)) for stage in self._segmenter.stages]
        return StageScheduler(ContextSupply(self._ring), stages, len(stages))

    def _timed(self, stage: Stage[FrameContext], context: FrameContext) -> None:
        start = time.thread_time()
        stage.run(context)
        self.seen.thread_seconds[stage.name] += time.thread_time() - start

    def _feed(self, frames: int, seconds: float) -> None:
        start, feed = time.monotonic(), self._uploaded() if self._clip is None else self._decoded(self._clip)
        try:
            for index in range(frames):
                if index > 1 and time.monotonic() - start > seconds:  # two make a rate
                    break
                if self._pace is not None:
                    time.sleep(max(start + index / self._pace - time.monotonic(), 0))
                frame = next(feed)
                frame.mark("captured")
                self._ring.publish(frame)
                self.seen.fed += 1
            feed.close()
            self._ring.finish()
        except RingClosed:
            self._ring.finish()
        except BaseException as error:
            self._ring.finish(error)

    def _uploaded(self) -> Generator[Frame, None, None]:
        """Yield frames in turn, written into the pinned planes of a slot."""
        for index in count():
            source = self._pictures[index % len(self._pictures)]
            luma, chroma = self._ring.acquire(len(source[0]), source[0].shape[1])
            np.copyto(luma, source[0])
            np.copyto(chroma, source[1])
            timecode.draw_number(luma, index)
            yield Frame(luma, chroma, index, 1 / CAMERA_RATE, index)

    def _decoded(self, clip: str) -> Generator[Frame, None, None]:
        """Yield the clip's frames in a loop, decoded by NVDEC if available."""
        while True:
            with self._device.source(clip, self.seen.notes.append) as source:
                while (frame := source.read(self._ring.acquire)) is not None:
                    yield frame

    def _note(self, frame: Frame, steps: int) -> None:
        frame.mark("painted")
        self.seen.latencies.append(frame.elapsed("captured", "painted"))
        self.seen.finished.append(frame.times["painted"])
        self.seen.steps.append(steps)
        self.seen.wrong += self._coded and timecode.read(frame.luma) != frame.index


def run_together(
    streams: Sequence[GpuStream], frames: int, seconds: float = math.inf, slow: float = 0.0
) -> list[OutputFrames]:
    """Run several streams at once. Raises the exception of a failed stream."""
    threads = [threading.Thread(target=stream.run, args=(frames, seconds, slow), daemon=True) for stream in streams]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for stream in streams:
        if stream.seen.error is not None:
            raise stream.seen.error
    return [stream.seen for stream in streams]
