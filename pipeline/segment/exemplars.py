"""Classes by example: `--exemplar grasper=frame.png#120,80,60,40` is a class that looks like the inside of a box in a frame."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cliprl.engines import MAX_CLASSES, Bundle, ClassSpec, Engine, UsageError, compile_engine
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.nv12 import upright
from cliprl.pipeline.core.viewport import Box, Viewport, inside_cells
from cliprl.pipeline.segment.prompts import unlike
from cliprl.pipeline.segment.segmenter import CpuPreprocessor
from cliprl.pipeline.view.field_of_view import FieldOfViewDetector
from cliprl.pipeline.view.grid_warp import cell_centers

Vectors = NDArray[np.float32]
# Returns the frame that an image file holds.
FrameReader = Callable[[str], Frame]

_FORM = re.compile(r"(?P<name>[^=#]*)=(?P<file>.*)#(?P<box>[^#]*)", re.DOTALL)
# The least number of cells, and the least share of a box, that its object is believed to cover.
MIN_OBJECT_CELLS, MIN_OBJECT_SHARE = 3, 0.2
SPLIT_ROUNDS = 5
# The fit: logits by which the class must win inside the box and lose outside it, the weight of the distance from the start, its
# steps, and the weight of a known class's embedding beside that of the box. Chosen on D2 and OP1 of EndoVis 2015 and on the
# rendered scenes for choosing, among margins of 2 to 12, ridges of 0.1 to 100 and weights of 0 to 4.
FIT_MARGIN, FIT_RIDGE, FIT_STEPS, KNOWN_WEIGHT = 8.0, 5.0, 3, 2.0
# The fitted class is of unit length, or as much longer, in steps up to the fit's own length, as its mean margin in that share of
# the box's object where it is largest needs to reach this: a class that hardly wins in its own frame is found absent in others.
SURE_MARGIN, SURE_SHARE, LENGTHS = 2.0, 0.25, 9
# Outside the boxes every n-th cell counts.
FIT_STRIDE = 8
# Rows of a text input at a time.
TEXT_ROWS = 512


@dataclass(frozen=True, slots=True)
class Exemplar:
    """A class by its name, and a box (left, top, width, height) in pixels of an image, as displayed, that shows it."""

    name: str
    file: str
    box: Box


def parse_exemplar(text: str) -> Exemplar:
    """Read "NAME=FILE#X,Y,WIDTH,HEIGHT". Raises UsageError for another form, and for an empty box."""
    found = _FORM.fullmatch(text)
    name = " ".join(found["name"].split()) if found else ""
    if not found or not name or not found["file"]:
        raise UsageError(
            f"exemplar '{text}' is not of the form NAME=FILE#X,Y,WIDTH,HEIGHT: give it as in grasper=frame.png#120,80,60,40"
        )
    numbers = [part.strip() for part in found["box"].split(",")]
    if len(numbers) != 4 or not all(re.fullmatch(r"[+-]?[0-9]{1,9}", number) for number in numbers):
        raise UsageError(
            f"exemplar '{text}': the box '{found['box']}' is not four whole numbers: give X,Y,WIDTH,HEIGHT in pixels"
        )
    left, top, width, height = map(int, numbers)
    if width < 1 or height < 1:
        raise UsageError(
            f"exemplar '{text}': the box {width}x{height} is empty: give a width and a height of at least 1"
        )
    return Exemplar(name, found["file"], (left, top, width, height))


def with_exemplars(bundle: Bundle, exemplars: Sequence[str], read: FrameReader) -> Bundle:
    """Return the bundle with a class for each name of the exemplars (see `parse_exemplar`).

    Several exemplars may have one name: the class looks like all of them. Where the bundle has a class of the name, its own or
    by a prompt, its embedding is mixed with that of the boxes. `read` returns the frame of an image file.
    Raises UsageError for an exemplar that can't be read, a box outside the image, and more classes than the networks take.
    """
    asked = [parse_exemplar(text) for text in exemplars]
    if not asked:
        return bundle
    places = _places(bundle, asked)
    frames = {file: read(file) for file in dict.fromkeys(one.file for one in asked)}
    encoder = basis_encoder(bundle)
    looks = {file: FrameEmbeddings.of(frame, bundle, encoder) for file, frame in frames.items()}
    masks = [looks[one.file].cells_of(one) for one in asked]
    classes, embeddings = list(bundle.manifest.classes), list(bundle.embeddings)
    for name, place in places.items():
        known = place < len(bundle.embeddings)
        others = np.delete(bundle.embeddings, place, axis=0) if known else bundle.embeddings
        boxes = [(looks[one.file], mask) for one, mask in zip(asked, masks, strict=True) if one.name == name]
        embedding = class_embedding(boxes, others, bundle.embeddings[place] if known else None)
        if known:
            embeddings[place] = embedding
        else:
            classes.append(ClassSpec(name, unlike([spec.color for spec in classes]), "prompted"))
            embeddings.append(embedding)
    manifest = replace(bundle.manifest, classes=tuple(classes))
    return replace(bundle, manifest=manifest, embeddings=np.stack(embeddings), confidence=None)


def _places(bundle: Bundle, asked: Sequence[Exemplar]) -> dict[str, int]:
    """Return the row of each named class, those of new ones last. Raises UsageError for too many classes."""
    names = list(dict.fromkeys([*(spec.name for spec in bundle.manifest.classes), *(one.name for one in asked)]))
    if len(names) > MAX_CLASSES:
        raise UsageError(f"{len(names)} classes are more than the {MAX_CLASSES} that the networks take: leave some out")
    return {one.name: names.index(one.name) for one in asked}


def basis_encoder(bundle: Bundle) -> Engine:
    """Compile the encoder for texts that are a basis of the embeddings: then its logits are the embeddings of the cells."""
    manifest, width = bundle.manifest, bundle.embeddings.shape[1]
    shapes = {"image": (1, manifest.height, manifest.width, 3), "text": (min(width, TEXT_ROWS), width)}
    return compile_engine(bundle.encoder, precision="f32", shapes=shapes)


@dataclass(frozen=True, slots=True)
class FrameEmbeddings:
    """The embeddings of a frame's cells, float32 (E, h, w), scaled so that their products with a class's are its logits."""

    cells: Vectors
    view: Viewport

    @classmethod
    def of(cls, frame: Frame, bundle: Bundle, encoder: Engine) -> FrameEmbeddings:
        """Run the bundle's `basis_encoder` for a frame."""
        frame, manifest, width = upright(frame), bundle.manifest, bundle.embeddings.shape[1]
        view = FieldOfViewDetector(manifest.height, manifest.width).view_of(frame)
        image = np.zeros((1, manifest.height, manifest.width, 3), np.uint8)
        CpuPreprocessor().prepare(frame, view, image[0])
        rows = min(width, TEXT_ROWS)
        basis = np.zeros((-(-width // rows) * rows, width), np.float32)
        np.fill_diagonal(basis, 1)
        parts = [
            np.array(encoder.run({"image": image, "text": part})["logits"][0], np.float32)
            for part in basis.reshape(-1, rows, width)
        ]
        return cls(np.concatenate(parts)[:width], view)

    def at(self, places: NDArray[np.intp]) -> Vectors:
        """Return the embeddings (n, E) of the cells at flat indices (n,)."""
        return np.ascontiguousarray(self.cells.reshape(len(self.cells), -1)[:, places].T)

    def cells_of(self, exemplar: Exemplar) -> NDArray[np.bool_]:
        """Return the cells in the box of an exemplar, (h, w). Raises UsageError for a box outside the image."""
        left, top, width, height = exemplar.box
        size, (rows, columns) = (self.view.frame_width, self.view.frame_height), self.cells.shape[1:]
        if left < 0 or top < 0 or left + width > size[0] or top + height > size[1]:
            raise UsageError(
                f"exemplar '{exemplar.name}': the box {left},{top},{width},{height} reaches out of {exemplar.file}, which has "
                f"{size[0]}x{size[1]} pixels: give a box inside it"
            )
        places = cell_centers(self.view, rows, columns)
        offset = places - (left, top)
        found = ((offset >= 0) & (offset < (width, height))).all(axis=-1)
        if not found.any():  # a box between the centers of the cells
            distance = np.abs(places - (left + width / 2, top + height / 2)).sum(axis=-1)
            found = distance == distance.min()
        found &= inside_cells(self.view, rows, columns)
        if not found.any():
            raise UsageError(
                f"exemplar '{exemplar.name}': the box {left},{top},{width},{height} lies outside the endoscope's image in "
                f"{exemplar.file}: give a box inside it"
            )
        return found


def class_embedding(
    boxes: Sequence[tuple[FrameEmbeddings, NDArray[np.bool_]]], others: Vectors, known: Vectors | None
) -> Vectors:
    """Return the embedding (E,) of a class that looks like the boxes, among `others` (K, E); `known` is mixed in."""
    inside, outside = [], []
    for look in dict.fromkeys(id(look) for look, _ in boxes):
        found = [(each, mask) for each, mask in boxes if id(each) == look]
        frame, covered = found[0][0], np.logical_or.reduce([mask for _, mask in found])
        around = frame.at(np.flatnonzero(inside_cells(frame.view, *covered.shape) & ~covered)[::FIT_STRIDE])
        inside += [_object_cells(frame.at(np.flatnonzero(mask)), around) for _, mask in found]
        outside.append(around)
    positives, negatives = np.concatenate(inside), np.concatenate(outside)
    start = unit(unit(positives).mean(axis=0))
    if known is not None:
        start = unit(start + KNOWN_WEIGHT * unit(known))
    return _fit(positives, negatives, others, start) if len(negatives) else start


def _object_cells(box: Vectors, around: Vectors) -> Vectors:
    """Return those of a box's cells (n, E) that show its object: the cells unlike what lies around the box (m, E).

    The box is split in two by its cells' likeness to the mean of either part. All cells are returned where too few are left.
    """
    if not len(around):
        return box
    cells, ground = unit(box), unit(around).sum(axis=0)
    likeness = cells @ unit(ground)
    chosen = likeness <= np.median(likeness)
    for _ in range(SPLIT_ROUNDS):
        part = chosen @ cells
        chosen = cells @ (unit(part) - unit(ground + cells.sum(axis=0) - part)) > 0
        if chosen.sum() < max(MIN_OBJECT_CELLS, MIN_OBJECT_SHARE * len(box)):
            return box
    return np.asarray(box[chosen], np.float32)


def _fit(positives: Vectors, negatives: Vectors, others: Vectors, start: Vectors) -> Vectors:
    """Move `start` (E,) so that the class wins by FIT_MARGIN in the positive cells and loses by it in the negative ones.

    Least squares with a ridge about `start`; a cell that is on its side by the margin already adds nothing.
    """
    cells = np.concatenate([positives, negatives])
    sign = np.repeat([1.0, -1.0], [len(positives), len(negatives)])
    weights = np.repeat(
        np.array([1 / len(positives), 1 / len(negatives)], np.float32), [len(positives), len(negatives)]
    )
    rival = (cells @ others.T).max(axis=1)
    weighted = cells * weights[:, None]
    inverse = np.linalg.inv((weighted.T @ cells).astype(np.float64) + FIT_RIDGE * np.eye(cells.shape[1]))
    embedding = start
    for _ in range(FIT_STEPS):
        target = rival + sign * np.maximum(sign * (cells @ embedding - rival), FIT_MARGIN)
        embedding = inverse @ (weighted.T @ target + FIT_RIDGE * start)
    direction, count = unit(embedding), max(1, int(SURE_SHARE * len(positives)))
    for length in np.linspace(1, max(1.0, float(np.linalg.norm(embedding))), LENGTHS):
        margins = length * (positives @ direction) - rival[: len(positives)]
        if np.partition(margins, -count)[-count:].mean() >= SURE_MARGIN:
            break
    return np.asarray(length * direction, np.float32)


def unit(vectors: Vectors) -> Vectors:
    """Scale vectors (..., E) to unit length."""
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9), np.float32)
