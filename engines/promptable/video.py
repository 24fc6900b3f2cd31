"""Networks that follow one object through a video from a mask of it: SAM 2 and EdgeTAM of the `transformers` library."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cliprl.engines.promptable.geometry import InputScaling
from cliprl.engines.promptable.transformers_folder import load_folder

# The class for each kind of model that a folder's config.json names.
VIDEO_CLASSES = {"sam2_video": "Sam2VideoModel", "edgetam_video": "EdgeTamVideoModel"}
_OBJECT = 1


@dataclass(frozen=True, slots=True, eq=False)
class ObjectMask:
    """The object in one image.

    logits: float32 (h, w) over the whole image, above 0 on the object. score: the probability, 0..1, that it is in view.
    """

    logits: NDArray[np.float32]
    score: float


class VideoNetwork(Protocol):
    """Follows one object. Its images are RGB uint8 (side, side, 3), to which the frames of the video are scaled."""

    side: int

    def start(self, image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> None:
        """Forget what was followed, and follow the object of a mask (side, side) in this image from now on."""
        ...

    def follow(self, image: NDArray[np.uint8]) -> ObjectMask:
        """Find the object in the next image."""
        ...


class TransformersVideoNetwork:
    """A `VideoNetwork` on the CPU in 32 bits, by the streaming inference of transformers.

    Its memory is bounded: of earlier images it keeps the first and those that the model's memory reads.
    """

    def __init__(self, folder: Path) -> None:
        self._model, kind = load_folder(folder, VIDEO_CLASSES)
        self.side = int(self._model.prompt_encoder.input_image_size)
        self.name = f"{VIDEO_CLASSES[kind]} ({folder.name})"
        self._scaling = InputScaling(self.side, self.side, keep_aspect=False)
        config = self._model.config
        self._kept = max(config.num_maskmem, config.max_object_pointers_in_encoder)
        module = import_module(type(self._model).__module__)
        self._new_session = getattr(module, VIDEO_CLASSES[kind].replace("Model", "InferenceSession"))
        self._session: Any = None
        self._index = 0

    def start(self, image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> None:
        """Start a new session with the mask as that of its first image."""
        import torch

        self._session = session = self._new_session(dtype=torch.float32)
        self._index = 0
        place = session.obj_id_to_idx(_OBJECT)
        session.add_mask_inputs(place, 0, torch.from_numpy(mask[None, None].astype(np.float32)))
        session.obj_with_new_inputs = [_OBJECT]
        self._run(image)

    def follow(self, image: NDArray[np.uint8]) -> ObjectMask:
        """Find the object in the next image. Call `start` first."""
        self._index += 1
        found = self._run(image)
        self._forget(self._index - self._kept)
        score = 1 / (1 + np.exp(-float(found.object_score_logits.reshape(-1)[0])))
        return ObjectMask(found.pred_masks[0, 0].float().numpy(), float(score))

    def _run(self, image: NDArray[np.uint8]) -> Any:
        import torch

        pixels = torch.from_numpy(self._scaling.network_input(image))
        return self._model(inference_session=self._session, frame_idx=self._index, frame=pixels)

    def _forget(self, before: int) -> None:
        """Remove the images up to the last one, and what was found in those before index `before` except the first."""
        session = self._session
        session.processed_frames.pop(self._index - 1, None)
        outputs = session.output_dict_per_obj.values()
        for kept in (*(each["non_cond_frame_outputs"] for each in outputs), *session.frames_tracked_per_obj.values()):
            for index in [index for index in kept if index < before]:
                del kept[index]


def open_video_network(folder: Path, threads: int = 0) -> VideoNetwork:
    """Open the model in a folder. `threads` 0 leaves torch's number. Raises UsageError for a folder without such a model."""
    network = TransformersVideoNetwork(folder)
    if threads:
        import torch

        torch.set_num_threads(threads)
    return network
