"""The driver of an archive: it hands out jobs, a bounded number at a time, and keeps the outcome of every video."""

from __future__ import annotations

import unicodedata
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from cliprl.engines import CliprlError
from cliprl.pipeline.archive.jobs import FileState, JobReply, VideoJob, file_state
from cliprl.pipeline.archive.journal import Journal
from cliprl.pipeline.archive.local_pool import signal_name
from cliprl.pipeline.sinks.partial_names import longest_name

# Attempts at a video whose process dies: by SIGKILL, which comes from outside or for want of memory, and otherwise.
KILLED_ATTEMPTS, CRASHED_ATTEMPTS = 6, 2
_SIGKILL = 9
_POLL_SECONDS = 0.5


class WorkerPool(Protocol):
    """Runs jobs somewhere, at most `workers` at a time."""

    @property
    def workers(self) -> int:
        """Number of jobs that run at a time."""

    @property
    def room(self) -> int:
        """Number of jobs that can be submitted now."""

    def submit(self, job: VideoJob) -> None:
        """Begin a job."""

    def wait(self, timeout: float) -> list[tuple[VideoJob, JobReply]]:
        """Wait for replies for at most `timeout` seconds, and return those that have come."""

    def close(self) -> None:
        """End all jobs at once."""


@dataclass(frozen=True, slots=True)
class VideoOutcome:
    """The outcome of a video of the folder. `first`: the video of the same content, under whose name the outputs are.

    `record` is None if the file could not be read.
    """

    video: str
    record: Mapping[str, Any] | None
    reason: str = ""
    first: str = ""
    is_new: bool = True

    @property
    def good(self) -> bool:
        """Whether the outputs of the video are complete."""
        return self.record is not None and self.record["status"] == "done"


OnOutcome = Callable[[VideoOutcome], None]


