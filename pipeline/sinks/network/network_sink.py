"""A network stream as output: H.264 without delay, in RTSP, RTMP, MPEG-TS over UDP or SRT, or as HLS files."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import av

from cliprl.engines import CliprlError, UsageError
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.interfaces import BaseSink, OutputSpec
from cliprl.pipeline.core.nv12 import upright
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.sinks.network.network_process import MUXER, NetworkProcess
from cliprl.pipeline.sinks.partial_names import Reserved, reserve
from cliprl.pipeline.sinks.registry import EncoderSettings, register_sink, replaced_file
from cliprl.pipeline.sinks.video.encoder import VideoEncoder
from cliprl.pipeline.sinks.video.live_encoding import HardwareEncoderError, LiveEncoding, PacketCopier, continued
from cliprl.pipeline.sources.address import check_port, check_srt
from cliprl.pipeline.sources.errors import redact

PLAYLIST = ".m3u8"
# With its length stated, a receiver knows a frame's end without waiting for the next one: a frame's time less to wait.
MPEGTS = {"mpegts_flags": "resend_headers", "omit_video_pes_length": "0"}
# libav's muxer and its options by scheme.
_FORMATS: dict[str, tuple[str, dict[str, str]]] = {
    "rtsp": ("rtsp", {"rtsp_transport": "tcp"}),
    "srt": ("mpegts", MPEGTS),
    "udp": ("mpegts", MPEGTS),
    "rtmp": ("flv", {"flvflags": "no_duration_filesize"}),
}
# The muxer would write the end mark after a fault too, from which the stream goes on: `close` writes it.
_HLS = {"hls_time": "1", "hls_list_size": "6", "hls_flags": "delete_segments+omit_endlist"}
_END_MARK = "#EXT-X-ENDLIST\n"
# Segments that the muxer keeps after the playlist lists them no more.
_UNLISTED = 2
# Whole MPEG-TS packets that fit into one datagram.
_DATAGRAM = "pkt_size=1316"
# Interval of key frames in seconds: the maximum wait of a new viewer.
_KEY_SECONDS = 1.0


def is_url(target: str) -> bool:
    """Whether an output is an address rather than files."""
    return "://" in target


class NetworkSink(BaseSink):
    """Sends frames as a live stream: `rtsp://`, `rtmp://` to a server, `srt://`, `udp://`, or `live.m3u8`.

    The connection is made at the first frame. Raises UsageError for another kind of address, CliprlError if the other end
    does not take what is sent. Frames are turned upright; a change of their size is fitted into the first. `live` chooses the
    encoder. When that of a GPU fails, the stream goes on with libx264 from a key frame.
    """

    def __init__(
        self,
        target: str,
        spec: OutputSpec,
        *,
        crf: float = 23,
        preset: str = "ultrafast",
        live: LiveEncoding | None = None,
    ) -> None:
        scheme = target.split("://")[0].lower() if "://" in target else ""
        if scheme and scheme not in _FORMATS:
            raise UsageError(
                f"{redact(target)}: can't stream to such an address; use {', '.join(_FORMATS)} or NAME{PLAYLIST}"
            )
        check_srt(target)
        if scheme:
            check_port(target)
        if not scheme and not Path(target).absolute().parent.is_dir():
            raise UsageError(f"there is no folder for '{target}': create it, or choose another place")
        self._notes: list[str] = []
        if spec.stream.passthrough and spec.stream.passthrough.tracks:
            self._notes.append(f"{redact(target)} gets the video only: the audio is left out")
        self._target, self._info = target, spec.stream
        self._settings: dict[str, Any] = {"crf": crf, "preset": preset, "key_seconds": _KEY_SECONDS}
        self._live = live or LiveEncoding()
        self._format, self._options = _FORMATS[scheme] if scheme else ("hls", _HLS)
        self._container: Any = None
        self._encoder: VideoEncoder | None = None
        self._first: Frame | None = None
        self._relay: NetworkProcess | None = None
        self._reserved: Reserved | None = None  # keeps other runs from writing the same playlist

    @property
    def notes(self) -> list[str]:  # type: ignore[override]
        """One-line remarks for the user."""
        return [*self._notes, *self._live.notes]

    @property
    def takes_packets(self) -> bool:
        """Whether packets that frames have already are of use."""
        return self._encoder is None or (isinstance(self._encoder, PacketCopier) and self._encoder.is_copying)

    def write(self, frame: Frame, segmentation: Segmentation | None) -> None:
        """Send one frame, upright: the formats have no display matrix."""
        self._try(lambda: self._send(upright(frame)))
        self.frames += 1

    def close(self) -> None:
        """Send what is left and hang up; a playlist gets its end mark. Calling it twice is harmless."""
        encoder, self._encoder = self._encoder, None
        if encoder is not None:
            self._try(lambda: self._container.mux(encoder.flush()))
        self._hang_up(ended=encoder is not None)
        self._live.close()

    def _send(self, frame: Frame) -> None:
        if self._encoder is None:
            self._container = self._open()
            self._encoder = self._live.open(self._container, frame, self._info, **self._settings)
            # The stream's parameters are in it again at every key frame, for who joins later.
            self._encoder.repeat_headers()
            self._first = frame
        self._container.mux(self._encode(frame, self._encoder))
        if self._relay is not None:
            self._relay.check()

    def _encode(self, frame: Frame, encoder: VideoEncoder) -> list[Any]:
        try:
            return encoder.encode(frame)
        except HardwareEncoderError as error:
            self._live.refuse(error)
            assert self._first is not None
            stream = self._container.streams.video[0]
            self._encoder = continued(encoder, stream, self._first, self._info, **self._settings)
            return self._encoder.encode(frame)

    def _open(self) -> Any:
        url = self._target
        if not is_url(url):
            self._reserved = reserve(Path(os.path.realpath(url)))
            return av.open(url, "w", format=self._format, container_options=self._options | _continuation(Path(url)))
        if url.startswith("udp") and "pkt_size" not in url:
            url += ("&" if "?" in url else "?") + _DATAGRAM
        self._relay = NetworkProcess(url, self._format, self._options)
        return av.open(self._relay, "w", format=MUXER, options={"flush_packets": "1"})

    def _try(self, work: Callable[[], None]) -> None:
        try:
            work()
        except (OSError, ValueError, av.FFmpegError) as error:
            self._encoder = None
            self._hang_up()
            reason = getattr(error, "strerror", None) or error
            place = (
                "a server or viewer listens there" if is_url(self._target) else "its folder is there, with free space"
            )
            raise CliprlError(f"can't stream to {redact(self._target)} ({reason}): check that {place}") from None

    def _hang_up(self, *, ended: bool = False) -> None:
        """Close the connection, or the playlist, which gets its end mark if the stream has `ended`."""
        container, self._container = self._container, None
        relay, self._relay = self._relay, None
        if container is not None:
            with suppress(OSError, ValueError, av.FFmpegError):  # the other end may have gone already
                container.close()
        if relay is not None:
            relay.close()
        if ended and self._format == "hls":
            with suppress(OSError), open(self._target, "a", encoding="ascii") as playlist:
                playlist.write(_END_MARK)
        reserved, self._reserved = self._reserved, None
        if reserved is not None:
            for path in (reserved.path, *reserved.leftovers):  # all are empty
                path.unlink(missing_ok=True)
            os.close(reserved.handle)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._encoder = None
            self._hang_up()


def _segments(playlist: Path) -> dict[int, Path]:
    """The segments of a playlist by their numbers: live-0.ts, which live2.m3u8 and live-2.m3u8 have no use for."""
    segment = re.compile(rf"{re.escape(playlist.name[: -len(PLAYLIST)])}-(\d{{1,15}})\.ts")
    files = playlist.parent.iterdir() if playlist.parent.is_dir() else ()
    return {int(match[1]): path for path in files if (match := segment.fullmatch(path.name))}


def _continuation(playlist: Path) -> dict[str, str]:
    """Remove the segments of an earlier stream. Return the options to go on with their numbers, which must not go back.

    A player that has shown a segment waits for one of a higher number, or shows an old one of the same name. Only those that the
    playlist lists, or may have listed, are removed: another program's file may have such a name.
    """
    segments, listed = _segments(playlist), list[int]()
    with suppress(OSError):
        names = set(playlist.read_text(encoding="utf-8", errors="replace").splitlines())
        listed = [number for number, path in segments.items() if path.name in names]
    names_of = {"hls_segment_filename": f"{str(playlist)[: -len(PLAYLIST)]}-%d.ts"}
    if not segments:
        return names_of
    for number in range(min(listed) - _UNLISTED, max(listed) + 2) if listed else ():
        if number in segments:
            segments[number].unlink(missing_ok=True)
    newest, flags = max(segments), f"{_HLS['hls_flags']}+discont_start"
    return names_of | {"start_number": f"{newest + 1}", "hls_flags": flags}


def _replaced(playlist: Path) -> list[Path]:
    """The playlist and its segments."""
    return replaced_file(playlist) + sorted(_segments(playlist).values())


@register_sink(
    prefixes=tuple(f"{scheme}://" for scheme in _FORMATS),
    help="a live stream to a server or viewer",
    is_stream=True,
    is_h264=True,
)
def open_network(target: str, spec: OutputSpec, settings: EncoderSettings) -> NetworkSink:
    """Open a live stream to an address."""
    return NetworkSink(target, spec, crf=settings.crf, preset=settings.preset, live=settings.live)


@register_sink(
    suffixes=(PLAYLIST,),
    shown=f"live{PLAYLIST}",
    help="a live HLS playlist",
    is_stream=True,
    is_h264=True,
    replaces=_replaced,
)
def open_playlist(target: str, spec: OutputSpec, settings: EncoderSettings) -> NetworkSink:
    """Open a live HLS playlist."""
    return NetworkSink(target, spec, crf=settings.crf, preset=settings.preset, live=settings.live)
