"""Distribution of encoded frames to viewers. Each viewer has a separate mailbox, so a slow one does not delay others."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ViewerPacket:
    """One encoded frame. `index`: that of the displayed frame. `captured`: `time.monotonic()`. `pts`: in 90 kHz, VP8 only."""

    index: int
    captured: float
    data: bytes
    pts: int = 0
    key: bool = True


class Mailbox:
    """The packets that wait for one viewer, for use on the server's event loop.

    JPEG images are independent: only the newest waits (`depth` 1). VP8 frames depend on earlier ones: up to `depth` wait;
    on overflow all are dropped, and the next packet accepted is a key frame. `skipped` counts dropped packets.
    """

    def __init__(self, depth: int = 1) -> None:
        self._depth = depth
        self._waiting: deque[ViewerPacket] = deque()
        self._changed = asyncio.Event()
        self._needs_key = True
        self.skipped = 0

    def offer(self, packet: ViewerPacket) -> bool:
        """Add a packet. Returns False if the viewer needs a key frame and this is none."""
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

    async def take(self) -> ViewerPacket:
        """Wait for the next packet and return it."""
        while not self._waiting:
            self._changed.clear()
            await self._changed.wait()
        return self._waiting.popleft()


class Channel:
    """One encoding of one view: `kind` "jpeg" or "vp8", `view` "overlay" or "raw".

    The encoder thread reads `viewers` and `needs_key`; everything else happens on the event loop.
    """

    def __init__(self, kind: str, view: str, depth: int = 1) -> None:
        self.kind, self.view = kind, view
        self._depth = depth
        self._mailboxes: set[Mailbox] = set()
        self.needs_key = False  # a viewer has joined and needs an image now, or a viewer needs a key frame
        self.sent = self._skipped = 0

    @property
    def viewers(self) -> int:
        """The number of viewers."""
        return len(self._mailboxes)

    @property
    def skipped(self) -> int:
        """Packets dropped because a viewer was too slow."""
        return self._skipped + sum(mailbox.skipped for mailbox in tuple(self._mailboxes))

    def join(self) -> Mailbox:
        """Add a viewer and return its mailbox."""
        mailbox = Mailbox(self._depth)
        self._mailboxes.add(mailbox)
        self.needs_key = True
        return mailbox

    def leave(self, mailbox: Mailbox) -> None:
        """Remove a viewer's mailbox."""
        self._mailboxes.discard(mailbox)
        self._skipped += mailbox.skipped

    def offer(self, packet: ViewerPacket) -> None:
        """Add a packet to all mailboxes."""
        for mailbox in self._mailboxes:
            if mailbox.offer(packet):
                self.sent += 1
            else:
                self.needs_key = True
