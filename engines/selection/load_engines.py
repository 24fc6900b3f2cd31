"""Load the engines of a bundle: the fastest precision that passes the accuracy gate, compiled once and cached."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np

from cliprl.engines.backends.engine import AUTO, Engine, LogFunction, ignore_message
from cliprl.engines.bundle.bundle import PROBE_FILE, REFINER, Bundle, check_hash
from cliprl.engines.bundle.manifest import MANIFEST
from cliprl.engines.bundle.manifest_file import read_manifest
from cliprl.engines.bundle.reference_outputs import reference_of
from cliprl.engines.cache.cache_store import StoredEntry
from cliprl.engines.cache.engine_cache import EngineCache, entry_name
from cliprl.engines.cpu_count import available_cpus
from cliprl.engines.errors import BundleError, EngineError, UsageError
from cliprl.engines.selection.engine_variant import (
    CompiledBundle,
    EngineVariant,
    compare_with_reference,
    engine_variants,
)

FULL = "f32"


def load_engines(
    bundle: Bundle,
    *,
    device: str = "cpu",
    precision: str = AUTO,
    threads: int = 0,
    batch: int = 1,
    cache: EngineCache | None = None,
    log: LogFunction = ignore_message,
) -> CompiledBundle:
    """The networks of `bundle`, ready to run on `device`, from the cache where they were compiled before.

    "auto" takes the first backend that can serve, and of its precisions that the accuracy gate accepts the one that is
    fastest on this machine; one asked for by name is taken or refused.
    `threads` 0 means half of the processors. `log` gets messages about what takes time, and why.
    The encoder takes `batch` images at a
    time, for work on stored images on a GPU: on a CPU it gains nothing (small, bf16, one core: 8.5 ms an image alone, 8.3 in
    fours, 8.9 in eights), and a stream's frames do not wait for each other.
    Raises UsageError for a batch below 1 and threads below 0, EngineError where nothing can serve, with every reason.
    """
    if batch < 1:
        raise UsageError(f"batch {batch} is no number of images: give 1 or more")
    if threads < 0:
        raise UsageError(
            f"threads {threads} is negative: give the CPU threads of the networks, or 0 for half of the processors"
        )
    cache = cache or EngineCache()
    refused = []
    # Compilers of a GPU time kernels on it, so that two at once would disturb each other.
    served = _Served(cache, log, available_cpus() if device == "cpu" else 1)
    found = engine_variants(bundle, device, precision, threads, log, batch)
    for variant in _fastest_first(found, served) if precision == AUTO else found:
        try:
            return served(variant)
        except EngineError as error:
            refused.append(str(error))
            if precision == AUTO:
                log(str(error))
    raise EngineError(f"bundle '{bundle.manifest.name}' can't be served on {device}: {'; '.join(refused)}")


class _Served:
    """Load each variant once: one that the speed test has loaded is reused. `at_once`: how many may be compiled at a time."""

    def __init__(self, cache: EngineCache, log: LogFunction, at_once: int) -> None:
        self.cache, self.log, self.at_once = cache, log, at_once
        self._pairs: dict[tuple[str, str], CompiledBundle | EngineError] = {}

    def __call__(self, variant: EngineVariant) -> CompiledBundle:
        kind = variant.backend.name, variant.precision
        if kind not in self._pairs:
            try:
                self._pairs[kind] = serve(variant, self.cache, self.log)
            except EngineError as error:
                self._pairs[kind] = error
        found = self._pairs[kind]
        if isinstance(found, EngineError):
            raise found
        return found

    def load_together(self, variants: Sequence[EngineVariant]) -> None:
        """Load all variants, as many at once as may be. Errors are raised when a variant is asked for."""
        if self.at_once > 1:
            with ThreadPoolExecutor(self.at_once) as pool:
                for loading in [pool.submit(self, variant) for variant in variants]:
                    with suppress(EngineError):
                        loading.result()


def serve(variant: EngineVariant, cache: EngineCache, log: LogFunction = ignore_message) -> CompiledBundle:
    """Load a variant from the cache or build it. Raises EngineError, with the figures, if the accuracy gate refuses it."""
    fields = variant.fields()
    variant = replace(variant, sidecar=cache.folder / entry_name(fields))
    try:
        return _cached_or_built(variant, fields, cache, log)
    except _UnloadableError as error:
        # Whole, made for this machine, and yet it does not load: worth one more build.
        log(f"{error}: compiling again")
        cache.forget(fields)
        return _cached_or_built(variant, fields, cache, log)


class _UnloadableError(EngineError):
    """A cached engine that does not load."""


def _cached_or_built(
    variant: EngineVariant, fields: Mapping[str, str], cache: EngineCache, log: LogFunction
) -> CompiledBundle:
    compiled: list[CompiledBundle] = []
    made = cache.get_or_make(fields, lambda: _make(variant, log, compiled), log)
    if made.report["faults"]:
        raise EngineError(
            f"{variant.backend.name} in {variant.precision} is refused by the accuracy gate: "
            f"{', '.join(made.report['faults'])}"
        )
    if compiled:
        return replace(compiled[0], report=made.report)
    try:
        return variant.load(made)
    except EngineError as error:
        raise _UnloadableError(str(error)) from error


def _fastest_first(found: Iterable[EngineVariant], served: _Served) -> Iterator[EngineVariant]:
    """Backends in their order; of each its precisions by measured speed, 32 bits, which are never faster, last."""
    for _, group in groupby(found, lambda variant: variant.backend.name):
        every = list(group)
        rivals = [variant for variant in every if variant.precision != FULL]
        if len(rivals) > 1:
            order = _measured_order(rivals, served)
            rivals.sort(key=lambda rival: order.index(rival.precision) if rival.precision in order else len(order))
        yield from (*rivals, *(variant for variant in every if variant.precision == FULL))


def _measured_order(rivals: Sequence[EngineVariant], served: _Served) -> Sequence[str]:
    """The accepted precisions, the fastest first: raced once, then known from the cache."""
    names = "; ".join(entry_name(rival.fields()) for rival in rivals)
    fields = rivals[0].fields() | {"precision": AUTO, "rivals": names}
    made = served.cache.get_or_make(fields, lambda: StoredEntry({}, _raced(rivals, served)))
    order: Sequence[str] = made.report["order"]
    return order


def _raced(rivals: Sequence[EngineVariant], served: _Served) -> dict[str, Any]:
    """Compile and check every variant, and time the accepted ones; `log` gets the refusals."""
    accepted: dict[str, Engine] = {}
    served.load_together(rivals)
    for rival in rivals:
        try:
            accepted[rival.precision] = served(rival).encoder
        except EngineError as error:
            served.log(str(error))
    times = run_speed_test(accepted, rivals[0].bundle) if len(accepted) > 1 else dict.fromkeys(accepted, 0.0)
    order = ranked(times)
    if len(order) > 1:
        served.log(f"{order[0]} serves: {', '.join(f'{name} {times[name]:.1f} ms' for name in order)} a frame")
    return {"faults": [], "milliseconds": {name: round(ms, 3) for name, ms in times.items()}, "order": order}


def _make(variant: EngineVariant, log: LogFunction, compiled: list[CompiledBundle]) -> StoredEntry:
    """Build, and pass or refuse: a verdict of refusal is kept too, so that it need not be found again.

    What was compared with the reference is appended to `compiled`.
    """
    name = f"{variant.bundle.manifest.name} for {variant.backend.name} in {variant.precision}"
    log(f"compiling {name}: this is done once")
    start = time.monotonic()
    parts, pair = variant.compile()
    seconds = time.monotonic() - start
    _check_unchanged(variant)
    reference = reference_of(variant.bundle)
    comparisons = compare_with_reference(pair, variant.bundle, reference)
    compiled.append(pair)
    faults = [fault for comparison in comparisons for fault in comparison.faults()]
    report = {
        "seconds": round(seconds, 3),
        "reference": reference.source,
        "faults": faults,
        "comparisons": [comparison.to_json() for comparison in comparisons],
    }
    return StoredEntry({} if faults else parts, report)


def _check_unchanged(variant: EngineVariant) -> None:
    """Raise BundleError if what was read anew to compile a bundle is not what was opened, whose hashes were checked."""
    path, hashes = variant.bundle.path, variant.bundle.manifest.hashes
    if read_manifest(path / MANIFEST).hashes != hashes:
        raise BundleError(f"{path} was written anew while it was compiled: start again")
    for name in sorted({*variant.backend.sources(variant.precision), REFINER, PROBE_FILE} & hashes.keys()):
        check_hash(path / name, hashes[name])


# The most runs of each engine that count, and those before them that only warm it.
RUNS, WARM_UP_RUNS = 30, 3
# The test ends after this number of turns in which no engine got faster than this share of its fastest run.
SETTLED_TURNS, FASTER = 6, 0.99
# What a less accurate engine must gain: for less than a twentieth no label is given away.
MARGIN = 0.95


def run_speed_test(engines: Mapping[str, Engine], bundle: Bundle) -> dict[str, float]:
    """Milliseconds of each encoder's fastest run on random images; what disturbs a run can only make it longer."""
    size = next(iter(engines.values())).inputs["image"].shape
    image = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    inputs = {"image": image, "text": bundle.embeddings}
    fastest, latest = dict.fromkeys(engines, float("inf")), 0
    for turn in range(WARM_UP_RUNS + RUNS):
        for name, engine in engines.items():
            start = time.perf_counter()
            engine.run(inputs)
            ms = (time.perf_counter() - start) * 1000
            if turn >= WARM_UP_RUNS:
                latest = turn if ms < FASTER * fastest[name] else latest
                fastest[name] = min(fastest[name], ms)
        if latest and turn - latest >= SETTLED_TURNS:
            break
    return fastest


def ranked(times: Mapping[str, float]) -> list[str]:
    """The names by time; the first given, which is the most accurate, stays first unless another gains the MARGIN."""
    order = sorted(times, key=lambda name: times[name])
    first = next(iter(times), None)
    if first is not None and times[order[0]] > MARGIN * times[first]:
        order.remove(first)
        order.insert(0, first)
    return order
