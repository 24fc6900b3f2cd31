"""What the options do that print something and exit."""

from __future__ import annotations

import typer


def show_devices(wanted: bool) -> None:
    """Print the cameras of this machine and exit."""
    if wanted:
        from cliprl.pipeline.sources.v4l2_devices import list_devices

        devices = list_devices()
        for device in devices:
            typer.echo(f"{device.path}\t{device.name}")
        if not devices:
            typer.echo("no camera was found: attach one, and check that it appears as /dev/video*", err=True)
        raise typer.Exit


def print_schema(name: str | None) -> None:
    """Print a JSON Schema and exit."""
    if name is not None:
        from cliprl.pipeline.schemas import schema_text

        typer.echo(schema_text(name), nl=False)
        raise typer.Exit


def show_version(wanted: bool) -> None:
    """Print the version and exit."""
    if wanted:
        from importlib.metadata import version

        typer.echo(f"cliprl {version('cliprl')}")
        raise typer.Exit


def show_all(context: typer.Context, wanted: bool) -> None:
    """Print the help with the hidden options and exit."""
    if wanted:
        for parameter in context.command.params:
            parameter.hidden = False  # type: ignore[attr-defined]
        typer.echo(context.get_help())
        raise typer.Exit
