"""Find the external data files of an ONNX model without the `onnx` package, and without reading a tensor.

Source of the field numbers: `onnx.proto` of ONNX 1.18 (ModelProto, GraphProto, NodeProto, AttributeProto, TensorProto).
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from cliprl.engines.errors import BundleError

# How messages nest: for each kind of message the fields that hold messages, and of which kind those are.
_FIELDS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
# Graphs inside graphs; real models have two or three levels.
_DEPTH = 64
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def external_files(path: Path) -> set[str]:
    """Names of the files outside an ONNX model that hold its tensors, as the model states them; empty for most models.

    Raises BundleError for a file that is not a whole protobuf message.
    """
    if not path.stat().st_size:
        raise BundleError(f"{path} is empty: copy the whole bundle again")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            return set(_locations(data, 0, len(data), "model", 0))
        except (IndexError, ValueError) as error:
            raise BundleError(f"{path} is not an ONNX file ({error}): copy the bundle again") from error


def _locations(data: mmap.mmap, start: int, end: int, kind: str, depth: int) -> Iterator[str]:
    if depth > _DEPTH:
        raise ValueError(f"graphs nested deeper than {_DEPTH}")
    inner = _FIELDS[kind]
    for number, first, last in _messages(data, start, end):
        if number not in inner:
            continue
        if inner[number] == "entry":
            entry = {field: data[a:b] for field, a, b in _messages(data, first, last)}
            if entry.get(1) == b"location":
                yield entry.get(2, b"").decode("utf-8", "replace")
        else:
            yield from _locations(data, first, last, inner[number], depth + 1)


def _messages(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Field number, first byte and end of every length-delimited field of a message; other fields are skipped."""
    at = start
    while at < end:
        key, at = (data[at], at + 1) if data[at] < 128 else _varint(data, at, end)
        number, wire = key >> 3, key & 7
        if wire == _BYTES:
            size, at = (data[at], at + 1) if at < end and data[at] < 128 else _varint(data, at, end)
            if at + size > end:
                raise ValueError(f"a field of {size} bytes reaches beyond its message")
            yield number, at, at + size
            at += size
        elif wire == _VARINT:
            _, at = _varint(data, at, end)
        elif wire in (_FIXED64, _FIXED32):
            at += 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire} does not exist")
    if at != end:
        raise ValueError("it is cut short")


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    """A base-128 number of at most 64 bits, and where the next field begins."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            raise ValueError("it is cut short")
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("a number has more than 64 bits")
