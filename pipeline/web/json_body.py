"""Strict parsing of JSON from clients: values that two parsers could read differently are refused."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from cliprl.pipeline.live.controls import quoted

# The most digits of an integer.
_DIGITS = 20


def parse_object(data: bytes | str) -> dict[str, Any]:
    """Parse a JSON object in UTF-8.

    Raises ValueError, one line, for other values, other encodings, unpaired surrogates, NaN and infinities, numbers too
    large for a float, duplicate keys, and nesting beyond the parser's limit.
    """
    try:
        text = data.decode() if isinstance(data, bytes) else data
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_whole,
        )
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeError:
        raise ValueError("the text is not UTF-8: send JSON in UTF-8, without unpaired surrogates") from None
    except RecursionError:
        raise ValueError("the JSON is nested too deeply: send a flat object") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"this is not JSON ({error.msg} at character {error.pos}): send a JSON object") from None
    if not isinstance(value, dict):
        raise ValueError("send a JSON object")
    return value


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice in the JSON object: send each key once")
    return found


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number: send finite numbers")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{quoted(text)} is too large: send finite numbers")
    return value


def _whole(text: str) -> int:
    if len(text) > _DIGITS:
        raise ValueError(f"{quoted(text)} is too large: send numbers of at most {_DIGITS} digits")
    return int(text)
