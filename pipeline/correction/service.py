"""Corrections by several people at once: each person holds another frame or the same, and every keep is a new revision."""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import PurePath

from cliprl.engines import ClassSpec, CliprlError, UsageError
from cliprl.engines.bundle.bundle import Bundle, file_hash
from cliprl.engines.bundle.manifest import MANIFEST
from cliprl.pipeline.core.nv12 import upright_size
from cliprl.pipeline.correction.corrector import Corrector, Draft
from cliprl.pipeline.correction.frames import FOLLOWING, FrameSequence, HeldFrame
from cliprl.pipeline.correction.prompts import MaskPrompt
from cliprl.pipeline.correction.store import CorrectionStore, Revision
from cliprl.pipeline.correction.stored_labels import logits_of_labels
from cliprl.pipeline.sinks.frame_image import FrameConverter
from cliprl.pipeline.sinks.labels.frame_labels import frame_labels
from cliprl.pipeline.sources.errors import redact

# Frames that may be held at once, and the bytes that they may take with those which a step back returns to. What has waited
# longest is let go.
MOST_HELD, MOST_BYTES = 8, 512 * 1024**2
# Prompts of one frame.
MOST_PROMPTS = 200
_LONGEST_CLIP = 80


class NotHeldError(CliprlError):
    """A frame is not held any more."""


@dataclass(slots=True, eq=False)
class Hold:
    """A held frame with its draft. base: the newest revision when it was held or last kept.

    followed: the frames before it, to which a step back returns, each with its draft, base and origin.
    """

    id: str
    frames: FrameSequence
    held: HeldFrame
    draft: Draft
    name: str
    base: int = 0
    origin: str = ""
    followed: list[tuple[HeldFrame, Draft, int, str]] = field(default_factory=list)

    @property
    def kept_bytes(self) -> int:
        """The bytes of all its frames."""
        return self.frames.kept_bytes + sum(
            one.kept_bytes for one in (self.draft, *(step[1] for step in self.followed))
        )


