"""Perform a job of an archive. Both the local worker processes and the tasks on a cluster call `perform`."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from cliprl.engines import BundleError, CliprlError, EngineError, open_bundle
from cliprl.engines.errors import line_of
from cliprl.pipeline.archive.jobs import JobReply, VideoJob, content_hash, file_state
from cliprl.pipeline.archive.journal import Journal
from cliprl.pipeline.archive.settings import EVENTS, ArchiveSettings
from cliprl.pipeline.archive.table import has_parquet, read_totals, write_part
from cliprl.pipeline.cli.run import run
from cliprl.pipeline.devices.device import device_opener

# Errors of the place of the results: they are no fault of a video, and end the run.
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@dataclass(frozen=True, slots=True)
class WorkerSetup:
    """What all jobs of a run share. bundle: name or path as given. threads: CPU threads of the networks of one worker."""

    out: str
    bundle: str
    threads: int
    settings: ArchiveSettings

    def to_json(self) -> str:
        """Return the setup as one line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read what `to_json` returned."""
        data = json.loads(text)
        return cls(**data | {"settings": ArchiveSettings.from_json(data["settings"])})


def perform(setup: WorkerSetup, job: VideoJob, device: str) -> JobReply:
    """Hash or run a video. Every failure of the video is a reply."""
    try:
        if not job.content:
            state = file_state(job.source)
            return JobReply("hashed", content_hash(job.source), state)
        if problem := _problem(setup.bundle, device):
            return JobReply("stopped", reason=problem)
        return _run(setup, job, device)
    except (BundleError, EngineError) as error:
        return JobReply("stopped", reason=line_of(error))
    except (KeyboardInterrupt, SystemExit) as error:
        return JobReply("crashed", reason=f"ended by {type(error).__name__} {error}".rstrip())
    except MemoryError:
        return JobReply("failed", reason="too little memory: give fewer --workers, or more memory")
    except Exception as error:
        return _failure(setup, job, error)


@lru_cache
def _problem(bundle: str, device: str) -> str:
    """Return why no video can be processed here with this bundle on this device; "" if there is no reason."""
    try:
        open_bundle(bundle)
        device_opener(device)
    except CliprlError as error:
        return f"on {socket.gethostname()}: {line_of(error)}"
    return ""


def _failure(setup: WorkerSetup, job: VideoJob, error: Exception) -> JobReply:
    """Return the reply for an error: of the place of the results, of the system, or of the video, which is permanent."""
    of_system = [cause for cause in _causes(error) if isinstance(cause, OSError)]
    if full := [cause for cause in of_system if cause.errno in NO_SPACE]:
        return JobReply("stopped", reason=f"can't write to '{setup.out}' ({full[0].strerror}): free some space")
    if isinstance(error, CliprlError):
        return JobReply("failed", reason=line_of(error), permanent=not of_system)
    if isinstance(error, OSError) and error.filename == job.source:
        return JobReply("failed", reason=f"can't be read ({error.strerror}): check its permissions and its disk")
    return JobReply("failed", reason=f"unexpected {type(error).__name__}: {line_of(error)}")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _run(setup: WorkerSetup, job: VideoJob, device: str) -> JobReply:
    journal = Journal(Path(setup.out))
    work = journal.new_folder()
    try:
        made = work / "outputs"
        made.mkdir()
        summary = _stream(setup, job, made, device)
        if file_state(job.source) != job.state:
            return JobReply("failed", reason="the file changed while it was read: run the same command again")
        record = _record(setup, job, summary, made, device)
        if has_parquet():
            write_part(made / EVENTS, work / "part", job.video, job.content)
            (work / "part").replace(journal.part(job.content))
        elif EVENTS not in record["outputs"]:
            record["outputs"].append(EVENTS)  # the table is made of it later
        if EVENTS not in record["outputs"]:
            (made / EVENTS).unlink()
        journal.publish(made, job.folder)
        journal.write_record(record)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return JobReply("done", job.content, record=record)


def _stream(setup: WorkerSetup, job: VideoJob, made: Path, device: str) -> dict[str, Any]:
    """Run the video as `cliprl-stream` does, and return the summary that it prints with --json."""
    options = setup.settings.stream_options(setup.bundle, job.source, made, device, setup.threads)
    printed = io.StringIO()
    with redirect_stdout(printed):
        status = run(options, json_output=True, quiet=True, verbose=False, note_outputs=False)
    if status:
        raise SystemExit(status)
    summary: dict[str, Any] = json.loads(printed.getvalue())
    return summary


def _record(setup: WorkerSetup, job: VideoJob, summary: Mapping[str, Any], made: Path, device: str) -> dict[str, Any]:
    return {
        "status": "done",
        "content": job.content,
        "video": job.video,
        "folder": job.folder,
        "state": job.state,
        "outputs": [name for name in setup.settings.outputs if (made / name).exists()],
        **asdict(read_totals(made / EVENTS)),
        "damaged": summary["damaged"],
        "run_seconds": summary["seconds"],
        "notes": [note.replace(f"{made}{os.sep}", "") for note in summary["notes"]],
        "device": device,
        "attempts": job.attempts + 1,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": version("cliprl"),
    }
