"""The tests that need a GPU, run by `python bench/gpu.py`, their output in a log."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPT, GPU_TESTS = ROOT / "bench" / "gpu.py", ROOT / "tests" / "pipeline" / "cuda" / "test_cuda_gpu.py"


def run_tests(log: Path, site: Path | None, seconds: float) -> bool:
    """Run the tests that need a GPU, their output appended to `log`; return whether all passed."""
    return _logged(log, pytest_command(site), seconds)


def sanitize(log: Path, site: Path | None, seconds: float) -> bool:
    """Run the kernels' tests under compute-sanitizer; return whether it found nothing, or is not installed."""
    found = shutil.which("compute-sanitizer") or shutil.which("/usr/local/cuda/bin/compute-sanitizer")
    if found is None:
        with log.open("a", encoding="utf-8") as file:
            file.write("compute-sanitizer: not installed, not run\n")
        print("compute-sanitizer: not installed, not run")
        return True
    options = ["--error-exitcode=9", "--target-processes=all"]
    return _logged(log, [found, *options, *pytest_command(site), "-k", "kernel and compiled"], seconds)


def pytest_command(site: Path | None) -> list[str]:
    """The command that runs the GPU tests with the import paths of `bench/gpu.py`; `site` is its folder of unpacked wheels."""
    words = ["pytest", str(site) if site else "", "-q", "-m", "needs_cuda", "-p", "no:cacheprovider"]
    return [sys.executable, str(SCRIPT), *words, str(GPU_TESTS)]


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
