"""`cliprl-bench check`: compare results with limits in a TOML file.

[[limit]]
kind = "stream"            # which command's result
case = "cliprl-stream"     # or a list of them
name = "fps"
statistic = "p50"          # p50, p90, p95, p99, p999, min, max, mean, spread, drift; p50 by default
min = 40.0                 # and, or: max = …
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from cliprl.bench.harness.registry import app, measurements
from cliprl.bench.harness.result import Result, read_result
from cliprl.bench.harness.table import format_number
from cliprl.engines import UsageError

STATISTICS = ("p50", "p90", "p95", "p99", "p999", "min", "max", "mean", "spread", "drift")
LIMIT_KEYS = {"kind", "case", "name", "statistic", "min", "max"}


@dataclass(frozen=True, slots=True)
class Limit:
    """The range that one statistic of one series must keep."""

    kind: str
    case: str
    name: str
    statistic: str = "p50"
    min: float = -math.inf
    max: float = math.inf

    @property
    def title(self) -> str:
        """The figure's full name."""
        return f"{self.kind}, {self.case}: {self.name}, {self.statistic}"

    @property
    def bounds(self) -> str:
        """The bounds in words."""
        bounds = [f"at least {self.min:g}"] if self.min > -math.inf else []
        return " and ".join([*bounds, *([f"at most {self.max:g}"] if self.max < math.inf else [])])


def read_budget(path: Path) -> list[Limit]:
    """Read a budget.

    Raises UsageError for a missing or invalid file, an unknown key, kind or statistic, a limit without a bound.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path} can't be read ({error.strerror}): give a budget in TOML") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML ({error}): correct it") from error
    entries = data.get("limit")
    if not isinstance(entries, list) or not entries or set(data) != {"limit"}:
        raise UsageError(f"{path} must contain [[limit]] tables only")
    return [limit for entry in entries for limit in _limits(path, entry)]


def _limits(path: Path, entry: Mapping[str, Any]) -> list[Limit]:
    unknown, absent = set(entry) - LIMIT_KEYS, {"kind", "case", "name"} - set(entry)
    if unknown or absent:
        raise UsageError(f"{path}: a limit has unknown keys {sorted(unknown)} or lacks {sorted(absent)}")
    kinds = (*measurements(), "gpu", "gpu-engines")
    if entry["kind"] not in kinds:
        raise UsageError(f"{path}: no kind of result '{entry['kind']}': one of {', '.join(kinds)}")
    if entry.get("statistic", "p50") not in STATISTICS:
        raise UsageError(f"{path}: no statistic '{entry['statistic']}': one of {', '.join(STATISTICS)}")
    bounds = [entry[key] for key in ("min", "max") if key in entry]
    if not bounds or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in bounds):
        raise UsageError(f"{path}: the limit on '{entry['name']}' needs a number as min, max or both")
    cases = entry["case"] if isinstance(entry["case"], list) else [entry["case"]]
    return [Limit(**{**entry, "case": case}) for case in cases]


@dataclass(frozen=True, slots=True)
class Finding:
    """A limit and the figure that was compared with it; `judged` is False if the host disturbed every round."""

    limit: Limit
    value: float
    judged: bool = True

    @property
    def kept(self) -> bool:
        """Whether the figure is within the limit; an unknown one is not."""
        return self.limit.min <= self.value <= self.limit.max

    @property
    def state(self) -> str:
        """The state in a word. A figure that is outside the limit in disturbed rounds only is no breach, and not kept."""
        if self.kept:
            return "kept"
        return "BREACH" if self.judged else "not judged"

    @property
    def remark(self) -> str:
        """Why there is no verdict."""
        return "" if self.kept or self.judged else " (no quiet round to be had)"

    def __str__(self) -> str:
        return (
            f"{self.state}: {self.limit.title} is {format_number(self.value)}, must be {self.limit.bounds}{self.remark}"
        )


def check(results: Sequence[Result], limits: Sequence[Limit]) -> list[Finding]:
    """Compare every limit with the results of its kind, if there are any.

    Raises UsageError for a limit on a series that its result lacks, and if no limit is on a kind that was measured.
    """
    absent = unmeasured(results, limits)
    if all(limit.kind in absent for limit in limits):
        raise UsageError(f"the budget has limits on {', '.join(absent)} only: give result files of these")
    findings = []
    for limit in limits:
        found = measured(results, limit)
        if not found and limit.kind not in absent:
            raise UsageError(
                f"none of the results measured '{limit.kind}, {limit.case}: {limit.name}': correct the budget"
            )
        findings += found
    return findings


def unmeasured(results: Sequence[Result], limits: Sequence[Limit]) -> list[str]:
    """The kinds that have limits but no result."""
    given = {result.kind for result in results}
    return list(dict.fromkeys(limit.kind for limit in limits if limit.kind not in given))


def measured(results: Sequence[Result], limit: Limit) -> list[Finding]:
    """Compare a limit with every result that has its series."""
    found = [(r, s) for r in results if r.kind == limit.kind if (s := r.find(limit.case, limit.name)) is not None]
    return [Finding(limit, asdict(s.digest())[limit.statistic], r.judged(limit.case, limit.name)) for r, s in found]


@app.command("check")
def command(
    files: Annotated[list[Path], typer.Argument(metavar="RESULT…", help="Result files.", show_default=False)],
    budget: Annotated[Path, typer.Option(help="Limits, in TOML.", show_default=False)],
) -> None:
    """Compare results with the limits of a budget. Exit status 1 on a breach, and where no round was quiet enough to judge."""
    results, limits = [read_result(path) for path in files], read_budget(budget)
    findings = check(results, limits)
    for finding in findings:
        typer.echo(str(finding))
    for kind in unmeasured(results, limits):
        typer.echo(f"not given: a result of {kind}")
    if not all(finding.kept for finding in findings):
        raise typer.Exit(1)
