"""The options of `cliprl-stream` on classes and on the ids of instruments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cliprl.pipeline.cli.options import in_image, in_network

PromptOption = Annotated[
    list[str] | None,
    in_network(
        metavar="NAME=PHRASE",
        show_default="the bundle's classes",
        help="Add a class by a text phrase, or change the phrase of a class: [cyan]grasper[/], "
        "[cyan]'thread=suture, stitches #FF8800'[/]; may be repeated.",
    ),
]
ExemplarOption = Annotated[
    list[str] | None,
    in_network(
        metavar="NAME=FILE#X,Y,W,H",
        hidden=True,
        show_default="none",
        help="Add a class by a box in an image that shows it, or adapt the class of that name to it: "
        "[cyan]grasper=frame.png#120,80,60,40[/]; may be repeated.",
    ),
]
Classes = Annotated[
    list[str] | None,
    in_image(
        metavar="NAME",
        show_default="all",
        help="Draw only these: a class, several separated by commas, or a group by the beginning of its names "
        "([cyan]instrument[/]: instrument-shaft, instrument-wrist, …); may be repeated.",
    ),
]
Ids = Annotated[bool, in_image("--ids", help="Track the instruments: each keeps its number.")]
Follow = Annotated[
    str | None,
    in_image(
        metavar="WORDS|FRAME#X,Y",
        show_default="none",
        hidden=True,
        help="Follow one instrument, with --ids: [cyan]'left instrument'[/], [cyan]clasper[/], or the one at a pixel of a frame.",
    ),
]
Tracker = Annotated[
    Path | None,
    in_image(
        metavar="FOLDER",
        show_default="none",
        hidden=True,
        help="With --follow, from file to file: the mask of what is followed is that of SAM 2 or EdgeTAM, whose video model "
        "is in this folder as transformers saves it. The masks of the bundle prompt it at the start, at cuts and where it fails.",
    ),
]
