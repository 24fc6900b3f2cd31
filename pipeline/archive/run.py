"""The run of `cliprl-archive` after its command line is parsed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from cliprl.engines import CliprlError, UsageError, available_cpus
from cliprl.engines.cli.console import error_console
from cliprl.engines.cli.signals import stopping_on_signals
from cliprl.pipeline.archive.driver import ArchiveDriver, WorkerPool
from cliprl.pipeline.archive.jobs import Listing, find_videos
from cliprl.pipeline.archive.journal import Journal
from cliprl.pipeline.archive.local_pool import LocalPool
from cliprl.pipeline.archive.progress import ArchiveProgress
from cliprl.pipeline.archive.ray_pool import RayPool, check_ray
from cliprl.pipeline.archive.settings import EVENTS, ArchiveSettings
from cliprl.pipeline.archive.summary import PAGE, ArchiveSummary, summary_page
from cliprl.pipeline.archive.table import NO_PARQUET, TABLE, has_parquet, merge_parts, part_is_whole, write_part
from cliprl.pipeline.archive.worker import NO_SPACE, WorkerSetup
from cliprl.pipeline.cli.outputs import writes_frames
from cliprl.pipeline.devices.device import device_opener
from cliprl.pipeline.sinks.json_text import json_text

# Exit status of a run after which some videos have no outputs.
SOME_FAILED = 3
# Cores for each worker process: decoding and drawing run beside the networks.
_CORES = 2


@dataclass(frozen=True, slots=True)
class ArchiveOptions:
    """The options of one run that do not determine its outputs. The help of the command describes each."""

    folder: Path
    out: Path
    bundle: str
    workers: int | None = None
    gpu_workers: int = 0
    threads: int = 0
    ray: str | None = None
    retry: bool = False


def run_archive(options: ArchiveOptions, settings: ArchiveSettings, *, json_output: bool, quiet: bool) -> int:
    """Process a folder. Returns the exit status: 0, 3 if videos failed, or 128 + the number of the signal that ended it."""
    console = error_console(quiet=quiet)
    _check(options, settings)
    listing, settings = find_videos(options.folder), settings.checked()
    with closing(Journal(options.out)) as journal, ArchiveProgress(console, listing.videos) as progress:
        journal.open(settings)
        if not has_parquet():
            progress.note(NO_PARQUET)
        driver = ArchiveDriver(_source_folder(options), listing.videos, journal, progress.add)
        with stopping_on_signals(driver.stop) as received:
            driver.load(retry=options.retry)
            try:
                _process(options, settings, journal, driver)
            finally:
                summary = _finish(options, listing, journal, driver)
    _print(console, options, summary, json_output)
    if received:
        return 128 + received[0]
    return SOME_FAILED if summary.failed else 0


def _check(options: ArchiveOptions, settings: ArchiveSettings) -> None:
    """Refuse options that exclude each other."""
    folder, out = (Path(os.path.realpath(path)) for path in (options.folder, options.out))
    for inner, outer in ((out, folder), (folder, out)):
        if inner.is_relative_to(outer):
            raise UsageError(
                f"the results '{options.out}' and the videos '{options.folder}' lie in each other: choose a place outside with -o"
            )
    if options.workers == 0 and not options.gpu_workers:
        raise UsageError("--workers 0 leaves nothing to run on: give 1 or more, or --gpu-workers")
    if options.gpu_workers and settings.ids:
        raise UsageError("--ids works on the CPU: leave out --gpu-workers")
    if options.gpu_workers and (frames := writes_frames(settings.outputs)):
        raise UsageError(f"'{frames}' holds the frames themselves, which only a CPU writes: leave out --gpu-workers")
    if options.gpu_workers and options.ray is None:
        device_opener("cuda")
    if options.ray is not None:
        check_ray(options.ray)


def _source_folder(options: ArchiveOptions) -> Path:
    """The folder as the workers open it: on a cluster their current folder is another."""
    return options.folder.absolute() if options.ray else options.folder


def _process(options: ArchiveOptions, settings: ArchiveSettings, journal: Journal, driver: ArchiveDriver) -> None:
    """Process what is left, if anything is."""
    if not driver.waiting:
        return
    try:
        with ExitStack() as opened:
            pool = _pool(options, settings, journal)
            opened.callback(pool.close)
            driver.run(pool)
    except OSError as error:
        # Another file, or a limit of the system, is named by its own error.
        if error.errno not in NO_SPACE and not _is_in(options.out, error.filename):
            raise
        raise _unwritable(options, error) from error


def _is_in(folder: Path, name: Any) -> bool:
    return name is not None and Path(os.fsdecode(name)).absolute().is_relative_to(folder.absolute())


def _pool(options: ArchiveOptions, settings: ArchiveSettings, journal: Journal) -> WorkerPool:
    out = str(options.out.absolute())
    bundle = str(Path(options.bundle).absolute()) if Path(options.bundle).is_dir() else options.bundle
    if options.ray is not None:
        setup = WorkerSetup(out, bundle, options.threads or 1, settings)
        return RayPool(options.ray, setup, options.workers, options.gpu_workers)
    workers = max(available_cpus() // _CORES, 1) if options.workers is None else options.workers
    threads = options.threads or max(available_cpus() // (_CORES * max(workers, 1)), 1)
    devices = [*["cpu"] * workers, *(f"cuda:{number}" for number in range(options.gpu_workers))]
    return LocalPool(WorkerSetup(out, bundle, threads, settings), devices, journal.lock)


def _finish(options: ArchiveOptions, listing: Listing, journal: Journal, driver: ArchiveDriver) -> ArchiveSummary:
    """Write the table and the page of everything that is done. Raises CliprlError if they can't be written."""
    try:
        done = sorted(
            (r for r in driver.records.values() if r["status"] == "done"), key=lambda r: (r["video"], r["content"])
        )
        rows = _write_table(journal, done)
        here = {id(one.record) for one in driver.outcomes.values()}
        gone = [] if driver.waiting else [record for record in done if id(record) not in here]
        outcomes = [driver.outcomes[video] for video in listing.videos if video in driver.outcomes]
        summary = ArchiveSummary(options.folder, len(listing.videos), outcomes, gone, listing.others, rows)
        journal.write_text(PAGE, summary_page(summary))
        journal.clean()
    except OSError as error:
        raise _unwritable(options, error) from error
    return summary


def _unwritable(options: ArchiveOptions, error: OSError) -> CliprlError:
    return CliprlError(
        f"can't write to '{options.out}' ({error.strerror}): free some space, and run the same command again"
    )


def _write_table(journal: Journal, records: list[Mapping[str, Any]]) -> int | None:
    """Write the table of all `records`; a missing part is made of its events file. Returns the rows, None without PyArrow."""
    if not has_parquet():
        return None
    folder = journal.new_folder()
    for record in records:
        part = journal.part(record["content"])
        if not part_is_whole(part) and EVENTS in record["outputs"]:
            write_part(journal.out / record["folder"] / EVENTS, folder / "part", record["video"], record["content"])
            (folder / "part").replace(part)
    rows = merge_parts((journal.part(record["content"]) for record in records), folder / TABLE)
    (folder / TABLE).replace(journal.out / TABLE)
    folder.rmdir()
    return rows


def _print(console: Console, options: ArchiveOptions, summary: ArchiveSummary, json_output: bool) -> None:
    if json_output:
        print(json_text(summary.to_json()), flush=True)
    else:
        console.print(f"{summary.text()}: {options.out / PAGE}", markup=False, highlight=False, soft_wrap=True)
