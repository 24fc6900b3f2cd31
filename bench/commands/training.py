"""`cliprl-bench training`: how fast a recipe learns on this machine, and whether loading data holds it up.

Every round, in a fresh process, learns for a while in the dense stage and in the reinforcement stage, on rendered scenes and
from random weights, on which speed does not depend; then batches are made alone. A stage that waits for data, or a GPU that
is idle while it learns, says that loading is the bottleneck.
"""

from __future__ import annotations

import hashlib
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cliprl.bench.harness.nvml import open_meter
from cliprl.bench.harness.result import Result, Series
from cliprl.bench.harness.result_session import ResultSession
from cliprl.bench.harness.sampler import Sampler
from cliprl.bench.harness.timing import BenchJob, Say

if TYPE_CHECKING:
    from cliprl.models.config.config import Recipe
    from cliprl.models.training.stages.reinforcement import Reinforcement
    from cliprl.models.training.stages.supervised import Supervised
    from cliprl.models.training.throughput import Throughput

METHOD = {
    "includes": "batches drawn, augmented and moved to the device, forward, backward, the optimiser's step",
    "excludes": "drawing scenes, checkpoints, logs, scores; the contrastive stage",
    "loading alone": "batches of the dense stage, made by the same threads, with nobody learning",
    "data": "rendered scenes in the page cache; weights random",
}
LOADING = "loading alone"
# Rendered scenes: enough that the page cache, not one decoded file, is what is read.
SCENES = ("data.scenes=48", "data.policy_scenes=12", "data.frames=2", "data.train=[]", "data.policy=[]", "data.test=[]")
OURS = (*SCENES, "network.weights=", "scoring.scenes=0", "contrastive.steps=0", "data.larynx=")
# By stage: quantity to its samples.
Answer = dict[str, dict[str, list[float]]]
UNITS = {"pictures": "pictures/s", "step": "ms", "waiting for data": "%", "GPU busy": "%"}


def recipe_of(name: str, settings: Sequence[str]) -> Recipe:
    """A recipe with what is measured here in place of its data. Raises UsageError as `load_recipe` does."""
    from cliprl.models.config.load import load_recipe

    return load_recipe(name, [*settings, *OURS])


def one_round(name: str, settings: Sequence[str], device: str, threads: int, folder: Path, job: BenchJob) -> Answer:
    """Both stages and the loader, for as long as the job says each."""
    import torch

    from cliprl.models.network.network import ClipSegmenter
    from cliprl.models.network.refiner import RefinerNetwork
    from cliprl.models.training.parallel import launch
    from cliprl.models.training.stages.reinforcement import Reinforcement
    from cliprl.models.training.stages.supervised import Supervised

    recipe = recipe_of(name, settings)
    if threads:
        torch.set_num_threads(threads)
    place, sets = launch(device), _open(recipe, folder)
    torch.manual_seed(recipe.seed)
    network = ClipSegmenter(recipe.network).to(place).to(memory_format=torch.channels_last)
    refiner = RefinerNetwork.beside(network, recipe.network.policy, len(sets.classes), recipe.reinforcement).to(place)
    cuda = place.type == "cuda"
    meter = open_meter(str(torch.cuda.get_device_properties(place).uuid)) if cuda else None
    busy = meter.busy if meter else lambda: None
    dense = Supervised(network, sets.train, sets.classes, recipe)
    answer = {dense.name: _learned(dense, busy, job)}
    policy = Reinforcement(network, refiner, sets.policy, sets.classes, recipe)
    answer[policy.name] = _learned(policy, busy, job)
    loader = Supervised(network, sets.train, sets.classes, recipe).batches
    answer[LOADING] = {"pictures": _loaded(loader, recipe.supervised.batch, job)}
    loader.close()
    return answer


def _open(recipe: Recipe, folder: Path) -> Any:
    from cliprl.models.training.run_datasets import open_run_datasets

    return open_run_datasets(recipe, folder, lambda done, total: None)


