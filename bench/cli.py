"""`cliprl-bench`: repeatable measurements of speed and latency."""

from __future__ import annotations

import sys

from cliprl.bench import commands
from cliprl.bench.harness.registry import app, discover
from cliprl.engines.cli.cli_runner import run_app

__all__ = ["app", "main"]

discover(commands)


def main() -> None:
    """Run the console script. Exit status: 0 done, 1 failed, 2 misuse, 130 interrupted. Errors are one line on stderr."""
    sys.exit(run_app(app, "cliprl-bench"))
