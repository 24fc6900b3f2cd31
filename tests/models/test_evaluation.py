"""Scoring from pictures to tables: with a predictor that knows, with the shipped bundle, and with a network in torch."""

from __future__ import annotations

import io
import json
import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from limits import file_size_limit
from numpy.typing import NDArray
from rich.console import Console
from rich.markdown import Markdown
from typer.testing import CliRunner

from cliprl.engines import ClassSpec, CliprlError, open_bundle
from cliprl.models.cli import evaluate as eval_cli
from cliprl.models.data.label_mapping import ClassMap, map_by_name, map_to_instrument
from cliprl.models.data.sets.folder import FolderSet
from cliprl.models.evaluation.evaluate import _write as write_evaluation
from cliprl.models.evaluation.evaluation import Corruption, Evaluation, cell_confidence, evaluate
from cliprl.models.evaluation.image_segmenter import ImageSegmenter
from cliprl.models.evaluation.scoring import markdown
from cliprl.models.evaluation.scoring.iou import DEFINITIONS
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.core.viewport import full_viewport
from cliprl.pipeline.segment.segmenter import CpuPreprocessor
from cliprl.pipeline.sources.images.array_frame import frame_of_image
from cliprl.pipeline.synthetic import SCENE_CLASSES

Picture = NDArray[np.uint8]
CLASSES_TOML = """
[[classes]]
name = "background"
kind = "background"
color = [0, 0, 0]
[[classes]]
name = "shaft"
kind = "instrument"
color = [0, 255, 0]
[[classes]]
name = "tip"
kind = "instrument"
color = [0, 255, 255]
"""
HEIGHT, WIDTH = 128, 160


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two sequences of three frames: a tool that moves by 8 pixels a frame over textured tissue, its colours its classes."""
    root = tmp_path / "set"
    root.mkdir()
    (root / "classes.toml").write_text(CLASSES_TOML)
    for s, sequence in enumerate(("one", "two")):
        noise = np.random.default_rng(s).integers(0, 90, (HEIGHT, WIDTH, 3)).astype(np.uint8)
        for n in range(3):
            image, mask = cv2.GaussianBlur(noise, (0, 0), 2) + 60, np.zeros((HEIGHT, WIDTH), np.uint8)
            left = 32 + 8 * n
            mask[32:96, left : left + 40], mask[32:96, left + 40 : left + 64] = 1, 2
            image[mask == 1], image[mask == 2] = (0, 255, 0), (255, 0, 0)
            for kind, array in (("images", cv2.cvtColor(image, cv2.COLOR_RGB2BGR)), ("masks", mask)):
                (root / kind / sequence).mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(root / kind / sequence / f"{n}.png"), array)
    return root


class Knowing:
    """Sees the classes by their colours, on a grid of stride 4, and notes what it was asked."""

    def __init__(self, sure: float = 1.0) -> None:
        self.sure, self.resets, self.images = sure, 0, 0

    def segment(self, image: Picture) -> Segmentation:
        self.images += 1
        cells = image[2::4, 2::4].astype(int)
        labels = np.select([cells[..., 1] - cells[..., 0] > 100, cells[..., 0] - cells[..., 1] > 100], [1, 2]).astype(
            np.uint8
        )
        probabilities = np.full((3, *labels.shape), (1 - self.sure) / 2, np.float32)
        np.put_along_axis(probabilities, labels[None].astype(np.intp), np.float32(self.sure), axis=0)
        return Segmentation(labels, probabilities, full_viewport(*image.shape[:2], *image.shape[:2]), self.sure, 0)

    def reset(self) -> None:
        self.resets += 1


def scored(data: FolderSet, predictor: Knowing, classes: ClassMap, corruption: Corruption | None = None) -> Evaluation:
    ticks: list[None] = []
    result = evaluate(
        predictor,
        data,
        classes,
        corruption=corruption or Corruption(),
        indices=list(range(len(data))),
        tolerance=2,
        keep_worst=2,
        progress=lambda: ticks.append(None),
    )
    assert len(ticks) == len(data)
    return result


def test_who_knows_scores_nearly_one(folder: Path) -> None:
    data, predictor = FolderSet(folder), Knowing()
    result = scored(data, predictor, map_by_name(data.classes, data.classes, {}, ()))
    scores = {key: score.metric.value() for key, score in result.evaluator.scores().items()}
    assert (predictor.images, predictor.resets) == (6, 2)
    assert scores["isi_iou"] > 0.97
    assert scores["nsd"] == 1.0
    assert scores["ece"] == pytest.approx(0, abs=0.01)
    # Shaft moves 8 of 40 columns a frame, tip 8 of 24.
    assert scores["consecutive_iou"] == pytest.approx((32 / 48 + 16 / 32) / 2, abs=0.03)
    assert result.evaluator.to_json()["sequences"] == {"one": 3, "two": 3}


def test_doubt_without_error_is_miscalibrated(folder: Path) -> None:
    data = FolderSet(folder)
    classes = map_by_name(data.classes, data.classes, {}, ())
    assert scored(data, Knowing(0.7), classes).evaluator.scores()["ece"].metric.value() == pytest.approx(0.3, abs=0.01)
    # As one instrument, shaft and tip share their doubt: 0.85 sure of the tool, 0.7 of the rest.
    union = map_to_instrument(data.classes, data.classes, ())
    sure, right = cell_confidence(Knowing(0.7).segment(data[0].image), union.truth[data[0].labels], union)
    assert right.mean() > 0.99
    assert sorted(np.unique(sure.round(3)).tolist()) == pytest.approx([0.7, 0.85])


def test_a_renamed_and_an_ignored_class(folder: Path) -> None:
    data = FolderSet(folder)
    found = (data.classes[0], ClassSpec("rod", (1, 1, 1), "instrument"), ClassSpec("tip", (2, 2, 2), "instrument"))
    result = scored(data, Knowing(), map_by_name(data.classes, found, {"rod": "shaft"}, ("tip",)))
    iou = result.evaluator.to_json()["per_class"]["dataset_iou"]
    assert iou[1] > 0.95
    assert result.evaluator.counts.truth[:, 2].sum() == 0


def test_instrument_of_an_unknown_part_is_right_with_any_part(folder: Path) -> None:
    """Masks of a bundle that merges unsure parts are scored without --union or --ignore."""
    third = '[[classes]]\nname = "instrument"\nkind = "instrument"\ncolor = [0, 0, 255]\n'
    (folder / "classes.toml").write_text(CLASSES_TOML + third)
    parts = FolderSet(folder).classes[:3]
    for path in folder.glob("masks/*/*.png"):
        mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert mask is not None
        mask[:80][mask[:80] > 0] = 3
        cv2.imwrite(str(path), mask)
    data = FolderSet(folder)
    result = scored(data, Knowing(), map_by_name(data.classes, parts, {}, ()))
    assert min(result.evaluator.to_json()["per_class"]["dataset_iou"]) > 0.95
    assert result.evaluator.scores()["ece"].metric.value() == pytest.approx(0, abs=0.01)


def test_odd_and_longest_names_and_tiny_frames_are_scored(folder: Path, tmp_path: Path) -> None:
    """OpenCV's own reader ends the process for such a name; it computes no optical flow of a few pixels."""
    odd = os.fsdecode(b"\xff\xfe.png")
    for kind in ("images", "masks"):
        (folder / kind / "one" / "0.png").rename(folder / kind / "one" / odd)
        (folder / kind / "one" / "1.png").rename(folder / kind / "one" / f"{'é' * 125}.png")
        for path in folder.glob(f"{kind}/*/*.png"):
            small = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
            path.write_bytes(cv2.imencode(".png", small[40:48, 40:48])[1])
    out = tmp_path / os.fsdecode(b"out\xff")
    (out / "worst").mkdir(parents=True)
    for name in ("mine.png", "iou-00_0.100_old_frame00003.png"):
        (out / "worst" / name).touch()
    status, text = run("--data", f"folder:{folder}", "--union", "--steps", "0", "--out", str(out), "--precision", "f32")
    assert status == 0, text
    assert len(list((out / "worst").glob("*_frame*.png"))) > 2
    assert (out / "worst" / "mine.png").is_file()
    assert not (out / "worst" / "iou-00_0.100_old_frame00003.png").exists()
    scores = json.loads((out / "scores.json").read_text())
    assert odd in [one["file"] for one in scores["worst"]["iou"]]
    assert "flow_dice" not in scores["results"][0]["scores"]


