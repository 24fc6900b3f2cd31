"""`cliprl-engine`: what can run a bundle here, made, checked and kept."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cliprl.engines.backends.engine import AUTO
from cliprl.engines.backends.registry import device_names, precisions_help
from cliprl.engines.cli.cli_runner import run_app
from cliprl.engines.errors import UsageError

app = typer.Typer(
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Compile, check and inspect the engines that run a bundle on this machine.",
)

BundleName = Annotated[str, typer.Argument(metavar="[BUNDLE]", help="A shipped bundle's name, or a bundle's folder.")]
DeviceName = Annotated[str, typer.Option("--device", help=f"Where to run: {' or '.join(device_names())}.")]
PrecisionName = Annotated[
    str,
    typer.Option(
        "--precision",
        help=f"Arithmetic: {precisions_help()}; auto: the fastest that passes the accuracy gate.",
    ),
]
SizeOption = Annotated[
    str | None,
    typer.Option(
        "--input-size", metavar="HEIGHTxWIDTH", show_default="the bundle's", help="Input size of the networks: 384x480."
    ),
]
ThreadsOption = Annotated[int, typer.Option(min=0, show_default="half the cores", help="CPU threads of the networks.")]


@app.command()
def devices() -> None:
    """List the backends that this machine can use, and what the others lack."""
    from cliprl.engines.cli.commands import list_backends

    list_backends()


@app.command()
def build(
    bundle: BundleName = "small",
    device: DeviceName = "cpu",
    precision: PrecisionName = AUTO,
    threads: ThreadsOption = 0,
    input_size: SizeOption = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SM",
            show_default="this machine",
            help="Build for another machine's GPU with TensorRT for RTX: sm75, sm80, sm86, sm89, sm120; may be repeated.",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FOLDER", help="With --target: where the plans go.")
    ] = None,
) -> None:
    """Compile a bundle, hold it to the accuracy gate, and keep it for the next start; or build ahead for other GPUs."""
    from cliprl.engines.cli.commands import build_ahead, build_here

    if output is not None and not target:
        raise UsageError(
            "-o is for plans of other GPUs: give --target, or leave -o out; engines for this machine go to the cache"
        )
    if target:
        build_ahead(bundle, target, precision, output, input_size)
    else:
        build_here(bundle, device, precision, threads, input_size)


@app.command()
def verify(
    bundle: BundleName = "small",
    device: DeviceName = "cpu",
    precision: PrecisionName = AUTO,
    threads: ThreadsOption = 0,
    input_size: SizeOption = None,
) -> None:
    """Compile every precision afresh, and show how each compares with the reference. Exit status 1 where none passes."""
    from cliprl.engines.cli.commands import verify_here

    raise typer.Exit(0 if verify_here(bundle, device, precision, threads, input_size) else 1)


@app.command()
def quantize(
    frames: Annotated[
        list[Path], typer.Argument(metavar="FRAMES...", help="Images of the scenes to come, PNG or JPEG.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FOLDER", help="Where the new bundle goes.")],
    bundle: Annotated[str, typer.Option("--bundle", metavar="NAME|FOLDER", help="The bundle to copy.")] = "small",
) -> None:
    """Copy a bundle and give the copy what int8 and fp8 need, calibrated on your own frames: for the CPU an int8 encoder
    (needs the package nncf), for GPUs the ranges of the network's activations (needs onnx)."""
    from cliprl.engines.cli.commands import quantize_bundle

    quantize_bundle(bundle, frames, output)


@app.command()
def inspect(bundle: BundleName = "small", input_size: SizeOption = None) -> None:
    """Show what a bundle holds: classes, networks with their tensors, files."""
    from cliprl.engines.cli.commands import inspect_bundle

    inspect_bundle(bundle, input_size)


@app.command()
def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Delete every kept engine.")] = False,
    folder: Annotated[
        Path | None, typer.Option(metavar="FOLDER", show_default="the user's cache", help="Another cache's folder.")
    ] = None,
) -> None:
    """List the compiled engines that are kept, or delete them."""
    from cliprl.engines.cli.commands import clear_cache, list_cache

    (clear_cache if clear else list_cache)(folder)


def main() -> None:
    """The console script. Exit status: 0 done, 1 failed, 2 misuse, 130 interrupted. Errors are one line on stderr."""
    sys.exit(run_app(app, "cliprl-engine"))
