"""`cliprl-bench label-formats`: write a clip's masks in every label format, read them back, and compare.

The clip has a variable frame rate and a number in each frame. Each format is read by `cliprl.models`' data sets and by an
independent reader (see `label_readers`), which may be installed for another Python. Compared are the masks, pixel for pixel,
and the number in the image that a label's name leads to.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import av
import cv2
import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image as PillowImage
from rich.table import Table

from cliprl.bench.fixtures import label_readers
from cliprl.bench.fixtures.timecode import draw_number, read
from cliprl.bench.harness.registry import app
from cliprl.engines import ClassSpec
from cliprl.engines.cli.console import error_console
from cliprl.models.data.image_mask_dataset import sample_name
from cliprl.models.data.label_mapping import UNLABELLED
from cliprl.models.data.registry import open_dataset
from cliprl.pipeline.core.interfaces import LabelStyle, OutputSpec, Sink
from cliprl.pipeline.segment.segmenter import Segmenter
from cliprl.pipeline.sinks import open_sink
from cliprl.pipeline.sources import open_source
from cliprl.pipeline.stream.stream import Stream

RENDERED_SOURCE = "demo:?seconds=30&size=320x240"
_TICKS = 90000
# The least IoU of a class in a frame: of formats that hold each pixel, and of polygons.
EXACT_IOU, POLYGON_IOU = 1.0, 0.99
LabelsByName = Mapping[str, NDArray[np.uint8]]


@dataclass(frozen=True, slots=True)
class LabelFormat:
    """A label format: the output, the line of its data set, its style, and its independent readers."""

    output: str
    dataset: str
    style: LabelStyle
    readers: tuple[str, ...] = ()

    @property
    def bound(self) -> float:
        """The least IoU that the format must keep."""
        return POLYGON_IOU if self.style.polygons or "yolo" in self.output else EXACT_IOU


_RUNS, _RINGS = LabelStyle(frames="x.frames"), LabelStyle(polygons=True, frames="x.frames")
FORMATS = (
    LabelFormat("x.coco.json", "coco:x.coco.json", _RUNS, ("pycocotools",)),
    LabelFormat("p.coco.json", "coco:p.coco.json?images=x.frames", _RINGS, ("pycocotools",)),
    LabelFormat("x.cvat.xml", "cvat:x.cvat.xml", _RUNS, ("datumaro",)),
    LabelFormat("p.cvat.xml", "cvat:p.cvat.xml?images=x.frames", _RINGS, ("datumaro",)),
    LabelFormat("x.labelstudio.json", "labelstudio:x.labelstudio.json", _RUNS, ("label-studio-sdk",)),
    LabelFormat("p.labelstudio.json", "labelstudio:p.labelstudio.json?images=x.frames", _RINGS),
    LabelFormat("x.yolo/", "yolo:x.yolo", _RUNS, ("ultralytics",)),
    LabelFormat("x.dataset/", "folder:x.dataset", _RUNS),
)


@dataclass(frozen=True, slots=True)
class FormatScore:
    """How a reader finds a format: frames, the least IoU of a class in a frame, and frames whose image or masks are another's."""

    output: str
    reader: str
    frames: int
    least_iou: float
    misplaced: int
    bound: float

    @property
    def good(self) -> bool:
        """Whether all frames are there, in place, and alike."""
        return bool(self.frames) and self.least_iou >= self.bound and not self.misplaced


def write_variable_rate_clip(path: Path, source: str, frames: int) -> None:
    """Encode frames of a source, again from its start where it ends, with a number each and irregular times, losslessly."""
    rng, written, pts = np.random.default_rng(0), 0, 0
    with av.open(str(path), "w") as container:
        while written < frames:
            with open_source(source) as frame_source:
                info = frame_source.info
                if not written:
                    stream = container.add_stream("libx264", 25, options={"qp": "0", "preset": "ultrafast"})
                    stream.width, stream.height, stream.pix_fmt = info.width, info.height, "yuv420p"
                    stream.time_base = stream.codec_context.time_base = Fraction(1, _TICKS)
                for frame in frame_source:
                    if written == frames:
                        break
                    draw_number(frame.luma, written)
                    planes = np.concatenate([frame.luma.ravel(), frame.chroma.ravel()]).reshape(-1, frame.width)
                    image = av.VideoFrame.from_ndarray(planes, "nv12").reformat(format="yuv420p")
                    image.pts, image.time_base = pts, Fraction(1, _TICKS)
                    container.mux(stream.encode(image))
                    written, pts = written + 1, pts + int(rng.choice([900, 1800, 3003, 3600, 7200]))
        container.mux(stream.encode(None))


def write_formats(
    clip: Path, folder: Path, bundle: str = "small", precision: str = "auto"
) -> tuple[tuple[ClassSpec, ...], int]:
    """Segment a clip once and write all formats, the masks and the frames. Returns the classes and the number of frames."""
    with open_source(str(clip)) as source:
        segmenter = Segmenter(bundle, precision=precision)
        spec = OutputSpec(source.info, segmenter.classes, _RUNS)
        sinks: list[Sink] = [open_sink(f"{folder}/{name}", spec) for name in ("masks/", "x.frames/")]
        for one in FORMATS:
            sinks.append(open_sink(f"{folder}/{one.output}", replace(spec, style=one.style)))
        count = Stream(source, segmenter, sinks=sinks).run().frames
    return spec.classes, count


