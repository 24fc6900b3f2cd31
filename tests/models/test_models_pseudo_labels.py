"""`cliprl-label run`: masks by prompts, written as a data set that survives the end of the program at any moment."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shutil
import signal
import sys
import time
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from limits import file_size_limit
from sam_files import write_sam

from cliprl.engines import CliprlError, UsageError, open_bundle
from cliprl.engines.cli.cli_runner import run_app
from cliprl.engines.cli.console import error_console
from cliprl.engines.promptable import open_promptable
from cliprl.models.cli import label
from cliprl.models.data.registry import DatasetContext, open_dataset
from cliprl.models.labelling.prompting import PromptSettings
from cliprl.models.labelling.pseudo_labels import run as label_run
from cliprl.models.labelling.pseudo_labels.labeller import FrameLabels, PromptLabeller, _probability_at, network_mask
from cliprl.models.labelling.pseudo_labels.prompt_bundle import UNPROMPTED
from cliprl.models.labelling.pseudo_labels.run import LabelOptions, LabelSummary, run_labelling
from cliprl.pipeline import ColorSpace, Frame, OutputSpec, StreamInfo, open_sink
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.core.viewport import fit_viewport, map_points, network_to_frame
from cliprl.pipeline.synthetic import SCENE_CLASSES


class Stub:
    """A labeller that calls the left third the class, and the next sixth unsure."""

    classes = (UNPROMPTED, SCENE_CLASSES[1])
    seconds = 0.0

    def __init__(self, *arguments: Any) -> None:
        self.calls = 0

    def reset(self) -> None:
        pass

    def __call__(self, image: Any) -> FrameLabels:
        time.sleep(self.seconds)
        labels = np.zeros(image.shape[:2], np.uint8)
        labels[:, : image.shape[1] // 3] = 1
        labels[:, image.shape[1] // 3 : image.shape[1] // 2] = 255
        return FrameLabels(labels, {self.classes[1].name: {"presence": 0.9, "share": 1 / 3}})


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_run, "PromptLabeller", Stub)


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """Twelve images in a folder, four of them in a sub-folder."""
    folder = tmp_path / "frames"
    (folder / "b").mkdir(parents=True)
    for i in range(12):
        image = np.full((24, 36, 3), 20 * i, np.uint8)
        cv2.imwrite(str(folder / ("b" if i > 7 else "") / f"image{i}.png"), image)
    return folder


def options(frames: Path, **changes: Any) -> LabelOptions:
    return LabelOptions((frames,), ("surgical instrument",), frames.parent / "labels", **changes)


def label_all(asked: LabelOptions) -> LabelSummary:
    return run_labelling(asked, error_console(quiet=True))


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "labels.jsonl").read_text(encoding="utf-8").splitlines()]


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["cliprl-label", *arguments])
    return run_app(label.app, "cliprl-label")


@pytest.mark.usefixtures("stub")
def test_the_set_is_complete_and_can_be_trained_on(frames: Path) -> None:
    assert label_all(options(frames)) == LabelSummary(12, 12, 0)
    folder = frames.parent / "labels"
    data = open_dataset(f"folder:{folder}")
    assert len(data) == 12
    assert [spec.name for spec in data.classes] == ["background", "instrument-shaft"]
    assert Counter(data[0].labels.ravel().tolist()) == {1: 24 * 12, 255: 24 * 6, 0: 24 * 18}
    assert len({data.clip(i) for i in range(12)}) == 12
    link = folder / "images" / "b" / "image11.png"
    assert link.is_symlink()
    assert link.resolve() == (frames / "b" / "image11.png").resolve()
    header, *records = lines(folder)
    assert header["settings"]["hashes"] == dict(open_bundle("small").manifest.hashes)
    assert header["settings"]["prompts"] == ["surgical instrument"]
    assert [record["name"] for record in records][-2:] == ["b/image10", "b/image11"]
    assert records[0]["unsure"] == pytest.approx(1 / 6, abs=1e-6)
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert page.count("<img") == 12
    assert "figure{display:inline-block" in page, "WebKit prints half a figure of a flexible box"
    assert page.index("<main>") < page.index("<h1>")
    assert (folder / "sheet" / "b" / "image11.jpg").is_file()


@pytest.mark.usefixtures("stub")
def test_images_named_alike_in_another_folder_are_refused(frames: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    label_all(options(frames))
    other = frames.parent / "case2"
    (other / ".trash").mkdir(parents=True)
    for name in ("image11.png", "b/image11.png", "._image3.png", ".trash/image4.png"):
        (other / name).parent.mkdir(exist_ok=True)
        shutil.copy(frames / "b" / "image11.png", other / name)
    asked = LabelOptions((other,), ("surgical instrument",), frames.parent / "labels")
    with pytest.raises(UsageError, match=r"holds 'b/image11' of '.*frames/b/image11.png', and '.*case2/b/image11.png'"):
        label_all(asked)
    (other / "b" / "image11.png").rename(other / "b" / "other.png")
    assert label_all(asked) == LabelSummary(14, 1, 0)
    monkeypatch.chdir(frames)
    again = LabelOptions((Path(),), ("surgical instrument",), frames.parent / "labels")
    assert label_all(again) == LabelSummary(14, 0, 0)


@pytest.mark.usefixtures("stub")
def test_a_killed_run_goes_on_without_repeats_or_gaps(frames: Path) -> None:
    folder, kills = frames.parent / "labels", 0
    Stub.seconds = 0.02
    try:
        for delay in (0.05, 0.09, 0.13):
            child = multiprocessing.get_context("fork").Process(target=label_all, args=(options(frames),))
            child.start()
            time.sleep(delay)
            assert child.pid is not None
            os.kill(child.pid, signal.SIGKILL)
            child.join()
            kills += child.exitcode == -signal.SIGKILL
    finally:
        Stub.seconds = 0.0
    assert kills
    if (folder / "labels.jsonl").is_file():
        with (folder / "labels.jsonl").open("ab") as file:
            file.write(b'{"name": "image')  # what a kill within a write leaves
    label_all(options(frames))
    names = Counter(record["name"] for record in lines(folder)[1:])
    assert len(names) == 12
    assert set(names.values()) == {1}
    assert len(open_dataset(f"folder:{folder}")) == 12
    assert label_all(options(frames)) == LabelSummary(12, 0, 0)


@pytest.mark.usefixtures("stub")
def test_a_video_gives_every_nth_frame_as_images(tmp_path: Path) -> None:
    video, planes = tmp_path / "clip.mp4", np.full((32, 48), 90, np.uint8)
    info = StreamInfo("clip", 32, 48, Fraction(1, 25))
    with open_sink(video, OutputSpec(info, ())) as sink:
        for i in range(7):
            chroma = np.full((16, 24, 2), 128, np.uint8)
            sink.write(Frame(planes.copy(), chroma, i, info.time_base, i, ColorSpace()), None)
    done = run_labelling(
        LabelOptions((video,), ("instrument",), tmp_path / "labels", every=3), error_console(quiet=True)
    )
    assert done == LabelSummary(3, 3, 0)
    data = open_dataset(f"folder:{tmp_path / 'labels'}")
    assert [data.sequence(i) for i in range(len(data))] == ["clip"] * 3
    assert len({data.clip(i) for i in range(len(data))}) == 1
    assert data[0].image.shape == (32, 48, 3)


@pytest.mark.usefixtures("stub")
def test_an_unreadable_image_is_noted_and_left_out(frames: Path) -> None:
    (frames / "image3.png").write_bytes(b"no image")
    (frames / "image4.png").rename(frames / os.fsdecode(b"image4\xff.png"))
    (video := frames.parent / "clip.mp4").write_bytes(b"no video")
    given = replace(options(frames), sources=(video, frames))
    assert label_all(given) == LabelSummary(11, 11, 2)
    assert label_all(given) == LabelSummary(11, 0, 2)
    assert len(open_dataset(f"folder:{frames.parent / 'labels'}")) == 11
    assert [r["name"] for r in lines(frames.parent / "labels")[1:] if "error" in r] == ["clip", "image3"]
    shutil.copy(frames / "image2.png", frames / "image3.png")
    assert label_all(given) == LabelSummary(12, 1, 1), "a file that was mended is labelled"
    assert (frames.parent / "labels" / "index.html").read_bytes().count(b"image3") == 3
    assert label_all(given) == LabelSummary(12, 0, 1)
    with pytest.raises(CliprlError, match=r"no frame can be read; the first, clip: .*clip\.mp4 is not a video"):
        label_all(replace(given, sources=(video,), out=frames.parent / "other"))


@pytest.mark.usefixtures("stub")
def test_sets_within_the_folder_of_frames_are_no_frames(frames: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(frames)
    for out in ("labels", "b/labels"):
        asked = LabelOptions((Path(),), ("instrument",), Path(out))
        assert label_all(asked) == LabelSummary(12, 12, 0)
        assert label_all(asked) == LabelSummary(12, 0, 0)
    with pytest.raises(UsageError, match="'labels' is a folder of pseudo-labels: give the folder of its frames"):
        label_all(LabelOptions((Path("labels"),), ("instrument",), Path("other")))


@pytest.mark.usefixtures("stub")
@pytest.mark.parametrize(("height", "width"), [(1, 1), (9000, 2), (2, 9000)])
def test_images_of_any_shape_and_longest_names_are_labelled(tmp_path: Path, height: int, width: int) -> None:
    name = "x" * 251 + ".png"
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / name).write_bytes(cv2.imencode(".png", np.zeros((height, width, 3), np.uint8))[1].tobytes())
    assert label_all(options(tmp_path / "frames")) == LabelSummary(1, 1, 0)
    assert max(cv2.imread(str(next((tmp_path / "labels" / "sheet").iterdir()))).shape) <= 1280


@pytest.mark.usefixtures("stub")
def test_other_settings_and_foreign_folders_are_refused(frames: Path) -> None:
    label_all(options(frames))
    with pytest.raises(UsageError, match=r"begun with other settings \(every 1\)"):
        label_all(options(frames, every=2))
    foreign = frames.parent / "foreign"
    foreign.mkdir()
    (foreign / "note.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UsageError, match="holds something else"):
        label_all(LabelOptions((frames,), ("instrument",), foreign))
    assert [path.name for path in foreign.iterdir()] == ["note.txt"]


@pytest.mark.usefixtures("stub")
def test_full_disk_ends_the_run_which_resumes(frames: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with file_size_limit(0), pytest.raises(CliprlError, match=r"labels' can't be written.*after the 0 frames"):
        label_all(options(frames))
    written: list[Path] = []
    real = Path.replace

    def replace(path: Path, target: Path) -> Path:
        written.append(path)
        if len(written) == 9:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(path, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(CliprlError, match=r"No space left on device.*goes on after the 3 frames") as raised:
        label_all(options(frames))
    assert "\n" not in str(raised.value)
    assert not list((frames.parent / "labels").rglob("*.partial"))
    assert label_all(options(frames)) == LabelSummary(12, 9, 0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("empty", "--prompt", "instrument"), "'empty' holds no images"),
        (("missing", "--prompt", "instrument"), "missing"),
        (("run", "missing", "--prompt", "instrument"), "'missing' does not exist"),
        (("missing.mp4", "--prompt", "instrument"), "'missing.mp4' does not exist"),
        (("frames",), "no prompt"),
        (("frames", "--prompt", "word " * 200), "shorten it"),
        (("frames", "--prompt", "instrument", "--network", "grab"), "do you mean 'grabcut'"),
        (("frames", "--prompt", "instrument", "--bundle", "large"), "no bundle 'large'"),
    ],
)
def test_misuse_is_refused_in_one_line(
    arguments: tuple[str, ...],
    words: str,
    frames: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(frames.parent)
    (frames.parent / "empty").mkdir()
    assert call(monkeypatch, *arguments) == 2
    text = capfd.readouterr().err.strip()
    assert words in text
    assert len(text.splitlines()) == 1 or "Usage" in text
    assert not (frames.parent / "labels").exists()


def test_a_prompt_labels_the_instruments_of_a_scene(tmp_path: Path) -> None:
    labeller = PromptLabeller(open_bundle("small"), ["surgical instrument"], threads=1)
    assert [(spec.name, spec.kind) for spec in labeller.classes] == [
        ("background", "background"),
        ("surgical-instrument", "instrument"),
    ]
    scene = open_dataset("rendered:seeds=7&frames=1", "test", DatasetContext(cache=tmp_path, height=256, width=320))[0]
    truth = np.isin(scene.labels, [i for i, spec in enumerate(SCENE_CLASSES) if spec.kind == "instrument"])
    found = labeller(scene.image)
    mask, unsure = found.labels == 1, found.labels == 255
    assert 0.01 < truth.mean() < 0.9
    assert mask.mean() > 0.005
    assert (mask & truth).sum() / mask.sum() > 0.5
    assert unsure.mean() < 0.2
    score = found.prompts["surgical-instrument"]
    assert score["presence"] > 0.5
    assert score["share"] >= mask.mean() - 1e-6


@pytest.mark.parametrize("circle", [(300.0, 200.0, 150.0), (420.0, 260.0, 210.0), None])
def test_boxes_survive_the_circle_of_the_endoscope(tmp_path: Path, circle: tuple[float, float, float] | None) -> None:
    network, size = open_promptable(write_sam(tmp_path, "sam2", side=512), threads=1), (480, 640)
    x, y, radius = circle or (320.0, 240.0, 240.0)
    crop = (int(x - radius), int(y - radius), int(2 * radius), int(2 * radius)) if circle else (0, 0, 640, 480)
    view = fit_viewport(size, (256, 320), crop, circle)
    sides = radius * np.array([0.6, 0.55])
    box = np.array([x - sides[0], y - sides[1], x + sides[0], y + sides[1]])
    points = np.stack(np.meshgrid(np.arange(320) + 0.5, np.arange(256) + 0.5), axis=-1)
    place = map_points(network_to_frame(view), points)
    inside = ((place >= box[:2]) & (place < box[2:])).all(axis=-1)
    cells = cv2.resize(inside.astype(np.float32), (80, 64), interpolation=cv2.INTER_AREA)
    found = Segmentation((cells > 0.5).astype(np.uint8), np.stack([1 - cells, cells]), view, 1.0, 0)
    embedding = network.encode(np.zeros((*size, 3), np.uint8))
    mask, _ = network_mask(network, embedding, _probability_at(found, 1, size))
    grown = box + np.array([-1, -1, 1, 1]) * np.tile(sides, 2) * 2 * PromptSettings().margin
    left, top, right, bottom = np.round(grown).astype(int)
    truth = np.zeros(size, bool)
    truth[top:bottom, left:right] = True
    assert (mask & truth).sum() / (mask | truth).sum() >= 0.98
