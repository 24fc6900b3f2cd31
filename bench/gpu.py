"""`python bench/gpu.py`: all tests and measurements that need a GPU. See GPU.md beside it.

It runs the tests marked `needs_cuda` with FAIL_WITHOUT_CUDA=1, measures throughput, latency, eight streams and a slow
consumer, repeats the kernels' tests under compute-sanitizer, and ends with a long run. A log and a result file with the GPU's
name are written after each step. It runs from a bare checkout: missing packages can be given as a folder of wheels, and a
note names what was skipped without a package.
"""

from __future__ import annotations

import argparse
import faulthandler
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Self

ROOT = Path(__file__).resolve().parent.parent
# What measurements need, by its name in imports and at the registry; `--smoke` checks what it can without it.
REQUIRED = {"cv2": "opencv-python-headless", "typer": "typer", "filelock": "filelock"}
_START = time.monotonic()


def make_importable(site: Path | None = None) -> None:
    """Make `cliprl` importable from the checkout if it is not installed; append the folder `site` to the import path."""
    # A script's folder comes first in the path; its modules could shadow others of the same name.
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT / "bench"]
    if site is not None:  # last: installed packages were built for this machine
        sys.path.append(str(site))
    if not installed("cliprl"):
        _stand_in("cliprl").__path__ = [str(ROOT)]
    if not installed("av"):
        # The package's __init__ imports PyAV; the modules that are needed here do not.
        _stand_in("cliprl.pipeline").__path__ = [str(ROOT / "pipeline")]
    for package in REQUIRED:
        if not installed(package):
            sys.modules[package] = Absent(package)
    if not installed("platformdirs"):
        place = Path(tempfile.gettempdir()) / "cliprl-cache"
        vars(_stand_in("platformdirs"))["user_cache_path"] = lambda *_, **__: place


class Absent(ModuleType):
    """A replacement for a package that is not installed: modules that name it are imported, and its use raises ImportError."""

    def __getattr__(self, name: str) -> Self:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *_: object, **__: object) -> None:
        """Raise ImportError."""
        raise ImportError(f"{REQUIRED[self.__name__]} is not installed")


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
    """Unpack the packages in `folder` (wheels, or archives of site-packages) into a new folder; return it."""
    site = Path(tempfile.mkdtemp(prefix="cliprl-site-"))
    for path in sorted(folder.iterdir()):
        try:
            shutil.unpack_archive(path, site, "zip" if path.suffix == ".whl" else None)
        except (shutil.ReadError, ValueError, OSError) as error:
            print(f"{path.name} is left out: {error}")
    return site


class Stopwatch:
    """The time left of the whole run."""

    def __init__(self, minutes: float) -> None:
        self._end = _START + 60 * minutes

    def left(self) -> float:
        """Seconds left."""
        return max(self._end - time.monotonic(), 0.0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run tests and measurements. Exit status: 0 all passed, 1 a test or a limit failed, 2 no GPU."""
    given = _parser().parse_args(arguments)
    site = unpack(given.wheels) if given.wheels else None
    make_importable(site)
    from cliprl.bench.cuda.gpu_tests import run_tests, sanitize
    from cliprl.pipeline.cuda.factory import open_shared_gpu

    if given.smoke:
        from cliprl.bench.cuda.smoke import smoke

        return smoke(lambda: open_shared_gpu(print))
    from cliprl.engines.backends.gpu_discovery import find_driver
    from cliprl.engines.backends.tensorrt.probe import torch_cuda
    from cliprl.pipeline.cuda.factory import why_not

    clock = Stopwatch(given.minutes)
    # If anything hangs: print every thread's stack; the files written so far stay.
    faulthandler.dump_traceback_later(clock.left() + 20, exit=True)
    driver = find_driver()
    reason = why_not(driver, torch_cuda)
    if reason or driver is None:
        faulthandler.cancel_dump_traceback_later()
        print(f"bench/gpu.py: device 'cuda' can't serve here: {reason}", file=sys.stderr)
        return 2
    given.into.mkdir(parents=True, exist_ok=True)
    name = re.sub("[^a-z0-9]+", "-", driver.gpu.name.lower()).strip("-")
    log = given.into / f"{name}-gpu-tests.log"
    log.unlink(missing_ok=True)
    passed = [] if given.skip_tests else [run_tests(log, site, clock.left() * 0.35)]
    if not given.tests_only:
        from cliprl.bench.cuda.measure import Report, measure

        report = Report(driver.gpu.name, given, given.into / f"{name}-gpu.json")
        sanitized = (lambda: True) if given.skip_tests else lambda: sanitize(log, site, min(clock.left() * 0.4, 150))
        passed += measure(given, clock.left, report, sanitized, site)
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
    parser.add_argument(
        "--smoke", action="store_true", help="check in two minutes what this machine can do, and measure nothing"
    )
    parser.add_argument(
        "--size", type=int, nargs=2, default=(1080, 1920), metavar=("HEIGHT", "WIDTH"), help="size of the frames"
    )
    parser.add_argument("--only", nargs="+", metavar="CASE", help="cases to measure, and no others")
    parser.add_argument("--skip-tests", action="store_true", help="measure only")
    parser.add_argument("--tests-only", action="store_true", help="measure nothing")
    return parser


if __name__ == "__main__":
    if sys.argv[1:2] == ["pytest"]:
        make_importable(Path(sys.argv[2]) if sys.argv[2] else None)
        import pytest

        sys.exit(pytest.main(sys.argv[3:]))
    if sys.argv[1:2] == ["case"]:
        make_importable(Path(sys.argv[2]) if sys.argv[2] else None)
        from cliprl.bench.cuda.case_process import main as run_one_case

        sys.exit(run_one_case(sys.argv[3:]))
    sys.exit(main())
