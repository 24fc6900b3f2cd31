"""Data sets of frames with annotations: checked when opened, drawn as label maps on access."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cliprl.engines import ClassSpec, CliprlError, UsageError
from cliprl.models.data.io import check_size, read_image
from cliprl.models.data.label_mapping import UNLABELLED
from cliprl.models.data.sample import IGNORE, INSTRUMENT, NOT_INSTRUMENT, Sample
from cliprl.models.data.sets.annotations.frames import (
    AnnotatedFrame,
    Annotation,
    before_upload,
    check_image,
    find_images,
    frame_number,
)
from cliprl.pipeline.sinks.shapes.polygons import Ring, edge_mask
from cliprl.pipeline.synthetic import SCENE_CLASSES

# Options of every kind of annotations, with their help.
ANNOTATION_OPTIONS = {
    "images": "FOLDER|VIDEO of the frames (default: NAME.frames/, images/ or the folder of the file)",
    "labelled": "CLASS,CLASS that were labelled, if not all that the file lists",
    "tissue": "CLASS,CLASS that are no instruments",
    "empty": "keep: frames without annotations show no class (default: they are left out)",
}
# Labels below the codes of sample.py, "unlabelled" included.
_MOST_CLASSES = min(IGNORE, INSTRUMENT, NOT_INSTRUMENT)
# Pixels by which a polygon may leave its image.
_MARGIN = 1.0


class AnnotationDataset:
    """The labelled frames of a file of annotations.

    classes: "unlabelled" for the pixels without an annotation, then the labelled classes. A later annotation covers an
    earlier one. Annotations of classes that are not labelled become IGNORE. `left_out`: how many frames have no annotations
    and are no frames of the set.
    """

    name: str
    classes: tuple[ClassSpec, ...]
    left_out: int

    def __init__(
        self,
        source: Path,
        frames: Iterable[AnnotatedFrame],
        names: Sequence[str],
        known: Mapping[str, ClassSpec] | None = None,
        /,
        *,
        images: str = "",
        labelled: str = "",
        tissue: str = "",
        empty: str = "",
    ) -> None:
        """Find and check the image of each frame.

        `names` are the classes that the file lists, `known` their specifications if it has them. Raises UsageError for wrong
        options and for a file without labels, CliprlError for a frame whose image is missing or of another size.
        """
        if empty not in ("", "keep"):
            raise UsageError(f"{source}: empty is '{empty}', and may only be 'keep'")
        self.source, self.name = source, source.name
        found = list(frames)
        self.frames = [f for f in found if f.annotations or f.is_labelled or empty]
        self.left_out = len(found) - len(self.frames)
        if not self.frames:
            raise UsageError(f"{source} holds no labelled frame: export the task with its annotations")
        self.classes = _classes(source, names, known or {}, labelled, tissue)
        self._check_namings()
        self._temporary = find_images(source, self.frames, images)
        self._check_names()
        for frame in self.frames:
            check_image(source, frame)
        self._codes = {spec.name: code for code, spec in enumerate(self.classes)}
        self._clips = _clips(self.frames)

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> Sample:
        frame = self.frames[index]
        image = read_image(frame.path)
        height, width, _ = image.shape
        labels = np.zeros((height, width), np.uint8)
        for annotation in frame.annotations:
            labels[annotation.draw(height, width)] = self._codes.get(annotation.label, IGNORE)
        check_size(image, labels, frame.path, self.source)
        return Sample(image, labels, frame.sequence)

    def sequence(self, index: int) -> str:
        """Return the sequence of a sample."""
        return self.frames[index].sequence

    def clip(self, index: int) -> str:
        """Return the clip of a sample: frames with consecutive numbers."""
        return self._clips[index]

    def image_file(self, index: int) -> Path:
        """Return the file of a sample's image."""
        return self.frames[index].path

    def _check_names(self) -> None:
        seen: dict[str, AnnotatedFrame] = {}
        for frame in self.frames:
            if frame.name in seen:
                raise CliprlError(
                    f"{self.source}: {frame.item} and {seen[frame.name].item} have one name: remove one of them"
                )
            seen[frame.name] = frame

    def _check_namings(self) -> None:
        namings: dict[str, AnnotatedFrame] = {}
        for frame in self.frames:
            if naming := frame_number(before_upload(frame.name)):
                namings.setdefault(naming[0], frame)
        if len(namings) > 1:
            (one, first), (other, second) = list(namings.items())[:2]
            raise CliprlError(
                f"{self.source} mixes frame namings: {first.item} is named like {one} and {second.item} like {other}, so the "
                "frames' order is unknown: export all with one --names"
            )


def polygon_annotation(
    label: str, rings: Sequence[Ring], size: tuple[int, int], where: str, fill: Callable[..., Any] = edge_mask
) -> Annotation:
    """Return the annotation of polygons in pixels, float (N, 2).

    Raises CliprlError, with `where`, for a point outside the frame.
    """
    height, width = size
    for ring in rings:
        outside = (ring < -_MARGIN).any(axis=1) | (ring > (width + _MARGIN, height + _MARGIN)).any(axis=1)
        outside |= ~np.isfinite(ring).all(axis=1)
        fault = "has fewer than 3 points" if len(ring) < 3 else ""
        if outside.any():
            x, y = ring[int(outside.argmax())]
            fault = f"has a point ({x:g}, {y:g}) outside its frame of {width}x{height}"
        if fault:
            raise CliprlError(f"{where}: its polygon {fault}: correct it in the labelling tool, and export again")
    kept = tuple(rings)
    return Annotation(label, lambda h, w: np.asarray(fill(kept, h, w)))


def _classes(
    source: Path, names: Sequence[str], known: Mapping[str, ClassSpec], labelled: str, tissue: str
) -> tuple[ClassSpec, ...]:
    chosen, others = _listed(labelled), _listed(tissue)
    for name in (*chosen, *others):
        if name not in names:
            raise UsageError(f"{source} has no class '{name}': one of {', '.join(names)}")
    scene = {spec.name: spec for spec in SCENE_CLASSES}
    specs = [ClassSpec(UNLABELLED, (0, 0, 0), "background")]
    for number, name in enumerate(names):
        spec = known.get(name) or scene.get(name) or ClassSpec(name, _color(number), "instrument", (name,))
        if name in others:
            spec = ClassSpec(name, spec.color, "tissue", spec.prompts)
        if not chosen or name in chosen:
            specs.append(spec)
    if not 2 <= len(specs) <= _MOST_CLASSES:
        remedy = "name those to read with labelled=CLASS,CLASS" if names else "add labels to the task"
        raise UsageError(f"{source} lists {len(specs) - 1} classes, and 1 to {_MOST_CLASSES - 1} are read: {remedy}")
    return tuple(specs)


def _listed(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _color(number: int) -> tuple[int, int, int]:
    """Return a color that differs from those of 255 other classes."""
    return (67 * number + 40) % 256, (151 * number + 90) % 256, (29 * number + 200) % 256


def _clips(frames: Sequence[AnnotatedFrame]) -> list[str]:
    clips: list[str] = []
    before: tuple[str, int] | None = None
    for frame in frames:
        naming = frame_number(frame.name)
        here = (
            (f"{frame.sequence} {frame.name.rsplit('_', 1)[0] * naming[0].startswith('CLIP')}", naming[1])
            if naming
            else None
        )
        follows = before is not None and here == (before[0], before[1] + 1)
        clips.append(clips[-1] if follows else f"{frame.sequence} {frame.name}")
        before = here
    return clips