def compare(
    folder: Path,
    classes: Sequence[ClassSpec],
    pythons: Sequence[str] = (),
    formats: Sequence[LabelFormat] = FORMATS,
) -> list[FormatScore]:
    """Read the formats of a folder and compare them with the masks, by every reader that one of the `pythons` has."""
    names = [spec.name for spec in classes]
    masks = sorted((folder / "masks").glob("*.png"))
    truth = {f"frame_{int(path.name.split('_')[0]):06d}": np.array(PillowImage.open(path)) for path in masks}
    scores = []
    for one in formats:
        found, misplaced = _own_labels(folder, one, names)
        scores.append(_score(one, "cliprl", truth, found, misplaced))
        for reader in one.readers:
            if (labels := _independent(folder, one, reader, classes, truth, pythons)) is not None:
                scores.append(_score(one, reader, truth, labels, 0))
    return scores


def _own_labels(folder: Path, one: LabelFormat, names: Sequence[str]) -> tuple[LabelsByName, int]:
    kind, _, rest = one.dataset.partition(":")
    data = open_dataset(f"{kind}:{folder}/{rest}")
    table = np.array([names.index(s.name) if s.name != UNLABELLED else 0 for s in data.classes] + [0] * 256, np.uint8)
    found, misplaced = {}, 0
    for i in range(len(data)):
        sample, stem = data[i], Path(sample_name(data, i)).stem
        luma = cv2.cvtColor(sample.image, cv2.COLOR_RGB2GRAY).astype(np.uint8)
        misplaced += read(luma) != int(stem.removeprefix("frame_"))
        found[stem] = table[sample.labels]
    return found, misplaced


def _independent(
    folder: Path,
    one: LabelFormat,
    reader: str,
    classes: Sequence[ClassSpec],
    truth: LabelsByName,
    pythons: Sequence[str],
) -> LabelsByName | None:
    """Return what an independent reader finds; None if no Python has it."""
    out, size = folder / f"{one.output.strip('/')}.{reader}.npz", next(iter(truth.values())).shape
    # Places from 1 in this list are the class ids.
    shown = [spec.name for spec in classes[1:]]
    source = folder / one.output
    if reader == "datumaro":  # its importer looks for images beside the file, in "images"
        place = folder / f"{one.output}.datumaro"
        place.mkdir()
        os.symlink(folder / "x.frames", place / "images")
        os.symlink(source, place / "labels.xml")
        source = place / "labels.xml"
    for python in (sys.executable, *pythons):
        line = label_readers.command(reader, source, out, (size[0], size[1]), shown, python)
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            with np.load(out) as arrays:
                return {name: arrays[name] for name in arrays.files}
        if "ModuleNotFoundError" not in done.stderr:
            raise RuntimeError(f"{reader} can't read {source}: {done.stderr.strip()[-500:]}")
    return None


def _score(one: LabelFormat, reader: str, truth: LabelsByName, found: LabelsByName, misplaced: int) -> FormatScore:
    """Compare labels. A frame is misplaced if it is none of the truth's, or agrees better with the frame before or after."""
    least, nothing = 1.0, np.zeros(next(iter(truth.values())).shape, np.uint8)
    stems = list(truth)
    for place, stem in enumerate(stems):
        labels = found.get(stem, nothing)  # a file need not list a frame without any class
        least = min(least, _least_iou(labels, truth[stem]))
        here = np.count_nonzero(labels != truth[stem])
        near = [stems[i] for i in (place - 1, place + 1) if 0 <= i < len(stems)]
        misplaced += any(np.count_nonzero(labels != truth[other]) < here for other in near)
    misplaced += len(found.keys() - truth.keys())
    return FormatScore(one.output, reader, len(found), round(least, 4), misplaced, one.bound)


def _least_iou(found: NDArray[np.uint8], truth: NDArray[np.uint8]) -> float:
    ids = np.union1d(found, truth)
    ious = [((found == i) & (truth == i)).sum() / ((found == i) | (truth == i)).sum() for i in ids.tolist() if i]
    return float(min(ious, default=1.0))


@app.command()
def label_formats(
    frames: Annotated[int, typer.Option(min=1, help="Frames of the clip.")] = 500,
    source: Annotated[
        str, typer.Option(help="Where the frames come from; at least 320 pixels wide.")
    ] = RENDERED_SOURCE,
    bundle: Annotated[str, typer.Option(help="The bundle that segments them.")] = "small",
    python: Annotated[
        list[str] | None, typer.Option(help="A Python that has further readers: datumaro, ultralytics.")
    ] = None,
) -> None:
    """Write a clip's masks in every label format, read them back here and with other projects' readers, and compare."""
    with TemporaryDirectory(prefix="cliprl-labels-") as name:
        folder = Path(name)
        write_variable_rate_clip(folder / "clip.mkv", source, frames)
        classes, count = write_formats(folder / "clip.mkv", folder, bundle)
        scores = compare(folder, classes, python or ())
    table = Table("output", "reader", "frames", "least IoU", "bound", "misplaced", title=f"{count} frames")
    for score in scores:
        row = (score.output, score.reader, score.frames, f"{score.least_iou:.4f}", score.bound, score.misplaced)
        table.add_row(*map(str, row), style=None if score.good else "red")
    error_console().print(table)
    missing = {reader for one in FORMATS for reader in one.readers} - {score.reader for score in scores}
    if missing:
        error_console().print(
            f"not installed: {', '.join(sorted(missing))} (give a Python that has them with --python)"
        )
    if count != frames or not all(score.good for score in scores):
        raise typer.Exit(1)
