"""One-line explanations of libav's errors, without passwords."""

from __future__ import annotations

import errno
import re
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from types import UnionType

from av import error as libav

from cliprl.engines import CliprlError, UsageError

_HOST_PORT = re.compile(r"(\[[^\]]*\]|[^:\[\]]*)(:\d+)?")
# Recorders take parameters in the path too: rtsp://HOST/user=NAME_password=SECRET_channel=1.sdp
_SECRETS = re.compile(
    r"(?i)([?&;/_][^=&;/\s]*(?:token|key|secret|pass|passphrase|pwd|sig|signature|auth)[^=&;/\s]*=)[^&;\s]+"
)


def redact(name: str) -> str:
    """A URL without user, password and the values of secret-looking parameters; "standard input" for "-"; else `name`."""
    if name == "-":
        return "standard input"
    scheme, separator, rest = name.partition("://")
    return _SECRETS.sub(r"\1***", f"{scheme}://{_without_credentials(rest)}") if separator else name


def _without_credentials(rest: str) -> str:
    """Hide user and password in what follows "://", also where one of `/?#@` in them was not escaped.

    In doubt more is hidden, such as the host before a path with "@".
    """
    authority, path = re.split(r"[/?#]", rest, maxsplit=1)[0], re.split(r"[?#]", rest, maxsplit=1)[0]
    if "@" in authority:
        before = rest if path == authority else path
        return f"***@{rest[before.rindex('@') + 1 :]}"
    before, at, after = rest.rpartition("@")
    address = _HOST_PORT.fullmatch(authority)
    # A port may be the first digits of a password: then a host, or a path, follows the "@".
    has_password = not address or ":" in before[len(authority) :] or (address[2] and re.search(r"[/.:]", after))
    return f"***@{after}" if at and has_password else rest


class Problem(StrEnum):
    """Reasons why a source gives no frame, which decide whether to try again."""

    REFUSED = "refused"
    NOT_FOUND = "not found"
    UNAUTHORISED = "unauthorised"
    TIMEOUT = "timeout"
    CODEC = "codec"
    ENDED = "ended"
    OTHER = "other"


class SourceError(CliprlError):
    """A source that can't be opened or read; `problem` is its kind."""

    problem = Problem.OTHER


class SourceUsageError(UsageError, SourceError):
    """A source that can't be opened because of a mistake in its name or options."""


# The first class that fits decides; PyAV's errors derive from the built-in ones of the same meaning.
_MEANINGS: tuple[tuple[type[BaseException] | UnionType, Problem, str], ...] = (
    (ConnectionRefusedError, Problem.REFUSED, "refused the connection: is the server running, is the port right?"),
    (
        libav.HTTPUnauthorizedError | libav.HTTPForbiddenError,
        Problem.UNAUTHORISED,
        "denies access: check user and password",
    ),
    (libav.HTTPNotFoundError, Problem.NOT_FOUND, "does not exist on its server: check the address"),
    (
        libav.HTTPServerError | libav.HTTPTooManyRequestsError,
        Problem.OTHER,
        "is not given out by its server now, which is overloaded or faulty: try again later",
    ),
    (libav.HTTPError | libav.HTTPClientError, Problem.OTHER, "is refused by its server: check the address"),
    (TimeoutError | libav.ExitError, Problem.TIMEOUT, "did not answer in time: check the address and the network"),
    (PermissionError, Problem.UNAUTHORISED, "may not be read by this user: change its permissions or your group"),
    (NotADirectoryError, Problem.NOT_FOUND, "names a file as a folder: leave out the / behind it"),
    (FileNotFoundError, Problem.NOT_FOUND, "does not exist: check the name"),
    (
        libav.ProtocolNotFoundError,
        Problem.OTHER,
        "has an address of a kind that this build of libav does not have: use a path, http, rtsp or udp",
    ),
    (libav.DecoderNotFoundError, Problem.CODEC, "is in a format without a decoder here: convert it to H.264 first"),
    (
        libav.InvalidDataError | EOFError,
        Problem.CODEC,
        "is not a video that can be read: it is cut off, damaged, or of another kind; make or copy it again",
    ),
    (
        MemoryError,
        Problem.OTHER,
        "needs more memory than there is: end other programs, raise the limit of this one, or give a smaller video",
    ),
    (ConnectionError, Problem.ENDED, "closed the connection: is the server still running?"),
)
# Those of a mistake in the name or the options.
_MISTAKES = (PermissionError, NotADirectoryError, FileNotFoundError, libav.ProtocolNotFoundError)


