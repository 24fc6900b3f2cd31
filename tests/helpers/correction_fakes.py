"""Corrections without networks: a segmentation that is known, and a network that paints disks and boxes."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
from webplayer import CLASSES

from cliprl.pipeline.core.frame import FrameContext, Stage
from cliprl.pipeline.core.viewport import full_viewport
from cliprl.pipeline.correction.corrector import Corrector, Draft
from cliprl.pipeline.correction.frames import displayed_frame
from cliprl.pipeline.correction.prompts import MaskPrompt, network_points
from cliprl.pipeline.correction.service import CorrectionService
from cliprl.pipeline.correction.store import CorrectionStore
from cliprl.pipeline.live.capture import LiveCapture
from cliprl.pipeline.live.display_loop import DisplayPolicy
from cliprl.pipeline.live.playback import Playback, open_file_at
from cliprl.pipeline.live.stream import LiveStream
from cliprl.pipeline.overlay.overlay import Overlay
from cliprl.pipeline.segment.decision import segmentation_of
from cliprl.pipeline.segment.result_memory import ResultMemory
from cliprl.pipeline.segment.temporal_prior import TemporalPrior
from cliprl.pipeline.sources import open_source

HEIGHT, WIDTH = 240, 320


class KnownSegmenter:
    """Says that each frame holds background only."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.prior, self.memory = TemporalPrior(), ResultMemory(None)

    @property
    def stages(self) -> tuple[Stage[FrameContext], ...]:
        return (Stage("refine", self._run),)

    def _run(self, context: FrameContext) -> None:
        context.view = full_viewport(context.frame.height, context.frame.width, 256, 320)
        context.image, context.features = np.zeros((1, 256, 320, 3), np.uint8), np.zeros((1, 4, 64, 80), np.float32)
        context.logits = np.zeros((1, len(CLASSES), 64, 80), np.float32)
        context.logits[:, 0] = 2
        context.segmentation = segmentation_of(context.logits[0], context.view, 0, 0.0)
        self.prior.keep(context.logits, context.view)


class PaintingNetwork:
    """A click paints a disk of six cells, a box its inside."""

    name = "painting"

    def correct(self, draft: Draft, prompts: Sequence[MaskPrompt], odds: Any) -> Any:
        corners = network_points(prompts[-1], draft.frame, draft.view) / 4
        rows, columns = np.indices(odds.shape) + 0.5
        x, y = corners[0]
        inside = (columns - x) ** 2 + (rows - y) ** 2 < 36
        if prompts[-1].is_box:
            inside = (columns > x) & (columns < corners[1][0]) & (rows > y) & (rows < corners[1][1])
        return np.where(inside, 5.0 if prompts[-1].positive else -5.0, odds).astype(np.float32)


def write_clip(path: Path, frames: int = 50) -> Path:
    """A gray bar that moves four pixels a frame, 25 frames a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"g": "10"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(frames):
            image = np.full((HEIGHT, WIDTH, 3), 60, np.uint8)
            image[100:140, 4 * number : 4 * number + 40] = 200
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode(None))
    return path


def known_bundle(folder: Path) -> Any:
    """What the service needs of a bundle."""
    folder.mkdir(exist_ok=True)
    (folder / "manifest.json").write_text("{}")
    return SimpleNamespace(manifest=SimpleNamespace(classes=CLASSES, name="known"), path=folder)


def service_of(broadcast: Any, clip: Path, folder: Path, bundle: Any) -> CorrectionService:
    """Corrections of a clip that is played in `broadcast`, kept in `folder`."""
    return CorrectionService(
        bundle,
        CorrectionStore(folder, CLASSES),
        lambda: Corrector(KnownSegmenter(), PaintingNetwork()),  # type: ignore[arg-type]
        lambda: displayed_frame(broadcast, lambda seconds: open_file_at(str(clip), seconds), guard=False),
        str(clip),
    )


def settle(live: LiveStream) -> None:
    """Wait until the frames that were read before a pause have been displayed."""
    while (newest := live.broadcast.newest) is not None and live.broadcast.wait_newer(newest.index, 0.3):
        pass


@contextmanager
def corrected_clip(folder: Path) -> Iterator[tuple[LiveStream, CorrectionService]]:
    """A clip that is played, paused near its start, without segmentation; corrections are kept in `folder`/kept."""
    clip = write_clip(folder / "clip.mp4")
    playback = Playback(open_source(clip), lambda seconds: open_file_at(str(clip), seconds))
    capture, policy = LiveCapture(lambda: open_source(clip), playback, name="clip"), DisplayPolicy(guard=False)
    live = LiveStream(capture, Overlay(CLASSES), policy=policy, playback=playback)
    service = service_of(live.broadcast, clip, folder / "kept", known_bundle(folder / "bundle"))
    runner = threading.Thread(target=live.run)
    runner.start()
    try:
        live.broadcast.wait_newer(-1, 60)
        live.controls.change(paused=True)
        settle(live)
        yield live, service
    finally:
        live.stop()
        runner.join()
