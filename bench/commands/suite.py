"""`cliprl-bench suite`: every measurement whose results are committed, and the figures made from them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from cliprl.bench.commands.results import figure_tables, readme
from cliprl.bench.harness.clips import DEMO
from cliprl.bench.harness.environment import describe_machine, slug
from cliprl.bench.harness.registry import BundleOption, Clip, Measurement, app, measurements
from cliprl.engines import UsageError


def parts() -> dict[str, tuple[Measurement, Mapping[str, Any]]]:
    """Each part's measurement and its values that differ from the defaults, in the order of the figures."""
    found = [(name, (m, values)) for m in measurements().values() for name, values in m.suite.items()]
    return dict(sorted(found, key=lambda part: figure_tables.sort_rank(part[1][0].kind)))


@app.command("suite")
def suite(
    clip: Clip = DEMO,
    into: Annotated[Path, typer.Option(help="Folder for the result files.")] = readme.RESULTS_FOLDER,
    only: Annotated[list[str] | None, typer.Option(help="Run this part alone; may be repeated.")] = None,
    bundle: BundleOption = "small",
) -> None:
    """Every measurement with its defaults, one result file each: INTO/MACHINE-NAME.json. Takes an hour.

    If INTO is the checkout's own folder, the figures of the README files are written again.
    """
    known = parts()
    for name in only or ():
        if name not in known:
            raise UsageError(f"no measurement '{name}': one of {', '.join(known)}")
    for name in only or known:
        measurement, values = known[name]
        output = into / f"{slug(describe_machine())}-{name}.json"
        measurement.run(clip if measurement.clip else None, output, bundle=bundle, **values)
    if into == readme.RESULTS_FOLDER and readme.ROOM_README.is_file():
        readme.update_readmes()
