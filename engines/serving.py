"""From a bundle to engines that may serve: the best precision that passes the accuracy gate, compiled once and kept."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cliprl.engines.bundle import ENCODER, INT8_ENCODER, INT8_WEIGHTS, REFINER, Bundle, open_bundle
from cliprl.engines.cache import EngineCache, Say, silent
from cliprl.engines.engine import AUTO, Backend, Engine, Request, ready_backends
from cliprl.engines.errors import BundleError, EngineError, UsageError
from cliprl.engines.gate import VERSION, Comparison, judge
from cliprl.engines.reference import Reference, encoder_shapes, predict, reference_of, refiner_shapes, source_of
from cliprl.engines.store import Made

INT8 = "int8"
# How many runs an encoder's outputs stay valid, where the caller does not say.
BUFFERS = 4


@dataclass(frozen=True, slots=True)
class Pair:
    """A bundle's two networks, compiled alike. `report` is the gate's: what was compared with the reference, and how it went."""

    encoder: Engine
    refiner: Engine
    report: Mapping[str, Any]

    @property
    def backend(self) -> str:
        """The backend that runs both."""
        return self.encoder.backend

    @property
    def precision(self) -> str:
        """The arithmetic of both."""
        return self.encoder.precision


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to run a bundle: a backend, a precision, and the CPU threads it may use (0: all)."""

    bundle: Bundle
    backend: Backend
    precision: str
    threads: int = 0
    buffers: int = BUFFERS

    def fields(self) -> dict[str, str]:
        """Everything that the compiled engines, and the verdict on them, depend on."""
        hashes, shapes = self.bundle.manifest.hashes, encoder_shapes(self.bundle)
        return {
            "bundle": self.bundle.manifest.name,
            "backend": self.backend.name,
            "precision": self.precision,
            "encoder": hashes[self._file()] + hashes.get(INT8_WEIGHTS, "") * (self.precision == INT8),
            "refiner": hashes[REFINER],
            "texts": hashlib.sha256(self.bundle.embeddings.tobytes()).hexdigest(),
            "shapes": "; ".join(f"{name} {shape}" for name, shape in shapes.items()),
            "steps": str(self.bundle.manifest.steps),
            "threads": str(self.threads),
            "reference": f"{source_of(self.bundle)}, rule {VERSION}",
            **self.backend.identity(),
        }

    def build(self) -> dict[str, bytes]:
        """Compile both networks. Raises EngineError where the backend can't."""
        request = self._encoder()
        encoder = self.backend.build(request)
        shapes = refiner_shapes(self.bundle, self.backend.load(encoder, request))
        return {ENCODER: encoder, REFINER: self.backend.build(self._refiner(shapes))}

    def load(self, made: Made) -> Pair:
        """Make what `build` gave ready to run."""
        encoder = self.backend.load(made.parts[ENCODER], self._encoder())
        request = self._refiner(refiner_shapes(self.bundle, encoder))
        return Pair(encoder, self.backend.load(made.parts[REFINER], request), made.report)

    def _file(self) -> str:
        return INT8_ENCODER if self.precision == INT8 else ENCODER

    def _encoder(self) -> Request:
        path = self.bundle.path / self._file()
        return Request(path, self.precision, self.threads, encoder_shapes(self.bundle), self.buffers)

    def _refiner(self, shapes: Mapping[str, tuple[int, ...]]) -> Request:
        precision = self.backend.precisions()[0] if self.precision == INT8 else self.precision
        return Request(self.bundle.refiner, precision, self.threads, shapes)


def load_engines(
    bundle: Bundle,
    *,
    device: str = "cpu",
    precision: str = AUTO,
    threads: int = 0,
    buffers: int = BUFFERS,
    cache: EngineCache | None = None,
    say: Say = silent,
) -> Pair:
    """The networks of `bundle`, ready to run on `device`, from the cache where they were compiled before.

    "auto" takes the first backend and precision that the accuracy gate accepts; one asked for by name is taken or refused.
    `say` is told what takes time, and why. Raises EngineError where nothing can serve, with every reason.
    """
    cache = cache or EngineCache()
    refused = []
    for candidate in candidates(bundle, device, precision, threads, buffers):
        try:
            return _serve(candidate, cache, say)
        except EngineError as error:
            refused.append(str(error))
            if precision == AUTO:
                say(str(error))
    raise EngineError(f"bundle '{bundle.manifest.name}' can't be served on {device}: {'; '.join(refused)}")


def candidates(
    bundle: Bundle, device: str, precision: str = AUTO, threads: int = 0, buffers: int = BUFFERS
) -> Iterator[Candidate]:
    """Each backend that can serve, in each of its precisions or in the one asked for; the preferred first.

    Raises UsageError for a precision that none of them has here, EngineError where no backend serves.
    """
    quantised = INT8_ENCODER in bundle.manifest.hashes
    backends = ready_backends(device)
    known = [each for backend in backends for each in backend.precisions(quantised)]
    if precision not in (AUTO, *known):
        raise UsageError(f"precision '{precision}' can't be had on {device} here: {', '.join([AUTO, *known])}")
    for backend in backends:
        for each in backend.precisions(quantised):
            if precision in (AUTO, each):
                yield Candidate(bundle, backend, each, threads, buffers)


def examine(candidate: Candidate, parts: Mapping[str, bytes], reference: Reference) -> tuple[Comparison, Comparison]:
    """Run what was built over the reference's pictures, and compare."""
    pair = candidate.load(Made(parts))
    outputs = predict(pair.encoder, pair.refiner, reference.pictures, candidate.bundle)
    names = [spec.name for spec in candidate.bundle.manifest.classes]
    return judge(*outputs, reference, names)


def _serve(candidate: Candidate, cache: EngineCache, say: Say) -> Pair:
    """Load a candidate from the cache or build it. Raises EngineError, with the figures, where the gate refuses it."""
    fields = candidate.fields()
    made = cache.get_or_make(fields, lambda: _make(candidate, say), say)
    if made.report["faults"]:
        raise EngineError(
            f"{candidate.backend.name} in {candidate.precision} is refused by the accuracy gate: "
            f"{', '.join(made.report['faults'])}"
        )
    try:
        return candidate.load(made)
    except EngineError as error:
        # Whole, made for this machine, and yet it does not load: worth one more build.
        say(f"{error}: compiling again")
        cache.forget(fields)
        return candidate.load(cache.get_or_make(fields, lambda: _make(candidate, say), say))


def _make(candidate: Candidate, say: Say) -> Made:
    """Build, and pass or refuse: a verdict of refusal is kept too, so that it need not be found again."""
    name = f"{candidate.bundle.manifest.name} for {candidate.backend.name} in {candidate.precision}"
    say(f"compiling {name}: this is done once")
    start = time.monotonic()
    parts = candidate.build()
    seconds = time.monotonic() - start
    _unchanged(candidate.bundle)
    reference = reference_of(candidate.bundle)
    comparisons = examine(candidate, parts, reference)
    faults = [fault for comparison in comparisons for fault in comparison.faults()]
    report = {
        "seconds": round(seconds, 3),
        "reference": reference.source,
        "faults": faults,
        "comparisons": [comparison.to_json() for comparison in comparisons],
    }
    return Made({} if faults else parts, report)


def _unchanged(bundle: Bundle) -> None:
    """The compiler has read the files anew: they must still be those whose hashes were checked. Raises BundleError."""
    if open_bundle(bundle.path).manifest.hashes != bundle.manifest.hashes:
        raise BundleError(f"{bundle.path} was written anew while it was compiled: start again")
