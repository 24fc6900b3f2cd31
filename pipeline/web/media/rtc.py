"""WebRTC connections: encoded frames are sent at once, encrypted, over UDP.

No STUN or TURN server is used: browser and program must reach each other directly, on loopback or one network.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Sequence
from typing import Any

import aioice.ice
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCRtpSender, RTCSessionDescription
from av.packet import Packet as AvPacket

from cliprl.engines import UsageError
from cliprl.pipeline.web.media.channels import Channel, ViewerPacket
from cliprl.pipeline.web.media.vp8 import CLOCK

# Seconds to wait for a connection to a browser.
_CONNECT_S = 15.0
# The port of the "discard" service. Only the address matters: the browser's connectivity checks reveal its port.
_ANY_PORT = 9
# The most sockets of one connection per address: one for each of two views, and as many for control packets.
_HANDLES = 4
_all_addresses = aioice.ice.get_host_addresses


def bind_to(host: str) -> None:
    """Restrict peer connections to the addresses that the server listens on, loopback included (aioice omits it)."""

    def addresses(use_ipv4: bool, use_ipv6: bool) -> list[str]:
        if host in ("0.0.0.0", "::"):
            return ["127.0.0.1", *_all_addresses(use_ipv4=use_ipv4, use_ipv6=use_ipv6)]
        return [host if host != "localhost" else "127.0.0.1"]

    aioice.ice.get_host_addresses = addresses


class PeerLimit:
    """Limits peer connections to `handles` file handles; each needs a few for every address of this machine."""

    def __init__(self, handles: int) -> None:
        self._handles, self._open = handles, 0

    def enter(self) -> None:
        """Count a connection before it is opened. Raises UsageError if there are too many."""
        each = _HANDLES * max(len(aioice.ice.get_host_addresses(use_ipv4=True, use_ipv6=True)), 1)
        if (self._open + 1) * each > self._handles:
            raise UsageError("too many WebRTC connections are open: use MJPEG instead")
        self._open += 1

    def leave(self) -> None:
        """Count a closed connection."""
        self._open -= 1


class _Track(MediaStreamTrack):
    """A video track that sends the encoded packets of a channel to one browser."""

    kind = "video"

    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self._channel, self._mailbox = channel, channel.join()
        self.last: ViewerPacket | None = None

    async def recv(self) -> Any:
        self.last = await self._mailbox.take()
        packet = AvPacket(self.last.data)
        packet.pts, packet.time_base = self.last.pts, CLOCK
        return packet

    def stop(self) -> None:
        super().stop()
        self._channel.leave(self._mailbox)


class Peer:
    """A connection to one browser, with a video track for each of `channels`, in their order."""

    def __init__(self, channels: Sequence[Channel]) -> None:
        self._connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._channels = channels
        self._senders: list[tuple[RTCRtpSender, _Track]] = []
        self._connection.on("connectionstatechange", self._check)

    async def answer(self, offer: str, browser: str) -> str:
        """Return the SDP answer to a browser's offer. `browser` is its IP address. Raises UsageError for a bad offer."""
        try:
            _check_media(offer, len(self._channels))
            await self._connection.setRemoteDescription(RTCSessionDescription(_with_address(offer, browser), "offer"))
            for channel in self._channels:
                self._add(channel)
            async with asyncio.timeout(_CONNECT_S):
                await self._connection.setLocalDescription(await self._connection.createAnswer())
        except Exception as error:  # aiortc raises various exceptions for a bad offer
            await self.close()
            raise UsageError(f"the offer can't be answered ({type(error).__name__}): use MJPEG instead") from error
        return self._connection.localDescription.sdp

    def _add(self, channel: Channel) -> None:
        track = _Track(channel)
        sender = self._connection.addTrack(track)
        self._senders.append((sender, track))

        def request_key() -> None:
            channel.needs_key = True

        # aiortc calls this when the browser has lost a frame; by default it asks its own encoder, which is not used here.
        setattr(sender, "_send_keyframe", request_key)  # noqa: B010

    def origins(self) -> list[int | None]:
        """Return the origin of each track's RTP timestamps: a frame captured at t has (t * 90000 + origin) mod 2^32.

        None while unknown. The page computes the age of displayed frames from them.
        """
        return [_origin(sender, track) for sender, track in self._senders]

    async def _check(self) -> None:
        if self._connection.connectionState in ("failed", "closed"):
            await self.close()

    async def close(self) -> None:
        """Close the connection. Further calls have no effect."""
        for _, track in self._senders:
            track.stop()
        await self._connection.close()


def _check_media(offer: str, views: int) -> None:
    """Raise ValueError unless the offer holds exactly one video per view: any other part would open sockets too."""
    media = re.findall(r"^m=(\w*)", offer, re.MULTILINE)
    if not media or media != ["video"] * views:
        raise ValueError("offer one video for each view")


def _origin(sender: RTCRtpSender, track: _Track) -> int | None:
    """Return the random offset that aiortc adds to timestamps, computed from the last packet sent; None before the first."""
    sent = getattr(sender, "_RTCRtpSender__rtp_timestamp", 0)
    return None if track.last is None or not sent else (sent - track.last.pts) % (1 << 32)


def _with_address(offer: str, browser: str) -> str:
    """Return the offer with the browser's IP address in place of its candidates, which are mDNS names that need multicast."""
    lines = [line for line in offer.splitlines() if not line.startswith(("a=candidate:", "a=end-of-candidates"))]
    candidate = f"a=candidate:1 1 udp 2130706431 {browser} {_ANY_PORT} typ host"
    placed: Iterable[str] = (
        f"{line}\r\n{candidate}\r\na=end-of-candidates" if re.match(r"a=ice-pwd:", line) else line for line in lines
    )
    return "\r\n".join(placed) + "\r\n"
