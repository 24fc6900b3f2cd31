"""What the commands that score bundles share: options, the data sets that `--set` describes, and the writing of a result file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cliprl.engines import CliprlError, explained
from cliprl.engines.atomic_write import atomic_write
from cliprl.models.data.protocol import ProtocolSet, shipped_protocol
from cliprl.models.data.registry import DatasetContext, open_dataset
from cliprl.models.data.sample import hash_of_frames

BundleOption = Annotated[str, typer.Option("--bundle", metavar="NAME|FOLDER", help="The engine bundle.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="data.root=FOLDER: the folder of the data sets.")]
ProtocolOption = Annotated[Path | None, typer.Option(help="Another protocol file.", show_default="the package's")]
InputSizeOption = Annotated[
    str | None,
    typer.Option(metavar="HEIGHTxWIDTH", help="Input size of the networks: 384x480.", show_default="the bundle's"),
]
QuietOption = Annotated[bool, typer.Option("-q", "--quiet", help="Print errors only.")]


def data_root(settings: Sequence[str] | None) -> Path:
    """Return the folder of the data sets that `--set` names. Raises UsageError for an unknown setting."""
    from cliprl.models.config.load import load_recipe

    return Path(load_recipe("small", settings or ()).data.root)


def study_context(settings: Sequence[str] | None, out: Path) -> DatasetContext:
    """Return the context in which a study opens data sets; scenes that it renders are kept in `out`/scenes."""
    return DatasetContext(data_root(settings), "data.root", out / "scenes", workers=1)


def content_of(one: ProtocolSet, context: DatasetContext) -> str:
    """Return a hash of a set's frames, a key of its kept scores; "" for data of the package's protocol, which does not change."""
    if shipped_protocol().use_of(one.data):
        return ""
    return hash_of_frames(open_dataset(one.data, "test", context), one.every)


def counting_progress(console: Console) -> Progress:
    """Return a bar that shows how many of a task's items are done, and the time that is left; it goes at the end."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True)


def write_result(path: Path, result: str | Mapping[str, Any]) -> str:
    """Write a text, or a mapping as JSON, into a file, and make its folder. Returns the text.

    Raises CliprlError if it can't be written; an earlier file stays then.
    """
    text = result if isinstance(result, str) else json.dumps(result, indent=1, default=float)
    with explained(f"'{path}' can't be written", "choose another place with --out", CliprlError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            file.write((text.rstrip("\n") + "\n").encode())
    return text
