"""`python -m cliprl.bench.stream CLIP`: frames per second, file to file, of `cliprl-stream` and of the plain loop.

Each run is a process of its own, so that its CPU time can be told; the two take turns, so that both meet the same machine.
What is inside a figure: from the first frame asked for to the output file closed. What is not: starting Python and compiling
the network.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from cliprl.bench import plain_loop
from cliprl.engines import open_bundle
from cliprl.pipeline import Overlay, Scene, Segmenter, Stream, open_sink, open_source

Measure = tuple[int, float, float]


def ours(clip: str, out: str, bundle: str) -> Measure:
    """Frames, wall seconds, CPU seconds of the pipeline with its defaults."""
    segmenter = Segmenter(bundle)
    source = open_source(clip)
    sink = open_sink(out, Scene(source.info, segmenter.classes))
    start, cpu = time.monotonic(), time.process_time()
    summary = Stream(source, segmenter, Overlay(segmenter.classes), [sink]).run()
    return summary.frames, time.monotonic() - start, time.process_time() - cpu


def plain(clip: str, out: str, bundle: str) -> Measure:
    """The same of the plain loop, with the bundle's default steps."""
    opened = open_bundle(bundle)
    segment = plain_loop.PlainSegmenter(opened, opened.manifest.steps)
    start, cpu = time.monotonic(), time.process_time()
    frames = plain_loop.run(Path(clip), Path(out), opened, segment)
    return frames, time.monotonic() - start, time.process_time() - cpu


CONTENDERS: dict[str, Callable[[str, str, str], Measure]] = {"cliprl-stream": ours, "plain loop": plain}


def measure(clip: str, bundle: str, rounds: int) -> dict[str, list[Measure]]:
    """Run every contender `rounds` times, in turn, each in a fresh process; one uncounted round goes before."""
    results: dict[str, list[Measure]] = {name: [] for name in CONTENDERS}
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(rounds + 1):
            for name, contender in CONTENDERS.items():
                with context.Pool(1) as pool:
                    result = pool.apply(contender, (clip, str(Path(folder) / "out.mp4"), bundle))
                if turn:
                    results[name].append(result)
    return results


def table(results: dict[str, list[Measure]]) -> dict[str, dict[str, float]]:
    """Medians over the rounds: frames per second and CPU time over wall time."""
    return {
        name: {
            "fps": statistics.median(frames / wall for frames, wall, _ in runs),
            "cpu_over_wall": statistics.median(cpu / wall for _, wall, cpu in runs),
        }
        for name, runs in results.items()
    }


def main() -> None:
    """Parse the command line, measure, print a line a contender and the ratio; `--json` prints everything."""
    parser = argparse.ArgumentParser(prog="python -m cliprl.bench.stream", description=__doc__)
    parser.add_argument("clip", help="a video file")
    parser.add_argument("--bundle", default="small")
    parser.add_argument("--rounds", type=int, default=5, help="counted runs of each (default 5)")
    parser.add_argument("--json", action="store_true", help="print the samples as JSON")
    options = parser.parse_args()
    results = measure(options.clip, options.bundle, options.rounds)
    medians = table(results)
    pairs = zip(*results.values(), strict=True)
    ratio = statistics.median((a[0] / a[1]) / (b[0] / b[1]) for a, b in pairs)
    if options.json:
        print(json.dumps({"clip": options.clip, "samples": results, "medians": medians, "ratio": ratio}))
        return
    for name, row in medians.items():
        print(f"{name:14} {row['fps']:6.1f} FPS   CPU/wall {row['cpu_over_wall']:.2f}")
    print(f"ratio          {ratio:6.2f}")


if __name__ == "__main__":
    main()
