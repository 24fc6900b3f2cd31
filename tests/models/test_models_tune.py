"""Tuning a bundle on a few labeled frames: what is held out, what is trained, what is refused, and what is written."""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from rich.console import Console
from rich.progress import Progress

from cliprl.engines import (
    Bundle,
    ClassSpec,
    CliprlError,
    EngineError,
    UsageError,
    compile_engine,
    open_bundle,
    seal_bundle,
)
from cliprl.engines.bundle.bundle import INT8_ENCODER, INT8_WEIGHTS
from cliprl.engines.bundle.confidence import CONFIDENCE_FILE
from cliprl.engines.bundle.reference_outputs import encoder_shapes
from cliprl.engines.cli.cli_runner import run_app
from cliprl.models.cli import train as cli
from cliprl.models.config.load import load_tune_config
from cliprl.models.data.registry import lines_of_path
from cliprl.models.data.sample import IGNORE, INSTRUMENT, Sample
from cliprl.models.export.placement import bundle_place
from cliprl.models.training.callbacks import ProgressDisplay
from cliprl.models.training.checkpoint import NotFiniteError
from cliprl.models.tuning import remake
from cliprl.models.tuning import tune as tuning
from cliprl.models.tuning.blend import blend_weights
from cliprl.models.tuning.comparison import HeldOutPart, compare_scores
from cliprl.models.tuning.label_fit import LabelFit, label_fit
from cliprl.models.tuning.stage import likeliest_cross_entropy
from cliprl.models.tuning.trainable_encoder import TrainableEncoder
from cliprl.models.tuning.tuning_data import hold_out, hold_out_shown, label_notes, open_tuning_data
from cliprl.models.tuning.views import EncodedViews
from cliprl.pipeline.synthetic import SCENE_CLASSES, SceneRenderer

SIZE = (96, 120)
FAST = [
    "views=2",
    "batch=2",
    "steps=1",
    "blocks=2",
    "precision=f32",
    "data.scenes=1",
    "data.test_scenes=1",
    "data.frames=1",
    "data.height=96",
    "data.width=120",
    "data.workers=1",
]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The shipped bundle without its int8 encoder, which takes long to make again."""
    shipped = open_bundle("small")
    folder = tmp_path_factory.mktemp("bundle") / "float"
    shutil.copytree(shipped.path, folder)
    for name in (INT8_ENCODER, INT8_WEIGHTS):
        (folder / name).unlink(missing_ok=True)
    return seal_bundle(folder, shipped.manifest, shipped.embeddings)


@pytest.fixture(scope="module")
def scenes() -> list[tuple[np.ndarray, np.ndarray]]:
    return [SceneRenderer(720_000 + seed, *SIZE).render(0.5)[:2] for seed in range(5)]


def write_labels(folder: Path, scenes: list[tuple[np.ndarray, np.ndarray]], shift: int = 0, first: str = "") -> Path:
    """Write a labeled folder; masks are shifted to the right, and `first` renames the first instrument class."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for number, (image, labels) in enumerate(scenes):
        cv2.imwrite(str(folder / "images" / f"{number}.png"), image[..., ::-1])
        cv2.imwrite(str(folder / "masks" / f"{number}.png"), np.roll(labels, shift, 1))
    names = [first if first and i == 1 else spec.name for i, spec in enumerate(SCENE_CLASSES)]
    rows = [
        f'[[classes]]\nname = "{name}"\nkind = "{spec.kind}"\ncolor = {list(spec.color)}\n'
        for name, spec in zip(names, SCENE_CLASSES, strict=True)
    ]
    (folder / "classes.toml").write_text("".join(rows))
    return folder


def tune(bundle: Bundle, labels: Path | str, out: Path, *settings: str) -> int:
    sets = [word for setting in (*FAST, *settings) for word in ("--set", setting)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["cliprl-train", "tune", str(bundle.path), str(labels), "-o", str(out), "-q", *sets])
        return run_app(cli.app, "cliprl-train")


def digests(folder: Path) -> dict[str, str]:
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()}


