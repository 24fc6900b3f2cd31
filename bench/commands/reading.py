"""The commands that read result files: report, compare, check, readme."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cliprl.bench.harness import budget, compare
from cliprl.bench.harness.result import read_result, write_text
from cliprl.bench.report import readme, report
from cliprl.bench.report.table import markdown

Files = Annotated[list[Path], typer.Argument(metavar="RESULT…", help="Result files.", show_default=False)]
File = Annotated[Path, typer.Argument(help="A result file.", show_default=False)]


def report_(
    files: Files,
    output: Annotated[Path, typer.Option("-o", "--output", help="The HTML page to write.")] = Path("report.html"),
    table: Annotated[Path | None, typer.Option("--markdown", help="Write the tables as Markdown here.")] = None,
) -> None:
    """One HTML page with plots, which needs neither network nor script, and the tables as Markdown."""
    results = [read_result(path) for path in files]
    write_text(output, report.html(results))
    tables = "\n".join(markdown(result) for result in results)
    if table is not None:
        write_text(table, tables)
    typer.echo(f"wrote {output}" if table is None else f"wrote {output} and {table}")


def compare_(a: File, b: File) -> None:
    """B over A, series by series, with 95 % bootstrap intervals, and the stage that changed most."""
    typer.echo(compare.markdown(read_result(a), read_result(b)))


def check_(
    files: Files,
    budget_: Annotated[Path, typer.Option("--budget", help="Limits, in TOML.", show_default=False)],
) -> None:
    """Hold results against a budget. Exit status 1 on a breach."""
    results, limits = [read_result(path) for path in files], budget.read_budget(budget_)
    findings = budget.check(results, limits)
    for finding in findings:
        typer.echo(str(finding))
    for kind in budget.unmeasured(results, limits):
        typer.echo(f"not given: a result of {kind}")
    if not all(finding.kept for finding in findings):
        raise typer.Exit(1)


def readme_() -> None:
    """Write the README's figures anew, from the result files in bench/results."""
    readme.update()
    typer.echo(f"wrote {readme.README.name}")


def add_to(app: typer.Typer) -> None:
    """Add these commands to the program."""
    app.command("report")(report_)
    app.command("compare")(compare_)
    app.command("check")(check_)
    app.command("readme")(readme_)
