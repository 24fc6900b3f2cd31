"""HLS playlists, read as far as libav's account of them is not enough."""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from cliprl.engines import CliprlError
from cliprl.pipeline.sources.errors import SourceError, redact, source_error

_LARGEST = 1 << 18
_TIMEOUT = 5.0
_VARIANT = re.compile(r"#EXT-X-STREAM-INF:([^\r\n]*)[\r\n]+(?:#[^\r\n]*[\r\n]+)*([^#\r\n]+)")
_BANDWIDTH = re.compile(r"(?:^|,)\s*BANDWIDTH=(\d+)")
_RESOLUTION = re.compile(r"(?:^|,)\s*RESOLUTION=(\d+x\d+)")
_SEGMENT = re.compile(r"#EXTINF:\s*([\d.]+)")
_LONGEST_NAME = 80
# How often a playlist without an end mark is read again, a segment's time apart, where it has nothing new.
_RELOADS = "3"
# Extensions of the parts of an HLS playlist: libav's own list, and those of keys, which it refuses.
_PLAYLIST_PARTS = (
    "3gp,aac,avi,ac3,eac3,flac,mkv,m3u8,m4a,m4s,m4v,mpg,mov,mp2,mp3,mp4,mpeg,mpegts,ogg,ogv,oga,ts,vob,vtt,wav,webvtt,"
    "cmfv,cmfa,ec3,fmp4,html,key,bin"
)


@dataclass(frozen=True, slots=True)
class Variant:
    """A variant of a master playlist: its address as listed, bits per second, and size; 0 and "" if not stated."""

    address: str
    bit_rate: int
    size: str

    def __str__(self) -> str:
        name = redact(" ".join(self.address.split()))[:_LONGEST_NAME]
        rate = f"{self.bit_rate // 1000} kbit/s" if self.bit_rate >= 1000 else ""
        facts = " ".join(fact for fact in (self.size, rate) if fact)
        return f"{name} ({facts})" if facts else name


def read_playlist(name: str) -> str:
    """Return the beginning of a playlist, a file or at an http address; "" if it can't be read."""
    try:
        if name.startswith(("http://", "https://")):
            data = _download(name)
        else:
            with Path(name).open("rb") as file:
                data = file.read(_LARGEST)
    except (OSError, ValueError):
        return ""
    return data.decode("utf-8", "replace")


def _download(url: str) -> bytes:
    """Return the beginning of what is at an http address. Raises OSError if it can't be read, such as one with a password."""
    from http.client import HTTPException  # with the modules of HTTP and TLS, which no other input needs
    from urllib.request import urlopen

    try:
        with urlopen(url, timeout=_TIMEOUT) as answer:
            data: bytes = answer.read(_LARGEST)
    except HTTPException as error:  # of an address, or an answer, that is none of HTTP: not an OSError
        raise OSError(errno.EPROTO, "no answer by HTTP") from error
    return data


def resolve(name: str, address: str) -> str:
    """Return the name of what a playlist lists as `address`."""
    return urljoin(name, address) if "://" in name else str(Path(name).parent / address)


def variants(text: str) -> list[Variant]:
    """List the variants of a master playlist; none of any other."""
    return [_variant(*found) for found in _VARIANT.findall(text)]


def missing_variants(name: str, container: Any) -> list[Variant]:
    """List the variants of the master playlist `name` of which an open container has no stream.

    libav leaves out in silence what it can't read. It marks the streams by the bit rate of their variant;
    those of a playlist that several variants share have no mark.
    """
    listed = variants(read_playlist(name))
    rates: dict[str, set[int]] = {}
    for variant in listed:
        rates.setdefault(variant.address, set()).add(variant.bit_rate)
    opened = {stream.metadata.get("variant_bitrate") for stream in container.streams}
    return [v for v in listed if v.bit_rate and rates[v.address] == {v.bit_rate} and str(v.bit_rate) not in opened]


def playlist_notes(name: str, container: Any) -> list[str]:
    """Return remarks on what is missing in the playlist `name`, which is open as `container`."""
    missing = missing_variants(name, container)
    notes = [f"the variant {variant} of the playlist can't be read and is left out" for variant in missing]
    if "://" not in name and _lacks_end(name):
        notes.append("the playlist has no end mark: what is added to it after this run is not in the outputs")
    return notes


def check_playlist(name: str) -> None:
    """Raise CliprlError for a master playlist that lists another one, or itself: libav never comes to its end."""
    for variant in variants(read_playlist(name)):
        nested = resolve(name, variant.address)
        if nested == name or ("://" not in nested and variants(read_playlist(nested))):
            raise CliprlError(
                f"{redact(name)} is a playlist whose variant {variant} is no list of segments: name one of another variant"
            )


def ends_early(name: str, container: Any, absent: float, slack: float) -> bool:
    """Return whether the frames of an input end too early: `absent` seconds before the end that it states, and not `slack`."""
    if absent > slack and container.format.name.startswith("hls"):
        slack += rounding_error(name)
    return absent > slack


def rounding_error(name: str) -> float:
    """Return by how many seconds the duration of a playlist may be wrong, because it states whole seconds for each segment."""
    text = read_playlist(name)
    listed = variants(text)
    if listed:
        text = read_playlist(resolve(name, listed[0].address))
    lengths = _SEGMENT.findall(text)
    return 0.5 * len(lengths) if all(length.isdecimal() for length in lengths) else 0.0


def with_variants(error: SourceError, name: str) -> SourceError:
    """Add the variants of a master playlist to an error: libav refuses the whole if it can't read the segments of one."""
    listed = variants(read_playlist(name)) if ".m3u8" in name else []
    if not listed:
        return error
    named = ", ".join(map(str, listed))
    return source_error(type(error), error.problem, f"{error}, or name one of the variants that it lists: {named}")


def with_playlist_options(name: str, options: Mapping[str, str]) -> dict[str, str]:
    """libav's options, under which an HLS playlist may have its keys in files named as such.

    One on disk is read from its beginning, also without an end mark, and ends where no segment is added any more.
    """
    if ".m3u8" not in name:
        return dict(options)
    stored = {} if "://" in name else {"live_start_index": "0", "max_reload": _RELOADS}
    return {"allowed_extensions": _PLAYLIST_PARTS} | stored | dict(options)


def _lacks_end(name: str) -> bool:
    """Whether a playlist of segments has no end mark: its writer was interrupted, or adds segments still."""
    text = read_playlist(name)
    return len(text) < _LARGEST and bool(_SEGMENT.search(text)) and "#EXT-X-ENDLIST" not in text


def _variant(attributes: str, address: str) -> Variant:
    rate, size = _BANDWIDTH.search(attributes), _RESOLUTION.search(attributes)
    return Variant(address.strip(), int(rate[1]) if rate else 0, size[1] if size else "")
