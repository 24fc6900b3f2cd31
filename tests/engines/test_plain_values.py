"""What is read without pydantic is what pydantic reads, and all that it refuses is left to it."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer

from cliprl.engines import open_bundle
from cliprl.engines.bundle.confidence import CONFIDENCE_FILE, _read_plainly, _validated
from cliprl.engines.bundle.manifest import MANIFEST, Manifest
from cliprl.engines.bundle.manifest_file import read_plainly
from cliprl.engines.cli.command_line import _UNREAD, _PlainReader, checked_command

ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 7, 255, 256, 1 << 70, 0.0, 1.0, 0.5, -0.1, 1e9, float("nan"), float("inf")),
    *("", "a", "a\nb", "é", "\x1b", "x" * 201, "..", "a/b", "{}", "{} {}", "{x}", "instrument", "1"),
    *([], [1], [1, 2, 3], ["a", "a"], [[]], {}, {"a": 1}, {"a": [[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]}),
)


def changed(value: Any, depth: int = 0) -> Iterator[Any]:
    """The value with each of its parts in turn left out or replaced by each odd one."""
    if isinstance(value, dict):
        parts: list[Any] = list(value)
    else:
        parts = list(range(min(len(value), 2))) if isinstance(value, list) else []
    for part in parts:
        for odd in ODD:
            other = copy.copy(value)
            other[part] = odd
            yield other
        if isinstance(value, dict):
            yield {name: each for name, each in value.items() if name != part}
        if depth < 3:
            for inner in changed(value[part], depth + 1):
                other = copy.copy(value)
                other[part] = inner
                yield other


def test_a_manifest_is_read_as_the_schema_does() -> None:
    data = json.loads((open_bundle("small").path / MANIFEST).read_text(encoding="utf-8"))
    data |= {"classes": data["classes"][:2], "training": {"a": [1]}, "scores": {"b": 0.5}, "hashes": {"a.onnx": "0"}}
    assert read_plainly(data) == Manifest.from_json(data)
    read = 0
    for other in changed(data):
        if (plain := read_plainly(other)) is not None:
            read += 1
            assert repr(plain) == repr(Manifest.from_json(other))
    assert read > 100


def test_a_confidence_is_read_as_pydantic_does() -> None:
    path = open_bundle("small").path / CONFIDENCE_FILE
    data = json.loads(path.read_bytes())
    data["familiarity"] = {"means": [[0.5, 1.5]], "whitening": [[1.0, 0.0]]}
    assert _read_plainly(data) == _validated(data, path)
    for other in changed(data, depth=2):
        if (plain := _read_plainly(other)) is not None:
            assert repr(plain) == repr(_validated(other, path))


class _Kind(StrEnum):
    ONE = "one"
    TWO = "two"


def test_command_line_values_are_read_as_typer_reads_them() -> None:
    app = typer.Typer(add_completion=False)

    @app.command()
    def work(
        name: str,
        words: Annotated[list[str] | None, typer.Option()] = None,
        count: Annotated[int, typer.Option(min=-3, max=100)] = 1,
        share: Annotated[float | None, typer.Option(max=2.5)] = None,
        kind: Annotated[_Kind, typer.Option()] = _Kind.ONE,
        place: Annotated[Path | None, typer.Option()] = None,
        even: Annotated[bool, typer.Option()] = False,
        parsed: Annotated[int, typer.Option(parser=lambda text: len(str(text)))] = 3,
    ) -> None: ...

    texts = (
        "",
        "0",
        "-3",
        "-4",
        "100",
        "101",
        "007",
        "1_0",
        " 1",
        "1.",
        ".5",
        "2.5",
        "2.50001",
        "1e1",
        "nan",
        "٣",
        "one",
        "é",
    )
    values = (*texts, None, *ODD, _Kind.TWO, ["a"], ("a", "b"), (), ["a", 1])
    command = checked_command(app)
    read = 0
    for parameter in command.params:
        if not isinstance(reader := getattr(parameter, "get_runtime_param", lambda: None)(), _PlainReader):
            pytest.skip("this typer converts without pydantic")
        for value in values:
            if (plain := reader._read(value)) is not _UNREAD:
                read += 1
                typed = reader._typed().coerce(value, param=parameter, ctx=typer.Context(command))
                assert (plain, type(plain)) == (typed, type(typed)) or plain != plain
    assert read > 60
