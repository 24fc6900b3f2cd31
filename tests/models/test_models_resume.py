"""Runs that are killed, run out of space, or meet a checkpoint of another recipe: what is kept, and what is said."""

from __future__ import annotations

import json
import random
import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest
import torch
from tiny import NETWORK

from cliprl.engines import CliprlError, UsageError
from cliprl.models.config.config import Recipe
from cliprl.models.config.load import checkpoint_settings, load_recipe
from cliprl.models.training.checkpoint import CheckpointWriter, read_checkpoint, run_stage, save_checkpoint
from cliprl.models.training.stages.gradient_stage import optimizer_step

TINY = (
    """
name = "tiny"
save_every = 2
"""
    + NETWORK
    + """[data]
scenes = 3
policy_scenes = 1
frames = 2
height = 64
width = 96
workers = 1
[contrastive]
steps = 5
batch = 2
[scoring]
scenes = 1
[supervised]
steps = 7
batch = 2
[reinforcement]
steps = 7
batch = 2
[curriculum.reinforcement]
unroll = [2, 2]
"""
)
STAGES = ("contrastive", "supervised", "reinforcement")

# One process that has loaded torch and never run it: each of its children is `cliprl-train`, from its first line on, and is
# killed as the moment in its turn says: when a stage's checkpoint is there, when one is being written, and so much later.
ZYGOTE = textwrap.dedent("""
    import json, os, signal, sys, time
    from pathlib import Path
    import torch
    from cliprl.models.training import training
    from cliprl.engines.cli.cli_runner import run_app
    from cliprl.models.cli import train

    def start(arguments, log):
        child = os.fork()
        if not child:
            torch.set_num_threads(1)
            for stream in (1, 2):
                os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
            # Of equal weights equal bundles are made, which takes longer than the training.
            training._finish = lambda *_: None
            sys.argv = ["cliprl-train", *arguments]
            os._exit(run_app(train.app, "cliprl-train"))
        return child

    def killed(child, sign, later):
        while not sign.exists():
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return ["ended early", status]
        time.sleep(later)
        writing = [p.name for p in sign.parent.glob(".*.partial")]
        os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        return ["killed", writing] if os.WIFSIGNALED(status) else ["ended early", status]

    for line in sys.stdin:
        turn = json.loads(line)
        child = start(turn["arguments"], turn["log"])
        if turn["sign"]:
            answer = killed(child, Path(turn["sign"]), turn["later"])
        else:
            answer = ["ended", os.waitpid(child, 0)[1]]
        print(json.dumps(answer), flush=True)
""")


def same(expected: object, found: object) -> bool:
    """Whether two trees of tensors and numbers are equal, bit for bit."""
    if isinstance(expected, torch.Tensor):
        return isinstance(found, torch.Tensor) and torch.equal(expected, found)
    if isinstance(expected, dict):
        return (
            isinstance(found, dict)
            and expected.keys() == found.keys()
            and all(same(v, found[k]) for k, v in expected.items())
        )
    if isinstance(expected, list | tuple):
        return isinstance(found, list | tuple) and len(expected) == len(found) and all(map(same, expected, found))
    return expected == found


