"""`cliprl-label`: choose frames that are worth labelling, and write them as a task."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from cliprl.engines import UsageError, open_bundle
from cliprl.engines.cli.cli_runner import error_console, run_app

app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


class TaskFormat(StrEnum):
    """Formats of a labelling task."""

    COCO = "coco.json"
    CVAT = "cvat.xml"
    LABEL_STUDIO = "labelstudio.json"


@app.callback()
def label_command() -> None:
    """Label videos: choose the frames that are worth it."""


@app.command("select")
def select_command(
    videos: Annotated[list[str], typer.Argument(metavar="VIDEO...", help="Video files with different names.")],
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="How many frames to choose.")] = 200,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the tasks; it must be new or empty.")] = Path(
        "task"
    ),
    gap: Annotated[
        float | None,
        typer.Option(
            min=0, help="Least seconds between two frames.", show_default="a quarter of the mean distance, at most 1"
        ),
    ] = None,
    format_: Annotated[TaskFormat, typer.Option("--format", help="Format of the labels.")] = TaskFormat.COCO,
    bundle: Annotated[str, typer.Option(metavar="NAME|FOLDER", help="The engine bundle that segments.")] = "small",
    precision: Annotated[str, typer.Option(hidden=True, help="Arithmetic of the networks.")] = "auto",
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print errors only.")] = False,
) -> None:
    """Choose the frames where the network is in doubt, where base and refined masks differ, and that are unlike the others.

    Writes OUT/VIDEO.coco.json with the network's masks and OUT/VIDEO.frames/ for each video, and prints why each was chosen.
    """
    from cliprl.models.labelling.frame_selection import choose_frames
    from cliprl.models.labelling.measure import MeasuringSegmenter, measure_video, write_task

    stems = [Path(video).stem for video in videos]
    _check_places(videos, stems, out)
    opened, console = open_bundle(bundle), error_console(quiet=quiet)
    segmenter = MeasuringSegmenter(opened, precision=precision)
    measures = [measure for video in videos for measure in measure_video(segmenter, video)]
    seconds = sum(max((m.seconds for m in measures if m.video == video), default=0.0) for video in videos)
    spacing = min(1.0, seconds / (4 * count)) if gap is None else gap
    chosen = choose_frames(measures, count, spacing)
    out.mkdir(parents=True, exist_ok=True)
    title = f"{len(chosen)} of {len(measures)} frames, at least {spacing:.2g} s apart where the videos are long enough"
    table = Table("video", "frame", "seconds", "reason", title=title)
    for one in chosen:
        table.add_row(one.measure.video, str(one.measure.index), f"{one.measure.seconds:.2f}", one.reason)
    for video, stem in zip(videos, stems, strict=True):
        if indices := {one.measure.index for one in chosen if one.measure.video == video}:
            write_task(segmenter, opened, video, indices, [out / f"{stem}.{format_.value}", f"{out / stem}.frames/"])
    console.print(table)


def _check_places(videos: list[str], stems: list[str], out: Path) -> None:
    if len(set(stems)) < len(stems):
        raise UsageError(
            f"{', '.join(videos)}: two have the same name without a suffix: rename one, or choose from each apart"
        )
    for video in videos:
        if not Path(video).is_file():
            raise UsageError(f"'{video}' is no file: frames are chosen from video files")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"'{out}' is not an empty folder: give a new one with -o")


def main() -> None:
    """Run the console script. Exit status: 0 done, 1 failed, 2 misuse, 130 interrupted. Errors are one line on stderr."""
    sys.exit(run_app(app, "cliprl-label"))


if __name__ == "__main__":
    main()
