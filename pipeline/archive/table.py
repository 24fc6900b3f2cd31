"""The events of the videos: totals of each, and a table of all as Parquet. The table is a part for each video, and
all of them in one file.

One row for each frame (`kind` "frame"), one for each class in it ("class"), one for each tracked instrument ("instrument").
PyArrow is loaded on first use.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cliprl.pipeline.sinks.json_text import readable
from cliprl.pipeline.sinks.report.recorder import LOW_CONFIDENCE

TABLE = "events.parquet"
NO_PARQUET = "no Parquet table of events without PyArrow: pip install 'cliprl[archive]', and run the same command again"
# Rows of a group, which is the unit of memory.
_GROUP_ROWS = 100_000
_COLUMNS = {
    "video": "string",
    "content": "string",
    "kind": "string",
    "frame": "int64",
    "pts": "int64",
    "seconds": "float64",
    "name": "string",
    "id": "int32",
    "pixels": "int64",
    "share": "float32",
    "left": "int32",
    "top": "int32",
    "width": "int32",
    "height": "int32",
    "confidence": "float32",
    "doubt": "float32",
    "segmented": "bool_",
    "damaged": "bool_",
}
_OF_FRAME = ("pts", "seconds", "segmented", "damaged")
_DICTIONARY = ["video", "content", "kind", "name"]


@dataclass(slots=True)
class EventTotals:
    """Number of frames; of those with an instrument, and with low confidence; length in seconds."""

    frames: int = 0
    instrument_frames: int = 0
    low_confidence_frames: int = 0
    length: float = 0.0


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the header of an events file, then each frame."""
    with path.open("rb") as file:
        for line in file:
            yield json.loads(line)


def read_totals(path: Path) -> EventTotals:
    """Count the frames of an events file."""
    lines = read_events(path)
    instruments = {spec["name"] for spec in next(lines)["classes"] if spec["kind"] == "instrument"}
    totals, first, last, period = EventTotals(), None, 0.0, 0.0
    for frame in lines:
        seconds = frame["seconds"]
        if first is None:
            first = seconds
        else:
            period = seconds - last
        last = seconds
        totals.frames += 1
        if frame["segmented"]:
            totals.instrument_frames += not instruments.isdisjoint(frame["classes"])
            totals.low_confidence_frames += frame["confidence"] < LOW_CONFIDENCE
    totals.length = round(last - (first or 0.0) + period, 4)
    return totals


def has_parquet() -> bool:
    """Whether PyArrow is installed."""
    try:
        return find_spec("pyarrow.parquet") is not None
    except ImportError:
        return False


def write_part(events: Path, part: Path, video: str, content: str) -> None:
    """Convert the events file of a video. Raises OSError."""
    with _writer(part) as writer:
        for rows in _groups(_rows(events, {"video": readable(video), "content": content})):
            writer.write_table(import_module("pyarrow").Table.from_pylist(rows, schema=_schema()))


def merge_parts(parts: Iterable[Path], target: Path) -> int:
    """Write all parts to one file, in order, and return its number of rows. Raises OSError."""
    pyarrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    total, waiting, held = 0, list[Any](), 0
    with _writer(target) as writer:
        for part in parts:
            with parquet.ParquetFile(part) as file:
                for group in range(file.num_row_groups):
                    waiting.append(file.read_row_group(group))
                    held += waiting[-1].num_rows
                    if held >= _GROUP_ROWS:
                        writer.write_table(pyarrow.concat_tables(waiting))
                        total, held, waiting = total + held, 0, []
        if waiting:
            writer.write_table(pyarrow.concat_tables(waiting))
    return total + held


def part_is_whole(part: Path) -> bool:
    """Whether a part can be read."""
    try:
        with import_module("pyarrow.parquet").ParquetFile(part) as file:
            return bool(file.schema_arrow.names == list(_COLUMNS))
    except (OSError, ValueError):  # PyArrow's errors derive from these
        return False


def _schema() -> Any:
    pyarrow = import_module("pyarrow")
    return pyarrow.schema([(name, getattr(pyarrow, kind)()) for name, kind in _COLUMNS.items()])


def _writer(path: Path) -> Any:
    parquet = import_module("pyarrow.parquet")
    return parquet.ParquetWriter(path, _schema(), compression="zstd", use_dictionary=_DICTIONARY)


def _groups(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    group: list[dict[str, Any]] = []
    for row in rows:
        group.append(row)
        if len(group) >= _GROUP_ROWS // 4:
            yield group
            group = []
    if group:
        yield group


def _rows(events: Path, of_video: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    lines = read_events(events)
    next(lines)
    for frame in lines:
        # Truth values are in every row: with gaps, pandas makes a column of objects of them.
        common = {**of_video, "frame": frame["index"], **{name: frame[name] for name in _OF_FRAME}}
        yield {**common, "kind": "frame", "confidence": frame.get("confidence"), "doubt": frame.get("doubt")}
        for name, found in frame.get("classes", {}).items():
            yield {**common, "kind": "class", "name": name, **_extent(found)}
        for found in frame.get("instances", ()):
            about = {"name": found["class"], "id": found["id"], "confidence": found["confidence"]}
            yield {**common, "kind": "instrument", **about, **_extent(found)}


def _extent(found: Mapping[str, Any]) -> dict[str, Any]:
    left, top, width, height = found["box"]
    box = {"left": left, "top": top, "width": width, "height": height}
    return {"pixels": found["pixels"], "share": found["share"], **box}
