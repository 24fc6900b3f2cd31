"""The largest input size that keeps up with a source on this machine, for `--input-size auto`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from statistics import median

import numpy as np

from cliprl.engines import (
    Bundle,
    BundleError,
    Engine,
    EngineError,
    UsageError,
    ignore_message,
    load_engines,
    own_size,
    size_of,
    size_text,
    with_input_size,
)
from cliprl.engines.bundle.input_size import Size, nearest_size
from cliprl.pipeline.core.interfaces import StreamInfo

# Multiples of the bundle's own sides that are tried, the largest first: 512x640, 384x480 and 256x320 for the small bundle.
FACTORS = (2.0, 1.5)
# An encoder keeps up if it takes this share of the time between two frames: the rest is for decoding, refining and drawing.
ENCODER_SHARE = 0.6
# Frames a second that are assumed for a live source of unknown rate.
USUAL_RATE = 30.0
# Timed runs of an encoder, and those before them that only warm it.
TIMED_RUNS, WARMING_RUNS = 7, 2
# A size is compiled and timed if its time, in proportion to the pixels, is at most this multiple of the limit.
HOPEFUL = 1.3


def fit_input_size(
    bundle: Bundle,
    info: StreamInfo | None,
    *,
    device: str = "cpu",
    precision: str = "auto",
    threads: int = 0,
    log: Callable[[str], None] = ignore_message,
) -> Bundle:
    """Return the bundle at the largest input size that keeps up with a source on this machine.

    `info`: of the source, None if it is not open yet. A file without a frame rate, such as a list of images, gets the largest
    size; a live source without one counts as one of `USUAL_RATE`.
    """
    rate = float(info.rate) if info and info.rate else None
    if rate is None and (info is None or info.live):
        rate = USUAL_RATE

    def seconds(sized: Bundle) -> float:
        return encoder_seconds(
            load_engines(sized, device=device, precision=precision, threads=threads, log=log).encoder, sized
        )

    return largest_in_time(bundle, None if rate is None else ENCODER_SHARE / rate, seconds, log)


def largest_in_time(
    bundle: Bundle, limit: float | None, seconds: Callable[[Bundle], float], log: Callable[[str], None]
) -> Bundle:
    """Return the bundle at the largest size whose encoder takes at most `limit` seconds, else at its own; None: no limit.

    `seconds` measures an encoder. Raises what it does at the bundle's own size.
    """
    if limit is not None:
        own_seconds = seconds(bundle)
    for size in _larger_sizes(bundle):
        pixels = size[0] * size[1] / np.prod(size_of(bundle))
        if limit is not None and own_seconds * pixels > HOPEFUL * limit:
            continue
        try:
            took = seconds(sized := with_input_size(bundle, size))
        except (BundleError, EngineError, UsageError) as error:
            log(f"input size {size_text(size)} is not used: {error}")
            continue
        if limit is None or took <= limit:
            log(f"input size {size_text(size)}: {took * 1000:.0f} ms a frame")
            return sized
    log(f"input size {size_text(size_of(bundle))}: larger ones do not keep up here")
    return bundle


def _larger_sizes(bundle: Bundle) -> Iterator[Size]:
    height, width = own_size(bundle)
    return (nearest_size(height * factor, width * factor) for factor in FACTORS)


def encoder_seconds(encoder: Engine, bundle: Bundle) -> float:
    """Return the median time of an encoder's run, in seconds: what else the machine does counts."""
    image = np.random.default_rng(0).integers(0, 256, encoder.inputs["image"].shape, np.uint8)
    inputs, times = {"image": image, "text": bundle.embeddings}, []
    for _ in range(WARMING_RUNS + TIMED_RUNS):
        start = time.perf_counter()
        encoder.run(inputs)
        times.append(time.perf_counter() - start)
    return median(times[WARMING_RUNS:])
