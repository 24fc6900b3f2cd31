"""From one encoder to many viewers: each has a mailbox of its own, so that none can hold up another."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Packet:
    """One encoded picture. `index`: of the displayed picture. `captured`: `time.monotonic()`. `pts`: in 90 kHz, VP8 only."""

    index: int
    captured: float
    data: bytes
    pts: int = 0
    key: bool = True


class Mailbox:
    """What waits for one viewer; filled and emptied on the server's event loop.

    JPEG pictures stand for themselves: only the newest waits. VP8 pictures need those before them (`depth` more than 1): up to
    `depth` wait; when more come, all are thrown away, and the next to wait is a key frame. `skipped` counts the lost.
    """

    def __init__(self, depth: int = 1) -> None:
        self._depth = depth
        self._waiting: deque[Packet] = deque()
        self._changed = asyncio.Event()
        self._needs_key = True
        self.skipped = 0

    def offer(self, packet: Packet) -> bool:
        """Put a packet in. False: the viewer is in need of a key frame."""
        if len(self._waiting) >= self._depth:
            self.skipped += len(self._waiting)
            self._waiting.clear()
            self._needs_key = self._depth > 1
        if self._needs_key and not packet.key:
            self.skipped += 1
            return False
        self._needs_key = False
        self._waiting.append(packet)
        self._changed.set()
        return True

    async def take(self) -> Packet:
        """The next packet; waits for one."""
        while not self._waiting:
            self._changed.clear()
            await self._changed.wait()
        return self._waiting.popleft()


class Channel:
    """One way to see one picture: `kind` "jpeg" or "vp8", `view` "overlay" or "raw".

    The encoder's thread reads `wanted` and `starved`; all else happens on the event loop.
    """

    def __init__(self, kind: str, view: str, depth: int = 1) -> None:
        self.kind, self.view = kind, view
        self._depth = depth
        self._boxes: set[Mailbox] = set()
        self.starved = False  # somebody has come who can't wait for the next picture, or needs a key frame
        self.sent = self._skipped = 0

    @property
    def wanted(self) -> int:
        """How many are watching."""
        return len(self._boxes)

    @property
    def skipped(self) -> int:
        """Pictures that a viewer was too slow for."""
        return self._skipped + sum(box.skipped for box in tuple(self._boxes))

    def join(self) -> Mailbox:
        """A mailbox that is filled from now on."""
        box = Mailbox(self._depth)
        self._boxes.add(box)
        self.starved = True
        return box

    def leave(self, box: Mailbox) -> None:
        """Fill that mailbox no longer."""
        self._boxes.discard(box)
        self._skipped += box.skipped

    def offer(self, packet: Packet) -> None:
        """Hand a packet to all."""
        for box in self._boxes:
            if box.offer(packet):
                self.sent += 1
            else:
                self.starved = True
