"""The codec of a packet, where the video codec may change in the middle: MPEG-TS, MPEG-PS and HLS, stored or live."""

from __future__ import annotations

import re
from typing import Any

import av

from cliprl.engines import CliprlError

_CHANGEABLE = ("mpegts", "mpeg", "hls")
# The codecs that the first bytes of a key frame show, by the names of the decoders in libav.
_FAMILIES = {"mpeg1video": "mpeg2video", "mpeg2video": "mpeg2video", "h264": "h264", "hevc": "hevc"}
_START_CODE = re.compile(rb"\x00\x00\x01(..)", re.DOTALL)
# Bytes that hold the first two start codes of a key frame: an optional delimiter, and the parameters.
_LOOKED_AT = 64
_MPEG2_SEQUENCE, _HEVC_PARAMETERS = 0xB3, b"\x40\x01"
_H264_PARAMETERS, _H264_PROFILES = 7, (66, 77, 88, 100, 110, 122, 244)


class CodecWatch:
    """Compares the codec of the packets with that of the decoder, in a container whose codec may change."""

    def __init__(self, codec: str, *, fixed: bool = False) -> None:
        """`codec` is the name of the decoder in use; `fixed`: it can't be replaced while its input is open."""
        self._codec, self._fixed = _FAMILIES[codec], fixed

    @staticmethod
    def fits(container: Any, codec: str) -> bool:
        """Return whether the codec of this container may change, and key frames of `codec` can be recognized."""
        return container.format.name in _CHANGEABLE and codec in _FAMILIES

    def change(self, packet: Any) -> str | None:
        """Return the name of the decoder that is needed from this packet on. None if it is the one in use.

        Raises CliprlError where another one is needed and the one in use is fixed: a live input is opened again then.
        """
        found = None if packet.is_corrupt else key_frame_codec(bytes(memoryview(packet)[:_LOOKED_AT]))
        if found is None or found == self._codec:
            return None
        if self._fixed:
            raise CliprlError(f"the codec of the video changes to {found}: the stream is opened again")
        self._codec = found
        return found


def successor(context: Any, codec: str) -> Any:
    """Return a decoder of another codec with the flags and threads of `context`."""
    new = av.CodecContext.create(codec, "r")
    new.thread_type, new.thread_count, new.flags = context.thread_type, context.thread_count, context.flags
    return new


def key_frame_codec(data: bytes) -> str | None:
    """Return the codec of a key frame that begins with `data`, by its parameters. None for any other packet."""
    for number, code in enumerate(_START_CODE.findall(data)[:2]):
        if code[0] == _MPEG2_SEQUENCE and number == 0:
            return "mpeg2video"
        if code == _HEVC_PARAMETERS:
            return "hevc"
        if code[0] < 0x80 and code[0] & 31 == _H264_PARAMETERS and code[1] in _H264_PROFILES:
            return "h264"
    return None
