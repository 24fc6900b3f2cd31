"""Compare classes that are named by one box in one frame with the trained classes, on a clip of EndoVis 2015.

    python -m cliprl.models.studies.words.exemplar_study --set data.root=FOLDER --out models/results/exemplars.json

For each part and each of a few frames, the bounding box of its largest region is the exemplar. "mixed" adapts the trained class;
"alone" replaces it, without the text. The score is the pooled IoU on the other frames, over that of the trained class.
`class_ms` is the CPU time of adding a class, on one thread, once the frame has passed the encoder.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer

from cliprl.engines import Bundle, open_bundle
from cliprl.engines.cli.cli_runner import run_app
from cliprl.models.data.image_mask_dataset import LabelledDataset
from cliprl.models.data.registry import DatasetContext, open_dataset
from cliprl.models.data.sample import Image
from cliprl.models.evaluation.evaluation import iterate_samples
from cliprl.models.evaluation.image_segmenter import ImageSegmenter
from cliprl.models.evaluation.study_command import BundleOption, SetOption, data_root, write_result
from cliprl.pipeline.core.viewport import Box
from cliprl.pipeline.overlay.upsample import labels_at_frame
from cliprl.pipeline.segment.exemplars import Exemplar, FrameEmbeddings, basis_encoder, class_embedding, with_exemplars
from cliprl.pipeline.sources.images.array_frame import frame_of_image


@dataclass(frozen=True, slots=True)
class PartQuestion:
    """A part by its id in the data set, the bundle's classes for it, and the one that an exemplar adapts."""

    name: str
    label: int
    classes: tuple[str, ...]


PART_QUESTIONS = (
    PartQuestion("shaft", 2, ("instrument-shaft",)),
    PartQuestion("head", 1, ("instrument-clasper", "instrument-wrist")),
)
# How often the time of adding a class is measured.
TIMED = 15
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def compare_exemplars(
    out: Annotated[Path, typer.Option(help="The result file.")],
    bundle: BundleOption = "small",
    set_: SetOption = None,
    sequence: Annotated[str, typer.Option(help="D1, or D2 or OP1, on which the fit's settings were chosen.")] = "D1",
    boxes: Annotated[int, typer.Option(min=1, help="How many frames give a box.")] = 5,
    every: Annotated[int, typer.Option(min=1, help="Score each n-th frame.")] = 5,
) -> None:
    """Score the parts' trained classes, and the same parts by one box each."""
    opened, root = open_bundle(bundle), data_root(set_)
    line = f"endovis2015:endovis2015?sequences={sequence}"
    data = open_dataset(line, "test", DatasetContext(root, "data.root"))
    indices = list(range(0, len(data), every))
    chosen = indices[:: max(1, len(indices) // boxes)][:boxes]
    result: dict[str, Any] = {"data": line, "frames": len(indices), "bundle": dict(opened.manifest.hashes), "parts": {}}
    for part in PART_QUESTIONS:
        trained = part_iou(opened, data, indices, part, part.classes)
        rows = [score_box(opened, data, indices, part, index, trained) for index in chosen]
        result["parts"][part.name] = {"trained": round(trained, 4), "boxes": [row for row in rows if row]}
    typer.echo(write_result(out, result))


def score_box(
    bundle: Bundle, data: LabelledDataset, indices: Sequence[int], part: PartQuestion, index: int, trained: float
) -> dict[str, Any]:
    """Return the scores of the box of one frame; empty if the frame does not show the part."""
    sample = data[index]
    box = largest_box(sample.labels == part.label)
    if box is None:
        return {}
    image, rest = sample.image, [each for each in indices if each != index]
    mixed = with_exemplars(bundle, [_exemplar(part.classes[0], box)], lambda _: frame_of_image(image))
    alone = with_exemplars(without(bundle, part.classes), [_exemplar(part.name, box)], lambda _: frame_of_image(image))
    scores = {
        "mixed": part_iou(mixed, data, rest, part, part.classes),
        "alone": part_iou(alone, data, rest, part, (part.name,)),
    }
    found: dict[str, Any] = {"frame": index, "box": list(box), "class_ms": round(class_ms(bundle, image, box), 2)}
    for mode, iou in scores.items():
        found |= {mode: round(iou, 4), f"{mode} of trained": round(iou / trained, 4)}
    return found


def class_ms(bundle: Bundle, image: Image, box: Box) -> float:
    """Return the median milliseconds of this thread that a class of a box of an image takes."""
    frame = FrameEmbeddings.of(frame_of_image(image), bundle, basis_encoder(bundle))
    seconds = []
    for _ in range(TIMED):
        start = time.thread_time()
        class_embedding([(frame, frame.cells_of(Exemplar("", "", box)))], bundle.embeddings, None)
        seconds.append(time.thread_time() - start)
    return 1000 * float(np.median(seconds))


def _exemplar(name: str, box: Box) -> str:
    return f"{name}=frame.png#{','.join(map(str, box))}"


def without(bundle: Bundle, names: Sequence[str]) -> Bundle:
    """Return the bundle without classes of these names."""
    kept = [i for i, spec in enumerate(bundle.manifest.classes) if spec.name not in names]
    classes = tuple(bundle.manifest.classes[i] for i in kept)
    return replace(bundle, manifest=replace(bundle.manifest, classes=classes), embeddings=bundle.embeddings[kept])


def largest_box(mask: Any) -> Box | None:
    """Return the bounding box (left, top, width, height) of the largest region of a mask bool (H, W); None if it is empty."""
    count, _, statistics, _ = cv2.connectedComponentsWithStats(np.asarray(mask, np.uint8))
    if count < 2:
        return None
    left, top, width, height = statistics[1 + statistics[1:, cv2.CC_STAT_AREA].argmax(), :4].tolist()
    return left, top, width, height


def part_iou(
    bundle: Bundle, data: LabelledDataset, indices: Sequence[int], part: PartQuestion, classes: Sequence[str]
) -> float:
    """Return the pooled IoU of a part, by these classes of the bundle, through the pipeline."""
    segmenter, both, either = ImageSegmenter(bundle, precision="f32", threads=1), 0, 0
    ids = [i for i, spec in enumerate(bundle.manifest.classes) if spec.name in classes]
    for _, sample, _ in iterate_samples(data, indices, segmenter.reset):
        truth = sample.labels == part.label
        found = np.isin(labels_at_frame(segmenter.segment(sample.image), *truth.shape), ids)
        both, either = both + int((found & truth).sum()), either + int((found | truth).sum())
    return both / max(either, 1)


if __name__ == "__main__":
    raise SystemExit(run_app(app, "exemplar_study"))
