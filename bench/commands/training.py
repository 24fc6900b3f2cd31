"""`cliprl-bench training`: how fast a recipe learns on this machine, and whether loading data holds it up.

Every round, in a fresh process, trains in the dense stage and in the reinforcement stage, on rendered scenes and from random
weights, on which speed does not depend; then only batches are made. If a stage waits for data, or a GPU is idle meanwhile,
loading is the bottleneck.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cliprl.bench.harness.meters import Sampler, open_meter
from cliprl.bench.harness.registry import measurement
from cliprl.bench.harness.result import Result, Series
from cliprl.bench.harness.result_session import ResultSession
from cliprl.bench.harness.timing import BenchJob, LogFunction

if TYPE_CHECKING:
    from cliprl.models.config.config import Recipe
    from cliprl.models.training.stages.reinforcement import Reinforcement
    from cliprl.models.training.stages.supervised import Supervised
    from cliprl.models.training.throughput import Throughput

METHOD = {
    "includes": "batches drawn, augmented and moved to the device, forward, backward, the optimizer's step",
    "excludes": "drawing scenes, checkpoints, logs, scores; the contrastive stage",
    "loading alone": "batches of the dense stage, made by the same threads, without training",
    "data": "rendered scenes in the page cache; weights random",
}
LOADING = "loading alone"
# Rendered scenes: enough to read from the page cache instead of one decoded file.
SCENES = ("data.scenes=48", "data.policy_scenes=12", "data.frames=2")
OVERRIDES = (
    *("data.train=[]", "data.policy=[]", "data.test=[]", "data.larynx="),
    *("network.weights=", "scoring.scenes=0", "contrastive.steps=0"),
)
# By stage: quantity to its samples.
TrainingSamples = dict[str, dict[str, list[float]]]
UNITS = {"pictures": "pictures/s", "step": "ms", "waiting for data": "%", "GPU busy": "%"}


def recipe_of(name: str, settings: Sequence[str]) -> Recipe:
    """Load a recipe with rendered scenes, as many as `settings` say, in place of its data.

    Raises UsageError as `load_recipe` does.
    """
    from cliprl.models.config.load import load_recipe

    return load_recipe(name, [*SCENES, *settings, *OVERRIDES])


def one_round(
    name: str, settings: Sequence[str], device: str, threads: int, folder: Path, job: BenchJob
) -> TrainingSamples:
    """Measure both stages and the loader, each for the job's seconds."""
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
    """Train for the job's seconds after its warm-up; return throughput, step times, the share of waiting, and the GPU's load."""
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
    # The meter averages over the past: its first answers cover the time before.
    return found | ({"GPU busy": loads[len(loads) // 4 :]} if loads else {})


def _steps(stage: Supervised | Reinforcement, step: int, seconds: float) -> int:
    """Train for `seconds`, at least one step; return the number of the next step."""
    end = time.monotonic() + seconds
    while True:
        stage.step(step)
        step += 1
        if time.monotonic() >= end:
            return step


def _loaded(batches: Callable[[int], object], size: int, job: BenchJob) -> list[float]:
    """Images a second of the loader alone."""
    step = 0
    for seconds in (job.warm_up, job.seconds):
        first, start = step, time.monotonic()
        while step == first or time.monotonic() < start + seconds:
            batches(step)
            step += 1
    return [(step - first) * size / (time.monotonic() - start)]


@measurement(
    "training",
    help="How fast a recipe learns, how long it waits for data, and how busy that keeps a GPU (needs the extra `train`).",
    defaults=BenchJob("", rounds=3, seconds=30, warm_up=5),
    settings=("rounds", "seconds", "warm_up"),
    clip=False,
)
def measure(
    session: ResultSession,
    job: BenchJob,
    log: LogFunction,
    recipe: Annotated[str, typer.Argument(help="A shipped recipe's name, or a TOML file.")] = "small",
    device: Annotated[str, typer.Option(help="auto (a GPU where there is one), cpu or cuda.")] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads of torch; 0 means all cores.")] = 0,
    settings: Annotated[Sequence[str], typer.Option("--set", help="Change a setting; may be repeated.")] = (),
) -> Result:
    """Measure all rounds. Raises UsageError for an unknown recipe, setting or device."""
    from cliprl.models.training.parallel import launch

    loaded = recipe_of(recipe, settings)
    launch(device)  # reports a missing device before any scene is rendered
    log("drawing scenes")
    _open(loaded, session.folder)
    size = f"{loaded.network.width}x{loaded.network.height}"
    identity = hashlib.sha256(repr(sorted(asdict(loaded).items())).encode()).hexdigest()
    given = {
        "input": {"name": "rendered scenes", "size": size},
        "bundle": {"name": f"recipe {loaded.name}", "sha256": identity, "input": size},
    }

    def make_result(answers: Any) -> Result:
        result = session.result(_series(answers["learning"]), METHOD | {"precision": loaded.precision})
        return replace(result, **given)  # type: ignore[arg-type]

    tasks = {"learning": (one_round, (recipe, settings, device, threads, session.folder, job))}
    return session.rounds(tasks, job.rounds, log, make_result)


def _series(rounds: Sequence[TrainingSamples]) -> list[Series]:
    """A series for each quantity of each stage, and the speed of the loader over that of the dense stage."""
    found = [
        Series.of(case, quantity, UNITS[quantity], [answer[case][quantity] for answer in rounds])
        for case, quantities in rounds[0].items()
        for quantity in quantities
    ]
    dense = next(iter(rounds[0]))
    leads = [[answer[LOADING]["pictures"][0] / answer[dense]["pictures"][0]] for answer in rounds]
    return [*found, Series.of(LOADING, f"pictures over {dense}", "times", leads)]
