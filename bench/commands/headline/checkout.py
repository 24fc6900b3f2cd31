"""Another checkout of this project as a contender: its speed and CPU work, and the labels that it gives."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cliprl.bench.harness.timing import BenchJob, Runner, TaskOutcome
from cliprl.engines import CliprlError, UsageError
from cliprl.engines.bundle.confidence import CONFIDENCE_FILE
from cliprl.engines.bundle.manifest import MANIFEST, sealed_text

NAME = "baseline"
ROOMS = ("engines", "pipeline", "models", "bench")


def check_checkout(folder: Path) -> Path:
    """The folder, if it is a checkout. Raises UsageError otherwise."""
    if absent := [room for room in ROOMS if not (folder / room / "__init__.py").is_file()]:
        raise UsageError(
            f"{folder} is no checkout: it lacks {', '.join(absent)}; make one with git worktree add FOLDER COMMIT"
        )
    return folder


def commit_of(folder: Path) -> str:
    """The commit of a checkout, "unknown" without git."""
    done = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=folder, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else "unknown"


class CheckoutProcess:
    """A process that streams a job's clip with the code of a checkout, or of this one (None).

    `task` is the function of `checkout_process` that it runs.
    """

    def __init__(self, folder: Path | None, job: BenchJob, task: str = "stream_clip") -> None:
        self._links = tempfile.TemporaryDirectory(prefix="cliprl-bench-")
        paths = [os.environ.get("PYTHONPATH", "")]
        if folder is not None:
            package = Path(self._links.name) / "cliprl"
            package.mkdir()
            for room in ROOMS:
                (package / room).symlink_to(folder.resolve() / room)
            paths.insert(0, self._links.name)
        program = Path(__file__).with_name("checkout_process.py")
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(program), json.dumps([task, job.clip, job.bundle, job.steps])],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._read()

    def run(self, out: Path | None, frames: int | None, labels: Path | None = None) -> dict[str, float]:
        """Run the program once over the first frames; return its figures by name, such as frames, seconds and CPU seconds.

        `labels` receives the labels of the frames, uint8 (N, h, w), if the program writes them. Raises CliprlError if it fails.
        """
        assert self._process.stdin is not None
        words = [None if out is None else str(out), frames, None if labels is None else str(labels)]
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()
        answer: dict[str, float] = self._read()
        return answer

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            assert self._process.stderr is not None
            error = self._process.stderr.read().strip().splitlines() or ["it ended"]
            self.close()
            raise CliprlError(f"the checkout that is measured fails: {error[-1]}")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._links.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def prepare_checkout(job: BenchJob, folder: Path) -> Runner:
    """Make a runner that streams with the code of a checkout, in a process that holds its networks."""
    process = CheckoutProcess(folder, job)

    def run(out: Path, frames: int | None) -> TaskOutcome:
        answer = process.run(out, frames)
        return TaskOutcome(int(answer["frames"]), cpu_seconds=answer["cpu"])

    return run


def bundle_for_both(folder: Path, name: str, place: Path) -> Path:
    """Copy the bundle of an earlier checkout into `place`, so that this one opens it, too.

    It has no confidence, whose form changes. A bundle that is named by its folder is copied from there.
    """
    shipped = folder / "engines" / "bundles" / name
    source = shipped if shipped.is_dir() else Path(name)
    shutil.copytree(source, place, ignore=shutil.ignore_patterns(CONFIDENCE_FILE))
    manifest = json.loads((source / MANIFEST).read_text(encoding="utf-8"))
    manifest["hashes"].pop(CONFIDENCE_FILE, None)
    (place / MANIFEST).write_text(sealed_text(manifest), encoding="utf-8")
    return place


def same_labels(folder: Path, job: BenchJob) -> list[float]:
    """The percentage of cells in each frame that have the same label in a checkout and in this one."""
    with tempfile.TemporaryDirectory() as place:
        found = []
        for number, checkout in enumerate((folder, None)):
            path = Path(place) / f"{number}.npy"
            with CheckoutProcess(checkout, job) as process:
                process.run(None, job.frames, path)
            found.append(np.load(path))
    return agreement(*found)


def agreement(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> list[float]:
    """The percentage of equal labels in each frame of two arrays (N, h, w). Raises CliprlError for different shapes."""
    if a.shape != b.shape:
        raise CliprlError(
            f"labels of shape {a.shape} and {b.shape} can't be compared: measure bundles of one input size"
        )
    return [100 * float((one == other).mean()) for one, other in zip(a, b, strict=True)]
