"""Jobs as tasks on a Ray cluster. Ray is loaded when a pool is made.

Every node needs this package, and the folders of the videos and of the results under the same paths.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from cliprl.engines import CliprlError, UsageError, reason_of
from cliprl.pipeline.archive.jobs import JobReply, VideoJob
from cliprl.pipeline.archive.worker import WorkerSetup, perform

# CPUs that a task reserves, on nodes that have as many: decoding and drawing run beside the networks.
TASK_CPUS = 2
_CONNECT_SECONDS = 5.0
# Seconds between two looks at the resources of the cluster, which may grow.
_LOOK_SECONDS = 2.0
_CRASHES = ("WorkerCrashedError", "NodeDiedError", "OutOfMemoryError", "WorkerDiedError", "LocalRayletDiedError")


def perform_task(setup: str, job: str, device: str) -> str:
    """Perform a job in a process of a node."""
    where = f"on the node {socket.gethostname()}"
    parsed, one = WorkerSetup.from_json(setup), VideoJob.from_json(job)
    if not os.path.isdir(parsed.out):
        return JobReply("stopped", reason=f"'{parsed.out}' does not exist {where}: mount it there").to_json()
    if not os.path.exists(os.path.dirname(one.source)):
        reason = f"'{os.path.dirname(one.source)}' does not exist {where}: mount it there"
        return JobReply("stopped", reason=reason).to_json()
    return perform(parsed, one, device).to_json()


class RayPool:
    """Tasks on the cluster at `address`, as many at a time as it has CPUs and GPUs for, within `workers` and `gpu_workers`."""

    def __init__(self, address: str, setup: WorkerSetup, workers: int | None, gpu_workers: int) -> None:
        """Connect, after `check_ray`. Raises CliprlError if the cluster is not reached, or has no CPU."""
        self._ray = _connect(address)
        self._setup, self._limits = setup.to_json(), {"cpu": workers, "cuda": gpu_workers}
        self._busy: dict[Any, tuple[str, VideoJob]] = {}
        self._cpus = min([TASK_CPUS, *(c for c in map(_cpus_of, self._ray.nodes()) if c)])
        self._task = self._ray.remote(perform_task)
        self._looked, self._most = -_LOOK_SECONDS, {"cpu": 0, "cuda": 0}
        if not self.workers:
            self._ray.shutdown()
            raise CliprlError(
                f"the Ray cluster at '{address}' has no CPU or GPU for this run: add a node, or give more --workers"
            )

    @property
    def workers(self) -> int:
        """Number of tasks that run at a time."""
        return sum(self._slots().values())

    @property
    def room(self) -> int:
        """Number of jobs that can be submitted now."""
        return sum(max(self._free(device), 0) for device in ("cpu", "cuda"))

    def _slots(self) -> dict[str, int]:
        if time.monotonic() - self._looked >= _LOOK_SECONDS:
            found, self._looked = self._ray.cluster_resources(), time.monotonic()
            self._most = {"cpu": int(found.get("CPU", 0) // self._cpus), "cuda": int(found.get("GPU", 0))}
        most = self._most
        return {
            device: most[device] if (n := self._limits[device]) is None else min(most[device], n) for device in most
        }

    def _free(self, device: str) -> int:
        return self._slots()[device] - sum(used == device for used, _ in self._busy.values())

    def submit(self, job: VideoJob) -> None:
        """Begin a job, on a GPU if one is free."""
        device = "cuda" if self._free("cuda") > 0 else "cpu"
        needs: dict[str, Any] = {"num_gpus": 1, "num_cpus": 1} if device == "cuda" else {"num_cpus": self._cpus}
        task = self._task.options(**needs, max_retries=0)
        self._busy[task.remote(self._setup, job.to_json(), device)] = device, job

    def wait(self, timeout: float) -> list[tuple[VideoJob, JobReply]]:
        """Wait for replies for at most `timeout` seconds, and return those that have come."""
        if not self._busy:
            time.sleep(timeout)
            return []
        ready, _ = self._ray.wait(list(self._busy), num_returns=1, timeout=timeout)
        return [(self._busy.pop(reference)[1], self._reply(reference)) for reference in ready]

    def _reply(self, reference: Any) -> JobReply:
        try:
            return JobReply.from_json(self._ray.get(reference))
        except Exception as error:
            if type(error).__name__ in _CRASHES:
                return JobReply("crashed", reason=type(error).__name__)
            cause = getattr(error, "cause", None) or error
            if isinstance(cause, ImportError):
                reason = f"a node can't load this package ({reason_of(cause)}): install the same version of cliprl on all nodes"
                return JobReply("stopped", reason=reason)
            return JobReply("stopped", reason=f"the cluster failed: {reason_of(error, -1)}")

    def close(self) -> None:
        """Cancel what runs, and leave the cluster."""
        for reference in self._busy:
            self._ray.cancel(reference, force=True)
        self._busy = {}
        self._ray.shutdown()


def check_ray(address: str) -> None:
    """Check that Ray is installed and that something listens at the address, for which Ray itself waits long.

    Raises UsageError without Ray and for a wrong address, CliprlError if there is no answer.
    """
    if find_spec("ray") is None:
        raise UsageError("--ray needs Ray, which is not installed: pip install 'cliprl[archive]', or leave --ray out")
    if address != "auto":
        _check_address(address)


def _connect(address: str) -> Any:
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray = import_module("ray")
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
    except Exception as error:
        raise CliprlError(
            f"can't join the Ray cluster at '{address}' ({reason_of(error)}): start it with 'ray start --head', run this command "
            "on one of its nodes, or give ray://HOST:10001"
        ) from error
    return ray


def _check_address(address: str) -> None:
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not (colon and host and port.isdigit() and 0 < int(port) < 65536):
        raise UsageError(f"'{address}' is no address of a Ray cluster: give HOST:PORT, ray://HOST:PORT or auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
    except OSError as error:
        reason = error.strerror or "no answer"
        raise CliprlError(
            f"no Ray cluster answers at '{address}' ({reason}): start one with 'ray start --head', or correct the address"
        ) from None


def _cpus_of(node: Any) -> int:
    return int(node["Resources"].get("CPU", 0)) if node["Alive"] else 0
