"""Two processes are as good as one: the real launcher of torchrun, real gloo, every stage's gradient."""

from __future__ import annotations

import runpy
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from tiny import NETWORK

from cliprl.engines import UsageError
from cliprl.models.config.config import ReinforcementConfig
from cliprl.models.config.load import load_recipe
from cliprl.models.network.network import ClipSegmenter
from cliprl.models.network.refiner import RefinerNetwork
from cliprl.models.training.parallel import autocast, batch_share, launch
from cliprl.pipeline.synthetic import SCENE_CLASSES

# Every stage takes one step on a batch of four from the same start and leaves its gradients; then one is trained whole.
STEPS = textwrap.dedent("""
    import sys
    from pathlib import Path
    import torch
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch
    from cliprl.models.config.load import load_recipe
    from cliprl.models.network.network import ClipSegmenter
    from cliprl.models.network.refiner import RefinerNetwork
    from cliprl.models.training import parallel
    from cliprl.models.training.callbacks import TrainingCallback
    from cliprl.models.training.checkpoint import CheckpointWriter, run_stage
    from cliprl.models.training.run_datasets import open_run_datasets
    from cliprl.models.training.stages.contrastive import Contrastive
    from cliprl.models.training.stages.reinforcement import Reinforcement
    from cliprl.models.training.stages.supervised import Supervised
    from cliprl.models.training.training import log_steps

    def gradients(module):
        return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}

    def fresh(recipe):
        torch.manual_seed(0)
        return ClipSegmenter(recipe.network)

    def main(recipe, out, cache):
        torch.set_num_threads(1)
        parallel.launch("cpu")
        recipe, out = load_recipe(recipe, [f"data.cache={cache}"]), Path(out)
        sets, found = open_run_datasets(recipe, out, lambda done, total: None), {}
        for stage in (
            Contrastive(fresh(recipe), sets.captioned, recipe),
            Supervised(fresh(recipe), sets.train, sets.classes, recipe),
        ):
            stage.step(0)
            found[stage.name] = gradients(stage.network)
        refiner = RefinerNetwork.beside(stage.network, recipe.network.policy, len(sets.classes), recipe.reinforcement)
        stage = Reinforcement(stage.network.eval(), refiner, sets.policy, sets.classes, recipe)
        stage.step(0)
        refiner.load_state_dict(torch.load(out.parent / "refiner.pt"))
        mine = list(parallel.batch_share(4))
        features = torch.randn(4, recipe.network.features, 6, 6, generator=torch.Generator().manual_seed(1))[mine]
        loss = refiner.project(features).square().mean((1, 2, 3)) @ torch.arange(4.0)[mine] / len(mine)
        stage.module = refiner
        stage.update(loss)
        found["update"] = gradients(refiner)
        with log_steps(recipe, out, TrainingCallback()) as report:
            run_stage(Supervised(fresh(recipe), sets.train, sets.classes, recipe), CheckpointWriter(out), report)
        if not parallel.process_rank():
            torch.save(found, out / "gradients.pt")

    if __name__ == "__main__":
        # What torchrun does, with processes forked from this one, which has imported what both need.
        config = LaunchConfig(1, 1, 2, rdzv_backend="c10d", rdzv_endpoint="localhost:0", start_method="fork")
        elastic_launch(config, main)(*sys.argv[1:])
""")
TINY = (
    """
name = "tiny"
"""
    + NETWORK
    + """[data]
scenes = 4
policy_scenes = 1
frames = 2
height = 64
width = 96
workers = 1
[contrastive]
steps = 2
batch = 4
[scoring]
scenes = 1
[supervised]
steps = 2
batch = 4
[reinforcement]
steps = 2
batch = 4
[curriculum.reinforcement]
unroll = [2, 2]
"""
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The folders of a run in one process, this one, and in two of torchrun's."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "tiny.toml").write_text(TINY)
    (folder / "steps.py").write_text(STEPS)
    sizes = load_recipe(folder / "tiny.toml").network
    refiner = RefinerNetwork.beside(ClipSegmenter(sizes), sizes.policy, len(SCENE_CLASSES), ReinforcementConfig())
    torch.save(refiner.state_dict(), folder / "refiner.pt")
    for out in ("one", "two"):
        (folder / out).mkdir()
    words = [str(folder / "tiny.toml"), str(folder / "one"), str(folder / "scenes")]
    runpy.run_path(str(folder / "steps.py"))["main"](*words)
    words[1] = str(folder / "two")
    command = [sys.executable, str(folder / "steps.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return {1: folder / "one", 2: folder / "two"}


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["contrastive", "supervised", "update"])
def test_two_processes_match_one_with_twice_the_batch(runs: dict[int, Path], stage: str) -> None:
    one, two = (torch.load(runs[n] / "gradients.pt")[stage] for n in (1, 2))
    assert one.keys() == two.keys()
    assert len(one) > 1
    for name, gradient in one.items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(
            two[name], gradient, rtol=1e-4, atol=1e-5 * scale + 1e-9, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.slow
def test_only_the_first_process_writes(runs: dict[int, Path]) -> None:
    """One event file, one checkpoint: the other process has left none of its own."""
    for folder in runs.values():
        names = sorted(p.relative_to(folder).as_posix().split(".")[0] for p in folder.rglob("*") if p.is_file())
        assert names == ["gradients", "logs/supervised/events", "supervised"]


@pytest.mark.slow
def test_two_processes_end_with_nearly_the_weights_of_one(runs: dict[int, Path]) -> None:
    one, two = (torch.load(runs[n] / "supervised.pt")["network"] for n in (1, 2))
    for name, weights in one.items():
        torch.testing.assert_close(two[name], weights, rtol=0, atol=5e-3)


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match="no device 'tpu': one of auto, cpu, cuda"):
        launch("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="torch sees no GPU; choose cpu"):
            launch("cuda")
    with pytest.raises(UsageError, match="no precision 'f8': one of f32, bf16"):
        autocast("f8", torch.device("cpu"))


def test_a_batch_is_shared_evenly_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    assert batch_share(5) == range(5)
    monkeypatch.setattr("cliprl.models.training.parallel.world_size", lambda: 2)
    monkeypatch.setattr("cliprl.models.training.parallel.process_rank", lambda: 1)
    assert batch_share(6) == range(3, 6)
    with pytest.raises(UsageError, match="which 2 processes can't share evenly"):
        batch_share(5)


def test_a_processor_without_bf16_trains_in_f32(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(4, 4)
    for there, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr("cliprl.models.training.parallel.cpu_has_bf16", lambda there=there: there)
        with autocast("bf16", torch.device("cpu")):
            assert (x @ x).dtype == expected
        with autocast("f32", torch.device("cpu")):
            assert (x @ x).dtype == torch.float32


def test_grouped_convolutions_train_in_f32_and_the_rest_in_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cliprl.models.training.parallel.cpu_has_bf16", lambda: True)
    torch.manual_seed(0)
    grouped, plain, x = torch.nn.Conv2d(4, 4, 3, groups=4), torch.nn.Conv2d(4, 4, 3), torch.randn(2, 4, 8, 8)
    with autocast("bf16", torch.device("cpu")):
        learned, other = grouped(x), plain(x)
        with torch.no_grad():
            seen = grouped(x)
        grouped.requires_grad_(False)
        frozen = grouped(x)
    assert [out.dtype for out in (learned, other, seen, frozen)] == [torch.float32] + [torch.bfloat16] * 3
    assert torch.equal(learned, grouped(x))
    assert plain(x).dtype == torch.float32
