"""`cliprl-bench archive`: an archive of short clips while its workers and its driver are killed.

Every clip is also run alone by `cliprl-stream`. A clip that succeeds alone must be done once, with the same outputs and the
same events in the table; one that fails alone must be listed with its reason.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from cliprl.bench.fixtures.archive_inputs import make_clips
from cliprl.bench.fixtures.archive_kills import KilledRun, SingleRun, run_killed, same_output, single_run
from cliprl.bench.harness.registry import measurement
from cliprl.bench.harness.result import Result, Series
from cliprl.bench.harness.result_session import ResultSession
from cliprl.bench.harness.timing import BenchJob, LogFunction
from cliprl.pipeline.archive.jobs import content_hash
from cliprl.pipeline.archive.table import TABLE

OUTPUTS = ("events.jsonl", "report.html", "labels.coco.json", "overlay.mp4")
_KINDS = "events,report,coco,overlay"
_CASE = "killed archive"
METHOD = {
    "includes": "cliprl-archive on a folder of short clips: good, huge, damaged, empty, without video, copies; SIGKILL to a "
    "worker, every third time to the driver, which is started again",
    "same": "outputs byte for byte as those of cliprl-stream; videos frame by frame, without the status line, whose time differs "
    "from run to run, as the latencies in the events do",
}


@dataclass(slots=True)
class ArchiveCheck:
    """Faults of an archive, by kind; all are empty if it is right."""

    good: int = 0
    bad: int = 0
    different: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)
    wrong_rows: list[str] = field(default_factory=list)
    leftovers: int = 0

    def faults(self) -> list[str]:
        """Describe each kind of fault that was found."""
        found = {
            "outputs differ": self.different,
            "not done": self.missing,
            "failed without a reason": self.unlisted,
            "rows of the table": self.wrong_rows,
        }
        lines = [f"{name}: {', '.join(videos)}" for name, videos in found.items() if videos]
        return [*lines, f"{self.leftovers} files left behind"] if self.leftovers else lines


def check_archive(
    folder: Path, out: Path, alone: Path, words: list[str], log: LogFunction, single: SingleRun = single_run
) -> ArchiveCheck:
    """Compare the archive `out` of `folder` with single runs, which are written to `alone`."""
    check, contents, rows = ArchiveCheck(), dict[str, str](), Counter[str]()
    records = {path.stem: json.loads(path.read_bytes()) for path in (out / ".archive" / "records").glob("*.json")}
    page = (out / "index.html").read_text(encoding="utf-8")
    for source in sorted(folder.iterdir()):
        log(f"{source.name} alone")
        record = records.get(content_hash(str(source)), {})
        if single(str(source), alone / source.name, OUTPUTS, words):
            check.bad += 1
            if not (record.get("status") == "failed" and record["reason"] and source.name in page):
                check.unlisted.append(source.name)
            continue
        check.good += 1
        if record.get("status") != "done":
            check.missing.append(source.name)
            continue
        made = out / record["folder"]
        if record["video"] == source.name and not all(same_output(alone / source.name / n, made / n) for n in OUTPUTS):
            check.different.append(source.name)
        contents[record["content"]] = source.name
        rows[record["content"]] = record["frames"]
    found = _frame_rows(out / TABLE)
    check.wrong_rows = [contents.get(key, key) for key in rows.keys() | found.keys() if rows[key] != found[key]]
    check.leftovers = len(list((out / ".archive" / "work").iterdir()))
    return check


def _frame_rows(table: Path) -> Counter[str]:
    """Count the frames of each content in the table."""
    columns: Any = import_module("pyarrow.parquet").read_table(table, columns=["content", "kind"]).to_pydict()
    pairs = zip(columns["content"], columns["kind"], strict=True)
    return Counter(content for content, kind in pairs if kind == "frame")


@measurement(
    "archive",
    help="An archive of short clips whose worker processes and driver are killed: each clip is done once, as by a single run.",
    defaults=BenchJob("", rounds=1, seconds=0, warm_up=0),
    settings=("bundle",),
    clip=False,
)
def measure(
    session: ResultSession,
    job: BenchJob,
    log: LogFunction,
    clips: Annotated[int, typer.Option(min=8, help="Number of files.")] = 100,
    kills: Annotated[int, typer.Option(min=0, help="Number of SIGKILLs.")] = 20,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes.")] = 2,
    seed: Annotated[int, typer.Option(help="Of the moments of the kills.")] = 1,
) -> Result:
    """Make the clips, run and kill, and check every output."""
    folder, out = session.folder / "clips", session.folder / "results"
    make_clips(folder, clips)
    contents = len({content_hash(str(path)) for path in folder.iterdir()})
    settings = ["--bundle", job.bundle, "--steps", "0", "--threads", "1", "--no-status"]
    words = [str(folder), "--outputs", _KINDS, "--workers", str(workers), *settings]
    run = run_killed(words, out, contents, kills, seed, log)
    check = check_archive(folder, out, session.folder / "alone", settings, log)
    return session.result(_series(run, check), METHOD, [verdict_of(run, check)])


def _series(run: KilledRun, check: ArchiveCheck) -> list[Series]:
    counts = {
        "workers killed": run.workers_killed,
        "drivers killed": run.drivers_killed,
        "good clips": check.good,
        "bad clips": check.bad,
        "done twice": len(run.redone),
        "not done": len(check.missing),
        "outputs that differ": len(check.different),
        "bad without a reason": len(check.unlisted),
        "wrong rows of the table": len(check.wrong_rows),
        "workers that outlive the driver": run.orphans,
    }
    return [Series.of(_CASE, name, "1", [[value]]) for name, value in counts.items()]


def verdict_of(run: KilledRun, check: ArchiveCheck) -> str:
    """Describe the outcome in a sentence."""
    faults = check.faults()
    faults += [f"done twice: {', '.join(run.redone)}"] if run.redone else []
    faults += [f"{run.orphans} workers outlived their driver"] if run.orphans else []
    kills = f"{run.workers_killed} kills of workers and {run.drivers_killed} of the driver"
    if faults:
        return f"FAULT after {kills}: {'; '.join(faults)}"
    return f"after {kills} each of {check.good} good clips is done once, as alone; {check.bad} bad ones are listed with reasons"