class CorrectionService:
    """Holds frames and corrects them. Thread-safe: one request is served at a time.

    `open_corrector` is called for the first held frame, because it compiles networks. `hold_frame` returns the frame that is
    displayed now, with the frames around it. `source` is the name of the stream.
    """

    def __init__(
        self,
        bundle: Bundle,
        store: CorrectionStore,
        open_corrector: Callable[[], Corrector],
        hold_frame: Callable[[], tuple[FrameSequence, HeldFrame]],
        source: str,
    ) -> None:
        self.classes: tuple[ClassSpec, ...] = bundle.manifest.classes
        self.store = store
        self._bundle, self._open_corrector, self._hold_frame = bundle, open_corrector, hold_frame
        self._source = redact(source)
        self._corrector: Corrector | None = None
        self._holds: OrderedDict[str, Hold] = OrderedDict()
        self._lock = threading.Lock()
        self._converter = FrameConverter()

    def warm_up(self) -> None:
        """Open the networks now, not at the first hold. For another thread; an error comes again at the hold."""
        with self._lock, suppress(CliprlError):
            self._ready()

    def _ready(self) -> Corrector:
        if self._corrector is None:
            self._corrector = self._open_corrector()
        return self._corrector

    def hold(self) -> Hold:
        """Hold the displayed frame. It starts from its newest kept revision, or from the network's segmentation."""
        frames, held = self._hold_frame()
        with self._lock:
            hold = self._new(frames, held, self._ready().start(held.frame))
            self._holds[hold.id] = hold
            self._limit_memory(hold)
            return hold

    def release(self, hold_id: str) -> None:
        """Let a held frame go."""
        with self._lock:
            self._holds.pop(hold_id, None)

    def prompt(self, hold_id: str, prompt: MaskPrompt) -> Hold:
        """Correct by one more click or box. Raises UsageError for a place outside the image."""
        with self._lock:
            hold = self._find(hold_id)
            height, width = upright_size(hold.held.frame)
            limits = (width, height) * (len(prompt.corners) // 2)
            if not all(0 <= value <= limit for value, limit in zip(prompt.corners, limits, strict=True)):
                raise UsageError(f"the place {prompt.corners} lies outside of the image of {width} x {height} pixels")
            if len(hold.draft.prompts) >= MOST_PROMPTS:
                raise UsageError(f"this frame has {MOST_PROMPTS} clicks already: keep it, or undo some")
            self._ready().apply(hold.draft, prompt)
            return hold

    def undo(self, hold_id: str) -> Hold:
        """Take the last click or box back."""
        with self._lock:
            hold = self._find(hold_id)
            hold.draft.undo()
            return hold

    def step(self, hold_id: str, by: int) -> Hold:
        """Go to the next frame (`by` 1), which follows the correction of this one, or to the previous one (-1).

        Raises UsageError if there is none.
        """
        hold = self.find(hold_id)
        start = hold.held
        # Without the lock: a frame may have to be decoded or waited for, and the others go on meanwhile.
        held = hold.frames.previous(start) if by < 0 else next(hold.frames.following(start), None)
        if held is None:
            raise UsageError(f"this is the {'first' if by < 0 else 'last'} frame that can be corrected")
        with self._lock:
            corrector = self._ready()
            if self._find(hold_id).held is not start:
                raise UsageError("another request went to another frame meanwhile: step again")
            base = None
            if by < 0 and self._returns_to(hold, held):
                _, draft, base, origin = hold.followed.pop()
            elif by < 0:
                draft, origin = corrector.start(held.frame), ""
            else:
                draft, origin = corrector.follow(hold.draft, held.frame), hold.name
                hold.followed = [*hold.followed[-FOLLOWING:], (start, hold.draft, hold.base, hold.origin)]
            self._move(hold, held, draft, origin)
            if base is not None and draft.prompts:
                hold.base = base  # what others have kept since then is still to be shown
            self._limit_memory(hold)
            return hold

    def _limit_memory(self, hold: Hold) -> None:
        """Let go of the other holds, then of the frames before the held one, as far as there are too many."""
        while len(self._holds) > MOST_HELD or (len(self._holds) > 1 and self._kept_bytes() > MOST_BYTES):
            self._holds.popitem(last=False)
        while hold.followed and hold.kept_bytes > MOST_BYTES:
            hold.followed.pop(0)

    def _kept_bytes(self) -> int:
        return sum(one.kept_bytes for one in self._holds.values())

    @staticmethod
    def _returns_to(hold: Hold, held: HeldFrame) -> bool:
        return bool(hold.followed) and hold.followed[-1][0].seconds == held.seconds

    def keep(self, hold_id: str, author: str) -> tuple[Hold, Revision, list[Revision]]:
        """Keep the held frame's segmentation as a new revision. Also return the revisions that others kept meanwhile."""
        with self._lock:
            hold = self._find(hold_id)
            frame, draft = hold.held.frame, hold.draft
            others = self.newer(hold)
            entry = {
                "base_revision": hold.base,
                "author": author,
                "session": hold.id[:8],
                "time": datetime.now(UTC).isoformat(timespec="seconds"),
                "source": self._source,
                "seconds": round(hold.held.seconds, 6),
                "file_name": frame.file.name if frame.file else None,
                "follows": hold.origin,
                "bundle": self._bundle.manifest.name,
                "bundle_sha256": file_hash(self._bundle.path / MANIFEST),
                "network": self._ready().network.name,
                "prompts": [one.to_json() | {"class": self.classes[one.class_id].name} for one in draft.prompts],
            }
            labels = frame_labels(frame, draft.segmentation).copy()
            revision = self.store.keep(hold.name, self._converter.png(frame), labels, entry)
            hold.base, draft.kept = revision.number, tuple(draft.prompts)
            return hold, revision, others

    def newer(self, hold: Hold) -> list[Revision]:
        """Return the revisions of a held frame that were kept since it was held, by others."""
        return [one for one in self.store.revisions(hold.name) if one.number > hold.base]

    def find(self, hold_id: str) -> Hold:
        """Return a held frame. Raises NotHeldError if it was let go."""
        with self._lock:
            return self._find(hold_id)

    def _find(self, hold_id: str) -> Hold:
        hold = self._holds.get(hold_id)
        if hold is None:
            raise NotHeldError("this frame is not held any more: hold it again")
        self._holds.move_to_end(hold_id)
        return hold

    def _new(self, frames: FrameSequence, held: HeldFrame, draft: Draft) -> Hold:
        hold = Hold(secrets.token_urlsafe(16), frames, held, draft, "")
        self._move(hold, held, draft, "")
        return hold

    def _move(self, hold: Hold, held: HeldFrame, draft: Draft, origin: str) -> None:
        """Make `held` the frame of a hold, from its newest kept revision if there is one."""
        hold.held, hold.draft, hold.origin = held, draft, origin
        hold.name = self._name(held)
        hold.base = max((one.number for one in self.store.revisions(hold.name)), default=0)
        labels = self.store.newest(hold.name) if hold.base and not draft.prompts else None
        if labels is not None and labels.shape == upright_size(held.frame):
            draft.logits = logits_of_labels(labels, held.frame, draft.view, draft.logits)
            draft.accepted = True

    def _name(self, held: HeldFrame) -> str:
        """Return the name of a frame's files: its clip, its time in ms, and a hash of its image, by which it is recognized."""
        frame = held.frame
        digest = hashlib.sha256(frame.luma.tobytes() + frame.chroma.tobytes()).hexdigest()[:8]
        clip = frame.file.stem if frame.file else PurePath(self._source.split("?")[0].rstrip("/:")).stem
        clip = re.sub(r"[^\w-]+", "_", clip, flags=re.ASCII).strip("_")[:_LONGEST_CLIP] or "clip"
        return f"{clip}_{round(held.seconds * 1000):09d}ms_{digest}"
