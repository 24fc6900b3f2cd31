"""`cliprl-bench engines`: run the networks alone in every precision and batch size, in turn.

Each engine passes the accuracy gate first. A refused engine has no figure; a note gives the reason.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from cliprl.bench.harness.registry import TIMING_OPTIONS, measurement
from cliprl.bench.harness.result import Result, Series
from cliprl.bench.harness.result_session import ResultSession
from cliprl.bench.harness.subprocess_call import in_fresh_process
from cliprl.bench.harness.timing import Answers, BenchJob, LogFunction
from cliprl.engines import Bundle, CompiledBundle, EngineError, open_bundle
from cliprl.engines.backends.engine import Array
from cliprl.engines.bundle.reference_outputs import encoder_shapes
from cliprl.engines.cache.cache_store import StoredEntry
from cliprl.engines.cache.engine_cache import EngineCache
from cliprl.engines.selection.engine_variant import EngineVariant, engine_variants
from cliprl.engines.selection.load_engines import serve

METHOD = {
    "includes": "one synchronous run of an engine that the accuracy gate accepted, from arrays in memory to the outputs; "
    "a batch's time is the time of all its images; the refiner: one step",
    "excludes": "compilation, field of view, network input, labels, every other stage",
    "pace": "as fast as possible",
}
ENCODER_RUN, STEP = "encoder", "refinement step"


def engine_names(bundle: str, device: str) -> list[tuple[str, str]]:
    """Backend and precision of every engine that the device can run."""
    return [(each.backend.name, each.precision) for each in engine_variants(open_bundle(bundle), device)]


def rejection(device: str, backend: str, precision: str, batch: int, bundle: str) -> str | None:
    """Compile an engine and pass it through the accuracy gate; return why it can't run, None if it can."""
    try:
        _load(_find_variant(bundle, device, backend, precision, batch))
    except EngineError as error:
        return str(error)
    return None


def one_round(device: str, backend: str, precision: str, batch: int, job: BenchJob) -> dict[str, list[float]]:
    """Milliseconds of every encoder run and, for a batch of one, of every refinement step, in this process."""
    variant = _find_variant(job.bundle, device, backend, precision, batch)
    given = _inputs(variant)
    pair = _load(variant)
    if batch > 1:
        return {ENCODER_RUN: _timed(lambda: pair.encoder.run(given), job)}
    seen = pair.encoder.run(given)
    own = {"features": seen["features"], **dict.fromkeys(("logits", "base", "prior"), seen["logits"])}
    own = {name: np.copy(value) if isinstance(value, np.ndarray) else value.clone() for name, value in own.items()}
    state = own | {"text": given["text"]}
    return {
        ENCODER_RUN: _timed(lambda: pair.encoder.run(given), job),
        STEP: _timed(lambda: pair.refiner.run(state), job),
    }


def _find_variant(bundle: str, device: str, backend: str, precision: str, batch: int) -> EngineVariant:
    found = engine_variants(open_bundle(bundle), device, precision, batch=batch)
    return next(each for each in found if each.backend.name == backend)


def _load(variant: EngineVariant) -> CompiledBundle:
    """Load engines that pass the gate; skip the gate for an untrained bundle, whose labels are random."""
    if "weights" not in variant.bundle.manifest.training:
        return serve(variant, EngineCache())
    fields = variant.fields() | {"reference": "none: never trained"}
    return variant.load(EngineCache().get_or_make(fields, lambda: StoredEntry(variant.build(), {"faults": []})))


def copy_bundle(bundle: Bundle, folder: Path) -> Bundle:
    """Copy a bundle into a new folder."""
    shutil.copytree(bundle.path, folder)
    return open_bundle(folder)


def _inputs(variant: EngineVariant) -> dict[str, Array]:
    """One batch of random images, and the text embeddings of the bundle."""
    shapes = encoder_shapes(variant.bundle, variant.batch)
    image = np.random.default_rng(0).integers(0, 256, shapes["image"], np.uint8)
    return {"image": image, "text": variant.bundle.embeddings}


def _timed(infer: Callable[[], object], job: BenchJob) -> list[float]:
    warm_until = time.monotonic() + job.warm_up
    while time.monotonic() < warm_until:
        infer()
    samples: list[float] = []
    end = time.monotonic() + job.seconds
    while (start := time.monotonic()) < end or not samples:
        infer()
        samples.append((time.monotonic() - start) * 1000)
    return samples


@measurement(
    "engines",
    help="The networks alone: every backend of the device in every precision that passes the accuracy gate.",
    defaults=BenchJob("", rounds=3, seconds=5, warm_up=1),
    settings=TIMING_OPTIONS,
    clip=False,
    suite={"engines": {}},
)
def measure(
    session: ResultSession,
    job: BenchJob,
    log: LogFunction,
    device: Annotated[str, typer.Option(help="Device to run on: cpu or cuda.")] = "cpu",
    batches: Annotated[Sequence[int], typer.Option("--batch", min=1, help="Batch size; may be repeated.")] = (1,),
) -> Result:
    """Measure every engine in turn, each in a fresh process. Notes name the engines that can't run, with the reason."""
    tasks, notes = {}, list[str]()
    for engine in in_fresh_process(engine_names, job.bundle, device):
        for batch in batches:
            case = " ".join(engine) + (f", batch {batch}" if batch > 1 else "")
            log(f"preparing {case}")
            reason = in_fresh_process(rejection, device, *engine, batch, job.bundle)
            if reason:
                notes.append(f"{case}: {reason}")
            else:
                tasks[case] = (one_round, (device, *engine, batch, job))
    return session.rounds(tasks, job.rounds, log, lambda answers: session.result(_series(answers), METHOD, notes))


def _series(answers: Answers) -> list[Series]:
    return [
        Series.of(case, name, "ms", [answer[name] for answer in rounds])
        for case, rounds in answers.items()
        for name in rounds[0]
    ]
