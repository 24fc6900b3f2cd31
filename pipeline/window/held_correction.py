"""Correction of a held frame in the window: keys, clicks and boxes become requests to the correction service."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import cv2
import numpy as np

from cliprl.engines import CliprlError
from cliprl.pipeline.core.nv12 import upright_size
from cliprl.pipeline.correction.frames import FOLLOWING
from cliprl.pipeline.correction.prompts import MaskPrompt
from cliprl.pipeline.sinks.frame_image import FrameConverter, Image
from cliprl.pipeline.sinks.labels.frame_labels import frame_labels

if TYPE_CHECKING:
    from cliprl.pipeline.correction.corrector import Draft
    from cliprl.pipeline.correction.service import CorrectionService, Hold

CORRECTION_HELP = (
    ("click", "add to the class"),
    ("right or Shift+click", "remove from the class"),
    ("drag", "box around the class"),
    ("1 … 9  or  C", "choose a class, the next class"),
    ("U", "undo"),
    ("N  P", "next, previous frame"),
    ("F", "next 10 frames"),
    ("K", "keep"),
    ("O", "mask on or off"),
    ("E  or  Esc", "end the correction"),
)
_OPACITY = 0.5


class HeldCorrection:
    """The frame that is corrected in the window, of at most one at a time. Methods return the message for the user.

    `version` changes with the image.
    """

    def __init__(self, service: CorrectionService) -> None:
        self._service = service
        self._hold: Hold | None = None
        self._classes = [i for i, spec in enumerate(service.classes) if spec.kind != "background"]
        self._class, self._shows_mask, self._left = 0, True, 0
        self._converter = FrameConverter()
        self.version = 0
        self._drawn: tuple[int, Image] | None = None  # of which version

    @property
    def is_open(self) -> bool:
        """Whether a frame is held."""
        return self._hold is not None

    def open(self) -> str:
        """Hold the displayed frame."""

        def hold() -> str:
            self._hold = self._service.hold()
            return f"Frame held. A click adds to {self._name}; H: keys"

        return self._do(hold)

    def close(self) -> str:
        """Let the held frame go."""
        if self._hold is not None:
            self._service.release(self._hold.id)
        self._hold, self._left, self._drawn = None, 0, None
        self.version += 1
        return "The correction has ended"

    def press(self, key: str) -> str | None:
        """Do the action of `key`; None for a key without action."""
        self._left = 0
        if len(key) == 1 and key in "123456789":
            return self._choose(int(key) - 1)
        actions: dict[str, Callable[[], str]] = {
            "c": lambda: self._choose((self._class + 1) % len(self._classes)),
            "u": lambda: self._do(self._undo),
            "n": lambda: self._do(lambda: self._step(1)),
            "p": lambda: self._do(lambda: self._step(-1)),
            "f": self._follow,
            "k": lambda: self._do(self._keep),
            "o": self._toggle_mask,
            "e": self.close,
            "escape": self.close,
        }
        return actions[key]() if key in actions else None

    def mark(self, corners: tuple[float, ...], *, positive: bool = True) -> str:
        """Correct by a click (x, y) or a box (x0, y0, x1, y1), in shares of the image's width and height."""
        self._left = 0

        def prompt() -> str:
            hold = self._held
            height, width = upright_size(hold.held.frame)
            places = tuple(
                float(min(max(v, 0.0), 1.0)) * size for v, size in zip(corners, (width, height) * 2, strict=False)
            )
            self._service.prompt(hold.id, MaskPrompt(self._classes[self._class], places, positive))
            word = "Box" if len(corners) == 4 else "Added" if positive else "Removed"
            return f"{word}: {self._name}"

        return self._do(prompt)

    def advance(self) -> str | None:
        """Go to the next of the frames that are shown one after another; None if there is none."""
        if not self._left or self._hold is None:
            return None
        number, left = FOLLOWING + 1 - self._left, self._left - 1
        self._left = 0  # an error ends the sequence
        message = self._do(lambda: self._step(1) and f"Frame {number} of {FOLLOWING} that follow")
        self._left = left if message.startswith("Frame") else 0
        return message

    def image(self) -> Image:
        """Return the held frame with its mask and clicks: uint8 (H, W, 3), BGR. It is drawn once for each version."""
        if self._drawn is None or self._drawn[0] != self.version:
            self._drawn = self.version, self._draw(self._held.draft)
        return self._drawn[1]

    def _draw(self, draft: Draft) -> Image:
        height, width = upright_size(draft.frame)
        image = self._converter.convert(draft.frame, (draft.frame.luma, draft.frame.chroma), width, height).copy()
        if self._shows_mask:
            colors = np.array([spec.color[::-1] for spec in self._service.classes], np.uint8)
            labels = frame_labels(draft.frame, draft.segmentation)
            inside = np.isin(labels, self._classes)
            mixed = cv2.addWeighted(image, 1 - _OPACITY, colors[labels], _OPACITY, 0)
            image[inside] = mixed[inside]
        radius = max(3, width // 160)
        for prompt in draft.prompts:
            places = [round(value) for value in prompt.corners]
            color = (80, 220, 80) if prompt.positive else (60, 60, 230)
            if prompt.is_box:
                cv2.rectangle(image, (places[0], places[1]), (places[2], places[3]), color, max(1, radius // 3))
            else:
                cv2.circle(image, (places[0], places[1]), radius, color, -1)
                cv2.circle(image, (places[0], places[1]), radius, (255, 255, 255), 1)
        return image

    @property
    def _held(self) -> Hold:
        if self._hold is None:
            raise CliprlError("no frame is held: press E")
        return self._hold

    @property
    def _name(self) -> str:
        return self._service.classes[self._classes[self._class]].name

    def _do(self, action: Callable[[], str]) -> str:
        """Run a request; an error becomes the message."""
        self.version += 1
        try:
            return action()
        except CliprlError as error:
            return str(error)

    def _choose(self, number: int) -> str:
        if number < len(self._classes):
            self._class = number
        return f"Class {self._name}"

    def _undo(self) -> str:
        self._service.undo(self._held.id)
        return "Undone"

    def _step(self, by: int) -> str:
        kept = self._held.draft.is_kept
        hold = self._service.step(self._held.id, by)
        own = "corrected" if hold.draft.prompts else "the network's mask"
        how = f"revision {hold.base} was kept" if hold.base else "it follows" if hold.origin else own
        return f"{hold.held.seconds:.2f} s: {how}" + ("" if kept else ". The last frame is not kept")

    def _follow(self) -> str:
        self._left = FOLLOWING
        return f"The next {FOLLOWING} frames"

    def _keep(self) -> str:
        _, revision, others = self._service.keep(self._held.id, "")
        meanwhile = f". {len(others)} of others were kept meanwhile: all stay" if others else ""
        return f"Kept as revision {revision.number}{meanwhile}"

    def _toggle_mask(self) -> str:
        self._shows_mask = not self._shows_mask
        self.version += 1
        return "Mask shown" if self._shows_mask else "Mask hidden"