def test_corruption_reaches_the_predictor_and_the_worst_frames_are_kept(folder: Path) -> None:
    data = FolderSet(folder)
    classes = map_by_name(data.classes, data.classes, {}, ())
    clean = scored(data, Knowing(), classes)
    worse = scored(data, Knowing(), classes, Corruption("contrast", 5))
    assert worse.evaluator.scores()["isi_iou"].metric.value() < clean.evaluator.scores()["isi_iou"].metric.value() - 0.2
    assert [seen.error for seen in worse.worst] == sorted((seen.error for seen in worse.worst), reverse=True)
    assert len(worse.worst) == 2
    noisy = Corruption("gaussian_noise", 3, seed=1)
    assert (noisy.apply(data[0].image, 0) == noisy.apply(data[0].image, 0)).all()
    assert (noisy.apply(data[0].image, 0) != noisy.apply(data[0].image, 1)).any()


def through_the_planes(image: Picture) -> Picture:
    """RGB to NV12 planes and back to the network's RGB, 48x64."""
    size = image.shape[:2]
    seen = np.zeros((48, 64, 3), np.uint8)
    CpuPreprocessor().prepare(frame_of_image(image), full_viewport(*size, 48, 64), seen)
    return seen


def test_a_picture_reaches_the_network_with_its_colours() -> None:
    rng = np.random.default_rng(0)
    image = cv2.resize(rng.integers(0, 256, (6, 8, 3)).astype(np.uint8), (128, 96), interpolation=cv2.INTER_CUBIC)
    expected = cv2.resize(image, (64, 48), interpolation=cv2.INTER_AREA)
    assert np.abs(through_the_planes(image).astype(int) - expected).mean() < 1.5
    for color in rng.integers(0, 256, (20, 3)):
        flat = np.full((95, 127, 3), color, np.uint8)
        assert np.abs(through_the_planes(flat).astype(int) - color).max() <= 2