def test_a_tuned_bundle_loads_and_tells_its_origin(
    bundle: Bundle, scenes: list[tuple[np.ndarray, np.ndarray]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, judged = tmp_path / "new" / "better", ("views=4", "data.scenes=5", "data.frames=2")
    assert tune(bundle, write_labels(tmp_path / "labels", scenes), out, "rate=1e-6", *judged) == 0, (
        capsys.readouterr().err
    )
    assert capsys.readouterr().out.strip() == str(out)
    made, old = open_bundle(out), bundle.manifest
    changed = {name for name, digest in made.manifest.hashes.items() if old.hashes.get(name) != digest}
    assert changed == {"encoder.onnx", "probe.npz"}
    assert CONFIDENCE_FILE not in made.manifest.hashes
    assert np.array_equal(made.embeddings, bundle.embeddings)
    training = made.manifest.training
    assert training["tuned_from"]["training"] == old.training
    assert training["labels"] == ["folder:labels"]
    assert training["blend"] == 1.0
    assert "held-out frames, instrument" in made.manifest.scores
    assert str(tmp_path) not in (out / "manifest.json").read_text()
    assert [p.name for p in out.parent.iterdir()] == ["better"]


def test_a_worse_bundle_is_refused_with_figures(
    bundle: Bundle,
    scenes: list[tuple[np.ndarray, np.ndarray]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "better"
    shutil.copytree(bundle.path, out)
    before = digests(tmp_path)
    labels = write_labels(tmp_path / "labels", scenes)
    monkeypatch.setattr(remake, "add_reference", lambda made, images: made)
    scores = iter([entries("held-out frames", 0.9, 0.5), entries("held-out frames", 0.8, 0.6)])
    monkeypatch.setattr("cliprl.models.tuning.tune.score_parts", lambda *_: next(scores))
    assert tune(bundle, labels, out, "data.test_scenes=0") == 1
    error = capsys.readouterr().err
    assert "is worse and is not written: held-out frames, instrument: 0.900 to 0.800 (-10.0 points, at most 0" in error
    assert len(error.strip().splitlines()) == 1
    assert {k: v for k, v in digests(tmp_path).items() if "labels" not in k} == before


def test_displaced_masks_are_refused_with_figures(
    bundle: Bundle, scenes: list[tuple[np.ndarray, np.ndarray]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = write_labels(tmp_path / "labels", scenes, shift=15)
    assert tune(bundle, labels, tmp_path / "better") == 1
    error = capsys.readouterr().err
    assert "the masks seem to be displaced by 1" in error
    assert "their IoU with the bundle's own masks is 0." in error
    assert not (tmp_path / "better").exists()


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("missing", "is not of the form KIND:FOLDER"),
        ("unknown", "holds no labels that are recognized"),
        ("few", "has 3 labelled frames: label at least 5"),
        ("empty", "of the 5 frames of labels none, or only a few beside each other, show a labelled class but"),
        ("class", "did you mean instrument-shaft?"),
        ("setting", "unknown setting 'step': did you mean steps?"),
        ("out", "is neither a new folder nor a bundle"),
        ("place", "can't be made"),
    ],
)
def test_bad_input_is_one_line(
    bundle: Bundle,
    scenes: list[tuple[np.ndarray, np.ndarray]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    case: str,
    message: str,
) -> None:
    labels, out = tmp_path / "labels", Path("/proc/better") if case == "place" else tmp_path / "better"
    if case == "unknown":
        labels.mkdir()
    elif case != "missing":
        given = [(image, masks * (case != "empty")) for image, masks in scenes[: 3 if case == "few" else 5]]
        write_labels(labels, given, first="instrument-shift" if case == "class" else "")
    if case == "out":
        out.mkdir()
        (out / "notes.txt").write_text("mine")
    assert tune(bundle, labels, out, *(["step=3"] if case == "setting" else [])) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert sorted(p.name for p in out.iterdir()) == ["notes.txt"] if case == "out" else not out.exists()


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("held", "is being written by another run"),
        ("notes", "holds 'notes.txt', which its bundle does not list"),
        ("manifest", "is neither a new folder nor a bundle"),
    ],
)
def test_a_place_that_is_no_free_bundle_is_refused(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str, message: str
) -> None:
    out = tmp_path / "better"
    shutil.copytree(bundle.path, out)
    if case == "notes":
        (out / "notes.txt").write_text("mine")
    if case == "manifest":
        (out / "manifest.json").write_text('{"name": "a web page"}')
    before = digests(tmp_path)
    with bundle_place(out) if case == "held" else nullcontext():
        assert tune(bundle, "labels", out) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert digests(tmp_path) == before


def test_a_disk_without_room_is_told_before_training(tmp_path: Path) -> None:
    with pytest.raises(CliprlError, match=r"MB are free, and the bundle takes .*: free some space"):
        bundle_place(tmp_path / "new" / "better", 1 << 60).__enter__()
    assert not list(tmp_path.iterdir())


def test_a_bundle_that_appears_meanwhile_is_kept(bundle: Bundle, tmp_path: Path) -> None:
    out = tmp_path / "better"
    with bundle_place(out) as place:
        shutil.copytree(bundle.path, out)
        (place.path / "manifest.json").write_text("new")
        with pytest.raises(CliprlError, match="another program wrote it meanwhile"):
            place.publish()
    assert open_bundle(out).manifest == bundle.manifest
    assert (tmp_path / ".better.partial" / "manifest.json").read_text() == "new"


class Frames:
    """Frames of sequences of given lengths, each of one clip or each frame apart."""

    name = "frames"
    classes = (ClassSpec("background", (0, 0, 0), "background"),)

    def __init__(self, lengths: list[int], video: bool) -> None:
        self.names = [f"s{number}" for number, length in enumerate(lengths) for _ in range(length)]
        self.video = video

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        raise AssertionError("no image is needed")

    def sequence(self, index: int) -> str:
        return self.names[index]

    def clip(self, index: int) -> str:
        return self.names[index] if self.video else f"{self.names[index]} {index}"


@pytest.mark.parametrize("lengths", [[40], [5], [100], [3] * 20, [1000], [7, 200]])
@pytest.mark.parametrize("video", [True, False])
def test_blocks_are_held_out_without_neighbors(lengths: list[int], video: bool) -> None:
    data = Frames(lengths, video)
    trained, held = ({index for _, index in part.places} for part in hold_out(data))
    assert trained
    assert 0.1 <= len(held) / len(data) <= 0.3
    assert not trained & held
    near = {(i, j) for i in held for j in (i - 1, i + 1) if j in trained and data.clip(i) == data.clip(j)}
    assert not near
    if not video:
        assert len(trained) + len(held) == len(data)


def test_too_few_frames_are_an_error() -> None:
    with pytest.raises(UsageError, match="has 4 labelled frames: label at least 5"):
        hold_out(Frames([4], True))


@pytest.mark.parametrize(("shown", "held"), [({0, 2}, [2]), ({0, 3}, [3]), ({0, 1}, [0]), ({4}, None), (set(), None)])
def test_held_out_and_trained_frames_show_a_class(shown: set[int], held: list[int] | None) -> None:
    class Shown(Frames):
        def __getitem__(self, index: int) -> Any:
            return SimpleNamespace(labels=np.array([[1 if index in shown else 0, 255]], np.uint8), index=index)

    classes = (ClassSpec("background", (0, 0, 0), "background"), ClassSpec("hook", (0, 255, 0), "instrument"))
    if held is None:
        with pytest.raises(UsageError, match="of the 5 frames of frames none, or only a few beside each other, show"):
            hold_out_shown(Shown([5], False), classes)
    else:
        assert [place for _, place in hold_out_shown(Shown([5], False), classes)[1].places] == held


def test_labels_that_are_given_twice_are_refused(
    bundle: Bundle, scenes: list[tuple[np.ndarray, np.ndarray]], tmp_path: Path
) -> None:
    labels = write_labels(tmp_path / "labels", scenes)
    copy = write_labels(tmp_path / "copy", [scenes[2], *scenes[:2], *scenes[3:]])
    data = load_tune_config([setting for setting in FAST if setting.startswith("data.")]).data
    lines = [str(labels), str(copy)]
    with pytest.raises(UsageError, match=r"png is a copy of .*png, and trained on and tested on"):
        open_tuning_data(lines, bundle.manifest.classes, data, lambda done, total: None)


def some_masks() -> np.ndarray:
    """Ten masks of bars of different places and lengths."""
    masks = np.zeros((10, 72, 96), bool)
    for number, mask in enumerate(masks):
        mask[5 * number : 5 * number + 12, 10 : 40 + 3 * number] = True
    return masks


def _square(masks: np.ndarray) -> np.ndarray:
    """Masks of square images after a quarter turn, as they are reduced."""
    return np.stack(
        [cv2.resize(m.astype(np.uint8), (96, 72), interpolation=cv2.INTER_NEAREST_EXACT) > 0 for m in masks]
    )


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (
            lambda m: np.roll(m, (-4, 24), (1, 2)),
            "displaced by 25 % of the width to the right and -6 % of the height down",
        ),
        (lambda m: ~m, "inverted"),
        (lambda m: m[:, :, ::-1], "mirrored"),
        (lambda m: m[:, ::-1], "upside down"),
        (lambda m: m[:, ::-1, ::-1], "turned by 180 degrees"),
        (lambda m: _square(np.rot90(m, 3, (1, 2))), "turned to the right"),
        (lambda m: _square(np.rot90(m, 1, (1, 2))), "turned to the left"),
        (lambda m: _square(m.swapaxes(1, 2)), "with rows and columns swapped"),
        (lambda m: np.roll(m, 4, 0), "those of other frames"),
    ],
)
def test_masks_that_are_wrong_in_one_way_are_found(change: Callable[[np.ndarray], np.ndarray], fault: str) -> None:
    masks = some_masks()
    found = label_fit(masks, change(masks))
    assert found.fault(15) == fault or found.undone[fault] == pytest.approx(max(found.undone.values()))
    assert found.undone[fault] > 0.9 > found.iou + 0.3
    assert label_fit(masks, masks).fault(15) is None


@pytest.mark.parametrize(
    ("labels", "noted"), [([1, 255], True), ([254, 255], True), ([1, 0], False), ([1, 253], False)]
)
def test_labels_without_any_background_have_a_note(labels: list[int], noted: bool) -> None:
    classes = (ClassSpec("background", (0, 0, 0), "background"), ClassSpec("hook", (0, 255, 0), "instrument"))
    held: Any = [SimpleNamespace(labels=np.array([labels], np.uint8))]
    notes = label_notes([], held, classes)
    assert ["labels=instrument" in note for note in notes] == [True] * noted


def test_labels_of_what_the_network_missed_are_right() -> None:
    """Masks at the border, of which the network sees two of three: they are not displaced, wherever those that it missed lie."""
    truth = np.zeros((12, 72, 96), bool)
    for index, mask in enumerate(truth):
        mask[50:, 4 * index : 4 * index + 14] = True
    found = truth.copy()
    found[::3] = False
    fit = label_fit(found, truth)
    assert fit.iou == pytest.approx(2 / 3)
    assert fit.fault(1) is None


def test_a_poor_network_cannot_call_masks_wrong() -> None:
    assert LabelFit(0.4, {"mirrored": 0.7, "inverted": 0.1}).fault(15) == "mirrored"
    assert LabelFit(0.7, {"mirrored": 0.8}).fault(15) is None
    assert LabelFit(0.1, {"mirrored": 0.4}).fault(15) is None


def entries(title: str, instrument: float | None, classes: float | None) -> dict[str, object]:
    kinds = {"instrument": instrument, "dataset mIoU, without background": classes}
    return {f"{title}, {kind}": {"frames": {"s": 4}, "refined": {"pooled": value}} for kind, value in kinds.items()}


@pytest.mark.parametrize(
    ("new", "before", "after", "refused"),
    [
        (True, (0.70, 0.5), (0.70, 0.1), []),
        (True, (0.70, 0.5), (0.699, 0.9), ["x, instrument"]),
        (True, (None, 0.5), (None, 0.49), ["x, dataset mIoU, without background"]),
        (False, (0.80, 0.5), (0.791, 0.495), []),
        (False, (0.80, 0.5), (0.789, 0.6), ["x, instrument"]),
        (False, (0.80, 0.5), (0.9, 0.4), ["x, dataset mIoU, without background"]),
    ],
)
def test_the_rule_of_refusal(
    new: bool, before: tuple[float | None, float], after: tuple[float | None, float], refused: list[str]
) -> None:
    part = HeldOutPart("x", Frames([4], True), new)
    rows = compare_scores(entries("x", *before), entries("x", *after), [part])
    assert [row.title for row in rows if row.refused] == refused


def test_trained_weights_reach_the_exported_encoder(bundle: Bundle, tmp_path: Path) -> None:
    encoder = TrainableEncoder(bundle, 1, blocks=2)
    image = np.random.default_rng(0).integers(0, 256, (1, bundle.manifest.height, bundle.manifest.width, 3), np.uint8)

    def exported(path: Path) -> np.ndarray:
        engine = compile_engine(path, precision="f32", shapes=encoder_shapes(bundle))
        return engine.run({"image": image, "text": bundle.embeddings})["logits"].copy()

    boundary = encoder.encode(torch.from_numpy(image))
    assert all(len(maps) == 1 for maps in boundary.values())
    np.testing.assert_allclose(encoder(boundary).detach().numpy(), exported(bundle.encoder), atol=0.02)
    with torch.no_grad():
        for weight in encoder.weights:
            weight.mul_(0.9)
    shutil.copy(bundle.encoder, tmp_path / "encoder.onnx")
    encoder.write(tmp_path)
    changed = encoder(boundary).detach().numpy()
    assert np.abs(changed - exported(bundle.encoder)).max() > 0.1
    np.testing.assert_allclose(changed, exported(tmp_path / "encoder.onnx"), atol=0.02)


def test_a_cell_learns_the_likeliest_allowed_class() -> None:
    allowed = torch.zeros(256, 3, dtype=torch.bool)
    allowed[0, 0] = allowed[INSTRUMENT, 1:] = allowed[IGNORE] = True
    logits = torch.tensor([0.4, 0.35, 0.25]).log().reshape(1, 3, 1, 1).expand(1, 3, 1, 3).clone().requires_grad_()
    found = likeliest_cross_entropy(logits, torch.tensor([[[INSTRUMENT, 0, IGNORE]]]), allowed)
    assert found[0, 0].tolist() == pytest.approx([-np.log(0.35), -np.log(0.4), 0.0])
    found.sum().backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert logits.grad[0, 1, 0, 0] < 0 < logits.grad[0, 2, 0, 0]


class OneWeight:
    """An encoder whose logits are its only weight: above 0 all cells are instrument."""

    batch = 2

    def __init__(self, weight: float) -> None:
        self.weights = [torch.nn.Parameter(torch.tensor([weight]))]

    def __call__(self, boundary: dict[str, torch.Tensor]) -> torch.Tensor:
        instrument = (self.weights[0] - boundary["level"]).reshape(2, 1, 1, 1).expand(2, 1, 1, 4)
        return torch.cat([torch.zeros_like(instrument), instrument], 1)


@pytest.mark.parametrize(("level", "share"), [(2.0, 1.0), (0.7, 0.6), (0.1, 0.2)])
def test_as_much_training_is_kept_as_old_data_bears(level: float, share: float) -> None:
    classes = (ClassSpec("background", (0, 0, 0), "background"), ClassSpec("tool", (0, 255, 0), "instrument"))
    labels = torch.tensor([1, 0], dtype=torch.uint8).reshape(2, 1, 1).expand(2, 1, 4)
    gains, views = (
        EncodedViews({"level": torch.tensor([[first], [other]])}, labels, torch.zeros(2, 2, 1, 4))
        for first, other in ((0.1, 2.0), (-1.0, level))
    )
    encoder = OneWeight(1.0)
    found = blend_weights(encoder, [torch.zeros(1)], [gains, views], classes, "f32")  # type: ignore[arg-type]
    assert found == share
    assert encoder.weights[0].item() == pytest.approx(share)


def test_a_blend_is_judged_by_the_classes_too() -> None:
    tools = [ClassSpec(name, (0, 255, 0), "instrument") for name in ("shaft", "tip")]
    classes = (ClassSpec("background", (0, 0, 0), "background"), *tools)

    class TwoTools(OneWeight):
        """Above 0.5 the tip is called a shaft, which all instruments as one do not show."""

        def __call__(self, boundary: dict[str, torch.Tensor]) -> torch.Tensor:
            shaft, tip = 2 * self.weights[0] * boundary["level"], boundary["level"]
            return torch.stack([torch.full_like(tip, -9), shaft, tip], 1).reshape(2, 3, 1, 1)

    labels = torch.tensor([2, 2], dtype=torch.uint8).reshape(2, 1, 1)
    views = EncodedViews({"level": torch.ones(2, 1)}, labels, torch.zeros(2, 3, 1, 1))
    encoder = TwoTools(1.0)
    assert blend_weights(encoder, [torch.zeros(1)], [views], classes, "f32") == 0.4  # type: ignore[arg-type]


@pytest.mark.parametrize("fault", ["missing package", "refused by the gate"])
def test_int8_is_made_again_or_left_out(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    folder, lines = tmp_path / "copy", list[str]()
    shutil.copytree(bundle.path, folder)

    def add(copy: Bundle, images: np.ndarray) -> Bundle:
        if fault == "missing package":
            raise EngineError("nncf can't be imported")
        for name in (INT8_ENCODER, INT8_WEIGHTS):
            (copy.path / name).write_bytes(b"x")
        return seal_bundle(copy.path, copy.manifest, copy.embeddings)

    monkeypatch.setattr(remake, "add_int8", add)
    monkeypatch.setattr(remake, "_int8_faults", lambda made: ["labels differ"])
    like = replace(bundle, manifest=replace(bundle.manifest, hashes={**bundle.manifest.hashes, INT8_ENCODER: ""}))
    images, place = np.zeros((4, 8, 8, 3), np.uint8), Path("/a b/better")
    made = remake.add_derived(open_bundle(folder), like, images, place, lines.append)
    assert INT8_ENCODER not in made.manifest.hashes
    assert f"without {INT8_ENCODER}: " in "\n".join(lines)
    assert "calibration --bundle '/a b/better'" in "\n".join(lines)


def test_paths_of_labels_are_recognized(tmp_path: Path) -> None:
    for name in ("a.coco.json", "b.cvat.xml", "c.labelstudio.json", "notes.txt"):
        (tmp_path / name).write_text("")
    assert lines_of_path(str(tmp_path)) == [
        f"coco:{tmp_path}/a.coco.json",
        f"cvat:{tmp_path}/b.cvat.xml",
        f"labelstudio:{tmp_path}/c.labelstudio.json",
    ]
    assert lines_of_path(f"{tmp_path}/a.coco.json?empty=keep") == [f"coco:{tmp_path}/a.coco.json?empty=keep"]
    (tmp_path / "data.yaml").write_text("")
    assert lines_of_path(f"{tmp_path}?ignore=x") == [f"yolo:{tmp_path}?ignore=x"]
    assert lines_of_path("coco:elsewhere.json") == ["coco:elsewhere.json"]


def test_settings_of_tuning_are_checked() -> None:
    assert load_tune_config(["data.scenes=3", "share=0.25"]).data.scenes == 3
    with pytest.raises(UsageError, match=r"'data' is a section, not the value 3: set data\.sets, for"):
        load_tune_config(["data=3"])
    with pytest.raises(UsageError, match="setting 'share' is 1"):
        load_tune_config(["share=1.0"])


def test_a_name_that_no_bundle_holds_is_refused_at_once(tmp_path: Path) -> None:
    options = tuning.TuneOptions("small", ["folder:nowhere"], tmp_path / "a\nb")
    with pytest.raises(UsageError, match=r"bundle can't hold this name, size or class: name: .*, not 'a\\nb'"):
        tuning.tune(options, load_tune_config(), ProgressDisplay(Progress(disable=True)), Console())


def test_a_loss_that_is_not_finite_names_the_rate(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def step(index: int) -> None:
        raise NotFiniteError("the loss is nan")

    monkeypatch.setattr(tuning, "TrainableEncoder", lambda *rest: SimpleNamespace(weights=[]))
    monkeypatch.setattr(tuning, "_encoded", lambda *rest: [])
    monkeypatch.setattr(tuning.EncodedViews, "join", lambda parts: [])
    monkeypatch.setattr(tuning, "TuningStage", lambda *rest: SimpleNamespace(step=step))
    data, old = tuning.TuningData(*([] for _ in range(4))), tuning.OldViews([], [])  # type: ignore[arg-type]
    with pytest.raises(CliprlError, match="step 0: the loss is nan; no bundle is written: lower the rate"):
        tuning.train_encoder(bundle, data, load_tune_config(["steps=1"]), ProgressDisplay(Progress()), old)
