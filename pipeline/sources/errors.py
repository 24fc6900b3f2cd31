"""What libav's errors mean to a person, in one line, with no password in it."""

from __future__ import annotations

import re

import av

from cliprl.engines import CliprlError, UsageError

_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]*@")
_SECRETS = re.compile(r"(?i)([?&][^=&\s]*(?:token|key|secret|pass|passphrase|pwd|sig|signature|auth)[^=&\s]*=)[^&\s]+")


def redact(name: str) -> str:
    """A URL without user, password and the values of secret-looking parameters; any other name as it is."""
    return _SECRETS.sub(r"\1***", _CREDENTIALS.sub("***@", name)) if "://" in name else name


# The first class that fits decides; PyAV's errors derive from the built-in ones of the same meaning.
_MEANINGS: tuple[tuple[tuple[type[BaseException], ...], type[CliprlError], str], ...] = (
    ((ConnectionRefusedError,), CliprlError, "refused the connection: is the server running, is the port right?"),
    (
        (av.error.HTTPUnauthorizedError, av.error.HTTPForbiddenError),
        CliprlError,
        "denies access: check user and password",
    ),
    ((av.error.HTTPNotFoundError,), CliprlError, "does not exist on its server: check the address"),
    ((TimeoutError, av.error.ExitError), CliprlError, "did not answer in time: check the address and the network"),
    ((PermissionError,), UsageError, "may not be read by this user: change its permissions or your group"),
    ((FileNotFoundError,), UsageError, "does not exist: check the name"),
    (
        (av.error.ProtocolNotFoundError,),
        UsageError,
        "has an address of an unknown kind: use a path, http, rtsp, srt or udp",
    ),
    ((av.error.DecoderNotFoundError,), CliprlError, "is in a format without a decoder here: convert it to H.264 first"),
    (
        (av.error.InvalidDataError, EOFError),
        CliprlError,
        "is not a video that can be read: it is cut off, damaged, or of another kind; make or copy it again",
    ),
)


def explain(error: BaseException, name: str) -> CliprlError:
    """The error to raise for one of libav's about `name` (path, device or URL)."""
    shown = redact(name)
    for classes, kind, text in _MEANINGS:
        if isinstance(error, classes):
            return kind(f"{shown} {text}")
    reason = redact(str(getattr(error, "strerror", None) or error)).splitlines()
    return CliprlError(f"{shown} can't be read: {reason[0] if reason else type(error).__name__}")
