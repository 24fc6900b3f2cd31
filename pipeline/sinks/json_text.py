"""Text of file names, whatever bytes they have, in JSON and XML."""

from __future__ import annotations

import json
import re
from typing import Any

_SURROGATE = re.compile("[\ud800-\udfff]")
# What XML 1.0 has no characters for.
_CONTROL = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")


def json_text(value: Any, *, indent: int | None = None) -> str:
    """JSON in which bytes of names that are not UTF-8 stand as the characters `\\xe9`."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return _SURROGATE.sub(lambda match: "\\" + _escape(match), text)


def readable(name: str) -> str:
    """A file name as text, as `json_text` writes it."""
    return _SURROGATE.sub(_escape, name)


def xml_text(name: str) -> str:
    """A name as text that XML can hold: as `readable`, and other control characters than white space as `\\x1b`."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", readable(name))


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"
