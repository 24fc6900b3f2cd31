"""`cliprl-bench engines`: the networks alone, as the stream would be served them, in every precision and batch, in turn.

Each engine passes the accuracy gate first: what is refused has no figure, and a note says why.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from cliprl.bench.job import Job, Say, in_fresh_process, interleaved
from cliprl.bench.result import Result, Series
from cliprl.bench.session import Session
from cliprl.engines import EngineError, open_bundle
from cliprl.engines.cache import EngineCache
from cliprl.engines.candidate import Candidate, candidates
from cliprl.engines.engine import Array, Engine
from cliprl.engines.serving import serve

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
    """Compile an engine, judge it as the first start would, and for a batch try it; why it can't run, None where it can."""
    try:
        candidate = _candidate(bundle, device, backend, precision)
        if batch == 1:
            serve(candidate, EngineCache())
        else:
            _batched(candidate, batch).run(_inputs(candidate, batch))
    except EngineError as error:
        return str(error)
    return None


def one_round(device: str, backend: str, precision: str, batch: int, job: Job) -> dict[str, list[float]]:
    """Milliseconds of every run of the encoder, and with a batch of one of a refinement step, in this process."""
    candidate = _candidate(job.bundle, device, backend, precision)
    given = _inputs(candidate, batch)
    if batch > 1:
        encoder = _batched(candidate, batch)
        return {ENCODER: _timed(lambda: encoder.run(given), job)}
    pair = serve(candidate, EngineCache())
    seen = pair.encoder.run(given)
    own = {"features": seen["features"], **dict.fromkeys(("logits", "base", "prior"), seen["logits"])}
    own = {name: value.copy() if isinstance(value, np.ndarray) else value.clone() for name, value in own.items()}
    state = own | {"text": given["text"]}
    return {
        ENCODER: _timed(lambda: pair.encoder.run(given), job),
        STEP: _timed(lambda: pair.refiner.run(state), job),
    }


def _candidate(bundle: str, device: str, backend: str, precision: str) -> Candidate:
    found = candidates(open_bundle(bundle), device, precision)
    return next(each for each in found if each.backend.name == backend)


def _inputs(candidate: Candidate, batch: int) -> dict[str, Array]:
    """Random pictures, as many as a batch has, and the bundle's texts."""
    manifest = candidate.bundle.manifest
    image = np.random.default_rng(0).integers(0, 256, (batch, manifest.height, manifest.width, 3), np.uint8)
    return {"image": image, "text": candidate.bundle.embeddings}


def _batched(candidate: Candidate, batch: int) -> Engine:
    """The encoder for several pictures at a time. Raises EngineError where the backend can't."""
    single = candidate.encoder_request()
    request = replace(single, shapes=dict(single.shapes) | {"image": (batch, *single.shapes["image"][1:])})
    return candidate.backend.load(candidate.backend.build(request), request)


def _timed(infer: Callable[[], object], job: Job) -> list[float]:
    warm_until = time.monotonic() + job.warm_up
    while time.monotonic() < warm_until:
        infer()
    samples: list[float] = []
    end = time.monotonic() + job.seconds
    while (start := time.monotonic()) < end or not samples:
        infer()
        samples.append((time.monotonic() - start) * 1000)
    return samples


def measure(session: Session, job: Job, say: Say, device: str = "cpu", batches: Sequence[int] = (1,)) -> Result:
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
    answers = interleaved(tasks, job.rounds, say)
    series = [
        Series.of(case, name, "ms", [answer[name] for answer in answers[case]])
        for case in tasks
        for name in answers[case][0]
    ]
    return session.result(series, METHOD, notes)