@pytest.mark.slow
def test_repeatedly_killed_run_ends_with_the_same_weights(tmp_path: Path) -> None:
    """Every stage is killed twice: while it writes a checkpoint, and at a random moment after it has one."""
    recipe, log = tmp_path / "tiny.toml", tmp_path / "log"
    recipe.write_text(TINY)
    rng = random.Random(0)
    with subprocess.Popen(
        [sys.executable, "-c", ZYGOTE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as zygote:

        def run(out: str, sign: str = "", later: float = 0.0) -> list[object]:
            arguments = [str(recipe), "--out", str(tmp_path / out), "--set", f"data.cache={tmp_path / 'scenes'}"]
            place = str(tmp_path / out / sign) if sign else ""
            turn = {"arguments": arguments, "log": str(log), "sign": place, "later": later}
            assert zygote.stdin is not None
            assert zygote.stdout is not None
            print(json.dumps(turn), file=zygote.stdin, flush=True)
            answer: list[object] = json.loads(zygote.stdout.readline())
            return answer

        assert run("whole") == ["ended", 0], log.read_text()
        writing = []
        for stage in STAGES:
            for sign, later in ((f".{stage}.pt.partial", 0.0), (f"{stage}.pt", rng.uniform(0, 0.4))):
                kind, at = run("cut", sign, later)
                assert kind == "killed", log.read_text()
                writing.append(at)
        assert [".supervised.pt.partial"] in writing
        assert run("cut") == ["ended", 0], log.read_text()
    for stage in STAGES:
        assert same(
            read_checkpoint(tmp_path / "whole" / f"{stage}.pt"), read_checkpoint(tmp_path / "cut" / f"{stage}.pt")
        ), stage


def test_scene_processes_end_with_the_killed_parent(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from cliprl.models.data.sets.rendered import RenderedScenes, RenderedSpec
if __name__ == "__main__":
    RenderedScenes(RenderedSpec(0, 500, 1, 64, 80), Path({str(tmp_path)!r}), 2, lambda done, total: print(done, flush=True))
"""
    (tmp_path / "draw.py").write_text(code)
    with subprocess.Popen([sys.executable, str(tmp_path / "draw.py")], stdout=subprocess.PIPE) as drawing:
        assert drawing.stdout is not None
        assert drawing.stdout.readline() == b"1\n"
        children = psutil.Process(drawing.pid).children(recursive=True)
        assert len(children) >= 2
        drawing.kill()
    _, alive = psutil.wait_procs(children, timeout=60)
    assert not alive


class Counting:
    """A stage whose state is megabytes large and tells how often it was stepped."""

    name, steps = "trial", 3

    def __init__(self) -> None:
        self.weights = torch.zeros(1 << 18)

    def step(self, index: int) -> dict[str, float]:
        self.weights += 1
        return {"loss": 1.0}

    def state(self) -> dict[str, torch.Tensor]:
        return {"weights": self.weights}

    def load(self, state: dict[str, torch.Tensor]) -> None:
        self.weights.copy_(state["weights"])


class Exploding(Counting):
    """A real optimiser whose third loss is infinite, or, still worse, a number with a gradient that is none."""

    steps = 4

    def __init__(self, harm: float) -> None:
        self.layer, self.harm = torch.nn.Linear(1, 1), harm
        self.weights = self.layer.weight.data
        self.optimizer = torch.optim.SGD(self.layer.parameters(), 0.1)
        self.scheduler = torch.optim.lr_scheduler.ConstantLR(self.optimizer)

    def step(self, index: int) -> dict[str, float]:
        loss = self.layer(torch.ones(1, 1)).sum()
        if index == 2:
            loss = loss * self.harm if self.harm == float("inf") else loss + (loss.detach() - loss).square().sqrt()
        optimizer_step(self.optimizer, self.scheduler, loss, self.layer)
        return {"loss": loss.item()}


@pytest.mark.parametrize(("harm", "said"), [(float("inf"), "the loss is -?inf"), (0.0, "the gradient's norm is nan")])
def test_nonfinite_loss_or_gradient_stops_and_keeps_last_good_checkpoint(
    tmp_path: Path, harm: float, said: str
) -> None:
    stage = Exploding(harm)
    with pytest.raises(CliprlError, match=rf"trial step 2: {said}; .*lower trial\.rate") as error:
        run_stage(stage, CheckpointWriter(tmp_path, 1), lambda *told: None)
    assert error.value.exit_status == 1
    kept = read_checkpoint(tmp_path / "trial.pt")
    assert kept["done"] == 2
    assert kept["weights"].isfinite().all()
    assert torch.equal(kept["weights"], stage.weights), "the step that failed must change nothing"


def test_a_full_disk_keeps_the_previous_checkpoint(tmp_path: Path) -> None:
    """The limit on the size of files stands for the disk: the real write fails half way."""
    keeper, limits = CheckpointWriter(tmp_path, 1), resource.getrlimit(resource.RLIMIT_FSIZE)

    def narrow(stage: object, done: int, losses: object) -> None:
        if done == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, limits[1]))

    try:
        with pytest.raises(CliprlError, match=r"trial\.pt could not be written .*free some space"):
            run_stage(Counting(), keeper, narrow)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [p.name for p in tmp_path.iterdir()] == ["trial.pt"]
    assert read_checkpoint(tmp_path / "trial.pt")["done"] == 1
    resumed = Counting()
    run_stage(resumed, keeper, lambda *told: None)
    assert resumed.weights[0] == 3


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("supervised.rate=0.5", r"was made with supervised\.rate 0\.0?02, now 0\.5"),
        ("network.features=16", r"network\.features 48, now 16"),
        ("network.decoder=fused", r"network\.decoder 'no such setting', now 'fused'"),
        ("contrastive.steps=7", r"contrastive\.steps 150, now 7"),
        ("seed=4", "seed 0, now 4"),
    ],
)
def test_a_checkpoint_of_another_recipe_is_named(tmp_path: Path, override: str, said: str) -> None:
    made = CheckpointWriter(tmp_path, 1, checkpoint_settings(load_recipe_of(tmp_path), "supervised"))
    run_stage(Counting(), made, lambda *told: None)
    again = CheckpointWriter(tmp_path, 1, checkpoint_settings(load_recipe_of(tmp_path, override), "supervised"))
    with pytest.raises(UsageError, match=said) as error:
        again.resume(Counting())
    assert "\n" not in str(error.value)


def load_recipe_of(folder: Path, *overrides: str) -> Recipe:
    """The defaults of every setting, but for `overrides`."""
    path = folder / "plain.toml"
    path.write_text("seed = 0\n")
    return load_recipe(path, overrides)


def test_what_a_stage_does_not_depend_on_may_change(tmp_path: Path) -> None:
    """Where data lies, what is scored, and the stages after this one."""
    recipe = load_recipe_of(tmp_path, 'data.train=["endovis2018:/here?split=A"]')
    moved = ['data.train=["endovis2018:/there?split=A"]', "data.workers=9", "data.cache=/else", "reinforcement.steps=1"]
    moved += ["scoring.scenes=2", "save_every=5", "name=other"]
    assert checkpoint_settings(recipe, "supervised") == checkpoint_settings(
        load_recipe_of(tmp_path, *moved), "supervised"
    )
    assert checkpoint_settings(recipe, "reinforcement") != checkpoint_settings(
        load_recipe_of(tmp_path, *moved), "reinforcement"
    )


def test_file_that_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "trial.pt", {"weights": torch.zeros(2)})
    with pytest.raises(CliprlError, match=r"trial\.pt is not a checkpoint of this version"):
        run_stage(Counting(), CheckpointWriter(tmp_path, 1), lambda *told: None)
    for content in ([1, 2], torch.zeros(3)):
        torch.save(content, tmp_path / "trial.pt")
        with pytest.raises(CliprlError, match=r"trial\.pt holds a (list|Tensor), which is no checkpoint: delete it"):
            run_stage(Counting(), CheckpointWriter(tmp_path, 1), lambda *told: None)
