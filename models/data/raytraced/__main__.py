"""Render ray-traced training scenes: python -m cliprl.models.data.raytraced OUT --count N."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cliprl.engines.cli.cli_runner import run_app
from cliprl.engines.cli.console import error_console
from cliprl.models.data.raytraced.generate import Job, generate

# Without a terminal, a line is printed every EVERY scenes.
EVERY = 50

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    out: Annotated[Path, typer.Argument(help="Folder for the scenes; scenes that it holds are not rendered again.")],
    count: Annotated[int, typer.Option(min=1, help="How many scenes, one a seed.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="The first scene's seed.")] = 0,
    mucosa: Annotated[
        Path | None,
        typer.Option(help="Folder of images of mucosa that give tissue its color. Without it: procedural."),
    ] = None,
    meshes: Annotated[
        Path | None, typer.Option(help="Folder of the meshes of sofa_env or dvrk_model. Without it: procedural.")
    ] = None,
    size: Annotated[str, typer.Option(metavar="HEIGHTxWIDTH", help="Size of a frame.")] = "256x320",
    samples: Annotated[int, typer.Option(min=1, max=1024, help="Light paths a pixel, before denoising.")] = 8,
    pairs: Annotated[int, typer.Option(min=0, help="Every N-th seed has two consecutive frames; 0: none has.")] = 4,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print errors only.")] = False,
) -> None:
    """Render training scenes with exact labels by ray tracing, on one core. Start it again to go on where it ended.

    Needs the extra `render`: pip install 'cliprl[render]'. Processes with other seeds may share a folder.
    """
    height, width = _size(size)
    console = error_console(quiet=quiet)

    def progress(done: int, total: int, frames: int, seconds: float) -> None:
        if console.is_terminal or done % EVERY == 0 or done == total:
            console.print(
                f"{done} of {total} scenes, {seconds / max(frames, 1):.2f} CPU seconds a frame",
                end="\r" if console.is_terminal and done < total else "\n",
                highlight=False,
            )

    generate(Job(out, seed, count, mucosa, meshes, height, width, samples, pairs), progress)


def _size(text: str) -> tuple[int, int]:
    height, cross, width = text.lower().partition("x")
    if (
        not cross
        or not (height.isdecimal() and width.isdecimal())
        or not all(32 <= int(n) <= 2048 for n in (height, width))
    ):
        raise typer.BadParameter(f"size is '{text}': give HEIGHTxWIDTH of 32 to 2048 pixels a side, as in 256x320")
    return int(height), int(width)


if __name__ == "__main__":
    sys.exit(run_app(app, "cliprl.models.data.raytraced"))
