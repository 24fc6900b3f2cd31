"""Disturbed rounds are recognized by the kernel's counters: recorded ones, and those of a real busy process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from host_readings import QUIET, STOLEN, result_of

from cliprl.bench.commands.results.check import Limit, check
from cliprl.bench.commands.results.compare import format_comparison
from cliprl.bench.harness.host import HostLog, HostReading, HostWatch, KernelFiles, wait_until_quiet
from cliprl.bench.harness.result import read_result
from cliprl.bench.harness.timing import BenchJob, SortedRounds, interleaved

BUSY = "import time\nprint(flush=True)\nend = time.time() + 600\nwhile time.time() < end: pass"


def record(root: Path, files: dict[str, str]) -> KernelFiles:
    """The kernel's files below `root`, for process 7."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return KernelFiles(7, root)


def process(parent: int, *ticks: int) -> str:
    """A /proc/PID/stat: a command with a space and a parenthesis, then user, system, children's user and system ticks."""
    return f"7 (a ) b) S {parent} " + "0 " * 9 + " ".join(map(str, ticks)) + " 20 0 1 0\n"


RECORDED = {
    "proc/stat": "cpu  1000 200 300 5000 100 10 20 50 0 0\ncpu0 1 2 3 4\ncpu1 1 2 3 4\nintr 5\n",
    "proc/7/stat": process(1, 100, 10, 5, 5),
    "proc/8/stat": process(7, 60, 0, 0, 0),
    "proc/9/stat": process(8, 20, 0, 0, 0),
    "proc/10/stat": process(1, 999, 9, 9, 9),
    "proc/7/cgroup": "1:cpu,cpuacct:/docker/x\n0::/\n",
    "sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.stat": "nr_periods 9\nnr_throttled 2\nthrottled_time 1500000000\n",
    "sys/fs/cgroup/cpu.stat": "usage_usec 5\nnr_throttled 0\nthrottled_usec 250000\n",
    "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "3\n",
    "sys/devices/system/cpu/cpu1/thermal_throttle/package_throttle_count": "4\n",
    "proc/pressure/cpu": "some avg10=2.55 avg60=2.66 avg300=7.43 total=4000000\nfull avg10=0.00 total=0\n",
}


def test_recorded_counters_are_read(tmp_path: Path) -> None:
    kernel = record(tmp_path, RECORDED)
    seen = kernel.counters()
    assert kernel.processors == 2
    assert (seen.busy, seen.steal, seen.own) == (15.3, 0.5, 2.0)  # 7, its child 8 and its grandchild 9
    assert (seen.throttled, seen.heat, seen.waiting) == (1.5, 7, 4.0)
    assert kernel.unseen() == []


@pytest.mark.parametrize(
    ("absent", "words"),
    [
        ("proc/stat", ["time taken by the host", "CPU time of other processes"]),
        ("proc/pressure/cpu", ["pressure on the CPUs"]),
        ("sys/devices", ["throttling by heat"]),
        ("sys/fs/cgroup", ["throttling by a CPU quota"]),
        ("", [*("time taken by the host", "CPU time of other processes", "throttling by a CPU quota")]),
    ],
)
def test_what_a_system_lacks_is_named_and_no_disturbance(tmp_path: Path, absent: str, words: list[str]) -> None:
    kernel = record(tmp_path, {name: text for name, text in RECORDED.items() if not name.startswith(absent)})
    assert kernel.unseen()[: len(words)] == words
    assert HostWatch(kernel).reading().reasons() == []


def test_old_kernels_without_steal_are_read(tmp_path: Path) -> None:
    kernel = record(tmp_path, RECORDED | {"proc/stat": "cpu  1000 200 300 5000\ncpu0 1\n"})
    assert (kernel.counters().steal, kernel.counters().busy) == (None, 15.0)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"proc/stat": RECORDED["proc/stat"].replace(" 50 0 0", " 60 0 0")}, "the host took 5.0%"),
        ({"proc/stat": RECORDED["proc/stat"].replace("1000", "1010")}, "other processes used 5.0%"),
        ({"proc/8/stat": process(7, 160, 0, 0, 0)}, ""),
        ({"sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.stat": "throttled_time 1600000000\n"}, "CPU quota for 10.0%"),
        ({"sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "5\n"}, "by heat 2 times"),
        ({"proc/pressure/cpu": "some avg10=9 total=5000000\n"}, ""),
    ],
)
def test_each_recorded_disturbance_is_told(tmp_path: Path, change: dict[str, str], word: str) -> None:
    before = record(tmp_path, RECORDED).counters()
    after = replace(record(tmp_path, change).counters(), moment=before.moment + 1.0)
    reasons = HostReading.between(before, after, 2).reasons()
    assert len(reasons) == bool(word)
    assert word in "".join(reasons)


@pytest.fixture
def neighbor() -> Iterator[None]:
    """A process outside of this one's descendants that keeps a processor busy: its parent ends before it."""
    if not Path("/proc/stat").exists():
        pytest.skip("other processes are read from /proc")
    read, write = os.pipe()
    start = f"subprocess.Popen([sys.executable, '-c', {BUSY!r}], stdout=subprocess.DEVNULL)"
    code = f"import os, subprocess, sys; os.write({write}, str({start}.pid).encode())"
    subprocess.run([sys.executable, "-c", code], pass_fds=[write], check=True)
    number = int(os.read(read, 20))
    yield
    os.kill(number, 9)
    os.close(read)
    os.close(write)


