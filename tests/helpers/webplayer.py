"""A stream for tests of the web viewer: pictures and masks that are known, shown through a real broadcast and overlay."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np

from cliprl.engines import ClassSpec
from cliprl.pipeline.core.color import ColorSpace
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.interfaces import StreamInfo
from cliprl.pipeline.core.segmentation import Instance, Instances, Segmentation
from cliprl.pipeline.core.viewport import full_viewport
from cliprl.pipeline.live.broadcast import (
    Broadcast,
    DisplayedFrame,
    Freshness,
    RecordingStatus,
    RecordState,
    SourceState,
    Status,
)
from cliprl.pipeline.live.controls import Controls
from cliprl.pipeline.live.follow_control import FollowControl
from cliprl.pipeline.overlay.class_statistics import class_statistics
from cliprl.pipeline.overlay.overlay import Overlay
from cliprl.pipeline.overlay.style import Style

if TYPE_CHECKING:
    from cliprl.pipeline.web.limits import Limits
    from cliprl.pipeline.web.server import WebViewer

HEIGHT, WIDTH, RATE = 240, 320, 25
CLASSES = (
    ClassSpec("background", (0, 0, 0), "background"),
    ClassSpec("shaft", (0, 255, 0), "instrument"),
    ClassSpec("kidney", (255, 55, 0), "tissue"),
)
SHOWN_PRESENCE = (CLASSES[-1].name, 0.875)
Content = Callable[[int], tuple[Frame, Segmentation]]


def image(index: int) -> Frame:
    """Grey, BT.709, with a white bar that moves a step a frame."""
    luma, chroma = np.full((HEIGHT, WIDTH), 110, np.uint8), np.full((HEIGHT // 2, WIDTH // 2, 2), 128, np.uint8)
    left = 4 * index % (WIDTH - 16)
    luma[HEIGHT - 40 : HEIGHT - 24, left : left + 16] = 235
    return Frame(luma, chroma, index, Fraction(1, RATE), index, ColorSpace("bt709"), 1)


def halves(index: int) -> tuple[Frame, Segmentation]:
    """A shaft on the left third, a kidney on the right third, between the heights of a fifth and three fifths."""
    view = full_viewport(HEIGHT, WIDTH, 256, 320)
    labels = np.zeros((64, 80), np.uint8)
    labels[13:38, 2:26], labels[13:38, 54:78] = 1, 2
    probabilities = np.moveaxis(np.eye(len(CLASSES), dtype=np.float32)[labels], -1, 0)
    return image(index), Segmentation(labels, probabilities, view, 1.0, 3)


class Player(threading.Thread):
    """Shows `content` at `rate` frames a second until it is closed; `state` says what becomes of the source."""

    def __init__(
        self,
        content: Content = halves,
        classes: tuple[ClassSpec, ...] = CLASSES,
        *,
        live: bool = True,
        rate: int = RATE,
        follow: FollowControl | None = None,
    ) -> None:
        super().__init__(daemon=True)
        self.broadcast, self.controls = Broadcast(), Controls(classes)
        first, _ = content(0)
        self.info = StreamInfo(
            "rtsp://user:secret@camera/live", first.height, first.width, Fraction(1, rate), live=live
        )
        self.classes, self.state, self.mask = classes, SourceState.LIVE, Freshness.FRESH
        self.recording = RecordingStatus("raw")  # its state follows the controls, unless it fails
        self.note = ""
        self.follow = follow
        self._content, self._rate = content, rate
        self._style, self._overlay = Style(), Overlay(classes)
        self._ended, self._since = threading.Event(), time.time()

    def run(self) -> None:
        index, due = 0, time.monotonic()
        while not self._ended.wait(max(due - time.monotonic(), 0)):
            due += 1 / self._rate
            if self.state is SourceState.LIVE and not self.controls.settings.paused:
                self._show(*self._content(index), index)
                index += 1
            elif self.state is not SourceState.LIVE and (newest := self.broadcast.newest) is not None:
                behind = 2.5 if self.state is SourceState.BEHIND else None
                status = replace(newest.status, state=self.state, since=self._since, behind_s=behind)
                self.broadcast.publish(replace(newest, index=index, status=status, from_camera=False))
                index += 1

    def turn(self, state: SourceState) -> None:
        self.state, self._since = state, time.time()

    def _show(self, raw: Frame, segmentation: Segmentation, index: int) -> None:
        raw.times["captured"] = captured = time.monotonic()
        overlaid = replace(raw, luma=raw.luma.copy(), chroma=raw.chroma.copy())
        self._overlay.style = self.controls.settings.style(self._style, self.classes)
        shown = None if self.mask is Freshness.OFF else segmentation
        if self.follow is not None and shown is not None:
            self.follow.update(shown, 0)
            self.follow.mark(shown)
        self._overlay.draw(overlaid, shown)
        areas = {self.classes[m.class_id].name: m.share for m in class_statistics(segmentation)} if shown else {}
        status = Status(
            self.state,
            self._since,
            mask=self.mask,
            age_ms=None if shown is None else 0.0,
            fps=float(self._rate),
            latency_ms=1000 * (time.monotonic() - captured),
            areas=areas,
            followed=shown.instances.followed if shown is not None and shown.instances is not None else None,
            presence={SHOWN_PRESENCE[0]: SHOWN_PRESENCE[1]} if shown else {},
            recordings=(self._recording(),),
            note=self.note,
        )
        frozen = self.controls.settings.frozen
        self.broadcast.publish(DisplayedFrame(index, raw, overlaid, raw, overlaid, status), freeze=frozen)

    def _recording(self) -> RecordingStatus:
        if self.recording.state is RecordState.FAILED:
            return self.recording
        return replace(
            self.recording, state=RecordState.RECORDING if self.controls.settings.recording else RecordState.OFF
        )

    def close(self) -> None:
        self._ended.set()
        self.join()
        self.broadcast.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def serve(player: Player, host: str = "127.0.0.1", port: int = 0, limits: Limits | None = None) -> WebViewer:
    """A web viewer of the player's stream."""
    from cliprl.pipeline.web.address import Address
    from cliprl.pipeline.web.limits import Limits
    from cliprl.pipeline.web.server import WebViewer
    from cliprl.pipeline.web.status_json import ProgramInfo

    program = ProgramInfo(
        player.broadcast, player.controls, player.info, player.classes, True, "test", follow=player.follow
    )
    return WebViewer(program, Address(host, port, True), limits or Limits())


def tracked(hidden: set[int]) -> Content:
    """Pictures with instrument 1 on the left third and 2 on the right third, but for those in `hidden`."""

    def content(index: int) -> tuple[Frame, Segmentation]:
        frame, found = halves(index)
        away = frozenset(hidden)
        ids = np.zeros(found.labels.shape, np.uint16)
        for number, columns in ((1, slice(2, 26)), (2, slice(54, 78))):
            ids[13:38, columns] = 0 if number in away else number
        items = tuple(Instance(number, "instrument", 1, 600) for number in (1, 2) if number not in away)
        found.instances = Instances(ids, items)
        return frame, found

    return content
