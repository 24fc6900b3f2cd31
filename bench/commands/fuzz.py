"""`cliprl-bench fuzz`: convert mutated video files, each in a process that may crash without harm.

A file is mutated from a seed (`cliprl.bench.fixtures.fuzz_inputs`) by a generator seeded with the run's seed and the file's
number: the same command gives the same files. A process is forked for each, with limits on its memory and its time. It
must end by itself, with exit status 0 and a readable video, or with one line that gives the reason; every other file
of its folder must stay unchanged.
"""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Annotated

import av
import typer
from rich.progress import track

from cliprl.bench.fixtures.fuzz_inputs import SEEDS, make_seed, mutate
from cliprl.bench.harness.registry import app
from cliprl.engines import CliprlError
from cliprl.engines.cli.console import error_console

# Limits of one file's process: seconds, bytes of address space.
TIME_LIMIT, MEMORY_LIMIT = 30.0, 4 << 30
# Exit status for an error that is no CliprlError; no other part of the program uses it.
UNEXPECTED = 70
GOOD = ("written", "refused")


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of one file: "written", "refused", or a fault: "crash", "hang", "traceback", "silent",
    "unreadable" (a video was reported and can't be read) or "touched" (another file changed). `detail` is its last output.
    """

    number: int
    file: str
    mutation: str
    outcome: str
    detail: str

    @property
    def good(self) -> bool:
        """Whether the file was converted, or refused with a reason."""
        return self.outcome in GOOD


def fuzz(count: int, seed: int, keep: Path | None = None) -> Iterator[Verdict]:
    """Yield the verdict on each of `count` mutated files. Files that end badly are copied into the folder `keep`, if given."""
    _load()
    with TemporaryDirectory(prefix="cliprl-fuzz-") as folder:
        seeds = _seeds(Path(folder))
        for number in range(count):
            random = Random(f"{seed}/{number}")
            kind = SEEDS[number % len(SEEDS)]
            mutation, data = mutate(seeds[number % len(SEEDS)], random)
            place = Path(folder) / str(number)
            place.mkdir()
            (place / f"in.{kind.suffix}").write_bytes(data)
            verdict = examine(number, place, f"in.{kind.suffix}", mutation)
            if keep is not None and not verdict.good:
                keep.mkdir(parents=True, exist_ok=True)
                (keep / f"{seed}-{number}-{mutation}.{kind.suffix}").write_bytes(data)
            shutil.rmtree(place)
            yield verdict


def _seeds(folder: Path) -> list[bytes]:
    """Make the seed files in another process: encoders start threads, which a process that forks must not have."""

    def make() -> int:
        for number, seed in enumerate(SEEDS):
            (folder / f"seed-{number}").write_bytes(make_seed(seed))
        return 0

    if _forked(make, folder / "log.txt") != 0:
        raise CliprlError(
            f"the seed files could not be made: {(folder / 'log.txt').read_text(errors='replace')[-300:]}"
        )
    return [(folder / f"seed-{number}").read_bytes() for number in range(len(SEEDS))]


def examine(number: int, folder: Path, name: str, mutation: str = "") -> Verdict:
    """Run the file `name` of `folder` through the pipeline into a video beside it, in a new process."""
    (folder / "bystander.mp4").write_bytes(b"a file that existed before")
    before = _hashes(folder)
    log = folder / "log.txt"
    status = _forked(lambda: _convert(folder / name, folder / "out.mp4"), log)
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.exists() else []
    detail = next((line for line in reversed(lines) if line), "")
    after = _hashes(folder)
    outcome = _outcome(status, lines)
    if any(after.get(path) != digest for path, digest in before.items()):
        outcome = "touched"
    elif outcome == "written" and not _readable(folder / "out.mp4"):
        outcome = "unreadable"
    return Verdict(number, name, mutation, outcome, detail[:300])


def _load() -> None:
    """Import the modules that every process needs before the first fork; none of them starts a thread."""
    for name in ("sinks", "sources", "stream.stream"):
        import_module(f"cliprl.pipeline.{name}")


def _convert(source: Path, output: Path) -> int:
    """Decode and encode a whole file, as `cliprl-stream` does, without a network. Returns the exit status."""
    from cliprl.pipeline.core.interfaces import OutputSpec
    from cliprl.pipeline.sinks import open_sink
    from cliprl.pipeline.sources import open_source
    from cliprl.pipeline.stream.stream import Stream

    try:
        with open_source(str(source)) as opened:
            Stream(opened, sinks=[open_sink(str(output), OutputSpec(opened.info, ()))]).run()
    except CliprlError as error:
        print(error, flush=True)
        return error.exit_status
    except BaseException:
        traceback.print_exc()
        return UNEXPECTED
    return 0


def _forked(work: Callable[[], int], log: Path) -> int | None:
    """Run `work` in a child process; return its exit status, negative for a signal, None if it exceeded the time limit."""
    child = os.fork()
    if child == 0:
        status = UNEXPECTED
        try:
            descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            status = work()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    deadline = time.monotonic() + TIME_LIMIT
    pause = 0.002
    while time.monotonic() < deadline:
        done, result = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(result)
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _outcome(status: int | None, lines: list[str]) -> str:
    if status is None:
        return "hang"
    if status < 0:
        return "crash"
    if status == UNEXPECTED or any(line.startswith("Traceback") for line in lines):
        return "traceback"
    if status == 0:
        return "written"
    return "refused" if any(lines) else "silent"


def _hashes(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.iterdir()) if path.is_file())
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _readable(path: Path) -> bool:
    """Whether a video has a frame that can be decoded."""
    with suppress(av.FFmpegError, OSError, IndexError), av.open(str(path)) as container:
        return next(container.decode(container.streams.video[0]), None) is not None
    return False


def summarize(verdicts: list[Verdict]) -> str:
    """Count the outcomes, and describe each bad one in a line."""
    counts = Counter(verdict.outcome for verdict in verdicts)
    lines = [f"{len(verdicts)} files: " + ", ".join(f"{n} {outcome}" for outcome, n in counts.most_common())]
    lines += [f"{v.number} {v.file} ({v.mutation}): {v.outcome}: {v.detail}" for v in verdicts if not v.good]
    return "\n".join(lines)


@app.command("fuzz")
def command(
    count: Annotated[int, typer.Option(min=1, help="Number of mutated files.")] = 2000,
    seed: Annotated[int, typer.Option(help="The same seed and count give the same files.")] = 1,
    keep: Annotated[Path | None, typer.Option(help="Copy the files that ended badly into this folder.")] = None,
) -> None:
    """Mutated video files through decoder and encoder: no crash, no hang, no other file changed, every refusal explained."""
    verdicts = list(track(fuzz(count, seed, keep), "fuzz", count, console=error_console()))
    typer.echo(summarize(verdicts))
    if not all(verdict.good for verdict in verdicts):
        raise typer.Exit(1)
