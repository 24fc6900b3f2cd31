"""The options of `cliprl-stream` that track instruments."""

from __future__ import annotations

from typing import Annotated

import typer

Ids = Annotated[
    bool,
    typer.Option(
        "--ids",
        rich_help_panel="Image",
        help="Track the instruments: each keeps its number.",
    ),
]
Follow = Annotated[
    str | None,
    typer.Option(
        metavar="WORDS|FRAME#X,Y",
        rich_help_panel="Image",
        show_default="none",
        hidden=True,
        help="Follow one instrument, with --ids: [cyan]'left instrument'[/], [cyan]clasper[/], or the one at a pixel of a frame.",
    ),
]
