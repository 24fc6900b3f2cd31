"""`python bench/gpu.py`: everything that only a GPU can show, with one command. See GPU.md beside it.

It runs the tests marked `needs_cuda` with FAIL_WITHOUT_CUDA=1, measures throughput, latency, eight streams and a slow
consumer, runs the kernels' tests once more under compute-sanitizer, and ends with a long run. After each step a log and a
result file with the GPU's name are complete as far as they go. It runs from a bare checkout; what is not installed can be
given as a folder of wheels, and what is missing even then is done without, and noted.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
_START = time.monotonic()


def arrange(site: Path | None = None) -> None:
    """Make `cliprl` importable from the checkout where it is not installed, after what lies in `site`."""
    # As a script this file's own folder comes first, in which modules have names that others may have too.
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT / "bench"]
    if site is not None:  # last: what is installed was made for this machine
        sys.path.append(str(site))
    if not installed("cliprl"):
        _stand_in("cliprl").__path__ = [str(ROOT)]
    if not installed("av"):
        # The package's own __init__ opens videos; what is below it here does not.
        _stand_in("cliprl.pipeline").__path__ = [str(ROOT / "pipeline")]
    if not installed("platformdirs"):
        place = Path(tempfile.gettempdir()) / "cliprl-cache"
        vars(_stand_in("platformdirs"))["user_cache_path"] = lambda *_, **__: place


def _stand_in(name: str) -> ModuleType:
    sys.modules[name] = ModuleType(name)
    return sys.modules[name]


def installed(package: str) -> bool:
    """Whether a package can be imported."""
    try:
        return package in sys.modules or find_spec(package) is not None
    except ImportError:
        return False


def unpack(folder: Path) -> Path:
    """Lay the packages in `folder` (wheels, or archives of site-packages) out in a new folder; return it."""
    site = Path(tempfile.mkdtemp(prefix="cliprl-site-"))
    for path in sorted(folder.iterdir()):
        try:
            shutil.unpack_archive(path, site, "zip" if path.suffix == ".whl" else None)
        except (shutil.ReadError, ValueError, OSError) as error:
            print(f"{path.name} is left out: {error}")
    return site


class Stopwatch:
    """How much of the time for everything is left."""

    def __init__(self, minutes: float) -> None:
        self._end = _START + 60 * minutes

    def left(self) -> float:
        """Seconds left."""
        return max(self._end - time.monotonic(), 0.0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run tests and measurements. Exit status: 0 all held, 1 a test or a promise failed, 2 there is no GPU to try."""
    given = _parser().parse_args(arguments)
    site = unpack(given.wheels) if given.wheels else None
    arrange(site)
    from cliprl.engines import CliprlError
    from cliprl.pipeline.cuda.factory import open_shared_gpu

    clock = Stopwatch(given.minutes)
    # Should anything hang: every thread's place, and what was written so far stays.
    faulthandler.dump_traceback_later(clock.left() + 20, exit=True)
    try:
        card = open_shared_gpu(print)
    except CliprlError as error:
        faulthandler.cancel_dump_traceback_later()
        print(f"bench/gpu.py: {error}", file=sys.stderr)
        return 2
    given.into.mkdir(parents=True, exist_ok=True)
    name = re.sub("[^a-z0-9]+", "-", card.gpu.name.lower()).strip("-")
    log = given.into / f"{name}-gpu-tests.log"
    log.unlink(missing_ok=True)
    passed = [] if given.skip_tests else [run_tests(log, site, clock.left() * 0.35)]
    if not given.tests_only:
        from cliprl.bench.cuda.measure import Report, measure

        report = Report(card, given, given.into / f"{name}-gpu.json")
        sanitized = (lambda: True) if given.skip_tests else lambda: sanitize(log, site, min(clock.left() * 0.4, 150))
        passed += measure(card, given, clock.left, report, sanitized)
    elif not given.skip_tests:
        passed.append(sanitize(log, site, clock.left()))
    faulthandler.cancel_dump_traceback_later()
    return int(not all(passed))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench/gpu.py", description=__doc__.split("\n\n")[0] if __doc__ else None)
    parser.add_argument("-o", "--into", type=Path, default=ROOT / "bench" / "results", help="folder for log and result")
    parser.add_argument("--wheels", type=Path, help="folder of wheels, or archives of site-packages, to use as well")
    parser.add_argument(
        "--bundle", default="base", help="engine bundle, or a recipe whose networks are made with random weights"
    )
    parser.add_argument("--clip", help="video file to decode; without one a clip is made, where PyAV is there")
    parser.add_argument("--seconds", type=float, default=8.0, help="length of each short measurement")
    parser.add_argument("--frames", type=int, default=100_000, help="length of the long run; 0 leaves it out")
    parser.add_argument(
        "--minutes", type=float, default=8.5, help="time for everything; the long run gets what is left"
    )
    parser.add_argument("--skip-tests", action="store_true", help="measure only")
    parser.add_argument("--tests-only", action="store_true", help="measure nothing")
    return parser


def run_tests(log: Path, site: Path | None, seconds: float) -> bool:
    """The tests that need a GPU; whether all passed. Their output goes to `log` too."""
    return _logged(log, pytest_command(site), seconds)


def sanitize(log: Path, site: Path | None, seconds: float) -> bool:
    """The kernels' tests under compute-sanitizer; whether it is there and found nothing."""
    found = shutil.which("compute-sanitizer") or shutil.which("/usr/local/cuda/bin/compute-sanitizer")
    if found is None:
        with log.open("a", encoding="utf-8") as file:
            file.write("compute-sanitizer: not installed, not run\n")
        return False
    command = [
        found,
        "--error-exitcode=9",
        "--target-processes=all",
        *pytest_command(site),
        "-k",
        "kernel",
    ]
    return _logged(log, command, seconds)


def pytest_command(site: Path | None) -> list[str]:
    """The command that runs the tests on a GPU as this script would."""
    where = str(site) if site else ""
    tests = str(ROOT / "tests" / "pipeline" / "cuda" / "test_cuda_gpu.py")
    return [sys.executable, __file__, "pytest", where, "-q", "-m", "needs_cuda", "-p", "no:cacheprovider", tests]


def _logged(log: Path, command: Sequence[str], seconds: float) -> bool:
    environment, start = os.environ | {"FAIL_WITHOUT_CUDA": "1"}, time.monotonic()
    shown = " ".join(Path(word).name if os.sep in word else word for word in command if word)
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ {shown}\n")
        file.flush()
        try:
            status: int | str = subprocess.run(
                command, env=environment, stdout=file, stderr=file, cwd=ROOT, check=False, timeout=seconds
            ).returncode
        except subprocess.TimeoutExpired:
            status = f"none: stopped after {seconds:.0f} s"
        file.write(f"\nexit status {status} after {time.monotonic() - start:.0f} s\n\n")
    print(log.read_text(encoding="utf-8", errors="replace")[-1500:])
    return status == 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["pytest"]:
        arrange(Path(sys.argv[2]) if sys.argv[2] else None)
        import pytest

        sys.exit(pytest.main(sys.argv[3:]))
    sys.exit(main())