def test_the_bundle_sees_a_picture_and_forgets_it(folder: Path) -> None:
    predictor, data = ImageSegmenter("small", precision="f32", threads=1), FolderSet(folder)
    first = predictor.segment(data[0].image).probabilities.copy()
    second = predictor.segment(data[1].image).probabilities.copy()
    predictor.reset()
    assert (predictor.segment(data[0].image).probabilities == first).all()
    assert (predictor.segment(data[1].image).probabilities == second).all()


def run(*arguments: str) -> tuple[int, str]:
    """The command's exit status, and its one line of error."""
    done = CliRunner().invoke(eval_cli.app, arguments)
    if isinstance(done.exception, CliprlError):
        return done.exception.exit_status, str(done.exception)
    return done.exit_code, done.output


def test_the_command_writes_tables_and_pictures(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    status, output = run(
        *("--data", f"folder:{folder}", "--union", "--out", str(out), "--corruptions", "fog,snow", "--severities", "1,4"),
        *("--frames", "2", "--threads", "1", "--worst", "3", "--split", "two,one"),
    )  # fmt: skip
    assert status == 0, output
    result = json.loads((out / "scores.json").read_text())
    assert [(r["corruption"]["kind"], r["corruption"]["severity"]) for r in result["results"]] == [
        ("clean", 0), ("fog", 1), ("fog", 4), ("snow", 1), ("snow", 4)
    ]  # fmt: skip
    assert all(r["frames"] == 4 for r in result["results"])
    assert result["hashes"] == dict(open_bundle("small").manifest.hashes)
    assert len(json.loads((out / "counts.json").read_text())["rows"]) == 4
    images = [cv2.imread(str(path)) for path in sorted((out / "worst").glob("*.png"))]
    assert [image.shape for image in images] == [(HEIGHT, 3 * WIDTH, 3)] * len(images)
    names = sorted(path.name for path in (out / "worst").glob("*.png"))
    assert [name[:6] for name in names if name.startswith("iou")] == ["iou-00", "iou-01", "iou-02"]
    assert all(re.search(r"_[01]_frame\d{5}\.png$", name) for name in names)  # the file is 0.png or 1.png
    assert [frame["file"] in ("0.png", "1.png") for frame in result["worst"]["iou"]] == [True] * 3
    text = (out / "scores.md").read_text()
    for score in result["results"][0]["scores"].values():
        assert f"| {score['title']} |" in text
        assert score["rule"] in text
    assert "| fog |" in text
    assert "| frames | 2 | 2 |" in text
    assert "| **mean** |" in text
    for place in (folder / "images", folder / "images/one/deeper"):
        status, output = run("--data", f"folder:{folder}", "--union", "--out", str(place))
        assert (status, "lies among the images of the data set" in output) == (2, True)
        assert not list(folder.glob("images/**/worst"))
    again = ("--data", f"folder:{folder}", "--union", "--out", str(out), "--threads", "1", "--worst", "0")
    status, output = run(*again)
    assert (status, (out / "scores.md").read_text()) == (2, text)
    assert "holds scores.json, counts.json, scores.md of an earlier run: give another --out, or --overwrite" in output
    assert run(*again, "--frames", "1", "--overwrite")[0] == 0
    assert (out / "scores.md").read_text() != text


def test_severity_corrupts_the_data_set_and_the_headline_comes_first(folder: Path, tmp_path: Path) -> None:
    found = {}
    for severity in ("0", "5"):
        out = tmp_path / severity
        data = f"folder:{folder}?severity={severity}"
        status, output = run("--data", data, "--union", "--out", str(out), "--threads", "1", "--worst", "1")
        assert status == 0, output
        found[severity] = json.loads((out / "scores.json").read_text())["results"][0]["scores"]
        text = (out / "scores.md").read_text()
        assert (
            text.index("| instrument IoU |")
            < text.index("| false alarms (lower is better) |")
            < text.index("## Scores")
        )
    assert found["0"] != found["5"]
    status, output = run("--data", f"folder:{folder}?severity=much", "--union", "--out", str(tmp_path / "no"))
    assert status == 2
    assert "severity is 'much', and must be a number" in output


def test_no_number_is_cut_in_80_terminal_columns() -> None:
    names = [f"instrument_dataset_{n}" for n in range(7)]
    titles = [definition.title for definition in DEFINITIONS.values()] + ["Dice after warping by optical flow"]
    values = iter(np.arange(100, 1000) / 1000)
    scores = {
        title: {"title": title, "value": next(values), "interval": [next(values), next(values)]}
        | {"sequences": {name: next(values) for name in names}}
        for title in titles
    }
    keys = ("dataset_iou", "dataset_dice", "mean_frame_iou", "nsd")
    classes = [spec.name for spec in SCENE_CLASSES]
    columns = {key: [next(values) for _ in classes] for key in keys}
    columns |= {key: [1000 + n for n in range(len(classes))] for key in ("truth_pixels", "found_pixels")}
    clean = {"frames": 7, "sequences": dict.fromkeys(names, 225), "scores": scores, "classes": classes}
    run = {"bundle": "small", "data": "set", "settings": {}, "results": [clean | {"per_class": columns}]}
    console = Console(width=80, file=io.StringIO())
    console.print(Markdown(markdown.format_summary(run)))
    shown = console.file.getvalue()
    assert "…" not in shown
    cells = {
        cell for line in markdown.format_summary(run).splitlines() if line.startswith("|") for cell in line.split(" | ")
    }
    missing = [cell for cell in cells if re.fullmatch(r"0\.\d{3}|\d+\.\d\d %", cell) and cell not in shown]
    assert not missing


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--split", "three"), "no split 'three' of set"),
        (("--bundle", "huge"), "no bundle 'huge'"),
        (("--map", "a"), "class map 'a' is not of the form BUNDLE=DATA"),
        (("--map", "a=shaft"), "class map 'a=shaft': it takes a class of the bundle"),
        ((), "the bundle has no class for shaft, tip: map its classes"),
        (("--union", "--ignore", "liver"), "no class 'liver' to ignore"),
        (("--union", "--corruptions", "rain"), "no corruption 'rain'"),
        (("--union", "--corruptions", "fog", "--severities", "0"), "severity '0'"),
        (("--union", "--out", "/proc/nowhere"), "can't be made"),
    ],
)
def test_misuse_is_one_line_and_status_2(folder: Path, tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    status, text = run("--data", f"folder:{folder}", "--out", str(tmp_path / "out"), *arguments)
    assert status == 2
    assert said in text
    assert "\n" not in text.strip()


def test_bad_data_is_status_1(folder: Path, tmp_path: Path) -> None:
    (folder / "masks/two/1.png").unlink()
    status, text = run("--data", f"folder:{folder}", "--union", "--out", str(tmp_path / "out"))
    assert status == 1
    assert "images/two/1.png has no mask" in text


def test_full_disk_keeps_the_tables_of_an_earlier_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts, nothing = SimpleNamespace(to_json=lambda: {"frame": "9" * 100_000}), list[Any]()
    clean: Any = SimpleNamespace(
        evaluator=SimpleNamespace(counts=counts, classes=nothing), worst=nothing, worst_false=nothing
    )
    monkeypatch.setattr(markdown, "format_report", lambda result: "new")
    for name in ("scores.json", "counts.json", "scores.md"):
        (tmp_path / name).write_text("old")
    with file_size_limit(50_000), pytest.raises(CliprlError, match="can't be written"):
        write_evaluation(tmp_path, {}, clean)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(
        ("scores.json", "counts.json", "scores.md"), "old"
    )
    counts.to_json = dict
    write_evaluation(tmp_path, {}, clean)
    assert (tmp_path / "scores.md").read_text() == "new"
