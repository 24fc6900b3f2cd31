"""Open the GPU benchmark on the simulated GPU, in the process of one case."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any

from gpu_fake import FakeGpu, HostNetwork

from cliprl.bench.cuda.case_process import CaseJob, load_frames
from cliprl.bench.cuda.cases import Bench
from cliprl.engines import load_engines, open_bundle
from cliprl.pipeline.cuda.context import share


def open_fake_bench(job: CaseJob, note: Callable[[str], None]) -> Bench:
    """Open a bench whose process dies in the case "throughput", as one does whose GPU context is lost."""
    if job.name == "throughput":
        os.abort()
    note(f"{job.name} in process {os.getpid()}")
    if job.name == "networks":
        nothing: Any = None
        return nothing  # type: ignore[no-any-return]
    gpu, bundle = FakeGpu(random.Random(5).randrange), open_bundle()
    engines = load_engines(bundle, precision="f32", threads=1)
    card = share(gpu, lambda engine: HostNetwork(gpu, engine))
    return Bench(card, bundle, engines, load_frames(job.folder), job.seconds, note, warm=1)
