"""`python bench/gpu.py`: everything that only a GPU can show, with one command; also `python -m cliprl.bench.gpu`.

It runs the tests marked `needs_cuda` with FAIL_WITHOUT_CUDA=1, those of the kernels once more under compute-sanitizer where
that is installed, then measures throughput, latency at 60 FPS, eight streams, and a long run; it writes a log and one result
file, DEVICE-gpu.json, into a folder. It runs from a bare checkout, without installing the package: what it needs is Python
3.11 or newer with torch (a CUDA build), numpy, opencv-python-headless, onnx, platformdirs, filelock, pytest and hypothesis,
and cuda-bindings with nvidia-cuda-nvrtc, or pycuda with nvcc. It uses, where they are installed: tensorrt (else torch runs
the networks) and openvino (else no accuracy gate judges them, and the file says so). PyAV is needed only for `--clip`, a video
file whose frames are decoded too, by NVDEC where there is one; without it frames are uploaded from pinned memory.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cliprl.bench.gpu_runs import Seen
    from cliprl.bench.result import Result, Series
    from cliprl.engines import Bundle, Pair
    from cliprl.pipeline.cuda.device import Card

ROOT = Path(__file__).resolve().parent.parent
HEIGHT, WIDTH = 1080, 1920
LONG, TOGETHER, PACE = 100_000, 8, 60
# ReSurgSAM2's published frames per second, and what the project promises over it.
PEER_FPS = 61.2
METHOD = {
    "includes": "copy into pinned memory, upload, view, network picture, networks, paint, download of the painted frame",
    "excludes": "video encoding; decoding but for the cases called decoded",
    "latency": "from a frame's arrival in pinned memory to its painted picture in host memory",
}


def arrange() -> None:
    """Make `cliprl` importable from the checkout where it is not installed, and its pipeline where PyAV is missing."""
    # As a script this file's own folder comes first, in which modules have names that others may have too.
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT / "bench"]
    if not installed("cliprl"):
        package = ModuleType("cliprl")
        package.__path__ = [str(ROOT)]
        sys.modules["cliprl"] = package
    if not installed("av"):
        # The package's own __init__ opens videos; what is below it here does not.
        pipeline = ModuleType("cliprl.pipeline")
        pipeline.__path__ = [str(ROOT / "pipeline")]
        sys.modules["cliprl.pipeline"] = pipeline


def installed(package: str) -> bool:
    """Whether a package can be imported."""
    try:
        return package in sys.modules or find_spec(package) is not None
    except ImportError:
        return False


def main(arguments: Sequence[str] | None = None) -> int:
    """Run tests and measurements. Exit status: 0 all passed, 1 a test or a promise failed, 2 there is no GPU to try."""
    parser = argparse.ArgumentParser(prog="bench/gpu.py", description=__doc__.split("\n\n")[0] if __doc__ else None)
    parser.add_argument("-o", "--into", type=Path, default=ROOT / "bench" / "results", help="folder for log and result")
    parser.add_argument("--bundle", default="small", help="engine bundle to measure (the promise is made for `base`)")
    parser.add_argument("--clip", help="video file to decode as well, best by NVDEC")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of each measurement")
    parser.add_argument("--frames", type=int, default=LONG, help="length of the long run; 0 leaves it out")
    parser.add_argument("--skip-tests", action="store_true", help="measure only")
    parser.add_argument("--tests-only", action="store_true", help="measure nothing")
    given = parser.parse_args(arguments)
    arrange()
    from cliprl.engines import CliprlError
    from cliprl.pipeline.cuda.opening import open_card

    try:
        card = open_card(print)
    except CliprlError as error:
        print(f"bench/gpu.py: {error}", file=sys.stderr)
        return 2
    given.into.mkdir(parents=True, exist_ok=True)
    name = re.sub("[^a-z0-9]+", "-", card.gpu.name.lower()).strip("-")
    failed = False if given.skip_tests else run_tests(given.into / f"{name}-gpu-tests.log")
    if not given.tests_only:
        result = measure(card, given.bundle, given.seconds, given.frames, given.clip)
        result.write(given.into / f"{name}-gpu.json")
        print(
            *(f"{s.title}: p50 {s.digest().p50:.4g}, p99 {s.digest().p99:.4g} {s.unit}" for s in result.series),
            sep="\n",
        )
        print(*result.notes, sep="\n")
    return int(failed)


def run_tests(log: Path) -> bool:
    """The tests that need a GPU, plain and under compute-sanitizer; whether any failed. Their output goes to `log` too."""
    environment = os.environ | {"FAIL_WITHOUT_CUDA": "1"}
    command = [sys.executable, __file__, "pytest", "-q", "-m", "needs_cuda", str(ROOT / "tests" / "test_cuda_gpu.py")]
    commands = [command]
    sanitizer = shutil.which("compute-sanitizer") or shutil.which("/usr/local/cuda/bin/compute-sanitizer")
    if sanitizer:
        commands.append([sanitizer, "--error-exitcode=9", "--target-processes=all", *command, "-k", "kernel"])
    failed = not sanitizer
    with log.open("w", encoding="utf-8") as file:
        for each in commands:
            done = subprocess.run(each, env=environment, capture_output=True, text=True, cwd=ROOT, check=False)
            shown = " ".join(Path(word).name if os.sep in word else word for word in each)
            file.write(f"$ {shown}\n{done.stdout}{done.stderr}\nexit status {done.returncode}\n\n")
            print(done.stdout[-2000:], done.stderr[-500:])
            failed = failed or done.returncode != 0
        if not sanitizer:
            file.write("compute-sanitizer: not installed, not run\n")
    return failed


def networks(bundle: Bundle, say: Callable[[str], None]) -> Pair:
    """The bundle's networks in FP16 on the GPU: judged by the gate, or, without the reference's OpenVINO, as they are built."""
    from cliprl.engines import load_engines
    from cliprl.engines.candidate import candidates
    from cliprl.engines.store import Made

    if installed("openvino"):
        return load_engines(bundle, device="cuda", precision="f16", say=say)
    say("the accuracy gate was not asked: openvino, its reference, is not installed")
    candidate = next(iter(candidates(bundle, "cuda", "f16")))
    return candidate.load(Made(candidate.build(), {}))


def measure(card: Card, name: str, seconds: float, frames: int, clip: str | None) -> Result:
    """All measurements, as one result."""
    from cliprl.bench import machine
    from cliprl.bench.result import Result
    from cliprl.engines import open_bundle

    bundle, notes, watch = open_bundle(name), list(card.notes), machine.LoadWatch()
    series = tuple(cases(card, bundle, seconds, frames, clip, notes.append))
    command = f"python bench/gpu.py --bundle {Path(name).name} --seconds {seconds:g} --frames {frames}"
    manifest = bundle.manifest
    told = {key: value for key, value in machine.describe().items() if value is not None}
    return Result(
        kind="gpu",
        command=command + (f" --clip {Path(clip).name}" if clip else ""),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        commit=machine.commit(),
        machine={"gpu": [card.gpu.name]} | told | watch.block(),
        input={"name": "rendered scene, uploaded from pinned memory", "size": f"{WIDTH}x{HEIGHT}"},
        bundle={"name": manifest.name, "input": f"{manifest.width}x{manifest.height}", "steps": manifest.steps},
        method=METHOD | {"peer": f"ReSurgSAM2's published {PEER_FPS} FPS", "seconds": seconds},
        series=series,
        notes=tuple(notes),
    )


def cases(
    card: Card, bundle: Bundle, seconds: float, frames: int, clip: str | None, note: Callable[[str], None]
) -> Iterator[Series]:
    """Every case in turn: as fast as it goes, paced, eight at once, a slow consumer, decoded frames, a long run."""
    from cliprl.bench.gpu_runs import GpuStream, Sampler, run_together, scene_pictures

    engines, pictures = networks(bundle, note), scene_pictures(HEIGHT, WIDTH)
    note(f"networks by {engines.backend} in {engines.precision}")

    def run(
        count: int, frames: int, pace: float | None = None, slow: float = 0.0, clip: str | None = None
    ) -> list[Seen]:
        streams = [GpuStream(card, bundle, pictures, clip=clip, pace=pace, engines=engines) for _ in range(count)]
        return run_together(streams, frames, slow)

    many, paced = max(round(seconds * 300), 50), max(round(seconds * PACE), 10)
    run(1, 100)
    busy = Sampler(utilisation)
    busy.start()
    yield from described("throughput", run(1, many))
    yield listed("throughput", "GPU busy", "%", busy.stop())
    yield from described(f"paced at {PACE} FPS", run(1, paced, PACE))
    yield from described(f"{TOGETHER} streams at {PACE} FPS", run(TOGETHER, paced, PACE))
    yield from described("slow consumer", run(1, paced, PACE, slow=0.05))
    if clip is not None:
        decoded = run(1, many, clip=clip)
        for text in decoded[0].notes[:1]:
            note(text)
        yield from described("decoded, throughput", decoded)
        yield from described(f"decoded, paced at {PACE} FPS", run(1, paced, PACE, clip=clip))
    if frames:
        memory = Sampler(lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        memory.start()
        yield from described("long run", run(1, frames))
        yield listed("long run", "memory", "MB", memory.stop())


def described(case: str, seen: Sequence[Seen]) -> list[Series]:
    """Rate, latency, drops and wrong frames of the streams of one case."""
    spans = [one.finished[-1] - one.finished[0] for one in seen if len(one.finished) > 1]
    rates = [(len(one.finished) - 1) / span for one, span in zip(seen, spans, strict=False)]
    return [
        listed(case, "fps", "FPS", rates),
        listed(case, "latency", "ms", [seconds * 1000 for one in seen for seconds in one.latencies]),
        listed(case, "refinement steps", "mean", [sum(one.steps) / max(len(one.steps), 1) for one in seen]),
        listed(case, "frames dropped", "frames", [float(one.dropped) for one in seen]),
        listed(case, "frames that came out wrong", "frames", [float(one.wrong) for one in seen]),
        listed(case, f"fps over {PEER_FPS}", "times", [rate / PEER_FPS for rate in rates]),
    ]


def listed(case: str, name: str, unit: str, values: Sequence[float]) -> Series:
    """A series of one round."""
    from cliprl.bench.result import Series

    return Series.of(case, name, unit, [list(values)])


def utilisation() -> float | None:
    """The GPU's busy share in percent, as nvidia-smi tells it; None where it does not."""
    query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--id=0"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=5, check=False)
        return float(done.stdout.strip())
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None


if __name__ == "__main__":
    if sys.argv[1:2] == ["pytest"]:
        arrange()
        import pytest

        sys.exit(pytest.main(sys.argv[2:]))
    sys.exit(main())
