"""Worker processes on this machine, each with one job at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import wait
from typing import IO, Any

from cliprl.pipeline.archive.jobs import JobReply, VideoJob
from cliprl.pipeline.archive.local_worker import READY
from cliprl.pipeline.archive.worker import WorkerSetup

# Not run by `-m`: the module would be `__main__` there. -P: the current folder holds no modules.
_PROGRAM = "from cliprl.pipeline.archive.local_worker import main; main()"
# A worker process is replaced after this many jobs, so that no library's growth adds up.
_JOBS = 200


class LocalWorker:
    """One worker process. `device` is "cpu", or "cuda:N" for the GPU N of this machine."""

    def __init__(self, setup: WorkerSetup, device: str, lock: int) -> None:
        kind, _, gpu = device.partition(":")
        environment = os.environ | ({"CUDA_VISIBLE_DEVICES": visible_gpu(int(gpu))} if gpu else {})
        # In memory: where only the folder of the results can be written there is no place for temporary files.
        self._errors: IO[bytes] = os.fdopen(os.memfd_create("cliprl-errors"), "w+b")
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _PROGRAM, str(os.getpid()), kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            pass_fds=(lock,),
            env=environment,
            bufsize=0,  # a line that waits in a buffer here would not wake `wait`
            start_new_session=True,  # signals of the terminal are for the driver
        )
        self._jobs, self._ready = 0, False
        self.job: VideoJob | None = None
        self._send(setup.to_json())

    @property
    def replies(self) -> Any:
        """The pipe that has data when a reply has come, or the process has ended."""
        return self._process.stdout

    @property
    def is_worn(self) -> bool:
        """Whether the process has done its share of jobs."""
        return self._jobs >= _JOBS

    def send(self, job: VideoJob) -> None:
        """Begin a job. If the process has died, the next reply has the reason."""
        self.job = job
        self._jobs += 1
        self._send(job.to_json())

    def _send(self, line: str) -> None:
        with suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.write(line.encode() + b"\n")

    def receive(self) -> JobReply | None:
        """Return the reply that has come. None: the process has started, and goes on."""
        line = self.replies.readline()
        if line == READY:
            self._ready = True
            return None
        if line.endswith(b"\n"):
            return JobReply.from_json(line)
        code = self._process.wait()
        if code >= 0 and not self._ready:
            return JobReply("stopped", reason=f"the worker process does not start: {self._last_error()}")
        return JobReply("crashed", signal=max(-code, 0), reason=self._last_error())

    def _last_error(self) -> str:
        self._errors.seek(max(self._errors.seek(0, os.SEEK_END) - 2000, 0))
        lines = self._errors.read().decode("utf-8", "replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "no message")

    def close(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.wait()
        for file in (self._process.stdin, self._process.stdout, self._errors):
            with suppress(OSError):
                if file is not None:
                    file.close()


class LocalPool:
    """Worker processes for `devices`, one for each; they are started when there is work. For one thread."""

    def __init__(self, setup: WorkerSetup, devices: Sequence[str], lock: int) -> None:
        """lock: the open lock file of the archive, which the processes hold with the driver."""
        self._setup, self._lock = setup, lock
        self._idle: list[tuple[str, LocalWorker | None]] = [(device, None) for device in reversed(devices)]
        self._busy: dict[Any, tuple[str, LocalWorker]] = {}
        self.workers = len(devices)

    @property
    def room(self) -> int:
        """Number of jobs that can be submitted now."""
        return len(self._idle)

    def submit(self, job: VideoJob) -> None:
        """Begin a job on an idle worker."""
        device, worker = self._idle.pop()
        if worker is None:
            worker = LocalWorker(self._setup, device, self._lock)
        worker.send(job)
        self._busy[worker.replies] = device, worker

    def wait(self, timeout: float) -> list[tuple[VideoJob, JobReply]]:
        """Wait for replies for at most `timeout` seconds, and return those that have come."""
        found = []
        for pipe in wait(list(self._busy), timeout):
            device, worker = self._busy[pipe]
            reply, job = worker.receive(), worker.job
            if reply is None or job is None:
                continue
            del self._busy[pipe]
            if reply.kind == "crashed" or worker.is_worn:
                worker.close()
                self._idle.append((device, None))
            else:
                self._idle.append((device, worker))
            found.append((job, reply))
        return found

    def close(self) -> None:
        """Kill all workers."""
        for _, worker in [*self._busy.values(), *self._idle]:
            if worker is not None:
                worker.close()
        self._busy, self._idle = {}, []


def visible_gpu(number: int) -> str:
    """Return the value of CUDA_VISIBLE_DEVICES for the GPU `number` of those that are visible now."""
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return named[number] if number < len(named) else str(number)


def signal_name(number: int) -> str:
    """Return the name of a signal, such as SIGKILL."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
