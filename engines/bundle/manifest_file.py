"""Read the file of a manifest, in most cases without pydantic, whose import takes a tenth of a start.

What is not as programs usually write it is left to the schema, which has all rules and states which one is broken.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from cliprl.engines.bundle.manifest import (
    FORMAT_VERSION,
    SEAL,
    ClassSpec,
    Manifest,
    RegionSpec,
    RestorationSpec,
    TextSpec,
    is_sealed,
)
from cliprl.engines.bundle.validation import MAX_CLASSES, MAX_CONTEXT, MAX_SIDE, MAX_STEPS, MAX_TEMPLATES, MAX_TEXT
from cliprl.engines.errors import BundleError

_KINDS, _STRIDES = ("background", "tissue", "instrument", "prompted"), (1, 2, 4, 8, 16, 32)
# Bounds of the fields of a restoration; the upper one is excluded.
_RESTORATION: Mapping[str, tuple[float, float]] = {
    "noise": (1e-9, 1),
    "strength": (0, 10),
    "light": (0, 255),
    "haze": (0, 255),
    "clearing": (0, 1),
    "least": (0, 1),
    "dark": (0, 255),
    "patch": (3, 15),
    "search": (3, 35),
    "memory": (0, 1),
}
# The largest manifest that is read, in bytes; the shipped one has 19 KB.
MAX_BYTES = 4 << 20
# Levels of the descriptions that a manifest may hold.
_LEVELS = 20


def read_manifest(path: Path) -> Manifest:
    """Read a manifest file.

    Raises BundleError where it is no manifest, of another format version, or not byte for byte what was sealed.
    """
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise BundleError(f"{path} has {size} bytes, more than {MAX_BYTES}: no manifest is that large")
        text = path.read_bytes().decode("utf-8")
        data = json.loads(text)
    except (ValueError, OSError, RecursionError) as error:
        raise BundleError(f"{path} is not JSON ({error}): copy or write the bundle again") from error
    if not isinstance(data, dict):
        raise BundleError(f"{path} holds a {type(data).__name__}, not an object: copy or write the bundle again")
    version = data.get("format_version")
    if version != FORMAT_VERSION:
        raise BundleError(
            f"bundle format version {repr(version)[:40]} is not {FORMAT_VERSION}, the one this program reads: "
            "use the cliprl version that wrote the bundle, or write the bundle again"
        )
    if SEAL not in data:
        raise BundleError(f"{path} lacks its {SEAL}: write the bundle again")
    # The whole text, not only what it means: a changed digit that rounds to the same number counts as a change too.
    if not is_sealed(text):
        raise BundleError(f"{path} was altered since it was sealed: copy the bundle again, or write it again")
    # An escape may be half of a surrogate pair, which no file can hold; a sealed text has escapes for control characters alone.
    return (None if "\\u" in text else read_plainly(data)) or Manifest.from_json(data)


def read_plainly(data: Mapping[str, Any]) -> Manifest | None:
    """Return the manifest of JSON values that keep all rules of the schema; None for some of them, and for all others."""
    try:
        return _manifest(data)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _manifest(data: Mapping[str, Any]) -> Manifest:
    classes, size = data["classes"], data["input"]
    found = Manifest(
        name=_text(data["name"]),
        classes=tuple(_class(each) for each in _list(classes, 1, MAX_CLASSES)),
        height=_integer(size["height"], 1, MAX_SIDE),
        width=_integer(size["width"], 1, MAX_SIDE),
        stride=_STRIDES[_STRIDES.index(_integer(size["stride"], 1, 32))],
        steps=_integer(data["steps"], 0, MAX_STEPS),
        hashes={_file_name(name): _of_type(value, str) for name, value in data["hashes"].items()},
        training=_shallow(data.get("training", {})),
        scores=_shallow(data.get("scores", {})),
        text=_optional(
            data.get("text"),
            lambda text: TextSpec(_integer(text["context"], 3, MAX_CONTEXT), _templates(text["templates"])),
        ),
        restoration=_optional(data.get("restoration"), _restoration),
        part_share=_optional(data.get("part_share"), lambda share: _number(share, 1e-9, 1)),
        regions=_optional(data.get("regions"), _regions),
    )
    if found.height % found.stride or found.width % found.stride or len({c.name for c in found.classes}) < len(classes):
        raise ValueError
    return found


def _optional(value: Any, read: Callable[[Any], Any]) -> Any:
    return None if value is None else read(value)


def _class(data: Mapping[str, Any]) -> ClassSpec:
    red, green, blue = (_integer(value, 0, 255) for value in _list(data["color"], 3, 3))
    prompts = tuple(map(_text, _list(data.get("prompts", []), 0, MAX_TEMPLATES)))
    kind = _KINDS[_KINDS.index(data["kind"])]
    return ClassSpec(_text(data["name"]), (red, green, blue), kind, prompts, _of_type(data.get("shown", True), bool))


def _templates(values: Any) -> tuple[str, ...]:
    found = tuple(map(_text, _list(values, 1, MAX_TEMPLATES)))
    if any(each.count("{}") != 1 or each.count("{") + each.count("}") > 2 for each in found):
        raise ValueError
    return found


def _regions(data: Mapping[str, Any]) -> RegionSpec:
    shares = _number(data["share"], 0, 1), _number(data.get("zoomed", 0.0), 0, 1)
    return RegionSpec(_number(data["threshold"], 1e-9, 1), *shares)


def _restoration(data: Mapping[str, Any]) -> RestorationSpec:
    given = {each.name: data[each.name] for each in fields(RestorationSpec) if each.name in data}
    for name, (least, most) in _RESTORATION.items():
        if name in given:
            whole = name in ("patch", "search")
            given[name] = _integer(given[name], int(least), int(most)) if whole else _number(given[name], least, most)
    given["uneven"] = _of_type(given.get("uneven", False), bool)
    given["note"] = _of_type(given.get("note", ""), str)
    if len(given["note"]) > MAX_TEXT:
        raise ValueError
    return RestorationSpec(**given)


def _of_type(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError
    return value


def _list(value: Any, least: int, most: int) -> list[Any]:
    if type(value) is not list or not least <= len(value) <= most:
        raise TypeError
    return value


def _integer(value: Any, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:
        raise TypeError
    return value


def _number(value: Any, least: float, most: float) -> float:
    if type(value) not in (int, float) or not least <= value < most:
        raise TypeError
    return float(value)


def _text(value: Any) -> str:
    if type(value) is not str or not 1 <= len(value) <= MAX_TEXT or not (value.isascii() and value.isprintable()):
        raise TypeError
    return value


def _file_name(value: Any) -> str:
    if _text(value)[0] == "." or "/" in value or "\\" in value:
        raise ValueError
    return str(value)


def _shallow(value: Any, levels: int = _LEVELS) -> Any:
    if (type(value) is not dict and levels == _LEVELS) or not levels:
        raise TypeError
    for inner in value.values() if type(value) is dict else value:
        if type(inner) in (dict, list):
            _shallow(inner, levels - 1)
    return value
