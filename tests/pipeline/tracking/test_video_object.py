"""A video object network gives the mask of the followed instrument; ours prompt it at the start, at cuts and where it fails."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cliprl.engines import ClassSpec, UsageError
from cliprl.engines.cli.cli_runner import run_app
from cliprl.engines.promptable.video import ObjectMask, TransformersVideoNetwork, open_video_network
from cliprl.pipeline.cli import main as cli
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.segmentation import Followed, FollowState, Instance, Instances, Segmentation
from cliprl.pipeline.core.viewport import Viewport, full_viewport
from cliprl.pipeline.segment.decision import merge_unsure
from cliprl.pipeline.tracking.groups import ClassGroups
from cliprl.pipeline.tracking.video_object.mask_transfer import share_on_grid
from cliprl.pipeline.tracking.video_object.object_follower import ObjectFollower

SIDE = 64
# Left and right black borders, which are no part of the network's image.
VIEW = Viewport(256, 384, 256, 320, (32, 0, 320, 256), (0, 0, 320, 256))
CLASSES = tuple(
    ClassSpec(name, (0, 0, 0), kind, (name,))
    for name, kind in (
        ("tissue", "background"),
        ("instrument-shaft", "instrument"),
        ("instrument-clasper", "instrument"),
        ("thread", "instrument"),
    )
)
OURS = np.s_[10:30, 5:25]
OTHER = np.s_[40:60, 50:70]


class FakeNetwork:
    """Finds what `answer` holds: cells (64, 80) of the object, and a score."""

    side = SIDE

    def __init__(self) -> None:
        self.answer = np.zeros((64, 80), np.float32)
        self.score = 0.9
        self.prompted: list[NDArray[np.bool_]] = []
        self.images = 0

    def start(self, image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> None:
        assert image.shape == (SIDE, SIDE, 3)
        self.prompted.append(mask)

    def follow(self, image: NDArray[np.uint8]) -> ObjectMask:
        self.images += 1
        return ObjectMask(np.where(self.answer > 0, np.float32(8), np.float32(-8)), self.score)


def frame() -> Frame:
    return Frame(np.full((256, 384), 90, np.uint8), np.full((128, 192, 2), 128, np.uint8), 0, Fraction(1, 25), 0)


def segmented(state: FollowState = FollowState.FOLLOWING, *, merged: bool = False) -> Segmentation:
    """Instrument 1, of a shaft and unsure jaws, is followed, and not there if it is lost; instrument 2 is another."""
    labels, ids = np.zeros((64, 80), np.uint8), np.zeros((64, 80), np.uint16)
    items = [Instance(2, "instrument", 1, 400)]
    labels[OTHER], ids[OTHER] = 1, 2
    if state is not FollowState.LOST:
        labels[OURS], ids[OURS] = 1, 1
        labels[10:20, 5:25] = 2
        items.insert(0, Instance(1, "instrument", 1, 400))
    probabilities = np.full((4, 64, 80), 0.1, np.float32)
    np.put_along_axis(probabilities, labels[None].astype(np.intp), 0.7, axis=0)
    probabilities[:3, labels == 2] = np.float32([[0.1], [0.39], [0.41]])
    found = Segmentation(labels, probabilities, VIEW, 0.7, 0)
    if merged:
        found = merge_unsure(found, (1, 2), 0.6)
    found.instances = Instances(ids, tuple(items), Followed(state, 1))
    return found


@pytest.fixture
def follower() -> tuple[ObjectFollower, FakeNetwork]:
    network = FakeNetwork()
    network.answer[12:34, 7:27] = 1
    return ObjectFollower(network, ClassGroups.of(CLASSES)), network


def state_of(found: Segmentation) -> FollowState:
    assert found.instances is not None
    assert found.instances.followed is not None
    return found.instances.followed.state


@pytest.mark.parametrize("merged", [False, True])
def test_its_mask_replaces_ours_and_nothing_else(follower: tuple[ObjectFollower, FakeNetwork], merged: bool) -> None:
    by_network, network = follower
    first = segmented(merged=merged)
    assert by_network(frame(), first, False) is first
    assert network.prompted[0].sum() == pytest.approx(SIDE * SIDE * 400 / (64 * 80), rel=0.1)
    ours, mine = segmented(merged=merged), network.answer > 0
    found = by_network(frame(), segmented(merged=merged), False)
    assert found.instances is not None
    assert ours.instances is not None
    assert ((found.instances.ids == 1) == mine).all()
    assert found.instances.items[0].cells == mine.sum()
    assert found.instances.items[1] == ours.instances.items[1]
    for one, before in ((found, ours), (found.likeliest, ours.likeliest)):
        assert np.abs(one.probabilities.sum(axis=0) - before.probabilities.sum(axis=0)).max() < 1e-5
        assert (one.labels[mine] > 0).all()
        gone = (ours.instances.ids == 1) & ~mine
        assert (one.labels[gone] == 0).all() or set(one.labels[gone]) <= {0, 3}
        assert (one.probabilities.argmax(axis=0) == one.labels).all()
        assert (one.labels[OTHER] == before.labels[OTHER]).all()
        assert (one.probabilities[:, OTHER[0], OTHER[1]] == before.probabilities[:, OTHER[0], OTHER[1]]).all()
        assert set(one.labels[mine & (ours.instances.ids == 0)]) <= {1, 2, 4}


def test_a_cut_prompts_it_again(follower: tuple[ObjectFollower, FakeNetwork]) -> None:
    by_network, network = follower
    for index in range(9):
        by_network(frame(), segmented(), index == 5)
    assert (len(network.prompted), network.images) == (2, 7)


def test_nothing_is_prompted_before_the_start(follower: tuple[ObjectFollower, FakeNetwork]) -> None:
    by_network, network = follower
    assert state_of(by_network(frame(), segmented(FollowState.WAITING), True)) is FollowState.WAITING
    assert not network.prompted


def test_a_low_score_prompts_it_again(follower: tuple[ObjectFollower, FakeNetwork]) -> None:
    by_network, network = follower
    for index in range(6):
        network.score = 0.2 if index == 3 else 0.9
        assert state_of(by_network(frame(), segmented(), False)) is FollowState.FOLLOWING
    assert len(network.prompted) == 2


def test_lasting_disagreement_prompts_it_again(follower: tuple[ObjectFollower, FakeNetwork]) -> None:
    by_network, network = follower
    by_network(frame(), segmented(), False)
    network.answer = np.roll(network.answer, 30, axis=1)
    agreed = [(by_network(frame(), segmented(), False).labels[OURS] > 0).all() for _ in range(5)]
    assert agreed == [False] * 4 + [True]
    assert len(network.prompted) == 2


def test_it_is_lost_when_the_tracker_has_lost_it(follower: tuple[ObjectFollower, FakeNetwork]) -> None:
    by_network, network = follower
    by_network(frame(), segmented(), False)
    bridged = [state_of(by_network(frame(), segmented(FollowState.LOST), False)) for _ in range(6)]
    assert bridged == [FollowState.FOLLOWING] * 4 + [FollowState.LOST] * 2
    images = network.images
    assert state_of(by_network(frame(), segmented(FollowState.LOST), True)) is FollowState.LOST
    assert (len(network.prompted), network.images) == (1, images)
    assert state_of(by_network(frame(), segmented(), False)) is FollowState.FOLLOWING
    assert len(network.prompted) == 2
    network.score = 0.1
    assert state_of(by_network(frame(), segmented(FollowState.LOST), False)) is FollowState.LOST


def test_masks_lie_where_they_were() -> None:
    view = full_viewport(256, 320, 256, 320)
    square = Viewport(256, 320, SIDE, SIDE, (80, 0, 160, 256), (0, 0, SIDE, SIDE))
    logits = np.full((32, 32), -20, np.float32)
    logits[8:16, 16:24] = 20  # rows 64 to 128 and columns 160 to 200 of the frame
    share = share_on_grid(logits, square, view, (64, 80))
    rows, columns = np.nonzero(share > 0.5)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (16, 31, 40, 49)


# The real networks, tiny and with random weights.


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    pytest.importorskip("transformers")
    import torch
    from random_video_sam import random_video_edgetam, random_video_sam2

    torch.set_num_threads(1)
    saved = {name: tmp_path_factory.mktemp("video") / name for name in ("sam2", "edgetam")}
    random_video_sam2().save_pretrained(saved["sam2"])
    random_video_edgetam().save_pretrained(saved["edgetam"])
    return saved


@pytest.mark.parametrize("name", ["sam2", "edgetam"])
def test_its_memory_is_bounded_and_complete(folders: dict[str, Path], name: str) -> None:
    network, complete = (TransformersVideoNetwork(folders[name]) for _ in range(2))
    complete._kept = 1000
    rng, mask = np.random.default_rng(0), np.zeros((network.side, network.side), bool)
    mask[30:80, 40:90] = True
    image = rng.integers(0, 256, (network.side, network.side, 3), dtype=np.uint8)
    network.start(image, mask)
    complete.start(image, mask)
    sizes = []
    for _ in range(12):
        image = rng.integers(0, 256, image.shape, dtype=np.uint8)
        found, expected = network.follow(image), complete.follow(image)
        assert np.array_equal(found.logits, expected.logits)
        assert 0 <= found.score <= 1
        sizes.append(stored(network._session.__dict__))
    assert sizes[-1] == sizes[-2] < stored(complete._session.__dict__)
    network.start(image, mask)
    assert stored(network._session.__dict__) < sizes[0]


def stored(value: Any) -> int:
    """The number of values in all tensors of nested lists and dictionaries."""
    if isinstance(value, dict):
        return sum(map(stored, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(stored, value))
    return int(value.numel()) if hasattr(value, "numel") else 0


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["cliprl-stream", *arguments])
    return run_app(cli.app, "cliprl-stream")


def test_the_command_follows_by_it(folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    follow = TransformersVideoNetwork.follow

    def left_half(network: TransformersVideoNetwork, image: NDArray[np.uint8]) -> ObjectMask:
        found = follow(network, image)
        columns = np.arange(found.logits.shape[1]) < found.logits.shape[1] / 2
        return ObjectMask(np.where(columns, np.float32(9), np.zeros_like(found.logits) - 9), 0.9)

    monkeypatch.setattr(TransformersVideoNetwork, "follow", left_half)
    outputs = [str(tmp_path / "x.jsonl"), str(tmp_path / "out.mp4"), f"{tmp_path / 'x.ids'}/"]
    options = ["--follow", "instrument", "--tracker", str(folders["sam2"]), "-q"]
    written = [word for output in outputs for word in ("-o", output)]
    assert run(monkeypatch, "demo:?seconds=0.56&size=320x256", *options, *written) == 0
    events = [json.loads(line) for line in Path(outputs[0]).read_text().splitlines()]
    states, areas = zip(*map(followed_area, events[1:]), strict=True)
    start = states.index("following")
    assert set(states[start:]) == {"following"}
    followed = areas[start + 1 : start + 4]  # after five frames of disagreement our mask prompts it again
    assert len(followed) > 1
    # Half of the endoscope's circle, and our mask in the frame of the prompt.
    assert min(followed) > 320 * 256 / 4 > areas[start]
    assert (tmp_path / "out.mp4").stat().st_size > 0


def followed_area(event: dict[str, Any]) -> tuple[str, int]:
    areas = {one["id"]: one["pixels"] for one in event["instances"]}
    return event["followed"]["state"], areas.get(event["followed"]["id"], 0)


def spoiled(folder: Path, copy: Path, change: Callable[[Path], object]) -> Path:
    shutil.copytree(folder, copy)
    change(copy)
    return copy


def cut_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:2000])


def other_config(**values: Any) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | values))

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), r"has no config\.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "can't be loaded"),
        (other_config(model_type="sam2"), "holds a model of type 'sam2': give one of type sam2_video, edgetam_video"),
        (other_config(memory_attention_num_layers=2), "do not fit its config.json: .* is missing"),
        (other_config(memory_fuser_intermediate_dim=12), "do not fit its config.json|can't be loaded"),
        (cut_weights, "can't be loaded"),
        (
            lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
            "no weights in .safetensors files, and pickled ones are not read",
        ),
    ],
)
def test_other_folders_are_one_line(
    folders: dict[str, Path], tmp_path: Path, change: Callable[[Path], object], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as error:
        open_video_network(spoiled(folders["sam2"], tmp_path / "copy", change))
    assert "\n" not in str(error.value)


def test_without_transformers_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UsageError, match=r"needs the package transformers: pip install 'cliprl\[train\]'"):
        open_video_network(tmp_path)


@pytest.mark.parametrize("arguments", [(), ("--follow", "left", "--web"), ("--follow", "left", "--window")])
def test_it_is_for_files_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    assert run(monkeypatch, "demo:?seconds=1", "-o", "null:", "--tracker", "folder", *arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert "--tracker 'folder' is slower than video: give a file as INPUT" in " ".join(lines)
    assert len(lines) <= 3
