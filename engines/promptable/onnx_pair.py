"""Encoder and decoder in ONNX files: SAM, MobileSAM, EfficientSAM, SAM 2, as samexporter and Meta's scripts write them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliprl.engines.backends.engine import Engine, TensorSpec
from cliprl.engines.backends.registry import compile_engine
from cliprl.engines.errors import UsageError
from cliprl.engines.promptable.geometry import InputScaling, part_prompts
from cliprl.engines.promptable.interface import ImageEmbedding, PromptedMasks, check_prompted_image, prompt_arrays
from cliprl.engines.promptable.registry import register_promptable

POINTS, LABELS, MASK_INPUT, ORIGINAL_SIZE = "point_coords", "point_labels", "mask_input", "orig_im_size"
BATCHED_POINTS, BATCHED_LABELS = "batched_point_coords", "batched_point_labels"
PROMPT_INPUTS = frozenset({POINTS, LABELS, BATCHED_POINTS, BATCHED_LABELS, MASK_INPUT, "has_mask_input", ORIGINAL_SIZE})
FINE_FEATURES = ("high_res_feats_0", "high_res_feats_1")
# Names of one tensor in different exports.
EMBEDDING_NAMES = ("image_embeddings", "image_embed", "image_embedding")
# The decoder's mask input has a quarter of the image's side.
MASK_STRIDE = 4
NOT_A_POINT = -1


class OnnxPair:
    """Two compiled networks. The variant follows from the names and shapes of their inputs.

    SAM and MobileSAM: longest side scaled, padded. SAM 2 (`high_res_feats_0`): both sides scaled. EfficientSAM
    (`batched_point_coords`): any size. Raises UsageError for files that are no such pair or do not fit together.
    """

    def __init__(self, encoder: Path, decoder: Path, threads: int = 0) -> None:
        self._files = encoder, decoder
        self._encoder, self._decoder = (_compile(path, threads) for path in self._files)
        self._efficient = BATCHED_POINTS in self._decoder.inputs
        self._check_roles()
        self._sources = {name: self._source(name, spec) for name, spec in self._embedding_inputs().items()}
        self._scaling = None if self._efficient else self._find_scaling()
        variant = "EfficientSAM" if self._efficient else "SAM 2" if FINE_FEATURES[0] in self._decoder.inputs else "SAM"
        self.name = f"{variant} ({encoder.name}, {decoder.name})"

    def encode(self, image: NDArray[np.uint8]) -> ImageEmbedding:
        """Run the encoder."""
        check_prompted_image(image)
        height, width = image.shape[:2]
        outputs = self._encoder.run({next(iter(self._encoder.inputs)): self._encoder_input(image)})
        tensors = {name: np.array(outputs[source]) for name, source in self._sources.items()}
        return ImageEmbedding(height, width, tensors)

    def masks(
        self,
        embedding: ImageEmbedding,
        points: NDArray[np.float32],
        labels: NDArray[np.int64],
        boxes: NDArray[np.float32],
    ) -> PromptedMasks:
        """Run the decoder, once for each box; of several boxes the logits are the maximum, the scores the mean."""
        points, labels, boxes = prompt_arrays(embedding, points, labels, boxes)
        parts = [self._decode(embedding, *part) for part in part_prompts(points, labels, boxes)]
        if len(parts) == 1:
            return parts[0]
        logits = np.maximum.reduce([part.logits for part in parts])
        return PromptedMasks(logits, np.mean([part.scores for part in parts], axis=0, dtype=np.float32))

    def _encoder_input(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        if self._scaling is None:
            return np.ascontiguousarray(image.transpose(2, 0, 1)[None] / np.float32(255))
        if len(next(iter(self._encoder.inputs.values())).shape) == 3:
            return self._scaling.resize(image).astype(np.float32)
        return self._scaling.network_input(image)

    def _decode(
        self, embedding: ImageEmbedding, points: NDArray[np.float32], labels: NDArray[np.int64]
    ) -> PromptedMasks:
        size = embedding.height, embedding.width
        outputs = self._decoder.run(dict(embedding.tensors) | self._prompt_inputs(points, labels, size))
        scores = np.array(outputs["iou_predictions"], np.float32).reshape(-1)
        if self._scaling is None:
            masks = np.array(outputs["masks"], np.float32).reshape(-1, *outputs["masks"].shape[-2:])
            scaling = InputScaling(masks.shape[1], masks.shape[2], keep_aspect=False)
            return PromptedMasks(scaling.image_logits(masks, *size), scores)
        # SAM's own upscaling is fixed to the aspect ratio of the exporter's example image; the small masks are not.
        logits = outputs["low_res_masks"] if "low_res_masks" in outputs else outputs["masks"]
        return PromptedMasks(self._scaling.image_logits(logits[0], *size), scores)

    def _prompt_inputs(
        self, points: NDArray[np.float32], labels: NDArray[np.int64], size: tuple[int, int]
    ) -> dict[str, NDArray[Any]]:
        given: dict[str, NDArray[Any]] = {ORIGINAL_SIZE: np.array(size)}
        if self._scaling is None:
            given |= {BATCHED_POINTS: points[None, None], BATCHED_LABELS: labels[None, None]}
        else:
            points = self._scaling.positions(points, *size)
            # Without a box, SAM is trained with an empty point more. SAM 2's decoder adds it; SAM's leaves it to the caller.
            if self._scaling.keep_aspect and not (labels >= 2).any():
                points = np.concatenate([points, np.zeros((1, 2), np.float32)])
                labels = np.concatenate([labels, np.array([NOT_A_POINT])])
            side = self._scaling.height // MASK_STRIDE, self._scaling.width // MASK_STRIDE
            given |= {POINTS: points[None], LABELS: labels[None]}
            given |= {MASK_INPUT: np.zeros((1, 1, *side)), "has_mask_input": np.zeros(1)}
        wanted = self._decoder.inputs
        return {name: np.asarray(value, wanted[name].dtype) for name, value in given.items() if name in wanted}

    def _embedding_inputs(self) -> Mapping[str, TensorSpec]:
        return {name: spec for name, spec in self._decoder.inputs.items() if name not in PROMPT_INPUTS}

    def _check_roles(self) -> None:
        """Raise UsageError if the files are swapped, or either is something else."""
        encoder, decoder = self._files
        if _takes_points(self._encoder) and not _takes_points(self._decoder):
            raise UsageError(
                f"'{encoder}' is the decoder and '{decoder}' the encoder: give sam:ENCODER.onnx,DECODER.onnx"
            )
        if not _takes_points(self._decoder) or not {"masks", "iou_predictions"} <= set(self._decoder.outputs):
            raise UsageError(
                f"'{decoder}' is no decoder of the SAM family: it takes {', '.join(self._decoder.inputs)} and gives "
                f"{', '.join(self._decoder.outputs)}, not {POINTS}, {LABELS} and masks, iou_predictions"
            )
        if not _takes_image(self._encoder):
            raise UsageError(
                f"'{encoder}' is no image encoder: it takes {_listed(self._encoder.inputs)}, not one image (1, 3, H, W)"
            )

    def _source(self, name: str, wanted: TensorSpec) -> str:
        """Return the encoder's output for an input of the decoder. Raises UsageError if there is no output that fits."""
        names = EMBEDDING_NAMES if name in EMBEDDING_NAMES else (name,)
        outputs = self._encoder.outputs
        found: str | None = next((each for each in (name, *names) if each in outputs), None)
        if found is None and len(outputs) == len(self._embedding_inputs()) == 1:
            found = next(iter(outputs))
        if found is None or not _fits(outputs[found], wanted):
            given = f"{found} {outputs[found]}" if found else _listed(outputs)
            raise UsageError(
                f"'{self._files[0]}' and '{self._files[1]}' do not fit together: the decoder takes {name} {wanted}, "
                f"the encoder gives {given}: give the two files of one export"
            )
        return found

    def _find_scaling(self) -> InputScaling:
        encoder, decoder = self._files
        shape = next(iter(self._encoder.inputs.values())).shape
        mask = self._decoder.inputs.get(MASK_INPUT)
        sides = tuple(MASK_STRIDE * side for side in mask.shape[-2:]) if mask is not None else (-1, -1)
        if len(shape) == 4 and min(shape[2:]) > 0:
            if min(sides) > 0 and sides != shape[2:]:
                raise UsageError(
                    f"'{encoder}' and '{decoder}' do not fit together: the encoder takes images {shape[2]}x{shape[3]}, "
                    f"the decoder is of a network for {sides[0]}x{sides[1]}: give the two files of one export"
                )
            sides = shape[2:]
        if min(sides) <= 0:
            raise UsageError(
                f"'{encoder}' leaves the image's size open, and '{decoder}' that of {MASK_INPUT}: export one with a fixed size"
            )
        return InputScaling(sides[0], sides[1], keep_aspect=FINE_FEATURES[0] not in self._decoder.inputs)


