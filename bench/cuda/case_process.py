"""Run each case of the GPU measurement in a separate process, so that a damaged GPU context affects one case only."""

from __future__ import annotations

import faulthandler
import pickle
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from cliprl.bench.cuda.cases import Bench, cases, long_run, run_case
from cliprl.bench.cuda.runs import Nv12Planes
from cliprl.bench.harness.meters import open_meter
from cliprl.bench.harness.result import Series
from cliprl.engines import Bundle, CompiledBundle, EngineError, load_engines, open_bundle
from cliprl.engines.cache.cache_store import StoredEntry
from cliprl.engines.selection.engine_variant import engine_variants
from cliprl.pipeline.cuda.factory import open_shared_gpu

RUNNER = Path(__file__).resolve().parents[1] / "gpu.py"
LONG_RUN, NETWORK_CASE = "long run", "networks"
_FRAMES = "frames.npz"
# Seconds after its limit at which a process that hangs is ended.
_GRACE = 20.0
Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class CaseJob:
    """One case for one process.

    `folder` holds the frames (`save_frames`), the networks that the first process built, and output videos. `limit` is the
    seconds that the process may take. `open_bench` opens GPU and networks in the process; it is pickled by name.
    """

    name: str
    bundle: Path
    folder: Path
    seconds: float
    frames: int
    limit: float
    clip: str | None
    coded: bool
    open_bench: Callable[[CaseJob, Note], Bench]


def open_gpu_bench(job: CaseJob, note: Note) -> Bench:
    """Open the GPU and the networks of a job."""
    card = open_shared_gpu(note)
    for text in card.notes:
        note(text)
    bundle = open_bundle(str(job.bundle))
    engines = load_networks(bundle, note, job.folder)
    note(f"networks by {engines.backend} in {engines.precision}, every frame with all {bundle.manifest.steps} steps")
    meter = open_meter(str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid))
    return Bench(card, bundle, engines, load_frames(job.folder), job.seconds, note, meter)


def load_networks(bundle: Bundle, log: Note, kept: Path | None = None) -> CompiledBundle:
    """Load the networks in FP16 on the GPU; the accuracy gate is skipped without OpenVINO, which computes its reference.

    Networks that skip the gate are built once and kept in the folder `kept`, for the processes that follow.
    """
    trained = "weights" not in bundle.manifest.training
    if trained and find_spec("openvino"):
        return load_engines(bundle, device="cuda", precision="f16", log=log)
    log("the accuracy gate was skipped: " + ("openvino is not installed" if trained else "the weights are random"))
    for variant in engine_variants(bundle, "cuda", "f16", log=log):
        path = kept / f"networks-{variant.backend.name}.pickle" if kept else None
        try:
            parts = pickle.loads(path.read_bytes()) if path and path.exists() else variant.build()
            engines = variant.load(StoredEntry(parts, {}))
        except EngineError as error:
            log(str(error))
            continue
        if path:
            path.write_bytes(pickle.dumps(parts))
        return engines
    raise EngineError("no engine serves")


def save_frames(frames: Sequence[Nv12Planes], folder: Path) -> None:
    """Save rendered frames for the processes."""
    np.savez(folder / _FRAMES, luma=[luma for luma, _ in frames], chroma=[chroma for _, chroma in frames])


def load_frames(folder: Path) -> list[Nv12Planes]:
    """Load what `save_frames` saved."""
    with np.load(folder / _FRAMES) as saved:
        return list(zip(saved["luma"], saved["chroma"], strict=True))


def run_process(job: CaseJob, note: Note, site: Path | None = None) -> list[Series]:
    """Run a job in a process and return its series. A process that fails is noted and ends this case only."""
    given, found = job.folder / "job.pickle", job.folder / "result.pickle"
    given.write_bytes(pickle.dumps(job))
    found.unlink(missing_ok=True)
    command = [sys.executable, str(RUNNER), "case", str(site) if site else "", str(given), str(found)]
    try:
        status = subprocess.run(command, check=False, timeout=job.limit + _GRACE).returncode
        ending = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
    except subprocess.TimeoutExpired:
        ending = f"was stopped after {job.limit + _GRACE:.0f} s"
    if not found.exists():
        note(f"{job.name}: FAILED: its process {ending}")
        return []
    series, notes = pickle.loads(found.read_bytes())
    for text in notes:
        note(text)
    return list(series)


def main(arguments: Sequence[str]) -> int:
    """Run the job of one file and write series and notes into another. Exit status: 0 measured, 1 failed."""
    given, found = map(Path, arguments)
    job: CaseJob = pickle.loads(given.read_bytes())
    faulthandler.dump_traceback_later(job.limit + _GRACE / 2, exit=True)
    notes: list[str] = []
    series: list[Series] = []
    try:
        bench = job.open_bench(job, notes.append)
        known = cases(job.clip, job.coded, job.folder)
        known[LONG_RUN] = partial(long_run, frames=job.frames, seconds=job.limit)
        if job.name != NETWORK_CASE:
            series = run_case(job.name, partial(known[job.name], bench), notes.append)
    except Exception as error:
        traceback.print_exc()
        notes.append(f"{job.name}: FAILED: {type(error).__name__}: {' '.join(str(error).split())[:300]}")
    found.with_suffix(".new").write_bytes(pickle.dumps((series, notes)))
    found.with_suffix(".new").replace(found)
    return int(not series and job.name != NETWORK_CASE)
