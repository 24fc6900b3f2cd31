"""`cliprl-bench engines`: the networks alone, as the stream would be served them, in every precision and batch, in turn.

Each engine passes the accuracy gate first: what is refused has no figure, and a note says why.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from cliprl.bench.harness.result import Result, Series
from cliprl.bench.harness.result_session import ResultSession
from cliprl.bench.harness.subprocess_call import in_fresh_process
from cliprl.bench.harness.timing import Answers, BenchJob, Say
from cliprl.engines import Bundle, CompiledBundle, EngineError, open_bundle
from cliprl.engines.backends.engine import Array
from cliprl.engines.bundle.reference_outputs import encoder_shapes
from cliprl.engines.cache.cache_store import StoredEntry
from cliprl.engines.cache.engine_cache import EngineCache
from cliprl.engines.selection.engine_variant import EngineVariant, candidates
from cliprl.engines.selection.load_engines import serve

METHOD = {
    "includes": "one run of an engine that the accuracy gate accepted, from arrays in memory to the outputs, waited for; "
    "a batch's time is that of all its pictures; the refiner: one step",
    "excludes": "compiling, view and network picture, labels, every other stage",
    "pace": "as fast as possible",
}
ENCODER, STEP = "encoder", "refinement step"


def names_of(bundle: str, device: str) -> list[tuple[str, str]]:
    """Backend and precision of every engine that can be had on the device."""
    return [(each.backend.name, each.precision) for each in candidates(open_bundle(bundle), device)]


def why_not(device: str, backend: str, precision: str, batch: int, bundle: str) -> str | None:
    """Compile an engine and judge it, as the first start would; why it can't run, None where it can."""
    try:
        _served(_candidate(bundle, device, backend, precision, batch))
    except EngineError as error:
        return str(error)
    return None


def one_round(device: str, backend: str, precision: str, batch: int, job: BenchJob) -> dict[str, list[float]]:
    """Milliseconds of every run of the encoder, and with a batch of one of a refinement step, in this process."""
    candidate = _candidate(job.bundle, device, backend, precision, batch)
    given = _inputs(candidate)
    pair = _served(candidate)
    if batch > 1:
        return {ENCODER: _timed(lambda: pair.encoder.run(given), job)}
    seen = pair.encoder.run(given)
    own = {"features": seen["features"], **dict.fromkeys(("logits", "base", "prior"), seen["logits"])}
    own = {name: np.copy(value) if isinstance(value, np.ndarray) else value.clone() for name, value in own.items()}
    state = own | {"text": given["text"]}
    return {
        ENCODER: _timed(lambda: pair.encoder.run(given), job),
        STEP: _timed(lambda: pair.refiner.run(state), job),
    }


def _candidate(bundle: str, device: str, backend: str, precision: str, batch: int) -> EngineVariant:
    found = candidates(open_bundle(bundle), device, precision, batch=batch)
    return next(each for each in found if each.backend.name == backend)


def _served(candidate: EngineVariant) -> CompiledBundle:
    """The engines, judged by the gate; those of a bundle that was never trained, whose labels are chance, as they are built."""
    if "weights" not in candidate.bundle.manifest.training:
        return serve(candidate, EngineCache())
    fields = candidate.fields() | {"reference": "none: never trained"}
    return candidate.load(EngineCache().get_or_make(fields, lambda: StoredEntry(candidate.build(), {"faults": []})))


def copied(bundle: Bundle, folder: Path) -> Bundle:
    """A copy of a bundle, to add to."""
    shutil.copytree(bundle.path, folder)
    return open_bundle(folder)


def _inputs(candidate: EngineVariant) -> dict[str, Array]:
    """Random pictures, as many as a batch has, and the bundle's texts."""
    shapes = encoder_shapes(candidate.bundle, candidate.batch)
    image = np.random.default_rng(0).integers(0, 256, shapes["image"], np.uint8)
    return {"image": image, "text": candidate.bundle.embeddings}


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


def measure(
    session: ResultSession, job: BenchJob, say: Say, device: str = "cpu", batches: Sequence[int] = (1,)
) -> Result:
    """Every engine in turn, a fresh process each; notes say what was refused, or can't be had in a batch."""
    tasks, notes = {}, list[str]()
    for engine in in_fresh_process(names_of, job.bundle, device):
        for batch in batches:
            case = " ".join(engine) + (f", batch {batch}" if batch > 1 else "")
            say(f"preparing {case}")
            reason = in_fresh_process(why_not, device, *engine, batch, job.bundle)
            if reason:
                notes.append(f"{case}: {reason}")
            else:
                tasks[case] = (one_round, (device, *engine, batch, job))
    return session.rounds(tasks, job.rounds, say, lambda answers: session.result(_series(answers), METHOD, notes))


def _series(answers: Answers) -> list[Series]:
    return [
        Series.of(case, name, "ms", [answer[name] for answer in rounds])
        for case, rounds in answers.items()
        for name in rounds[0]
    ]
