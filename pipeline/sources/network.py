"""Network streams, and files over http, as a source."""

from __future__ import annotations

import errno
import socket
from contextlib import suppress
from ipaddress import ip_address
from urllib.parse import urlsplit

from cliprl.engines import CliprlError, UsageError
from cliprl.pipeline.sources.address import ESCAPES, check_port, check_srt
from cliprl.pipeline.sources.decoding.low_latency import QUICK, TIMEOUT, WITHOUT_PARSER
from cliprl.pipeline.sources.errors import redact
from cliprl.pipeline.sources.registry import SourceOptions, register_source
from cliprl.pipeline.sources.video import VideoSource

# An RTSP server describes the format in advance, so that a short analysis suffices.
_RTSP = QUICK | {"analyzeduration": "200000", "rtsp_transport": "tcp", "timeout": "5000000"}
# RTSP with media over UDP, by the scheme that other players use; libav has an option instead.
_RTSP_UDP = "rtspu"
# A reader that hangs keeps its port until libav's timeout; the next one takes what arrives from then on.
_SHARED = {"reuse": "1"}
# libav's options by scheme (times in microseconds).
_OPTIONS = {
    "rtsp": _RTSP,
    _RTSP_UDP: _RTSP | {"rtsp_transport": "udp"},
    "rtsps": _RTSP,
    "rtmp": QUICK,
    "rtp": QUICK,
    "srt": WITHOUT_PARSER,
    "udp": WITHOUT_PARSER | _SHARED,
    "tcp": WITHOUT_PARSER,
    "http": {"rw_timeout": "10000000"},
    "https": {"rw_timeout": "10000000"},
}
# A file that describes an RTP stream.
_SESSION = ".sdp"
# These may carry a file, which is not live.
_MAY_END = ("http", "https")
_LIVE = tuple(scheme for scheme in _OPTIONS if scheme not in _MAY_END)


@register_source(
    prefixes=tuple(f"{scheme}://" for scheme in _LIVE),
    suffixes=(_SESSION,),
    help="a network stream",
    live=True,
    takes_stream=True,
)
def open_stream(name: str, options: SourceOptions) -> VideoSource:
    """Open a network stream, or the RTP stream that an SDP file describes, without which `rtp://` is MPEG-TS.

    Raises UsageError or CliprlError, one line, without the URL's user and password.
    """
    if "://" in name:
        return _open(name, options, live=True)
    settings = QUICK | {"protocol_whitelist": "file,rtp,udp"}
    return VideoSource(
        name, format="sdp", options=settings, timeout=TIMEOUT, live=True, stream=options.stream, decoder=options.decoder
    )


@register_source(
    prefixes=tuple(f"{scheme}://" for scheme in _MAY_END), help="a file or stream on a web server", takes_stream=True
)
def open_http(url: str, options: SourceOptions) -> VideoSource:
    """Open a file or a stream over http. Raises UsageError or CliprlError as `open_stream` does."""
    return _open(url, options, live=None)


def _open(url: str, given: SourceOptions, *, live: bool | None) -> VideoSource:
    scheme = url.split("://")[0].lower()
    check_srt(url)
    check_port(url)
    _resolve(url)
    if scheme == "udp":
        _check_free(url)
    if scheme == _RTSP_UDP:
        url = "rtsp" + url[len(_RTSP_UDP) :]
    return VideoSource(
        url, options=_OPTIONS[scheme], timeout=TIMEOUT, live=live, stream=given.stream, decoder=given.decoder
    )


# UDP ports that this process has received on.
_received = set[int]()


def _check_free(url: str) -> None:
    """Raise CliprlError if another program receives on the UDP port of `url`: the newest one would take its stream."""
    parts = urlsplit(url)
    assert parts.port is not None, "it is checked"
    with suppress(ValueError):  # a name, or none
        if ip_address(parts.hostname or "").is_multicast:
            return
    family = socket.AF_INET6 if ":" in (parts.hostname or "") else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:  # fails where the system has no IPv6
            probe.bind(("", parts.port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE and parts.port not in _received:
            raise CliprlError(
                f"{redact(url)} can't be read: another program receives on port {parts.port}: end it, or choose another port"
            ) from None
    _received.add(parts.port)


def _resolve(url: str) -> None:
    """Look the host up, because libav reports an unknown name as an input/output error."""
    try:
        host = urlsplit(url).hostname
        if host:
            socket.getaddrinfo(host, None)
    except socket.gaierror:
        if urlsplit(redact(url)).hostname != host:
            raise CliprlError(f"{redact(url)}: no such host: {ESCAPES}") from None
        raise CliprlError(f"{redact(url)}: no such host '{host}': check the name and the network") from None
    except ValueError:  # its text may hold the password
        raise UsageError(f"{redact(url)} is not an address: write it as rtsp://HOST:PORT/PATH; {ESCAPES}") from None
