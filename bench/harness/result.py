"""The result file: one versioned JSON schema for all commands, with every sample."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from cliprl.bench.harness import stats
from cliprl.engines import CliprlError, UsageError, explained

SCHEMA = "cliprl-bench"
# Bytes of a file by which this program knows what it wrote.
_HEAD = 1024
RESULT_VERSION = 1
# Decimals of a stored sample: a tenth of a microsecond if the unit is a millisecond.
DIGITS = 4
# The key of `method` that describes the completed part of an interrupted measurement.
UNFINISHED = "unfinished"
_AGAIN = "measure again on a quiet machine"
_LONGER = "no round was disturbed: allow more time"
# The beginning of the warning that names series whose two halves differ.
SHAKY = f"the medians of the two halves differ by more than {stats.SPREAD_LIMIT:.0%}"
# The start of the name of a series that holds ratios to another program.
LEAD = "fps over "
# Units of which more is better; of all others less is.
MORE_IS_BETTER = ("FPS", "pictures/s", "of bound", "times", "FPS/W", "queries/s")


@dataclass(frozen=True, slots=True)
class Series:
    """Samples of one quantity. `case` is the program or setting ("cliprl-stream", "30 FPS"), `name` the quantity ("fps").

    `rounds` holds the samples in the order taken, a tuple per round; `note` describes the case.
    """

    case: str
    name: str
    unit: str
    rounds: tuple[tuple[float, ...], ...]
    note: str = ""

    @classmethod
    def of(cls, case: str, name: str, unit: str, rounds: stats.Rounds, note: str = "") -> Series:
        """Make a series of samples, rounded to the stored precision."""
        kept = tuple(tuple(round(float(v), DIGITS) for v in samples if not math.isnan(v)) for samples in rounds)
        return cls(case, name, unit, kept, note)

    @property
    def more_is_better(self) -> bool:
        """Whether a larger value is better."""
        return self.unit in MORE_IS_BETTER

    @property
    def title(self) -> str:
        """Case and name, as a table shows them."""
        return f"{self.case}: {self.name}"

    def digest(self) -> stats.Digest:
        """Statistics of all rounds together."""
        return stats.digest(self.rounds)


@dataclass(frozen=True, slots=True)
class Result:
    """One run of one command. All fields but `series` serve to repeat it.

    `method` describes what a figure includes and excludes, warm-up and rounds. `input` and `bundle` identify clip and networks,
    `notes` are remarks for the reader (a skipped peer, for example). `host` holds the kernel's readings in every round and names
    those that were disturbed (see `HostLog`); it is empty in results of measurements without rounds. The series hold the quiet
    rounds, or all if none was quiet.
    """

    kind: str
    command: str
    date: str
    commit: str | None
    machine: Mapping[str, Any]
    input: Mapping[str, Any]
    bundle: Mapping[str, Any]
    method: Mapping[str, Any]
    series: tuple[Series, ...]
    notes: tuple[str, ...] = field(default=())
    host: Mapping[str, Any] = field(default_factory=dict)

    def find(self, case: str, name: str) -> Series | None:
        """The series of that case and name, None if it was not measured."""
        return next((s for s in self.series if (s.case, s.name) == (case, name)), None)

    def cases(self) -> list[str]:
        """The cases, in the order measured."""
        return list(dict.fromkeys(s.case for s in self.series))

    def judged(self, case: str = "", name: str = "") -> bool:
        """Whether there was a quiet round, of the pair that the series belongs to if there are pairs; True without readings."""
        if not self.host:
            return True
        pairs: Mapping[str, int] = self.host.get("quiet_rounds_by_pair", {})
        own = (count for pair, count in pairs.items() if case == pair or name == f"{LEAD}{pair}")
        return next(own, self.host["quiet_rounds"]) > 0

    def disturbed_rounds(self) -> list[str]:
        """The rounds that the host disturbed, each with its reason."""
        entries = [entry for entry in self.host.get("rounds", ()) if entry["disturbed_by"]]
        return [f"round {e['round']}, {e['case']}: {', '.join(e['disturbed_by'])}" for e in entries]

    def host_note(self) -> str:
        """Tell in a sentence how many rounds were quiet, and what the kernel does not tell."""
        told = f"quiet rounds: {self.host['quiet_rounds']} of the {self.host['wanted_rounds']} wanted"
        unseen = ", ".join(self.host["unseen"])
        return f"{told}; this machine does not tell: {unseen}" if unseen else told

    def warnings(self) -> list[str]:
        """Reasons against trusting the figures: halves that differ, other load on the machine."""
        shaky = [
            f"{s.title} ({d.drift:.0%})"
            for s in self.series
            if not (d := s.digest()).stable and d.n >= 4 and s.unit != "MB"
        ]
        unsteady = f"{SHAKY}: {', '.join(shaky)}; {_AGAIN}"
        cut = [f"unfinished: {self.method[UNFINISHED]}"] if UNFINISHED in self.method else []
        load = _host_warnings(self.host) if self.host else _load_warnings(self.machine)
        return [*cut, *load, *([unsteady] if shaky else [])]

    def to_text(self) -> str:
        """The file's text: JSON, with one line per series."""
        head = {"schema": SCHEMA, "version": RESULT_VERSION} | {
            f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("series", "host")
        }
        head |= {"notes": list(self.notes), "warnings": self.warnings()}
        text = json.dumps(head, indent=2, ensure_ascii=False)[:-2]
        if self.host:
            rest = json.dumps({k: v for k, v in self.host.items() if k != "rounds"}, ensure_ascii=False)[:-1]
            text += f',\n  "host": {rest}, "rounds": [\n{_lines(self.host["rounds"])}\n  ]}}'
        return f'{text},\n  "series": [\n{_lines([_series_json(s) for s in self.series])}\n  ]\n}}\n'

    def write(self, path: Path) -> None:
        """Write the file. Raises UsageError if it can't be written."""
        write_text(path, self.to_text())


