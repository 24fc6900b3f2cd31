"""The training program from recipe to bundle, on a network and scenes small enough for a test."""

import fcntl
import importlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from tiny import NETWORK
from typer.testing import CliRunner

from cliprl.engines import Bundle, CliprlError, UsageError, compile_engine, open_bundle, seal_bundle
from cliprl.engines.bundle.reference_outputs import reference_of
from cliprl.models import studies
from cliprl.models.cli import train as cli
from cliprl.models.config.config import NetworkConfig, Recipe
from cliprl.models.config.load import checkpoint_settings, load_recipe
from cliprl.models.export.export import TrainedModel
from cliprl.models.export.onnx_weights import read_weights
from cliprl.models.export.placement import SOURCE_HASH
from cliprl.models.export.probe_images import probe_images
from cliprl.models.network.network import ClipSegmenter
from cliprl.models.network.text import class_embeddings, class_prompts
from cliprl.models.training import start_bundle
from cliprl.models.training.callbacks import TrainingCallback
from cliprl.models.training.checkpoint import (
    CheckpointWriter,
    TrainingStage,
    read_checkpoint,
    run_stage,
    save_checkpoint,
)
from cliprl.models.training.start import find_base, start_network
from cliprl.models.training.training import train, training_provenance
from cliprl.pipeline.synthetic import SCENE_CLASSES

