"""Read the evaluation protocol: the data sets for choosing settings and, disjoint from them, those for reporting scores."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path, PurePath
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from cliprl.engines import UsageError, first_fault
from cliprl.models.data.dataset_spec import MAX_SEVERITY, DatasetSpec, parse_seeds
from cliprl.models.data.registry import dataset_kinds

PROTOCOL = Path(__file__).with_name("protocol.toml")
CHOOSING, REPORTING = "choosing", "reporting"
# The words for scores of the two sides.
CHOSEN, REPORTED = "chosen", "reported"


def _made_of(spec: DatasetSpec, sequences: Collection[str] = ()) -> list[tuple[DatasetSpec, Collection[str]]]:
    """Return a line, or for composed scenes those of their two sides, with the sequences that are used (empty: all)."""
    if spec.kind != "composed":
        return [(spec, sequences or spec.names("sequences"))]
    tissue = DatasetSpec("stills", spec.options.get("tissue", ""), {})
    return [(replace(spec, kind="raytraced"), ()), (tissue, spec.names("parts"))]


def _share_data(mine: tuple[DatasetSpec, Collection[str]], other: tuple[DatasetSpec, Collection[str]]) -> bool:
    specs, sequences = (mine[0], other[0]), (mine[1], other[1])
    if specs[0].kind != specs[1].kind:
        return False
    paths = [PurePath(spec.path).parts for spec in specs]
    end = min(map(len, paths))
    kind = dataset_kinds().get(specs[0].kind)
    if kind and kind.named_by_path and paths[0][len(paths[0]) - end :] != paths[1][len(paths[1]) - end :]:
        return False
    seeds = [parse_seeds(spec.options["seeds"]) for spec in specs if "seeds" in spec.options]
    if len(seeds) == 2 and seeds[0] and seeds[1] and not set(seeds[0]) & set(seeds[1]):
        return False
    here, there = (set(names) for names in sequences)
    return not here or not there or bool(here & there)


@dataclass(frozen=True, slots=True)
class ProtocolSet:
    """A data set of the protocol: its title, its data set line, ignored classes, and the severities of its corruption.

    Each `every`-th frame is scored. `outside` marks images that are out of distribution.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    name: str
    data: str
    ignore: tuple[str, ...] = ()
    severities: tuple[Annotated[int, Field(ge=0, le=MAX_SEVERITY)], ...] = ()
    every: Annotated[int, Field(ge=1)] = 1
    outside: bool = False

    def shares_data(self, line: str, sequences: Collection[str] = ()) -> bool:
        """Return whether a data set line, of which `sequences` (empty: those of the line) are used, has frames of this set."""
        pairs = product(_made_of(DatasetSpec.parse(self.data)), _made_of(DatasetSpec.parse(line), sequences))
        return any(_share_data(mine, other) for mine, other in pairs)


@dataclass(frozen=True, slots=True)
class Protocol:
    """The sets for choosing and for reporting. Raises UsageError if a name or data is on both sides."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    choosing: tuple[ProtocolSet, ...]
    reporting: tuple[ProtocolSet, ...]

    def __post_init__(self) -> None:
        names = [one.name for one in (*self.choosing, *self.reporting)]
        for name in names:
            if names.count(name) > 1:
                raise UsageError(f"the protocol lists '{name}' twice: give each set another name")
        for one, other in product(self.choosing, self.reporting):
            if one.shares_data(other.data):
                raise UsageError(
                    f"the protocol's sets '{one.name}' (choosing) and '{other.name}' (reporting) share data: "
                    "give each sequence to one side"
                )

    def use(self, one: ProtocolSet) -> str:
        """Return "chosen" or "reported": the word for scores of one of the protocol's sets."""
        return CHOSEN if one in self.choosing else REPORTED

    def use_of(self, line: str, sequences: Collection[str] = ()) -> str | None:
        """Return the word for scores of a data set line, of which `sequences` are scored; None if the protocol lacks it.

        It is "chosen" as soon as one sequence is of a set for choosing.
        """
        for sets, word in ((self.choosing, CHOSEN), (self.reporting, REPORTED)):
            if any(one.shares_data(line, sequences) for one in sets):
                return word
        return None


def load_protocol(path: Path | None = None) -> Protocol:
    """Read a protocol file; None is the package's.

    Raises UsageError for a file that is missing or malformed, or whose sides share data.
    """
    path = path or PROTOCOL
    try:
        tree: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        return _ADAPTER.validate_python(tree)
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"protocol '{path}' can't be read ({error}): give a TOML file") from error
    except ValidationError as error:
        raise UsageError(f"protocol '{path}': {first_fault(error)}: correct it") from error


@cache
def shipped_protocol() -> Protocol:
    """Return the protocol of this package."""
    return load_protocol()


def select_sets(protocol: Protocol, names: Sequence[str]) -> list[ProtocolSet]:
    """Return the sets of those names, or all, those for reporting first. Raises UsageError for an unknown name."""
    listed = [*protocol.reporting, *protocol.choosing]
    known = {one.name: one for one in listed}
    for name in names:
        if name not in known:
            raise UsageError(f"the protocol has no set '{name}': one of {', '.join(known)}")
    return [known[name] for name in names] if names else listed


_ADAPTER = TypeAdapter(Protocol)
