"""`python -m cliprl.bench.cuda.engines`: test and time the engines on a GPU, with one result file.

It runs tests/engines/test_engines_gpu.py with FAIL_WITHOUT_CUDA=1; times the encoder and a refinement step of `small`, `base` and
`large` in every precision of every backend, the encoder in batches of 1 and 8; and loads on this GPU the plans that
TensorRT for RTX builds for others. `base` and `large` are not shipped: their networks are generated with random weights.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from cliprl.bench.commands import engines
from cliprl.bench.cuda.inputs import find_bundle
from cliprl.bench.harness.environment import slug
from cliprl.bench.harness.result import Result
from cliprl.bench.harness.result_session import ResultSession
from cliprl.bench.harness.timing import BenchJob, LogFunction
from cliprl.engines import Bundle, EngineError, open_bundle
from cliprl.engines.backends.tensorrt.backend import make_engine_plan
from cliprl.engines.backends.tensorrt.build import PLAN_TARGETS
from cliprl.engines.backends.tensorrt.probe import probe_tensorrt
from cliprl.engines.bundle.reference_outputs import Reference, drawn_images, encoder_shapes, reference_of
from cliprl.engines.onnx.calibration import add_ranges

ROOT = Path(__file__).resolve().parents[2]
ENGINE_TESTS = ROOT / "tests" / "engines" / "test_engines_gpu.py"
# Input sizes of the recipes; the shipped bundle `small` has its own.
RECIPE_SIZES = {"small": (256, 320), "base": (384, 480), "large": (448, 560)}
BATCHES = (1, 8)


def main(arguments: Sequence[str] | None = None) -> int:
    """Test, measure, write the result. Exit status: 0 all tests passed, 1 one failed."""
    parser = argparse.ArgumentParser(
        prog="python -m cliprl.bench.cuda.engines", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("-o", "--into", type=Path, default=ROOT / "bench" / "results", help="folder for the result")
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to try the command without a GPU")
    parser.add_argument(
        "--sizes", nargs="+", default=list(RECIPE_SIZES), choices=list(RECIPE_SIZES), help="bundles and recipes"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of each measurement")
    parser.add_argument("--skip-tests", action="store_true", help="measure only")
    given = parser.parse_args(arguments)
    failed = 0 if given.skip_tests else run_engine_tests()
    with tempfile.TemporaryDirectory(prefix="cliprl-engines-") as folder:
        results = [measure_bundle(calibrated(name, Path(folder), print), given) for name in given.sizes]
    result = merged(given.sizes, results, portability(open_bundle("small")))
    result.write(given.into / f"{slug(result.machine)}-gpu-engines.json")
    for series in result.series:
        digest = series.digest()
        print(f"{series.title}: p50 {digest.p50:.3f}, p99 {digest.p99:.3f} {series.unit}")
    print(*result.notes, sep="\n")
    return failed


def run_engine_tests() -> int:
    """Run the engines' tests that need a GPU; return 0 if all passed."""
    command = [sys.executable, "-m", "pytest", "-q", str(ENGINE_TESTS)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"FAIL_WITHOUT_CUDA": "1"}, check=False)
    return int(done.returncode != 0)


def calibrated(name: str, folder: Path, log: LogFunction) -> Bundle:
    """Copy a bundle, or generate a recipe's networks with random weights, and add ranges for eight bits."""
    made = find_bundle(name, RECIPE_SIZES[name], folder / name, log)
    if not made.path.is_relative_to(folder):
        made = engines.copy_bundle(made, folder / name)
    return add_ranges(made, drawn_images(made.manifest.height, made.manifest.width))


def measure_bundle(bundle: Bundle, given: argparse.Namespace) -> Result:
    """Measure every backend, precision and batch of one bundle."""
    job = BenchJob("", bundle=str(bundle.path), rounds=given.rounds, seconds=given.seconds, warm_up=given.seconds / 2)
    with ResultSession("gpu-engines", None, job) as session:
        return engines.measure(session, job, print, device=given.device, batches=BATCHES)


def merged(names: Sequence[str], results: Sequence[Result], notes: Sequence[str]) -> Result:
    """Merge the results of all bundles; each case begins with its bundle's name."""
    series = [
        replace(one, case=f"{name} {one.case}")
        for name, result in zip(names, results, strict=True)
        for one in result.series
    ]
    remarks = [f"{name} {note}" for name, result in zip(names, results, strict=True) for note in result.notes]
    command = f"python -m cliprl.bench.cuda.engines --sizes {' '.join(names)}"
    return replace(results[0], command=command, series=tuple(series), notes=(*remarks, *notes))


RTX_PACKAGE = "tensorrt_rtx"
# A plan for no particular GPU.
PORTABLE = "every GPU"
MIN_AGREEMENT = 0.98


def portability(bundle: Bundle) -> list[str]:
    """Describe for each target whether its FP16 plan of the encoder loads and agrees with the reference, or why not."""
    if find_spec(RTX_PACKAGE) is None:
        return [f"plans for other GPUs were not tried: {RTX_PACKAGE} is not installed"]
    probe = probe_tensorrt(RTX_PACKAGE)
    if not probe.ready:
        return [f"plans for other GPUs were not tried: {probe.reason}"]
    reference = reference_of(bundle)
    return [f"a plan for {name} {_tried(bundle, name, reference)}" for name in (PORTABLE, *PLAN_TARGETS)]


def _tried(bundle: Bundle, target: str, reference: Reference) -> str:
    from cliprl.engines.backends.tensorrt.engine import TensorRtEngine

    try:
        plan = make_engine_plan(
            RTX_PACKAGE, bundle.encoder, "f16", encoder_shapes(bundle), None if target == PORTABLE else target
        )
        engine = TensorRtEngine(RTX_PACKAGE, plan.data, "f16", 1)
        found = engine.run({"image": reference.images[:1], "text": bundle.embeddings})["logits"]
    except EngineError as error:
        return f"does not run here: {error}"
    share = float(np.mean(found.cpu().numpy().argmax(1) == reference.base[:1].argmax(1)))
    return f"runs here, and is {'right' if share >= MIN_AGREEMENT else 'WRONG'}: {share:.1%} of labels agree"


if __name__ == "__main__":
    sys.exit(main())
