"""`cliprl-bench engines`: the networks alone, in every precision that the engine has, back to back."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from cliprl.bench.job import Job, Say, interleaved
from cliprl.bench.result import Result, Series
from cliprl.bench.session import Session
from cliprl.engines import compile_engine, open_bundle

PRECISIONS = ("f32", "bf16")
METHOD = {
    "includes": "one inference, batch 1, input and output in memory; the refiner: one step",
    "excludes": "compiling, view and network picture, labels, every other stage",
    "pace": "as fast as possible",
}


def one_round(precision: str, job: Job) -> dict[str, list[float]]:
    """Milliseconds of every inference of the encoder and of one refinement step, in this process."""
    bundle = open_bundle(job.bundle)
    manifest, text = bundle.manifest, bundle.embeddings
    image = np.random.default_rng(0).integers(0, 256, (1, manifest.height, manifest.width, 3), np.uint8)
    shapes: dict[str, tuple[int, ...]] = {"image": image.shape, "text": text.shape}
    encoder = compile_engine(bundle.encoder, precision=precision, shapes=shapes)
    seen = {name: value.copy() for name, value in encoder.run({"image": image, "text": text}).items()}
    state = {"features": seen["features"], "logits": seen["logits"], "base": seen["logits"], "prior": seen["logits"]}
    shapes = {name: value.shape for name, value in state.items()}
    refiner = compile_engine(bundle.refiner, precision=precision, shapes=shapes)
    return {
        "encoder": _timed(lambda: encoder.run({"image": image, "text": text}), job),
        "refinement step": _timed(lambda: refiner.run(state), job),
    }


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


def measure(session: Session, job: Job, say: Say, precisions: Sequence[str] = PRECISIONS) -> Result:
    """Every precision in turn, a fresh process each."""
    tasks = {precision: (one_round, (precision, job)) for precision in precisions}
    answers = interleaved(tasks, job.rounds, say)
    series = [
        Series.of(precision, name, "ms", [answer[name] for answer in answers[precision]])
        for precision in tasks
        for name in ("encoder", "refinement step")
    ]
    return session.result(series, METHOD)