@register_promptable("sam:ENCODER.onnx,DECODER.onnx")
def open_onnx_pair(argument: str, threads: int) -> OnnxPair:
    """Open the two files. Raises UsageError for another number of files, for missing and for unfit ones."""
    files = [Path(name) for name in argument.split(",")]
    if len(files) != 2:
        raise UsageError(f"'sam:{argument}' names {len(files)} files: give two, sam:ENCODER.onnx,DECODER.onnx")
    for path in files:
        if not path.is_file():
            raise UsageError(f"'{path}' is no file: give the path of an ONNX file")
    return OnnxPair(files[0], files[1], threads)


def _compile(path: Path, threads: int) -> Engine:
    return compile_engine(path, precision="f32", threads=threads)


def _takes_points(engine: Engine) -> bool:
    return {POINTS, LABELS} <= set(engine.inputs) or {BATCHED_POINTS, BATCHED_LABELS} <= set(engine.inputs)


def _takes_image(engine: Engine) -> bool:
    """Whether the one input is an image: (H, W, 3) in 0..255 or (1, 3, H, W) normalized."""
    shapes = [spec.shape for spec in engine.inputs.values()]
    return len(shapes) == 1 and (
        (len(shapes[0]) == 3 and shapes[0][2] == 3) or (len(shapes[0]) == 4 and shapes[0][1] in (3, -1))
    )


def _fits(given: TensorSpec, wanted: TensorSpec) -> bool:
    pairs = zip(given.shape, wanted.shape, strict=False)
    return len(given.shape) == len(wanted.shape) and all(a == b or min(a, b) < 0 for a, b in pairs)


def _listed(specs: Mapping[str, TensorSpec]) -> str:
    return ", ".join(f"{name} {spec}" for name, spec in specs.items())
