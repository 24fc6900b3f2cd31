"""What the kernel says about the host of a measurement: stolen time, other processes, throttling, pressure on the CPUs.

A round in which these exceed `LIMITS` is disturbed: its figures say more about the host than about the program. A file that a
system lacks (macOS, other cgroups, virtual machines) is named as unseen, and does not make a round disturbed.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

_TICK = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
# Largest shares of all processors' time in a quiet round, 0..1. The kernel counts in ticks: for a run of two seconds on two
# processors, 0.04 is about three standard deviations of that count.
LIMITS = {"steal": 0.01, "others": 0.04, "throttled": 0.001}
# Share of the time in which a task waits for a processor while the measured processes sleep: more is a busy machine.
IDLE_PRESSURE = 0.05
# Seconds of one look at the machine before a round.
LOOK_SECONDS = 0.3
STAT, PRESSURE, HEAT, CGROUP = "proc/stat", "proc/pressure/cpu", "sys/devices/system/cpu", "sys/fs/cgroup"


@dataclass(frozen=True, slots=True)
class HostCounters:
    """The kernel's counters at one moment, in seconds since the start of the machine; None for those that it lacks.

    busy and steal: of all processors. own: CPU time of the watched processes. throttled: by a CPU quota of their cgroups.
    heat: number of throttling events. waiting: time in which at least one task waited for a processor.
    """

    moment: float
    own: float
    busy: float | None = None
    steal: float | None = None
    throttled: float | None = None
    heat: int | None = None
    waiting: float | None = None


@dataclass(frozen=True, slots=True)
class HostReading:
    """The host between two moments. Shares are of all processors' time, 0..1; None for what the kernel does not tell.

    seconds: by the clock. own: processors busy with the watched processes. others: for all other processes. heat: throttling
    events. pressure: share of the time in which at least one task waited for a processor, those of the measurement included.
    """

    seconds: float
    own: float
    steal: float | None = None
    others: float | None = None
    throttled: float | None = None
    heat: int | None = None
    pressure: float | None = None

    @classmethod
    def between(cls, a: HostCounters, b: HostCounters, processors: int) -> HostReading:
        """The differences of two moments."""
        seconds = max(b.moment - a.moment, 1e-9)

        def share(first: float | None, last: float | None, of: float = seconds) -> float | None:
            return None if first is None or last is None else round(max(0.0, last - first) / of, 4)

        own, busy = b.own - a.own, share(a.busy, b.busy, 1.0)
        others = None if busy is None else round(max(0.0, busy - own) / seconds / processors, 4)
        return cls(
            round(seconds, 3),
            round(own / seconds, 3),
            share(a.steal, b.steal, seconds * processors),
            others,
            share(a.throttled, b.throttled),
            None if a.heat is None or b.heat is None else b.heat - a.heat,
            share(a.waiting, b.waiting),
        )

    def reasons(self) -> list[str]:
        """Why the round was disturbed; empty for a quiet one.

        Pressure is no reason: a measurement that fills all processors waits for itself.
        """
        found = []
        if self.steal is not None and self.steal > LIMITS["steal"]:
            found.append(f"the host took {self.steal:.1%} of the processors")
        if self.others is not None and self.others > LIMITS["others"]:
            found.append(f"other processes used {self.others:.1%} of the processors")
        if self.throttled is not None and self.throttled > LIMITS["throttled"]:
            found.append(f"throttled by a CPU quota for {self.throttled:.1%} of the time")
        if self.heat:
            found.append(f"throttled by heat {self.heat} times")
        return found


class KernelFiles:
    """Reads the counters below `root`, for the process `pid` and its descendants."""

    def __init__(self, pid: int | None = None, root: Path = Path("/")) -> None:
        self.pid, self._root = pid or os.getpid(), root
        self.processors = max(len(self._lines(STAT, "cpu")) - 1, 0) or os.cpu_count() or 1

    def counters(self) -> HostCounters:
        """Read all counters now."""
        total = self._lines(STAT, "cpu ")
        busy = steal = None
        if total and len(fields := [int(v) for v in total[0].split()[1:]]) >= 4:
            # user, nice, system, idle, iowait, irq, softirq, steal; guests are in user and nice.
            steal = fields[7] / _TICK if len(fields) > 7 else None
            busy = (sum(fields[:3]) + sum(fields[5:7])) / _TICK
        return HostCounters(
            time.monotonic(), self.own_seconds(), busy, steal, self._throttled(), self._heat(), self._waiting()
        )

    def unseen(self) -> list[str]:
        """The kinds of disturbance that this system does not report."""
        seen = self.counters()
        known = {
            "time taken by the host": seen.steal,
            "CPU time of other processes": seen.busy,
            "throttling by a CPU quota": seen.throttled,
            "throttling by heat": seen.heat,
            "pressure on the CPUs": seen.waiting,
        }
        return [name for name, value in known.items() if value is None]

    def own_seconds(self) -> float:
        """CPU seconds of the process, of its descendants, and of their ended children."""
        ticks: dict[int, int] = {}
        children: dict[int, list[int]] = defaultdict(list)
        for path in (self._root / "proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            except OSError:
                continue  # ended since it was listed
            number = int(path.parent.name)
            ticks[number] = sum(map(int, fields[11:15]))
            children[int(fields[1])].append(number)
        if self.pid not in ticks:
            spent = os.times()
            return spent.user + spent.system + spent.children_user + spent.children_system
        return sum(ticks[number] for number in _descendants(self.pid, children)) / _TICK

    def _lines(self, name: str, start: str) -> list[str]:
        try:
            text = (self._root / name).read_text(encoding="utf-8")
        except OSError:
            return []
        return [line for line in text.splitlines() if line.startswith(start)]

    def _throttled(self) -> float | None:
        """Seconds that the cgroups of the process, or those above them, were throttled."""
        folders: set[Path] = set()
        for line in self._lines(f"proc/{self.pid}/cgroup", ""):
            _, controllers, inside = line.split(":", 2)
            top = self._root / CGROUP
            tops = [top, top / "unified"] if not controllers else [top / controllers, top / "cpu", top / "cpu,cpuacct"]
            parts = Path(inside.lstrip("/")).parts
            if not controllers or "cpu" in controllers.split(","):
                folders |= {each.joinpath(*parts[:depth]) for each in tops for depth in range(len(parts) + 1)}
        readings = [value for folder in folders if (value := self._quota(folder)) is not None]
        return max(readings, default=None)

    def _quota(self, folder: Path) -> float | None:
        units = {"throttled_usec": 1e6, "throttled_time": 1e9}
        lines = self._lines(str((folder / "cpu.stat").relative_to(self._root)), "throttled_")
        pairs = [line.split() for line in lines]
        return next((int(value) / units[name] for name, value in pairs if name in units), None)

    def _heat(self) -> int | None:
        counts = [*(self._root / HEAT).glob("cpu[0-9]*/thermal_throttle/*_throttle_count")]
        return sum(int(path.read_text()) for path in counts) if counts else None

    def _waiting(self) -> float | None:
        some = self._lines(PRESSURE, "some")
        return int(some[0].rpartition("total=")[2]) / 1e6 if some else None


def _descendants(pid: int, children: dict[int, list[int]]) -> Iterator[int]:
    yield pid
    for child in children[pid]:
        yield from _descendants(child, children)


class HostWatch:
    """Watches the host from its creation to `reading`, for the process `pid` (None: this one) and its descendants."""

    def __init__(self, kernel: KernelFiles | None = None, pid: int | None = None) -> None:
        self._kernel = kernel or KernelFiles(pid)
        self._start = self._kernel.counters()

    def reading(self) -> HostReading:
        """The host since the creation."""
        return HostReading.between(self._start, self._kernel.counters(), self._kernel.processors)


def wait_until_quiet(seconds: float, look: Callable[[], HostReading] | None = None) -> HostReading:
    """Sleep until the machine is quiet while this process sleeps, at most for `seconds`; return the last look at it."""
    end = time.monotonic() + seconds
    while True:
        reading = (look or _look)()
        idle = reading.pressure is None or reading.pressure <= IDLE_PRESSURE
        if (idle and not reading.reasons()) or time.monotonic() >= end:
            return reading


def _look() -> HostReading:
    watch = HostWatch()
    time.sleep(LOOK_SECONDS)
    return watch.reading()


@dataclass
class HostLog:
    """The readings of a measurement, by round and case, and how many quiet rounds were wanted and found."""

    wanted: int
    unseen: Sequence[str] = ()
    quiet: int = 0
    entries: list[dict[str, Any]] = field(default_factory=list)
    quiet_by: dict[str, int] = field(default_factory=dict)

    def note(self, number: int, case: str, reading: HostReading, **figures: Any) -> list[str]:
        """Record the reading of a case in a round, with figures that were seen in it; return the reasons of a disturbance."""
        reasons = reading.reasons()
        self.entries.append({"round": number, "case": case, "disturbed_by": reasons} | asdict(reading) | figures)
        return reasons

    def count_pair(self, name: str, quiet: int) -> None:
        """Record the quiet rounds of the pair with this program; the pair with the fewest counts for the whole."""
        self.quiet_by[name] = quiet
        self.quiet = min(self.quiet_by.values())

    def block(self) -> dict[str, Any]:
        """The block of a result file."""
        return {
            "limits": LIMITS,
            "unseen": list(self.unseen),
            "quiet_rounds": self.quiet,
            "wanted_rounds": self.wanted,
            "quiet_rounds_by_pair": self.quiet_by,
            "rounds": self.entries,
        }