def _learned(
    stage: Supervised | Reinforcement, busy: Callable[[], float | None], job: BenchJob
) -> dict[str, list[float]]:
    """Steps for the job's seconds after its warm-up: each one's pace; the share of all that went by waiting; the GPU's load."""
    from cliprl.models.training.throughput import ThroughputMeter

    step = _steps(stage, 0, job.warm_up)
    pacer, sampler = ThroughputMeter(), Sampler(busy)
    stage.step(step)
    pacer.after(stage, step)
    sampler.start()
    paces: list[tuple[Throughput, Throughput]] = []
    end = time.monotonic() + job.seconds
    while not paces or time.monotonic() < end:
        step += 1
        stage.step(step)
        if pace := pacer.after(stage, step):
            paces.append(pace)
    loads = sampler.stop()
    stage.batches.close()
    _, whole = paces[-1]
    found = {
        "pictures": [whole.images_per_second],
        "step": [1000 * each.seconds for each, _ in paces],
        "waiting for data": [100 * whole.waiting],
    }
    # The meter looks back: its first answers are of the time before.
    return found | ({"GPU busy": loads[len(loads) // 4 :]} if loads else {})


def _steps(stage: Supervised | Reinforcement, step: int, seconds: float) -> int:
    """Learn for so many seconds, at least one step; the number of the next one."""
    end = time.monotonic() + seconds
    while True:
        stage.step(step)
        step += 1
        if time.monotonic() >= end:
            return step


def _loaded(batches: Callable[[int], object], size: int, job: BenchJob) -> list[float]:
    """Pictures a second that the loader makes where nothing else is done."""
    step = 0
    for seconds in (job.warm_up, job.seconds):
        first, start = step, time.monotonic()
        while step == first or time.monotonic() < start + seconds:
            batches(step)
            step += 1
    return [(step - first) * size / (time.monotonic() - start)]


def measure(
    session: ResultSession, job: BenchJob, say: Say, name: str, settings: Sequence[str], device: str, threads: int
) -> Result:
    """All rounds. Raises UsageError for a recipe, a setting or a device that there is not."""
    from cliprl.models.training.parallel import launch

    recipe = recipe_of(name, settings)
    launch(device)  # one that is not there is told before anything is drawn
    say("drawing scenes")
    _open(recipe, session.folder)
    words = [
        Path(name).name,
        "--device",
        device,
        "--threads",
        f"{threads}",
        *(w for s in settings for w in ("--set", s)),
    ]
    timing = ["--rounds", f"{job.rounds}", "--seconds", f"{job.seconds:g}", "--warm-up", f"{job.warm_up:g}"]
    size = f"{recipe.network.width}x{recipe.network.height}"
    identity = hashlib.sha256(repr(sorted(asdict(recipe).items())).encode()).hexdigest()
    told: dict[str, Any] = {
        "command": shlex.join(["cliprl-bench", "training", *words, *timing]),
        "input": {"name": "rendered scenes", "size": size},
        "bundle": {"name": f"recipe {recipe.name}", "sha256": identity, "input": size},
    }

    def made(answers: Any) -> Result:
        return replace(session.result(_series(answers["learning"]), METHOD | {"precision": recipe.precision}), **told)

    tasks = {"learning": (one_round, (name, settings, device, threads, session.folder, job))}
    return session.rounds(tasks, job.rounds, say, made)


def _series(rounds: Sequence[Answer]) -> list[Series]:
    """A series for each quantity of each stage; and how much faster the loader is than what learns from it."""
    found = [
        Series.of(case, quantity, UNITS[quantity], [answer[case][quantity] for answer in rounds])
        for case, quantities in rounds[0].items()
        for quantity in quantities
    ]
    dense = next(iter(rounds[0]))
    leads = [[answer[LOADING]["pictures"][0] / answer[dense]["pictures"][0]] for answer in rounds]
    return [*found, Series.of(LOADING, f"pictures over {dense}", "times", leads)]
