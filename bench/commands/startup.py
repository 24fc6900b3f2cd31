"""`cliprl-bench start`: from the launch of `cliprl-stream` to one painted frame in a file, with compiled engines and without.

Each sample is one process, timed from outside by the clock and in CPU time; two further cases are Python itself and the imports.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from cliprl.bench.harness.registry import measurement
from cliprl.bench.harness.result import Result, Series
from cliprl.bench.harness.result_session import ResultSession
from cliprl.bench.harness.timing import BenchJob, LogFunction
from cliprl.engines import CliprlError

METHOD = {
    "includes": "the console script from its launch to its end: Python, imports, the bundle's hashes, engines, opening the "
    "clip, one frame decoded, segmented, painted and encoded, the file closed",
    "warm": "compiled engines are found in the cache",
    "cold": "the cache is empty: engines are compiled and pass the accuracy gate",
    "files": "in the system's page cache; Python's bytecode is there, as in an installed package",
}
# The programs of the cases; their differences show the time of each part.
STREAM_CODE = "import sys; sys.argv[0] = 'cliprl-stream'; from cliprl.pipeline.cli.main import main; main()"
PARTIAL_STARTS = {"python": "pass", "imports": "import cliprl.pipeline.cli.run"}
WARM_CACHE, COLD_CACHE = CASES = "warm", "cold"


def launch_python(words: Sequence[str], cache: Path, bytecode: Path | None = None) -> tuple[float, float, str]:
    """Run Python with these words; return seconds by the clock, CPU seconds, and its standard error.

    `bytecode` keeps the bytecode of all modules, whatever the environment says about writing it. Raises CliprlError if it fails.
    """
    environment = os.environ | {"XDG_CACHE_HOME": str(cache)}
    if bytecode is not None:
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        environment["PYTHONPYCACHEPREFIX"] = str(bytecode)
    before, start = os.times(), time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", *words],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    seconds, after = time.monotonic() - start, os.times()
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise CliprlError(f"the start that is measured fails: {lines[-1] if lines else done.returncode}")
    work = after.children_user + after.children_system - before.children_user - before.children_system
    return seconds, work, done.stderr


def one_round(job: BenchJob, folder: Path) -> dict[str, tuple[float, float, str]]:
    """Run every case once; `folder` holds the cache that is warm after the first round."""
    stream = [
        STREAM_CODE,
        job.clip,
        "--bundle",
        job.bundle,
        "--frames",
        "1",
        "--overwrite",
        "-o",
        str(folder / "out.mp4"),
    ]
    bytecode = folder / "bytecode"
    with tempfile.TemporaryDirectory(dir=folder) as empty:
        cold = launch_python(stream, Path(empty), bytecode)
    parts = {name: launch_python([code], folder, bytecode) for name, code in PARTIAL_STARTS.items()}
    return parts | {WARM_CACHE: launch_python(stream, folder, bytecode), COLD_CACHE: cold}


@measurement(
    "start",
    help="From launch to the first painted frame in a file: with compiled engines in the cache, and with an empty cache.",
    defaults=BenchJob("", rounds=7, seconds=0, warm_up=0),
    settings=("bundle", "rounds"),
)
def measure(session: ResultSession, job: BenchJob, log: LogFunction) -> Result:
    """Measure all cases in turn, round by round."""
    log("filling the cache")
    one_round(job, session.folder)
    rounds: list[Mapping[str, tuple[float, float, str]]] = []
    for turn in range(job.rounds):
        log(f"round {turn + 1} of {job.rounds}")
        rounds.append(one_round(job, session.folder))
        session.keep(_result(session, rounds), f"ended in round {turn + 2} of {job.rounds}")
    return _result(session, rounds)


def _result(session: ResultSession, rounds: Sequence[Mapping[str, tuple[float, float, str]]]) -> Result:
    series = []
    for case in (*PARTIAL_STARTS, WARM_CACHE, COLD_CACHE):
        series.append(Series.of(case, "wall time", "s", [[answer[case][0]] for answer in rounds]))
        series.append(Series.of(case, "CPU work", "s", [[answer[case][1]] for answer in rounds]))
    compiled = [line.strip() for line in rounds[-1][COLD_CACHE][2].splitlines() if "compiling" in line]
    return session.result(series, METHOD, [f"a cold start prints: {line}" for line in compiled])
