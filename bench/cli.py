"""`cliprl-bench`: how fast it is, so that others can repeat it."""

from __future__ import annotations

import sys

import typer

from cliprl.bench.commands import measuring, promises, reading
from cliprl.engines.cli.cli_runner import run_app

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Measure the pipeline, and read the results.",
)
measuring.add_to(app)
promises.add_to(app)
reading.add_to(app)


def main() -> None:
    """The console script. Exit status: 0 done, 1 failed, 2 misuse, 130 interrupted. Errors are one line on stderr."""
    sys.exit(run_app(app, "cliprl-bench"))
