"""The options for corrections in the viewer."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cliprl.engines import UsageError
from cliprl.pipeline.cli.viewers import watchable

if TYPE_CHECKING:
    from cliprl.engines import Bundle
    from cliprl.pipeline.core.interfaces import Source
    from cliprl.pipeline.correction.service import CorrectionService
    from cliprl.pipeline.live.stream import LiveStream

Corrections = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        rich_help_panel="Live",
        show_default="off",
        help="Correct masks by clicks in --web or --window, and keep them here, a data set ([cyan]folder:[/]).",
    ),
]
CorrectWith = Annotated[
    str,
    typer.Option(
        "--correct-with",
        metavar="NETWORK",
        hidden=True,
        rich_help_panel="Live",
        show_default="the bundle's head, or grabcut",
        help="The promptable network of the corrections: grabcut, head:BUNDLE, or a user's files as in sam:ENCODER,DECODER.",
    ),
]


@dataclass(frozen=True, slots=True)
class CorrectionOptions:
    """Where corrections are kept and what makes them.

    `network` empty: the bundle's head, or GrabCut without one. guard: frames from outside the body are refused. `stream` is the
    index of the video stream of `source`, None for the best.
    """

    folder: Path
    network: str
    source: str
    guard: bool
    stream: int | None

    @classmethod
    def of_command(cls, given: Mapping[str, Any]) -> CorrectionOptions | None:
        """Return the options in the command's parameters by name; None if nothing is to be corrected.

        Raises UsageError for options of corrections without a viewer or the folder.
        """
        folder, network = given["corrections"], given["correct_with"]
        if folder is None:
            if network:
                raise UsageError(f"--correct-with '{network}' is for corrections: give --corrections FOLDER too")
            return None
        if given["web"] is None and not given["window"]:
            raise UsageError(f"--corrections '{folder}' is for the page or the window: give --web or --window too")
        return cls(folder, network, watchable(given["source"]), given["guard"], given["stream_index"])


def open_corrections(options: CorrectionOptions | None, bundle: Bundle, stream: LiveStream) -> CorrectionService | None:
    """Return what corrects the frames of `stream`; None without options. Raises UsageError if the folder can't be used."""
    if options is None:
        return None
    from cliprl.pipeline.correction.corrector import Corrector, open_mask_network
    from cliprl.pipeline.correction.frames import displayed_frame
    from cliprl.pipeline.correction.service import CorrectionService
    from cliprl.pipeline.correction.store import CorrectionStore
    from cliprl.pipeline.live.playback import open_file_at
    from cliprl.pipeline.segment.segmenter import Segmenter

    network = open_mask_network(bundle, options.network)  # an error now, not at the first click
    source, index = options.source, options.stream

    def open_at(seconds: float) -> Source:
        return open_file_at(source, seconds, index)

    service = CorrectionService(
        bundle,
        CorrectionStore(options.folder, bundle.manifest.classes),
        lambda: Corrector(Segmenter(bundle, threads=1), network),
        lambda: displayed_frame(stream.broadcast, open_at, guard=options.guard),
        stream.info.name,
    )
    threading.Thread(target=service.warm_up, name="corrector", daemon=True).start()
    return service
