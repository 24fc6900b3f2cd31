"""WebRTC, the shortest way into a browser: pictures go out the moment they are encoded, over UDP, encrypted.

No server of anybody else's helps to connect: browser and program must reach each other directly, as on loopback or one network.
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
from cliprl.pipeline.web.media.channels import Channel, Packet
from cliprl.pipeline.web.media.vp8 import CLOCK

# How long a browser may take to be reached.
_PATIENCE = 15.0
# The port "discard": nothing is there, but the address is right, and the browser's own checks tell the true port.
_ANY_PORT = 9
# Sockets of one connection for each address: at most one for each of two views, and as many for their control packets.
_HANDLES = 4
_all_addresses = aioice.ice.get_host_addresses


def bind_to(host: str) -> None:
    """Let peer connections use the addresses that the server listens on, and no other; aioice itself leaves loopback out."""

    def addresses(use_ipv4: bool, use_ipv6: bool) -> list[str]:
        if host in ("0.0.0.0", "::"):
            return ["127.0.0.1", *_all_addresses(use_ipv4=use_ipv4, use_ipv6=use_ipv6)]
        return [host if host != "localhost" else "127.0.0.1"]

    aioice.ice.get_host_addresses = addresses


class PeerLimit:
    """Counts peer connections, each of which takes a few handles for every address of this machine, against `handles`."""

    def __init__(self, handles: int) -> None:
        self._handles, self._open = handles, 0

    def enter(self) -> None:
        """Count a connection that is about to be opened. Raises UsageError where too many are."""
        each = _HANDLES * max(len(aioice.ice.get_host_addresses(use_ipv4=True, use_ipv6=True)), 1)
        if (self._open + 1) * each > self._handles:
            raise UsageError("too many WebRTC connections are open: use MJPEG instead")
        self._open += 1

    def leave(self) -> None:
        """Count a connection that was closed."""
        self._open -= 1


class _Track(MediaStreamTrack):
    """Takes a channel's packets, already encoded, on their way to one browser."""

    kind = "video"

    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self._channel, self._box = channel, channel.join()
        self.last: Packet | None = None

    async def recv(self) -> Any:
        self.last = await self._box.take()
        packet = AvPacket(self.last.data)
        packet.pts, packet.time_base = self.last.pts, CLOCK
        return packet

    def stop(self) -> None:
        super().stop()
        self._channel.leave(self._box)


class Peer:
    """One browser's connection, with a video track for each of `channels`, in their order."""

    def __init__(self, channels: Sequence[Channel]) -> None:
        self._connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._channels = channels
        self._senders: list[tuple[RTCRtpSender, _Track]] = []
        self._connection.on("connectionstatechange", self._check)

    async def answer(self, offer: str, browser: str) -> str:
        """The SDP answer to a browser's offer. `browser` is the address that its requests come from. Raises UsageError."""
        try:
            _check_media(offer, len(self._channels))
            await self._connection.setRemoteDescription(RTCSessionDescription(_placed(offer, browser), "offer"))
            for channel in self._channels:
                self._add(channel)
            async with asyncio.timeout(_PATIENCE):
                await self._connection.setLocalDescription(await self._connection.createAnswer())
        except Exception as error:  # aiortc tells a bad offer by whatever its parser stumbled over
            await self.close()
            raise UsageError(f"the offer can't be answered ({type(error).__name__}): use MJPEG instead") from error
        return self._connection.localDescription.sdp

    def _add(self, channel: Channel) -> None:
        track = _Track(channel)
        sender = self._connection.addTrack(track)
        self._senders.append((sender, track))

        def lost() -> None:
            channel.starved = True

        # Called when the browser has lost a picture; aiortc would tell its own encoder, which is not used here.
        setattr(sender, "_send_keyframe", lost)  # noqa: B010

    def origins(self) -> list[int | None]:
        """For each track, what RTP timestamps count from: a frame captured at t has (t * 90000 + origin) mod 2^32.

        None while unknown. By these a page tells how old the picture is that it shows.
        """
        return [_origin(sender, track) for sender, track in self._senders]

    async def _check(self) -> None:
        if self._connection.connectionState in ("failed", "closed"):
            await self.close()

    async def close(self) -> None:
        """End the connection. Calling it twice is harmless."""
        for _, track in self._senders:
            track.stop()
        await self._connection.close()


def _check_media(offer: str, views: int) -> None:
    """Raises ValueError for an offer of anything but a video for each view: every other part would open sockets too."""
    media = re.findall(r"^m=(\w*)", offer, re.MULTILINE)
    if not media or media != ["video"] * views:
        raise ValueError("one video for each view is to be offered")


def _origin(sender: RTCRtpSender, track: _Track) -> int | None:
    """aiortc adds a random number to each timestamp, and keeps it to itself; it is found from what was sent last."""
    sent = getattr(sender, "_RTCRtpSender__rtp_timestamp", 0)
    return None if track.last is None or not sent else (sent - track.last.pts) % (1 << 32)


def _placed(offer: str, browser: str) -> str:
    """The offer with the browser's address in place of its candidates, which hide it behind names that need multicast."""
    lines = [line for line in offer.splitlines() if not line.startswith(("a=candidate:", "a=end-of-candidates"))]
    candidate = f"a=candidate:1 1 udp 2130706431 {browser} {_ANY_PORT} typ host"
    placed: Iterable[str] = (
        f"{line}\r\n{candidate}\r\na=end-of-candidates" if re.match(r"a=ice-pwd:", line) else line for line in lines
    )
    return "\r\n".join(placed) + "\r\n"