class ArchiveDriver:
    """Brings every video of a folder to an outcome. Contents that `journal` knows are not processed again."""

    def __init__(self, folder: Path, videos: Mapping[str, int], journal: Journal, on_outcome: OnOutcome) -> None:
        self._folder, self._journal, self._on_outcome = folder, journal, on_outcome
        self.outcomes: dict[str, VideoOutcome] = {}
        self.records: dict[str, Mapping[str, Any]] = {}
        self._states: dict[FileState, str] = {}
        # The content of each folder of outputs, and all folders around these.
        self._places: dict[str, str] = {}
        self._parents: set[str] = set()
        self._waiting: dict[str, list[str]] = {}
        self._pending = deque(VideoJob(str(folder / video), video) for video in videos)
        self._stopped = False

    def load(self, *, retry: bool) -> None:
        """Read the records of earlier runs. With `retry`, videos that failed are processed again."""
        for record in self._journal.records():
            self._take(record["folder"], record["content"])
            done = record["status"] == "done" and self._journal.is_complete(record)
            if done or (record["status"] == "failed" and record["permanent"] and not retry):
                self.records[record["content"]] = record
                self._states[tuple(record["state"])] = record["content"]
        self._pending = deque(job for job in self._pending if not self._settle_known(job))

    def _settle_known(self, job: VideoJob) -> bool:
        try:
            content = self._states.get(file_state(job.source))
        except OSError:
            return False
        if content is None:
            return False
        self._settle(job.video, self.records[content], is_new=False)
        return True

    @property
    def waiting(self) -> bool:
        """Whether videos are left to process."""
        return bool(self._pending)

    def stop(self) -> None:
        """Begin no more jobs, and end `run`. May be called from a signal handler."""
        self._stopped = True

    def run(self, pool: WorkerPool) -> None:
        """Process all videos, or those until `stop`. Raises CliprlError if no video can be processed."""
        running = 0
        while (self._pending or running) and not self._stopped:
            while self._pending and pool.room > 0 and not self._stopped:
                pool.submit(self._pending.popleft())
                running += 1
            for job, reply in pool.wait(_POLL_SECONDS):
                running -= 1
                self._receive(job, reply)

    def _receive(self, job: VideoJob, reply: JobReply) -> None:
        if reply.kind == "stopped":
            raise CliprlError(f"{reply.reason}. Then run the same command again: finished videos are kept")
        if reply.kind == "crashed":
            self._retry(job, reply)
        elif reply.kind == "hashed":
            self._identify(replace(job, content=reply.content, state=reply.state, attempts=0))
        elif reply.record is not None:
            self._finish(job, reply.record)
        else:
            self._fail(job, reply.reason, permanent=reply.permanent)

    def _retry(self, job: VideoJob, reply: JobReply) -> None:
        job, killed = replace(job, attempts=job.attempts + 1), reply.signal in (0, _SIGKILL)
        if job.attempts < (KILLED_ATTEMPTS if killed else CRASHED_ATTEMPTS):
            self._pending.appendleft(job)
            return
        cause = f"by {signal_name(reply.signal)}" if reply.signal else f"({reply.reason})"
        self._fail(job, f"its worker process ended {job.attempts} times {cause}", permanent=False)

    def _identify(self, job: VideoJob) -> None:
        """Run the video of a new content next; settle or put off one whose content is known or is being processed."""
        if job.content in self.records:
            self._settle(job.video, self.records[job.content], is_new=False)
        elif job.content in self._waiting:
            self._waiting[job.content].append(job.video)
        else:
            self._waiting[job.content] = []
            self._pending.appendleft(replace(job, folder=self._place(job)))

    def _place(self, job: VideoJob) -> str:
        """The folder of a video's outputs: named like the video, with a hash if outputs of another content are in the way.

        No folder is inside another one: a video may be where an earlier run found a folder of videos, or the reverse.
        """
        path, folder = Path("videos", job.video), Path()
        for part in path.parent.parts:
            folder = folder / part
            if _key(folder) in self._places:
                folder = self._with_hash(folder, job.content)
        folder = folder / path.name
        if self._places.get(_key(folder), job.content) != job.content or _key(folder) in self._parents:
            folder = self._with_hash(folder, job.content)
        self._take(str(folder), job.content)
        return str(folder)

    def _with_hash(self, folder: Path, content: str) -> Path:
        short = f"~{content[:12]}"
        room = longest_name(self._journal.videos) - len(short)
        name = folder.name.encode("utf-8", "surrogateescape")[:room].decode("utf-8", "ignore")
        return folder.with_name(f"{name}{short}")

    def _take(self, folder: str, content: str) -> None:
        self._places[_key(folder)] = content
        self._parents.update(map(_key, Path(folder).parents))

    def _fail(self, job: VideoJob, reason: str, *, permanent: bool) -> None:
        reason = reason.removeprefix(job.source).lstrip(": ")
        if not job.content:
            self._note(VideoOutcome(job.video, None, reason))
            return
        record = {
            "status": "failed",
            "content": job.content,
            "video": job.video,
            "folder": job.folder,
            "state": job.state,
            "reason": reason,
            "permanent": permanent,
        }
        self._journal.write_record(record)
        self._finish(job, record)

    def _finish(self, job: VideoJob, record: Mapping[str, Any]) -> None:
        self.records[job.content] = record
        for number, video in enumerate([job.video, *self._waiting.pop(job.content, [])]):
            self._settle(video, record, is_new=number == 0)

    def _settle(self, video: str, record: Mapping[str, Any], *, is_new: bool) -> None:
        first = record["video"] if record["video"] != video else ""
        self._note(VideoOutcome(video, record, record.get("reason", ""), first, is_new))

    def _note(self, outcome: VideoOutcome) -> None:
        self.outcomes[outcome.video] = outcome
        self._on_outcome(outcome)


def _key(folder: str | Path) -> str:
    """Return a folder's name as file systems that ignore case, or compose letters, compare it."""
    return unicodedata.normalize("NFC", str(folder)).casefold()