def _sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def test_a_busy_neighbor_spoils_every_round(neighbor: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cliprl.bench.harness.timing.QUIET_PATIENCE", 0.1)
    told: list[str] = []
    host = HostLog(1)
    answers = interleaved({"a": (_sleep, (0.5,))}, 1, told.append, host=host, most=2)
    assert answers == {"a": [0.5] * 2}  # none was quiet: all count
    assert host.quiet == 0
    assert [entry["round"] for entry in host.entries] == [1, 2]
    assert all("other processes used" in "".join(entry["disturbed_by"]) for entry in host.entries)
    assert any("was disturbed: " in text and "other processes used" in text for text in told)
    assert wait_until_quiet(0.0).reasons()


def test_work_of_children_counts_as_own() -> None:
    if not Path("/proc/stat").exists():
        pytest.skip("processes are read from /proc")
    watch = HostWatch()
    subprocess.run([sys.executable, "-c", "import time\nwhile time.process_time() < 0.5: pass"], check=True)
    reading = watch.reading()
    assert reading.own * reading.seconds >= 0.49


def test_waiting_ends_with_the_first_quiet_look() -> None:
    looks = iter([STOLEN, replace(QUIET, pressure=0.5), replace(QUIET, pressure=0.0), STOLEN])
    assert wait_until_quiet(60.0, lambda: next(looks)).reasons() == []
    assert next(looks) is STOLEN


def test_disturbed_rounds_are_repeated_until_enough_are_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    module = "cliprl.bench.harness.timing."
    readings = iter([QUIET, STOLEN, QUIET, QUIET, STOLEN, QUIET, QUIET, QUIET])

    class Watch:
        def reading(self) -> HostReading:
            return next(readings)

    numbers = iter(range(10))
    monkeypatch.setattr(f"{module}HostWatch", Watch)
    monkeypatch.setattr(f"{module}wait_until_quiet", lambda seconds: QUIET)
    monkeypatch.setattr(f"{module}in_fresh_process", lambda function, *arguments, on_report: next(numbers))
    host = HostLog(2)
    answers = interleaved({"a": (_sleep, (0.0,)), "b": (_sleep, (0.0,))}, 2, lambda text: None, host=host, most=4)
    assert answers == {"b": [2, 6], "a": [3, 7]}  # rounds 2 and 4
    assert host.quiet == 2
    assert [e["round"] for e in host.entries if e["disturbed_by"]] == [1, 3]


def test_no_answer_of_a_disturbed_round_counts_beside_quiet_ones() -> None:
    found = SortedRounds()
    found.add({"a": 1}, quiet=False)
    assert found.answers() == {"a": [1]}
    found.add({"a": 2}, quiet=True)
    found.add({"a": 3}, quiet=False)
    assert found.answers({"a": 4}) == {"a": [2, 4]}
    assert BenchJob("", rounds=3, seconds=600).most_rounds == 3
    assert BenchJob("", rounds=3, seconds=10).most_rounds == 6
    assert BenchJob("", rounds=3, spare=1).most_rounds == 4


def test_limits_are_not_judged_on_disturbed_rounds(tmp_path: Path) -> None:
    limits = [Limit("stream", "cliprl-stream", "fps", min=50.0)]
    noisy, mixed = result_of(40.0, 0, STOLEN, STOLEN), result_of(40.0, 1, QUIET, STOLEN)
    (finding,) = check([noisy], limits)
    assert not finding.kept
    assert "not judged" in str(finding)
    assert "no quiet round to be had" in str(finding)
    assert [f.state for f in check([mixed], limits)] == ["BREACH"]
    assert [f.state for f in check([result_of(60.0, 0, STOLEN)], limits)] == ["kept"]
    assert "no quiet round to be had" in noisy.warnings()[0]
    assert "only 1 of 2 rounds were quiet" in mixed.warnings()[0]
    short = result_of(40.0, 0, QUIET).warnings()[0]  # of a pair that is not complete
    assert short == "only 0 of 1 rounds were quiet; no round was disturbed: allow more time"
    mixed.write(tmp_path / "r.json")
    assert read_result(tmp_path / "r.json") == mixed
    assert "round 2, cliprl-stream" in mixed.disturbed_rounds()[0]


def test_a_comparison_names_rounds_that_the_host_spoiled() -> None:
    text = format_comparison(result_of(60.0, 2, QUIET, QUIET), result_of(40.0, 1, QUIET, STOLEN))
    assert "Medians that differ by more than 10%: cliprl-stream: fps (-33%)." in text
    assert "A: the kernel reports no disturbed round." in text
    assert "B: disturbed by the host (these do not count): round 2, cliprl-stream: the host took 5.0%" in text
    old = replace(result_of(60.0, 1, QUIET), host={})
    assert "without the kernel's readings" in format_comparison(old, old)
