"""`cliprl-bench compare A B`: the ratio of every series of two results, and the stage that changed most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from cliprl.bench.commands.results.check import Limit, read_budget
from cliprl.bench.harness import stats
from cliprl.bench.harness.registry import app
from cliprl.bench.harness.result import Result, Series, read_result
from cliprl.bench.harness.table import format_number, grid
from cliprl.engines import UsageError
from cliprl.pipeline.core.statistics import STAGES

# A smaller relative difference counts as no change, even if it is statistically clear.
NOTABLE = 0.05
# Most disturbed rounds that are named.
MOST_NAMED = 6
STAGE_NAMES = (*STAGES, "read", "encoder", "refinement step")


@dataclass(frozen=True, slots=True)
class Change:
    """One series in two results: its medians, and B's over A's with a 95 % interval."""

    a: Series
    b: Series
    ratio: stats.Ratio

    @property
    def difference(self) -> float:
        """B's median minus A's, in the unit of the series."""
        return self.b.digest().p50 - self.a.digest().p50

    @property
    def verdict(self) -> str:
        """ "better", "worse", or "same" if the interval contains 1 or the difference is under 5 %."""
        if not self.ratio.clear or abs(self.ratio.value - 1) < NOTABLE:
            return "same"
        return "better" if (self.ratio.value > 1) == self.a.more_is_better else "worse"


def compare_results(a: Result, b: Result) -> list[Change]:
    """Compare every common series, in A's order. Raises UsageError for results of different kinds or without a common series."""
    if a.kind != b.kind:
        raise UsageError(
            f"a result of '{a.kind}' can't be compared with one of '{b.kind}': give two of the same command"
        )
    pairs = [(s, other) for s in a.series if (other := b.find(s.case, s.name)) is not None]
    pairs = [(s, other) for s, other in pairs if s.digest().p50 > 0 and other.digest().p50 > 0]
    if not pairs:
        raise UsageError("the two results have no series in common: give two of the same command and options")
    return [Change(s, other, stats.median_ratio(s.rounds, other.rounds)) for s, other in pairs]


def largest_change(changes: list[Change]) -> Change | None:
    """The stage whose milliseconds changed most; None if no stage clearly changed."""
    stages = [c for c in changes if c.a.name in STAGE_NAMES and c.a.unit == "ms" and c.verdict != "same"]
    return max(stages, key=lambda c: abs(c.difference), default=None)


def conditions(a: Result, b: Result) -> list[str]:
    """Describe differences besides the code, which weaken the comparison."""
    pairs = {
        "machine": (a.machine["cpu"], b.machine["cpu"]),
        "cores": (a.machine["cores"], b.machine["cores"]),
        "clip": (a.input["name"], b.input["name"]),
        "bundle": (a.bundle["sha256"][:12], b.bundle["sha256"][:12]),
    }
    different = [f"{name} differs: {x} and {y}" for name, (x, y) in pairs.items() if x != y]
    return different + [f"{name}: {text}" for name, r in (("A", a), ("B", b)) for text in r.warnings()]


def repeats(changes: list[Change]) -> str:
    """Tell in a sentence whether all medians agree within 10 %, as a repeated run should."""
    far = [c for c in changes if abs(c.ratio.value - 1) > stats.SPREAD_LIMIT]
    if not far:
        return f"Every median agrees within {stats.SPREAD_LIMIT:.0%}."
    names = ", ".join(f"{c.a.title} ({c.ratio.value - 1:+.0%})" for c in far)
    return f"Medians that differ by more than {stats.SPREAD_LIMIT:.0%}: {names}."


def host_account(name: str, result: Result) -> str:
    """Tell in a sentence which rounds of a result the host disturbed, as far as the kernel told."""
    if not result.host:
        return f"{name}: its rounds were measured without the kernel's readings."
    disturbed = result.disturbed_rounds()
    if not disturbed:
        return f"{name}: the kernel reports no disturbed round."
    counted = "none was quiet, so all count" if not result.judged() else "these do not count"
    more = f", and {len(disturbed) - MOST_NAMED} more" if len(disturbed) > MOST_NAMED else ""
    return f"{name}: disturbed by the host ({counted}): {'; '.join(disturbed[:MOST_NAMED])}{more}."


def format_comparison(a: Result, b: Result) -> str:
    """Format the comparison: a table, the stage that changed most, the agreement, and the caveats."""
    changes = compare_results(a, b)
    body = [
        [
            c.a.title,
            c.a.unit,
            format_number(c.a.digest().p50),
            format_number(c.b.digest().p50),
            f"{c.ratio.value:.3f}",
            f"{c.ratio.low:.3f} to {c.ratio.high:.3f}",
            c.verdict,
        ]
        for c in changes
    ]
    table = grid(("series", "unit", "A", "B", "B / A", "95 % interval", ""), body, left=2)
    found = largest_change(changes)
    sentence = "No stage changed."
    if found is not None:
        sentence = f"Changed most: **{found.a.name}** ({found.a.case}), by {found.difference:+.2f} ms a frame."
    account = [host_account("A", a), host_account("B", b)]
    return "\n".join(
        [table, "", sentence, repeats(changes), *account, *(f"- caution: {text}" for text in conditions(a, b)), ""]
    )


def headline_agreement(a: Result, b: Result, limits: Sequence[Limit]) -> tuple[bool, str]:
    """Whether every row that has a limit agrees within 10 % in two runs, or the host explains it; and the text that tells it."""
    rows = dict.fromkeys((limit.case, limit.name) for limit in limits if limit.kind == a.kind)
    pairs = [(x, y) for row in rows if (x := a.find(*row)) is not None and (y := b.find(*row)) is not None]
    far = []
    for x, y in pairs:
        one, other = x.digest().p50, y.digest().p50
        if one and abs(other / one - 1) > stats.SPREAD_LIMIT:
            far.append(f"{x.title} ({format_number(one)} and {format_number(other)} {x.unit})")
    if not far:
        return True, f"All {len(pairs)} headline rows agree within {stats.SPREAD_LIMIT:.0%}."
    spoiled = any(not r.judged() or r.disturbed_rounds() for r in (a, b))
    text = f"Headline rows that differ by more than {stats.SPREAD_LIMIT:.0%}: {'; '.join(far)}."
    return spoiled, "\n".join([text, host_account("A", a), host_account("B", b)])


File = Annotated[Path, typer.Argument(help="A result file.", show_default=False)]


@app.command("compare")
def command(
    a: File,
    b: File,
    budget: Annotated[
        Path | None, typer.Option(help="Limits, in TOML: name the rows with limits that do not agree.")
    ] = None,
) -> None:
    """B over A, series by series, with 95 % bootstrap intervals, the stage that changed most, and disturbed rounds."""
    one, other = read_result(a), read_result(b)
    typer.echo(format_comparison(one, other))
    if budget is not None:
        typer.echo(headline_agreement(one, other, read_budget(budget))[1])
