"""JSON from clients, read strictly: what two programs could read differently, or what is no number, is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from cliprl.pipeline.live.controls import quoted

# Digits of the longest whole number that is read.
_DIGITS = 20


def parse_object(data: bytes | str) -> dict[str, Any]:
    """Read a JSON object in UTF-8.

    Raises ValueError, one line, for anything else: other values, other encodings, halves of surrogate pairs, NaN and
    infinities, numbers too large for a float, a key twice, nesting beyond what the parser takes.
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
        raise ValueError("the text is not UTF-8: send JSON in UTF-8, without halves of surrogate pairs") from None
    except RecursionError:
        raise ValueError("the JSON is nested too deeply: send a flat object") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"this is no JSON ({error.msg} at character {error.pos}): send a JSON object") from None
    if not isinstance(value, dict):
        raise ValueError("send a JSON object")
    return value


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in the JSON object: send each once")
    return found


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number: send finite numbers")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{quoted(text)} is too large: send finite numbers")
    return value


def _whole(text: str) -> int:
    if len(text) > _DIGITS:
        raise ValueError(f"{quoted(text)} is too large: send numbers of at most {_DIGITS} digits")
    return int(text)
