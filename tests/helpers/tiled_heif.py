"""A HEIF image in tiles, as telephones write them: libav gives each tile as a stream."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np

TILE = 64


def write_tiled_heif(path: Path, rows: int, columns: int) -> Path:
    """Write an image of `rows` by `columns` equal tiles of `TILE` pixels."""
    data = cv2.imencode(".jpg", np.full((TILE, TILE, 3), 128, np.uint8))[1].tobytes()
    count, tiles = rows * columns, range(1, rows * columns + 1)
    whole = count + 1
    grid = struct.pack(">4B2H", 0, 0, rows - 1, columns - 1, columns * TILE, rows * TILE)
    kinds = [*((number, b"jpeg") for number in tiles), (whole, b"grid")]
    items = [_full(b"infe", 2, struct.pack(">2H4sB", number, 0, kind, 0)) for number, kind in kinds]
    parts = _box(b"dimg", struct.pack(f">{2 + count}H", whole, count, *tiles))
    sizes = [_full(b"ispe", 0, struct.pack(">2I", *size)) for size in ((TILE, TILE), (columns * TILE, rows * TILE))]
    properties = _box(b"ipco", *sizes)
    owners = [struct.pack(">H2B", number, 1, 1) for number in tiles] + [struct.pack(">H2B", whole, 1, 2)]
    owned = _full(b"ipma", 0, struct.pack(">I", whole), *owners)
    head = _box(b"ftyp", b"mif1\0\0\0\0mif1jpeg")

    def meta(start: int) -> bytes:
        starts = range(start, start + count * len(data), len(data))
        places = [struct.pack(">4H2I", n, 0, 0, 1, at, len(data)) for n, at in zip(tiles, starts, strict=True)]
        places.append(struct.pack(">4H2I", whole, 1, 0, 1, 0, len(grid)))
        return _full(
            b"meta",
            0,
            _full(b"hdlr", 0, struct.pack(">I4s13x", 0, b"pict")),
            _full(b"pitm", 0, struct.pack(">H", whole)),
            _full(b"iloc", 1, struct.pack(">2H", 0x4400, whole), *places),
            _full(b"iinf", 0, struct.pack(">H", whole), *items),
            _box(b"iprp", properties, owned),
            _box(b"idat", grid),
            _full(b"iref", 0, parts),
        )

    path.write_bytes(head + meta(len(head) + len(meta(0)) + 8) + _box(b"mdat", count * data))
    return path


def _box(kind: bytes, *content: bytes) -> bytes:
    data = b"".join(content)
    return struct.pack(">I4s", 8 + len(data), kind) + data


def _full(kind: bytes, version: int, *content: bytes) -> bytes:
    return _box(kind, struct.pack(">I", version << 24), *content)