# What libav has no class for, by the number of the error: of devices, and of all.
_DEVICE_NUMBERS = {
    errno.EBUSY: "is in use by another program: end that program",
    errno.ENODEV: "is no longer there: attach it again",
    errno.ENXIO: "is no longer there: attach it again",
}
_NUMBERS = {
    errno.ENETUNREACH: "can't be reached from here: check the network of this machine",
    errno.EHOSTUNREACH: "can't be reached from here: check the address, and whether it is switched on",
    errno.EADDRINUSE: "can't be read: another program receives on its port: end it, or choose another port",
    errno.EMFILE: "needs more open files than this program may have: raise the limit (ulimit -n)",
}


def source_error(kind: type[SourceError], problem: Problem, text: str) -> SourceError:
    """An error of this kind, with its problem."""
    error = kind(text)
    error.problem = problem
    return error


# Files that may hold videos, or are taken for some: where in them which bytes lie, what they are, and what to do.
_WRAPPINGS = (
    (128, b"DICM", "a DICOM file: export its video or images first, as with dcm2img or gdcmraw"),
    (0, b"PK\3\4", "a ZIP archive: unpack it, and give a video in it"),
    (0, b"\x1f\x8b", "a gzip archive: unpack it, and give a video in it"),
    (0, b"7z\xbc\xaf", "a 7z archive: unpack it, and give a video in it"),
    (0, b"Rar!", "a RAR archive: unpack it, and give a video in it"),
)


def wrapping_of(name: str) -> str | None:
    """Return the kind of a file that wraps a video or images, with the remedy; None for any other, and for no file."""
    path, longest = Path(name), max(at + len(mark) for at, mark, _ in _WRAPPINGS)
    with suppress(OSError):
        if path.is_file():
            with path.open("rb") as file:
                head = file.read(longest)
            return next((what for at, mark, what in _WRAPPINGS if head.startswith(mark, at)), None)
    return None


def explain(error: BaseException, name: str) -> SourceError:
    """The error to raise for one of libav's about `name` (path, device or URL)."""
    shown = redact(name)
    if isinstance(error, libav.InvalidDataError) and (what := wrapping_of(name)):
        return source_error(SourceError, Problem.CODEC, f"{shown} is {what}")
    if isinstance(error, libav.InvalidDataError) and name.lower().startswith("rtp://"):
        return source_error(
            SourceError, Problem.CODEC, f"{shown} carries no MPEG-TS: give an SDP file that describes it"
        )
    for classes, problem, text in _MEANINGS:
        if isinstance(error, classes):
            kind = SourceUsageError if isinstance(error, _MISTAKES) else SourceError
            return source_error(kind, problem, f"{shown} {text}")
    meanings = _NUMBERS | (_DEVICE_NUMBERS if name.startswith("/dev/") else {})
    if (number := getattr(error, "errno", None)) in meanings:
        return SourceError(f"{shown} {meanings[number]}")
    lines = redact(str(getattr(error, "strerror", None) or error)).splitlines()
    reason = lines[0] if lines else type(error).__name__
    remedy = (
        "check the address, and where its server leads to" if "://" in name else "check what it is, or copy it again"
    )
    if name.startswith("/dev/"):
        remedy = "check what it is, and size, rate and format (v4l2-ctl --list-formats-ext)"
    return SourceError(f"{shown} can't be read ({reason}): {remedy}")