def write_text(path: Path, text: str) -> None:
    """Write a text file, and its folder if it is missing. Raises UsageError if it can't be written.

    An existing file is replaced atomically.
    """
    new = path.with_name(f".{path.name}.new") if path.is_file() or not path.exists() else path
    with explained(f"{path} can't be written", "choose another place"):
        path.parent.mkdir(parents=True, exist_ok=True)
        new.write_text(text, encoding="utf-8")
        if new != path:
            new.replace(path)


def check_place(path: Path, mark: str = f'"schema": "{SCHEMA}"') -> None:
    """Raise UsageError if a file can't be written, or is another than this program wrote; called before anything is measured.

    `mark` stands at the beginning of every file of the kind that is to be written.
    """
    old = path.is_file()
    with explained(f"{path} can't be written", "choose another place"):
        if old and (start := _start(path)) and mark.encode() not in start:
            raise UsageError(
                f"'{path}' exists, and cliprl-bench did not write it as such a file: give another name with -o"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("a").close()
        if not old and path.is_file():
            path.unlink()


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD)


def _lines(values: Sequence[Any]) -> str:
    return ",\n".join("    " + json.dumps(value, ensure_ascii=False) for value in values)


def _series_json(series: Series) -> dict[str, Any]:
    """Samples and, for readers without this program, their statistics, which `read_result` ignores."""
    digest = {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(series.digest()).items()}
    digest = {k: round(v, DIGITS) if isinstance(v, float) else v for k, v in digest.items()}
    return {"case": series.case, "name": series.name, "unit": series.unit, "note": series.note} | {
        "digest": digest,
        "rounds": series.rounds,
    }


def _host_warnings(host: Mapping[str, Any]) -> list[str]:
    quiet, wanted = host["quiet_rounds"], host["wanted_rounds"]
    if quiet >= wanted:
        return []
    reasons = [reason for entry in host["rounds"] for reason in entry["disturbed_by"]]
    if not quiet and reasons:  # quiet rounds of a pair are counted when the pair is complete
        return [f"no quiet round to be had: each was disturbed ({reasons[0]}); {_AGAIN}"]
    return [f"only {quiet} of {wanted} rounds were quiet; {_AGAIN if reasons else _LONGER}"]


def _load_warnings(machine: Mapping[str, Any]) -> list[str]:
    share = machine.get("other_load")
    if share is None or share <= stats.SPREAD_LIMIT / 2:
        return []
    return [f"other programs used {share:.0%} of the processors while this ran; {_AGAIN}"]


def read_result(path: Path) -> Result:
    """Read a result file. Raises UsageError for a missing one, CliprlError for one that is no result or of another version."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path} can't be read ({error.strerror}): give a result file of cliprl-bench") from error
    except ValueError as error:
        raise CliprlError(f"{path} is not JSON ({error}): give a result file of cliprl-bench") from error
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise CliprlError(f"{path} is not a result of cliprl-bench: its schema is not '{SCHEMA}'")
    if data.get("version") != RESULT_VERSION:
        raise CliprlError(f"{path} is of schema version {data.get('version')!r}, not {RESULT_VERSION}: measure again")
    try:
        series = tuple(_series(entry) for entry in data["series"])
        rest = {f.name: data[f.name] for f in fields(Result) if f.name not in ("series", "notes", "host")}
        return Result(**rest, series=series, notes=tuple(data["notes"]), host=data.get("host", {}))
    except (KeyError, TypeError, ValueError) as error:
        raise CliprlError(f"{path} lacks a field or has an invalid one ({error!r}): measure again") from error


def _series(entry: Mapping[str, Any]) -> Series:
    rounds: Sequence[Sequence[float]] = entry["rounds"]
    return Series(entry["case"], entry["name"], entry["unit"], tuple(tuple(r) for r in rounds), entry["note"])
