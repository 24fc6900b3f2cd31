"""`cliprl-label`: choose frames that are worth labelling, or label frames by prompts alone."""

from __future__ import annotations

import sys
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from typer.core import TyperGroup

from cliprl.engines import CliprlError, UsageError, explained, naming_parts
from cliprl.engines.cli.cli_runner import run_app
from cliprl.engines.cli.console import error_console


class _LabelGroup(TyperGroup):
    """Takes `cliprl-label FRAMES... --prompt WORDS` for `cliprl-label run`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Resolve the sub-command; a first word that is none, and is a path, is a source of `run`."""
        path = Path(args[0])
        is_path = path.exists() or bool(path.suffix) or len(path.parts) > 1
        named = args[0] in self.commands or args[0].startswith("-") or not is_path
        return super().resolve_command(ctx, args if named else ["run", *args])


app = typer.Typer(cls=_LabelGroup, add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


class TaskFormat(StrEnum):
    """Formats of a labelling task."""

    COCO = "coco.json"
    CVAT = "cvat.xml"
    LABEL_STUDIO = "labelstudio.json"


@app.callback()
def label_command() -> None:
    """Label frames: choose those that are worth it, or let prompts label them."""


@app.command("select")
def select_command(
    videos: Annotated[
        list[str], typer.Argument(metavar="VIDEO...", help="Video files, or folders of them; their names must differ.")
    ],
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
    Videos that can't be read are named and left out.
    """
    from cliprl.models.labelling.frame_selection import choose_frames
    from cliprl.models.labelling.measure import MeasuringSegmenter, measure_video, write_task

    videos = [file for video in videos for file in _videos_of(video)]
    stems = [Path(video).stem for video in videos]
    _check_places(videos, stems, out)
    opened, console = naming_parts(bundle), error_console(quiet=quiet)
    segmenter = MeasuringSegmenter(opened, precision=precision)
    measures, unreadable = [], list[CliprlError]()
    for video in videos:
        try:
            measures += measure_video(segmenter, video)
        except CliprlError as error:
            console.print(f"left out: {error}", markup=False, highlight=False, soft_wrap=True)
            unreadable.append(error)
    if len(unreadable) == len(videos):
        raise unreadable[0]
    seconds = sum(max((m.seconds for m in measures if m.video == video), default=0.0) for video in videos)
    spacing = min(1.0, seconds / (4 * count)) if gap is None else gap
    chosen = choose_frames(measures, count, spacing)
    title = f"{len(chosen)} of {len(measures)} frames, at least {spacing:.2g} s apart where the videos are long enough"
    table = Table("video", "frame", "seconds", "reason", title=title)
    for one in chosen:
        table.add_row(one.measure.video, str(one.measure.index), f"{one.measure.seconds:.2f}", one.reason)
    for video, stem in zip(videos, stems, strict=True):
        if indices := {one.measure.index for one in chosen if one.measure.video == video}:
            write_task(segmenter, opened, video, indices, [out / f"{stem}.{format_.value}", f"{out / stem}.frames/"])
    console.print(table)


@app.command("run")
def run_command(
    sources: Annotated[
        list[Path], typer.Argument(metavar="FRAMES...", help="Folders of images, single images, or videos.")
    ],
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=PHRASE",
            help="What to label: 'surgical instrument', 'suture=a thread #FF8800'; may be repeated.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the set; a run goes on in its own.")] = Path(
        "labels"
    ),
    bundle: Annotated[
        str, typer.Option(metavar="NAME|FOLDER", help="The engine bundle that gives the saliency.")
    ] = "small",
    network: Annotated[
        str,
        typer.Option(
            help="The promptable network that checks the masks: none, grabcut, head:BUNDLE, "
            "sam:ENCODER.onnx,DECODER.onnx, transformers:FOLDER."
        ),
    ] = "none",
    every: Annotated[int, typer.Option(min=1, help="Take each N-th frame of a video.")] = 1,
    threads: Annotated[
        int, typer.Option(min=0, help="CPU threads of the networks.", show_default="half the cores")
    ] = 0,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print errors only.")] = False,
) -> None:
    """Label frames by prompts alone, as a data set to train on (folder:OUT), with a sheet of overlays, OUT/index.html.

    Pixels of low confidence, and those where the promptable network disagrees, are unknown (255). The same command goes on where
    an earlier run has ended.
    """
    from cliprl.models.labelling.pseudo_labels.run import LabelOptions, run_labelling

    options = LabelOptions(tuple(sources), tuple(prompt or ()), out, bundle, network, every, threads)
    console = error_console(quiet=quiet)
    done = run_labelling(options, console)
    unreadable = f", {done.unreadable} can't be read (see {out}/labels.jsonl)" if done.unreadable else ""
    console.print(
        f"{done.labelled} frames labelled, {done.frames} in {out}{unreadable}", highlight=False, soft_wrap=True
    )


@app.command("check")
def check_command(
    text: Annotated[
        str | None,
        typer.Option(
            metavar="NETWORK",
            help="The network for words: a bundle, the folder of a training run, or clip:TOWER,WEIGHTS[,HEIGHTxWIDTH].",
        ),
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(
            help="The promptable network: grabcut, head:BUNDLE, sam:ENCODER.onnx,DECODER.onnx, transformers:FOLDER."
        ),
    ] = None,
    method: Annotated[
        str, typer.Option(help="The saliency: dense, m2ib or gscorecam; a bundle has dense alone.")
    ] = "dense",
    scenes: Annotated[int, typer.Option(min=4, help="Rendered scenes to check on.")] = 12,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 means all cores.")] = 0,
    json_: Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print errors only.")] = False,
) -> None:
    """Check weights of your own on rendered scenes: masks for boxes, dependence on the prompt, words, captions, seconds a frame.

    Exit status 1 if a part fails.
    """
    import cliprl.models.labelling.transformers_network  # noqa: F401 - registers its kind
    from cliprl.engines.promptable import open_promptable
    from cliprl.models.labelling.check import check_promptable, check_text, render_scenes
    from cliprl.models.labelling.saliency import SaliencySettings, open_saliency_model

    if text is None and network is None:
        raise UsageError("nothing to check: name a network with --text, --network, or both")
    console = error_console(quiet=quiet)
    settings = SaliencySettings(method=method)
    model = None if text is None else open_saliency_model(text, threads)
    prompted = None if network is None else open_promptable(network, threads=threads)
    with console.status(f"rendering {scenes} scenes"):
        rendered = render_scenes(scenes)
    results = [] if prompted is None else check_promptable(prompted, rendered)
    results += [] if model is None else check_text(model, rendered, settings)
    failed = sum(not one.passed for one in results)
    table = Table("part", "value", "must be", "", title=f"{scenes} rendered scenes")
    for one in results:
        table.add_row(one.name, "" if one.value is None else f"{one.value:.2f}", one.rule, one.verdict)
    console.print(table)
    if json_:
        from cliprl.pipeline.sinks.json_text import json_text

        print(json_text({"passed": not failed, "parts": [asdict(one) for one in results]}))
    raise typer.Exit(1 if failed else 0)


def _videos_of(name: str) -> list[str]:
    """Return the videos of a folder and its subfolders, or the name of a file."""
    from cliprl.pipeline.archive.jobs import find_videos

    return [str(Path(name, video)) for video in find_videos(Path(name)).videos] if Path(name).is_dir() else [name]


def _check_places(videos: list[str], stems: list[str], out: Path) -> None:
    if len(set(stems)) < len(stems):
        raise UsageError(
            f"{', '.join(videos)}: two have the same name without a suffix: rename one, or choose from each apart"
        )
    for video in videos:
        if not Path(video).is_file():
            raise UsageError(f"'{video}' does not exist: frames are chosen from video files, or folders of them")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"'{out}' is not an empty folder: give a new one with -o")
    with explained(f"'{out}' can't be made", "give -o another place"):
        # Made now, since the frames are chosen only after all videos were read.
        out.mkdir(parents=True, exist_ok=True)


def main() -> None:
    """Run the console script. Exit status: 0 done, 1 failed, 2 misuse, 130 interrupted. Errors are one line on stderr."""
    sys.exit(run_app(app, "cliprl-label", uses_torch=True))


if __name__ == "__main__":
    main()