TINY = (
    """
name = "tiny"
save_every = 1
"""
    + NETWORK
    + """[data]
scenes = 2
policy_scenes = 1
frames = 2
height = 64
width = 96
workers = 1
[contrastive]
steps = 2
batch = 2
[scoring]
scenes = 1
[supervised]
steps = 2
batch = 2
[reinforcement]
steps = 2
batch = 2
[curriculum.reinforcement]
unroll = [2, 2]
"""
)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="module")
def scene_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def finished(recipe_file: Path, scene_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run through the command line."""
    out = tmp_path_factory.mktemp("run")
    result = CliRunner().invoke(cli.app, [str(recipe_file), "--out", str(out), "--set", f"data.cache={scene_cache}"])
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == str(out / "bundle")
    return out


def test_a_run_ends_in_a_bundle_that_opens_and_runs(finished: Path) -> None:
    bundle = open_bundle(finished / "bundle")
    assert [c.name for c in bundle.manifest.classes] == [c.name for c in SCENE_CLASSES]
    assert bundle.manifest.steps == 2
    assert len(bundle.manifest.scores) == 2
    assert all(0 <= score["refined"]["pooled"] <= 1 for score in bundle.manifest.scores.values())
    assert bundle.manifest.training["recipe"]["supervised"]["steps"] == 2
    text = bundle.embeddings[:3]
    encoder = compile_engine(bundle.encoder, precision="f32", shapes={"image": (1, 64, 96, 3), "text": text.shape})
    seen = encoder.run({"image": np.zeros((1, 64, 96, 3), np.uint8), "text": text})
    assert seen["features"].shape == (1, 8, 16, 24)
    assert seen["logits"].shape == (1, 3, 16, 24)


def test_a_trained_bundle_is_held_to_rendered_scenes(finished: Path) -> None:
    """To no frame that it was trained on: what is in a bundle is nobody's data."""
    bundle = open_bundle(finished / "bundle")
    reference, size = reference_of(bundle), bundle.manifest
    assert reference.source == bundle.manifest.hashes["probe.npz"]
    np.testing.assert_array_equal(reference.images, probe_images(size.height, size.width))


def test_engines_match_the_network_at_another_class_count(finished: Path) -> None:
    """The graphs were exported with twelve classes; they serve five."""
    bundle = open_bundle(finished / "bundle")
    network = ClipSegmenter(load_recipe(finished_recipe(finished)).network).eval()
    network.load_state_dict(read_checkpoint(finished / "supervised.pt")["network"])
    text = torch.from_numpy(bundle.embeddings[:5])
    image = torch.randint(0, 255, (1, 64, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    encoder = compile_engine(
        bundle.encoder, precision="f32", shapes={"image": tuple(image.shape), "text": tuple(text.shape)}
    )
    seen = encoder.run({"image": image.numpy(), "text": text.numpy()})
    with torch.no_grad():
        features, logits = network(image, text)
    np.testing.assert_allclose(seen["features"], features, atol=2e-3)
    np.testing.assert_allclose(seen["logits"], logits, atol=2e-3)


def finished_recipe(finished: Path) -> Path:
    path = finished / "again.toml"
    path.write_text(TINY)
    return path


def test_a_class_more_leaves_the_others_logits_alone(finished: Path) -> None:
    network = ClipSegmenter(load_recipe(finished_recipe(finished)).network).eval()
    image = torch.randint(0, 255, (1, 64, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        text = class_embeddings(network, SCENE_CLASSES)
        few, many = network(image, text[:4])[1], network(image, text)[1]
        order = torch.randperm(len(text))
        shuffled = network(image, text[order])[1]
    torch.testing.assert_close(many[:, :4], few, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(shuffled, many[:, order], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(text.norm(dim=1), torch.ones(len(text)))


def test_prompts_put_every_phrase_into_every_template() -> None:
    prompts = class_prompts(SCENE_CLASSES[0])
    assert len(prompts) == len(set(prompts)) == 4 * len(SCENE_CLASSES[0].prompts)


def test_a_run_starts_from_the_base_of_another(finished: Path) -> None:
    overrides = [f"network.start={finished}", "seed=5"]
    recipe = load_recipe(finished_recipe(finished), overrides)
    torch.manual_seed(5)
    weights = start_network(recipe.network).state_dict()
    expected = read_checkpoint(finished / "supervised.pt")["network"]
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert (
        find_base(f"{finished / 'bundle'}") == find_base(f"{finished / 'supervised.pt'}") == finished / "supervised.pt"
    )
    provenance = training_provenance(recipe)
    assert re.fullmatch(r"the base of an earlier run, supervised\.pt, SHA-256 [0-9a-f]{64}", provenance["start"])
    assert str(finished) not in str(provenance)
    assert "network.start" not in checkpoint_settings(load_recipe(finished_recipe(finished)), "supervised")
    assert checkpoint_settings(recipe, "supervised")["network.start"] == finished.name


def test_a_run_starts_from_a_bundle_alone(finished: Path, tmp_path: Path) -> None:
    """The network computes what the checkpoint's does, at another input size too."""
    place = shutil.copytree(finished / "bundle", tmp_path / "mine")
    overrides = [f"network.start={place}", "network.height=96"]
    recipe = load_recipe(finished_recipe(finished), overrides)
    torch.manual_seed(5)
    started = start_network(recipe.network).eval()
    trained = ClipSegmenter(recipe.network).eval()
    trained.load_state_dict(read_checkpoint(finished / "supervised.pt")["network"])
    image = torch.randint(0, 255, (2, 96, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        text = class_embeddings(trained, SCENE_CLASSES)
        torch.testing.assert_close(class_embeddings(started, SCENE_CLASSES), text, rtol=0, atol=1e-3)
        for own, expected in zip(started(image, text), trained(image, text), strict=True):
            torch.testing.assert_close(own, expected, rtol=0, atol=1e-3)
    assert re.fullmatch(
        r"the base of bundle tiny, encoder\.onnx, SHA-256 [0-9a-f]{64}", training_provenance(recipe)["start"]
    )
    assert checkpoint_settings(recipe, "supervised")["network.start"] == "mine"


def test_a_weight_that_a_bundle_lacks_is_named(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that moves the outputs by less than the tolerance."""
    place = shutil.copytree(finished / "bundle", tmp_path / "mine")
    name = next(iter(read_weights(place / "text.onnx").keys() & read_checkpoint(finished / "supervised.pt")["network"]))
    monkeypatch.setattr(start_bundle, "TOLERANCE", 1e9)
    monkeypatch.setattr(
        start_bundle, "read_weights", lambda path: {key: x for key, x in read_weights(path).items() if key != name}
    )
    recipe = load_recipe(finished_recipe(finished), [f"network.start={place}"])
    with pytest.raises(UsageError, match=rf"do not hold {re.escape(name)}: give the folder of the run"):
        start_network(recipe.network)


def alter_the_colors(place: Path) -> None:
    """Change numbers of the encoder that are no weights of the network, and seal the bundle again."""
    model, bundle = onnx.load(place / "encoder.onnx"), open_bundle(place)
    for tensor in model.graph.initializer:
        if tensor.name in ("mean", "deviation"):
            tensor.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(tensor), tensor.name))
    onnx.save(model, place / "encoder.onnx")
    seal_bundle(place, bundle.manifest, bundle.embeddings)


@pytest.mark.parametrize(
    ("start", "override", "complaint"),
    [
        ("{finished}/none", "", "holds no supervised.pt: give the folder of an earlier run"),
        ("{finished}/again.toml", "", r"is not a whole checkpoint .*: give network\.start another run"),
        ("{finished}/reinforcement.pt", "", "is no checkpoint of a base"),
        ("{finished}", "network.features=16", r"was trained with network\.features=8, here 16: set that"),
        ("{bundle}", "network.features=16", r"was trained with network\.features=8, here 16: set that"),
        ("{silent}", "", "is a bundle without a text network: give the folder of the run that made it"),
        ("{altered}", "", r"can't be read back: the features of encoder\.onnx differ by .*, not at most 0\.001"),
    ],
)
def test_a_start_that_does_not_fit_is_one_line(
    finished: Path, tmp_path: Path, start: str, override: str, complaint: str
) -> None:
    shutil.copytree(finished / "bundle", bundle := tmp_path / "bundle")
    silent, altered = tmp_path / "silent", tmp_path / "altered"
    if start == "{silent}":
        shutil.copytree(bundle, silent)
        opened = open_bundle(silent)
        seal_bundle(silent, replace(opened.manifest, text=None), opened.embeddings)
    if start == "{altered}":
        alter_the_colors(shutil.copytree(bundle, altered))
    places = {"finished": finished, "bundle": bundle, "silent": silent, "altered": altered}
    overrides = [f"network.start={start.format(**places)}", *filter(None, [override])]
    with pytest.raises(CliprlError, match=complaint) as error:
        start_network(load_recipe(finished_recipe(finished), overrides).network)
    assert "\n" not in str(error.value)


class CutOffError(Exception):
    """What a test throws where a run is to be cut off."""


class Cutting(TrainingCallback):
    """Cuts a run off after the second step of a stage."""

    def __init__(self, name: str) -> None:
        self.name = name

    def on_step(self, stage: TrainingStage, done: int, losses: Mapping[str, float]) -> None:
        if stage.name == self.name and done == 2:
            raise CutOffError


def test_interrupted_run_ends_like_an_uninterrupted_one(
    recipe_file: Path, scene_cache: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its weights: they are equal bit for bit, and the bundle is made of them, which takes longer than the training."""
    monkeypatch.setattr("cliprl.models.training.training._finish", lambda *_: None)
    recipe = load_recipe(recipe_file, [f"data.cache={scene_cache}"])
    for stage_name in ("contrastive", "supervised", "reinforcement"):
        with pytest.raises(CutOffError):
            train(recipe, tmp_path, Cutting(stage_name))
    train(recipe, tmp_path, TrainingCallback())
    for name, part in (("supervised.pt", "network"), ("reinforcement.pt", "refiner")):
        expected, found = read_checkpoint(finished / name)[part], read_checkpoint(tmp_path / name)[part]
        assert expected.keys() == found.keys()
        for key, tensor in expected.items():
            assert torch.equal(tensor, found[key]), key


def test_a_finished_run_keeps_what_was_sealed_into_its_bundle(
    recipe_file: Path, scene_cache: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def export_again(model: TrainedModel, folder: Path, name: str, training: Mapping[str, Any]) -> Bundle:
        first = open_bundle(Path(shutil.copytree(finished / "bundle", folder)))
        return seal_bundle(folder, replace(first.manifest, training=training, scores={}), first.embeddings)

    run = tmp_path / "run"
    shutil.copytree(finished, run)
    recipe, bundle = load_recipe(recipe_file, [f"data.cache={scene_cache}"]), open_bundle(run / "bundle")
    edited = replace(bundle.manifest, steps=1, scores={})
    seal_bundle(bundle.path, edited, bundle.embeddings, {"note.txt": b"mine"})
    found = train(recipe, run, TrainingCallback())
    assert found
    assert (found.manifest.steps, len(found.manifest.scores)) == (1, 2)
    assert (found.path / "note.txt").read_bytes() == b"mine"
    # Of other weights: all is exported anew, and nothing stays that was made for those.
    monkeypatch.setattr("cliprl.models.training.training.export_bundle", export_again)
    other = replace(edited, training={**edited.training, SOURCE_HASH: "0" * 64})
    seal_bundle(bundle.path, other, bundle.embeddings)
    found = train(recipe, run, TrainingCallback())
    assert found
    assert found.manifest.steps == 2
    assert found.manifest.hashes.keys() == bundle.manifest.hashes.keys()
    assert not list(run.glob(".*"))


class NotedError(Exception):
    """Ends a run at its first remark, which it holds."""


class Noting(TrainingCallback):
    """Ends a run at its first remark."""

    def on_note(self, note: str) -> None:
        raise NotedError(note)


def test_training_in_f32_instead_of_bf16_is_said(
    recipe_file: Path, scene_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cliprl.models.training.training.cpu_has_bf16", lambda: False)
    recipe = load_recipe(recipe_file, [f"data.cache={scene_cache}", "precision=bf16"])
    with pytest.raises(NotedError, match=r"no bf16 instructions: training in f32\."):
        train(recipe, tmp_path, Noting())


class Trial:
    """A stage of three steps whose second loss is not a number."""

    name, steps = "trial", 3

    def step(self, index: int) -> dict[str, float]:
        return {"loss": float("nan") if index == 1 else 1.0}

    def state(self) -> dict[str, int]:
        return {}

    def load(self, state: object) -> None:
        pass


def test_nonfinite_loss_stops_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CliprlError, match="trial step 1: loss is nan; the last checkpoint stands: lower"):
        run_stage(Trial(), CheckpointWriter(tmp_path, 1), lambda *told: None)
    assert read_checkpoint(tmp_path / "trial.pt")["done"] == 1


def test_a_broken_checkpoint_is_named(tmp_path: Path) -> None:
    path = tmp_path / "trial.pt"
    save_checkpoint(path, {"done": 1})
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CliprlError, match=r"trial\.pt is not a whole checkpoint"):
        run_stage(Trial(), CheckpointWriter(tmp_path, 1), lambda *told: None)


def test_unwritable_checkpoint_leaves_the_last_one(tmp_path: Path) -> None:
    path = tmp_path / "trial.pt"
    save_checkpoint(path, {"done": 1})
    (tmp_path / ".trial.pt.partial").symlink_to("/dev/full")
    with pytest.raises(CliprlError, match="could not be written"):
        save_checkpoint(path, {"done": 2})
    assert read_checkpoint(path)["done"] == 1


def test_another_error_of_torch_is_no_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(state: object, file: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nmore lines")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(CliprlError, match=r"\(CUDA error: an illegal memory access was encountered\): mend that"):
        save_checkpoint(tmp_path / "trial.pt", {"done": 2})


def trained(*words: str, without: str = "") -> subprocess.CompletedProcess[str]:
    """Run `cliprl-train` in a process that cannot import the package `without`."""
    code = "import sys; sys.modules.update({sys.argv.pop(1): None}); from cliprl.models.cli.train import main; main()"
    command = [sys.executable, "-c", code, without or "no_such_package", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_two_trainings_in_one_folder_are_refused(recipe_file: Path, tmp_path: Path) -> None:
    handle = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(
            UsageError, match="is being written by another run: wait for its end, or give another --out"
        ):
            train(load_recipe(recipe_file), tmp_path, TrainingCallback())
    finally:
        os.close(handle)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("package", ["torch", "open_clip"])
def test_a_missing_package_names_the_extra(package: str) -> None:
    done = trained("small", without=package)
    assert done.returncode == 2
    assert done.stderr.strip() == (
        f"cliprl-train: this needs the package '{package}', which is not installed: pip install 'cliprl[train]'"
    )


def test_a_study_without_a_package_it_imports_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`python -m` imports the study's package, then the study, which imports torch before it is a command."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "cliprl.models.studies.text_study", "--help"])
    monkeypatch.setattr(sys, "argv", ["-m", "--help"])
    importlib.reload(studies)
    with pytest.raises(SystemExit) as ended:
        sys.excepthook(ModuleNotFoundError, ModuleNotFoundError("No module named 'torch'", name="torch"), None)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("python -m cliprl.models.studies.text_study: this needs the package 'torch'")
    assert len(error.splitlines()) == 1


def test_the_recipe_is_read_before_torch() -> None:
    done = trained("small", "--set", "sed=1", without="torch")
    assert done.returncode == 2
    assert "unknown setting 'sed': did you mean seed" in done.stderr


def test_the_folder_follows_the_recipe_and_the_scores_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = {"frames": {"a": 2, "b": 3}, "base": {"pooled": 0.25}, "refined": {"pooled": None}}
    bundle = SimpleNamespace(path=tmp_path / "bundle", manifest=SimpleNamespace(scores={"instrument": entry}))
    folders: list[Path] = []

    def train(recipe: Recipe, folder: Path, *rest: object) -> object:
        folders.append(folder)
        return bundle

    monkeypatch.setattr("cliprl.models.training.training.train", train)
    for words, folder in ((["endovis2015"], "runs/endovis2015"), (["small", "--out", "here"], "here")):
        done = CliRunner().invoke(cli.app, words)
        assert done.exit_code == 0, done.output
        assert folders[-1] == Path(folder)
        assert "".join(done.stdout.split()) == "".join(str(bundle.path).split())
        assert re.search(r"instrument\W+5\W+0\.250", done.stderr)


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("supervised.stepz=3", "unknown setting 'supervised.stepz'"),
        ("sed]=3", "unknown setting 'sed]': did you mean seed"),
        ("scenes=3", r"did you mean data\.scenes or scoring\.scenes\? It must be one of name"),
        ("supervised.steps=many", "'supervised.steps' is 'many': it must be of type int"),
        ("supervised.steps=-1", "must not be negative"),
        ("supervised.rate=nan", "'supervised.rate' is nan: it must be finite"),
        ("supervised.rate=true", "'supervised.rate' is True: it must be of type float"),
        ("network.towr=vit", "unknown setting 'network.towr': did you mean tower"),
        ("data.train=folder:x", "'data.train' is 'folder:x': it must be a list"),
        ("data.train=[1]", "'data.train' is 1: it must be of type str"),
        ("curriculum.supervised.zoom=[1.0]", "its list must have two numbers"),
        ("curriculum.supervised.zoom=[1.0, -2.0]", "must not be negative"),
        ("supervised=3", "'supervised' is a section"),
        ("seed.low=3", "'seed' is a value"),
        ("seed=4294967296", "'seed' is 4294967296: it must be at most 4294967295"),
        ('name="a\\nb"', "it must be one line of printable characters"),
        ("name=", "'name' is '': it must not be empty"),
        ("precision=f16", "'precision' is 'f16': it must be 'f32' or 'bf16'"),
        ("network.decoder=wide", "'network.decoder' is 'wide': it must be 'pyramid' or 'fused'"),
        ("network.height=0", "'network.height' is 0: it must be at least 32"),
        ("network.text_layers=0", "it must be at least 1"),
        ("data.frames=0", "it must be at least 1"),
        ("supervised.batch=0", "it must be at least 1"),
        ("scoring.every=0", "'scoring.every' is 0: it must be at least 1"),
        ("contrastive.batch=1", "'contrastive.batch' is 1: it must be at least 2"),
        ("contrastive.temperature=0", "it must be more than 0"),
        ("curriculum.reinforcement.unroll=[0, 3]", "'curriculum.reinforcement.unroll' is 0: it must be at least 1"),
        ("curriculum.reinforcement.unroll=[1, 65]", "it must be at most 64"),
        ("curriculum.supervised.severity=[1.5, 9.0]", "it must be at most 5"),
        ("curriculum.supervised.zoom=[1.0, 1e9]", "it must be at most 10"),
        ("data.variety=1e6", "'data.variety' is 1000000.0: it must be at most 4"),
        ("supervised.start_share=0.7", "'supervised.start_share' is 0.7 without network.start"),
        ('data={larynx="x", larynx_share=0.8}', "are 0.8 and 0.35: together they must be at most 1"),
        ("nonsense", "not of the form"),
    ],
)
def test_a_bad_setting_is_one_line(override: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint) as error:
        load_recipe("small", [override])
    assert "\n" not in str(error.value)


def test_overrides_change_what_they_name_and_nothing_else() -> None:
    recipe = load_recipe("small", ["supervised.rate=1", "data.larynx=/some/where"])
    assert recipe.supervised.rate == 1.0
    assert recipe.data.larynx == "/some/where"
    assert recipe.network == Recipe().network == NetworkConfig()


@pytest.mark.parametrize(
    "arguments", [["no-such-recipe"], ["small", "--set", "x=1"], ["small", "--set", "data.larynx=/no/such/folder"]]
)
def test_misuse_ends_with_status_2_and_one_line(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["cliprl-train", *arguments, "--out", str(tmp_path / "out")])
    # The note on the precision comes after the checks.
    monkeypatch.setattr("cliprl.models.training.training.cpu_has_bf16", lambda: False)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    captured = capsys.readouterr()
    assert ended.value.code == 2
    (line,) = captured.err.strip().splitlines()
    assert line.startswith("cliprl-train: ")


def test_a_missing_start_is_named_before_anything_is_made(tmp_path: Path) -> None:
    recipe = load_recipe("small", [f"network.start={tmp_path}/nowhere"])
    with pytest.raises(UsageError, match=r"network\.start '.*nowhere' holds no supervised\.pt"):
        train(recipe, tmp_path / "out", TrainingCallback())
    assert not (tmp_path / "out").exists()


def test_a_file_in_place_of_the_bundle_is_named(recipe_file: Path, tmp_path: Path) -> None:
    (tmp_path / "bundle").write_text("mine")
    with pytest.raises(UsageError, match=r"bundle' is a file where the bundle goes: move it"):
        train(load_recipe(recipe_file), tmp_path, TrainingCallback())
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_classes_that_no_bundle_holds_end_before_training(recipe_file: Path, tmp_path: Path) -> None:
    for part in ("images", "masks"):
        (tmp_path / "mine" / part).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "mine" / part / "a.png"), np.zeros((64, 96), np.uint8))
    names = (("wall", "background"), ("h" * 201, "instrument"))
    toml = [
        f'[[classes]]\nname = "{name}"\nkind = "{kind}"\ncolor = [{i}, 0, 0]' for i, (name, kind) in enumerate(names)
    ]
    (tmp_path / "mine" / "classes.toml").write_text("\n".join(toml))
    labels = tmp_path / "mine"
    recipe = load_recipe(recipe_file, [f"data.train=['folder:{labels}']", "contrastive.steps=0"])
    with pytest.raises(UsageError, match=r"bundle can't hold this name, size or class: classes\.1\.name: .* 200 char"):
        train(recipe, tmp_path / "out", TrainingCallback())
    assert not list((tmp_path / "out").glob("*.pt"))


def test_a_text_encoder_of_any_width_is_built() -> None:
    for width in (48, 100, 31):
        network = ClipSegmenter(NetworkConfig(weights="", height=64, width=64, text_width=width, text_layers=1))
        assert network.clip.state_dict()["ln_final.weight"].shape == (width,)


@pytest.mark.parametrize(
    ("text", "words"), [("", "no settings"), ("# none\n", "no settings"), (f"a = {'9' * 5000}", "TOML")]
)
def test_a_recipe_without_readable_settings_is_refused(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(UsageError, match=words):
        load_recipe(tmp_path / "a.toml")
    with pytest.raises(UsageError, match=r"supervised\.steps"):
        load_recipe("small", [f"supervised.steps={'9' * 5000}"])


def test_a_mistyped_recipe_is_answered_by_the_nearest_name() -> None:
    with pytest.raises(UsageError, match=r"no recipe 'smal': did you mean small\? Give a TOML file"):
        load_recipe("smal")
