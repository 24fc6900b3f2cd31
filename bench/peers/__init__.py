"""The other ways to do the work, each as its own documentation recommends, on the same clip in the same rounds.

A peer registers itself with `peer` where it is written; `all_peers` imports the modules of this package.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from cliprl.bench.harness.environment import package_version
from cliprl.bench.harness.registry import discover
from cliprl.bench.harness.timing import BenchJob, Runner, TimedRun, quiet_libraries, timed_runs
from cliprl.engines import UsageError

Prepare = Callable[[BenchJob], Runner]
TRIAL_FRAMES = 2


@dataclass(frozen=True, slots=True)
class PeerProgram:
    """One way to do the work: `prepare` makes a runner of a job; it is a module-level function, called in another process.

    `differs` describes how its work differs from the pipeline's. `needs` are the modules that must be installed, `install` is
    the command that installs them, `packages` the distributions whose versions a result names.
    """

    name: str
    prepare: Prepare
    differs: str
    needs: tuple[str, ...] = ()
    install: str = ""
    packages: tuple[str, ...] = ()

    def note(self) -> str:
        """How its work differs, and the versions that were measured."""
        found = [f"{name} {number}" for name in self.packages if (number := package_version(name))]
        return "; ".join([self.differs, *([", ".join(found)] if found else [])])

    def missing(self) -> str | None:
        """Return why it can't run here, None if it can."""
        absent = [name for name in self.needs if find_spec(name) is None]
        return f"{', '.join(absent)} not installed: {self.install}" if absent else None


_PEERS: dict[str, PeerProgram] = {}


def peer(
    name: str, differs: str, needs: tuple[str, ...] = (), install: str = "", packages: tuple[str, ...] = ()
) -> Callable[[Prepare], Prepare]:
    """Register the decorated function as a peer's `prepare`."""

    def register(prepare: Prepare) -> Prepare:
        _PEERS[name] = PeerProgram(name, prepare, differs, needs, install, packages)
        return prepare

    return register


def all_peers() -> Mapping[str, PeerProgram]:
    """All peers by name."""
    discover(sys.modules[__name__])
    return _PEERS


def find_peer(name: str) -> PeerProgram:
    """Look a peer up. Raises UsageError for an unknown name."""
    known = all_peers()
    if name not in known:
        raise UsageError(f"unknown peer '{name}': one of {', '.join(known)}")
    return known[name]


def trial(prepare: Prepare, job: BenchJob) -> str | None:
    """Run a peer over a few frames in this process; return one line on why that failed, None if it succeeded."""
    quiet_libraries()
    try:
        with tempfile.TemporaryDirectory() as folder:
            prepare(job)(Path(folder) / "out.mp4", TRIAL_FRAMES)
    except Exception as error:
        # All lines, because the first is often only a heading: torchcodec names the cause, no FFmpeg, in the second.
        return f"fails here with {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return None


def timed(prepare: Prepare, job: BenchJob) -> list[TimedRun]:
    """Measure one round of a peer, in this process."""
    quiet_libraries()
    return timed_runs(prepare(job), job)
